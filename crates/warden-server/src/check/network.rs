//! The network of a container, and the ports that the daemon itself needs.

use std::net::{Ipv4Addr, TcpListener};

use warden_container::trial;

use super::Item;
use crate::config::Config;

/// Looks at everything; without root there is nothing to be tried.
pub(super) fn items(config: &Config) -> Vec<Item> {
    let mut items = vec![health(config.health_check_port)];
    match config.settings() {
        Ok(settings) if rustix::process::geteuid().is_root() => {
            items.extend(judge(trial::attempt(&settings)))
        }
        Ok(_) => {}
        Err(failure) => items.push(Item::needed("settings", failure.to_string())),
    }
    items
}

fn judge<E: ToString>(tried: Result<Result<(), E>, E>) -> Vec<Item> {
    let what = "network of a container";
    let limited = match tried {
        Err(error) => return vec![Item::needed(what, error.to_string())],
        Ok(limited) => limited,
    };
    let bandwidth = match limited {
        Ok(()) => Item::ok("limits of bandwidth", "can be set"),
        Err(error) => Item::missing("limits of bandwidth", error.to_string()),
    };
    vec![Item::ok(what, "interfaces and packet filter can be made"), bandwidth]
}

fn health(port: u16) -> Item {
    let what = format!("health_check_server.port {port}");
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Item::ok(what, "free"),
        Err(error) => Item::needed(what, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_network_is_needed_and_limits_of_it_are_not() {
        let verdicts = |tried| judge(tried).into_iter().map(|item| item.verdict).collect::<Vec<_>>();
        assert!(matches!(verdicts(Ok(Ok(())))[..], [Verdict::Ok(_), Verdict::Ok(_)]));
        assert!(matches!(verdicts(Ok(Err("no ifb")))[..], [Verdict::Ok(_), Verdict::Missing(_)]));
        assert!(matches!(verdicts(Err("no nf_tables"))[..], [Verdict::Needed(_)]));
    }

    #[test]
    fn a_port_that_somebody_has_is_needed() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(matches!(health(port).verdict, Verdict::Needed(_)));
        drop(taken);
        assert!(matches!(health(0).verdict, Verdict::Ok(_)));
    }
}
