//! What must hold for any text as a configuration; the fuzz target does the same.

use warden_server::config::Config;

/// Takes bytes as a configuration file; panics when a refusal is not one line that says something.
pub(crate) fn exercise(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text) {
        Ok((config, notes)) => {
            assert!(config.server.unix_domain_permissions <= 0o777);
            assert!(config.server.host_ids.start.checked_add(config.server.host_ids.count).is_some());
            assert!(notes.warnings.iter().all(|warning| !warning.contains('\n')), "{:?}", notes.warnings);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
        }
    }
}
