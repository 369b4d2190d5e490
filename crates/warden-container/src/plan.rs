//! What a container shall consist of: a pure function from what was asked and what was leased to its spec.

use std::path::{Component, Path};

use warden_init::byte_string::ByteString;
use warden_init::confinement::Confinement;
use warden_init::spec::{self, Cgroup, InsideFile, Root, Spec, User};

use crate::dns;
use crate::error::Error;
use crate::id::Id;
use crate::leases::Leases;
use crate::request::Bind;
use crate::settings::Addresses;

/// The unprivileged user of every container.
pub(crate) const USER: &str = "vcap";

/// What goes into the spec of one container.
pub(crate) struct Plan<'a> {
    pub(crate) id: Id,
    pub(crate) leases: &'a Leases,
    pub(crate) cgroups: Vec<Cgroup>,
    /// The shared lower layer.
    pub(crate) lower: &'a Path,
    /// What of the host appears over it.
    pub(crate) system: &'a [spec::Bind],
    /// The container's directory.
    pub(crate) directory: &'a Path,
    pub(crate) binds: &'a [Bind],
    pub(crate) confinement: Confinement,
    pub(crate) dns_servers: &'a [String],
    /// Whether there is a forwarder at the host's end of the network.
    pub(crate) dns_forwarder: bool,
    /// Content of the host's resolv.conf.
    pub(crate) host_resolv_conf: &'a [u8],
}

impl Plan<'_> {
    /// Makes the spec, or refuses a bind mount.
    pub(crate) fn spec(self) -> Result<Spec, Error> {
        let binds = self.binds.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Spec {
            version: spec::VERSION,
            id: self.id.to_string(),
            init: None,
            ids: self.leases.ids,
            root: Root {
                lower: self.lower.into(),
                writable: self.directory.join("tmp").into(),
                system: self.system.to_vec(),
            },
            files: self.files(),
            cgroups: self.cgroups,
            binds,
            user: User { name: USER.to_owned(), id: self.leases.user },
            confinement: self.confinement,
        })
    }

    fn files(&self) -> Vec<InsideFile> {
        let addresses = &self.leases.addresses;
        let mut hosts = format!("127.0.0.1 localhost\n{} {}\n", addresses.container, self.id);
        if let Some(v6) = &addresses.v6 {
            hosts.push_str(&format!("::1 localhost\n{} {}\n", v6.container, self.id));
        }
        let resolv_conf = resolv_conf(self, addresses);
        [
            ("/etc/hostname", format!("{}\n", self.id).into_bytes()),
            ("/etc/hosts", hosts.into_bytes()),
            ("/etc/resolv.conf", resolv_conf),
        ]
        .map(|(path, content)| InsideFile { path: path.into(), mode: 0o644, content: ByteString(content) })
        .into()
    }
}

/// The configured name servers; else the host's, of whom those on the loopback are reached at the host's address.
fn resolv_conf(plan: &Plan<'_>, addresses: &Addresses) -> Vec<u8> {
    let (servers, host) = (plan.dns_servers, plan.host_resolv_conf);
    if !servers.is_empty() {
        return servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect::<String>()
            .into_bytes();
    }
    if host.trim_ascii_end() == b"nameserver 127.0.0.1" {
        return format!("nameserver {}\n", addresses.host).into_bytes();
    }
    if plan.dns_forwarder && dns::needs_forwarder(host) {
        return dns::inside(host, addresses.host);
    }
    host.to_vec()
}

fn bind(bind: &Bind) -> Result<spec::Bind, Error> {
    let destination = ByteString(bind.destination.clone());
    if !is_inside_path(destination.as_path()) || bind.destination.contains(&0) {
        return Err(Error::BadBindDestination(bind.destination.clone()));
    }
    Ok(spec::Bind { source: ByteString(bind.source.clone()), destination, writable: bind.writable })
}

