//! How commands are written.

/// Shows how a command is written; every command has an example.
pub(crate) fn of(command: &str) -> &'static [&'static str] {
    match command {
        "create" => &[
            "create",
            "create --handle web --grace_time 600 --bind_mounts[0].src_path /srv/data \
             --bind_mounts[0].dst_path /data --bind_mounts[0].mode RO",
        ],
        "stop" => &["stop 17r47v9ocsp --kill"],
        "destroy" => &["destroy 17r47v9ocsp"],
        "info" => &["info 17r47v9ocsp"],
        "spawn" => &["spawn 17r47v9ocsp 'sleep 10; echo done' --rlimits.nofile 1024"],
        "link" => &["link 17r47v9ocsp 39"],
        "run" => &["run 17r47v9ocsp 'ps xf'", r#"run --handle 17r47v9ocsp --privileged --script "id -u""#],
        "stream" => &["stream 17r47v9ocsp 39"],
        "net_in" => &["net_in 17r47v9ocsp --container_port 8080"],
        "net_out" => &["net_out 17r47v9ocsp --network 10.0.0.0/8 --port_range 80:443 --protocol TCP"],
        "copy_in" => &["copy_in 17r47v9ocsp --src_path /srv/app/ --dst_path /home/vcap/app"],
        "copy_out" => {
            &["copy_out 17r47v9ocsp --src_path /home/vcap/logs/ --dst_path /tmp/logs --owner 1000:1000"]
        }
        "limit_memory" => &["limit_memory 17r47v9ocsp --limit_in_bytes 268435456"],
        "limit_disk" => &["limit_disk 17r47v9ocsp --byte 1_000_000_000 --inode 200_000"],
        "limit_bandwidth" => &["limit_bandwidth 17r47v9ocsp --rate 1_000_000 --burst 200_000"],
        "limit_cpu" => &["limit_cpu 17r47v9ocsp --limit_in_shares 512"],
        "ping" => &["ping"],
        "list" => &["list", "list --long"],
        "echo" => &["echo --message 'hello, world'"],
        "shell" => &["shell 17r47v9ocsp", "shell 17r47v9ocsp --user vcap top"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Parsed, parse};
    use crate::{shell, words};
    use warden_protocol::envelope::COMMANDS;

    #[test]
    fn every_command_has_examples_that_can_be_given() {
        for name in COMMANDS.iter().map(|command| command.name).chain([shell::NAME]) {
            assert!(!of(name).is_empty(), "{name}");
            for example in of(name) {
                let words = words::split(example.as_bytes()).unwrap();
                assert_eq!(words[0], name.as_bytes());
                assert!(matches!(parse(&words), Ok(Parsed::Call(_))), "{example}");
            }
        }
        assert!(of("bogus").is_empty());
    }
}