/// Tells whether a path names something below the root, and nothing above.
fn is_inside_path(path: &Path) -> bool {
    path.is_absolute()
        && path.components().any(|part| matches!(part, Component::Normal(_)))
        && !path.components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leases::Pools;

    fn plan_with(binds: &[Bind], dns_servers: &[String], host_resolv_conf: &[u8]) -> Result<Spec, Error> {
        let mut settings = crate::settings::sample("/depot".as_ref());
        settings.ids = Some(spec::IdRange { host_start: 524_288, count: 65_536 });
        let leases = Pools::new(&settings).lease(Id::parse(b"0123456789a").unwrap(), None).unwrap();
        Plan {
            id: Id::parse(b"0123456789a").unwrap(),
            leases: &leases,
            cgroups: vec![Cgroup::V2("/cg/instance-0123456789a".into())],
            lower: "/depot/.images/host".as_ref(),
            system: &[],
            directory: "/depot/0123456789a".as_ref(),
            binds,
            confinement: Confinement::FULL,
            dns_servers,
            dns_forwarder: true,
            host_resolv_conf,
        }
        .spec()
    }

    fn file(spec: &Spec, path: &str) -> String {
        let found = spec.files.iter().find(|file| file.path == path.into()).unwrap();
        assert_eq!(found.mode, 0o644);
        String::from_utf8(found.content.0.clone()).unwrap()
    }

    fn bind_of(source: &[u8], destination: &[u8], writable: bool) -> Bind {
        Bind { source: source.to_vec(), destination: destination.to_vec(), writable }
    }

    #[test]
    fn a_plain_container() {
        let spec = plan_with(&[], &[], b"nameserver 1.1.1.1\nsearch x\n").unwrap();
        assert_eq!(
            (spec.version, spec.id.as_str(), spec.user.name.as_str(), spec.user.id),
            (spec::VERSION, "0123456789a", "vcap", 10_000)
        );
        assert_eq!(spec.ids, Some(spec::IdRange { host_start: 524_288, count: 65_536 }));
        assert_eq!(spec.root.writable, "/depot/0123456789a/tmp".into());
        assert_eq!(spec.cgroups.len(), 1);
        assert_eq!(file(&spec, "/etc/hostname"), "0123456789a\n");
        assert_eq!(file(&spec, "/etc/hosts"), "127.0.0.1 localhost\n10.254.0.2 0123456789a\n");
        assert_eq!(file(&spec, "/etc/resolv.conf"), "nameserver 1.1.1.1\nsearch x\n");
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }

    #[test]
    fn name_servers() {
        let of = |servers: &[&str], host: &[u8]| {
            let servers: Vec<String> = servers.iter().map(|&server| server.to_owned()).collect();
            file(&plan_with(&[], &servers, host).unwrap(), "/etc/resolv.conf")
        };
        assert_eq!(
            of(&["8.8.8.8", "::1"], b"nameserver 127.0.0.1\n"),
            "nameserver 8.8.8.8\nnameserver ::1\n"
        );
        assert_eq!(of(&[], b"nameserver 127.0.0.1\n"), "nameserver 10.254.0.1\n");
        assert_eq!(of(&[], b"nameserver 127.0.0.1"), "nameserver 10.254.0.1\n");
        let several = "nameserver 127.0.0.1\nnameserver 1.1.1.1\n";
        assert_eq!(of(&[], several.as_bytes()), several);
        let resolved = "nameserver 127.0.0.53\noptions edns0\nsearch x\n";
        assert_eq!(of(&[], resolved.as_bytes()), "nameserver 10.254.0.1\noptions edns0\nsearch x\n");
        assert_eq!(of(&["8.8.8.8"], resolved.as_bytes()), "nameserver 8.8.8.8\n");
        assert_eq!(of(&[], b""), "");
    }

    #[test]
    fn bind_mounts_keep_any_bytes_and_their_order() {
        let binds = [bind_of(b"/a b", b"/x/\xff y", true), bind_of(b"/c,:\\", b"//z/./w", false)];
        let spec = plan_with(&binds, &[], b"").unwrap();
        assert_eq!(spec.binds[0].destination.0, b"/x/\xff y");
        assert_eq!((spec.binds[0].writable, spec.binds[1].writable), (true, false));
        assert_eq!(spec.binds[1].source.0, b"/c,:\\");
    }

    #[test]
    fn destinations_that_lead_elsewhere_are_refused() {
        for destination in [&b""[..], b"x", b"/", b"//", b"/.", b"/a/../b", b"/..", b"../x", b"/a\0b"] {
            let refused = plan_with(&[bind_of(b"/a", destination, false)], &[], b"").unwrap_err();
            assert!(matches!(refused, Error::BadBindDestination(_)), "{destination:?}");
        }
    }
}
