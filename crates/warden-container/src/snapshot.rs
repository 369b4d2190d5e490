//! What a daemon must know of a container to take it over: `snapshot.json` in the container's directory.
//!
//! The keys are the original's; `version`, and what the original did not have, stand beside them. The file is there from
//! the moment at which a client may know the container until its directory is removed, and is only ever replaced
//! whole: at no moment would a crash find a healthy container without it. It is written after what it tells of has
//! happened and before the client hears of it. Jobs are not in it for their own sake: their directories tell more; what
//! it lists is which ends were accounted for.
//!
//! Nothing is synced to the disk: a machine that loses its memory has lost the containers too.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use warden_init::byte_string::ByteString;
use warden_init::spec::IdRange;

use crate::failpoint;
use crate::id::Id;
use crate::limits::Requested;
use crate::network::Records;
use crate::request::{Bandwidth, Cpu};
use crate::state::State;

/// The version that is written.
const VERSION: u32 = 1;
/// The versions that are read: this one and the one before.
const VERSIONS: RangeInclusive<u32> = warden_init::version::spoken(VERSION);

/// The name of the file.
pub(crate) const NAME: &str = "snapshot.json";
/// Its name once the container is being destroyed.
const WITHDRAWN: &str = "snapshot.json.withdrawn";
/// Where the next one is written.
const NEW: &str = "snapshot.json.new";
/// Larger files are none of ours.
const MAX_LENGTH: u64 = 64 << 20;

/// A container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) id: Id,
    pub(crate) handle: Vec<u8>,
    pub(crate) state: State,
    /// Its place in the order in which containers were handed out.
    pub(crate) birth: u64,
    pub(crate) events: Vec<String>,
    /// Whole seconds; absent: it is never destroyed by itself.
    pub(crate) grace_time: Option<u64>,
    /// Its jobs are being ended.
    pub(crate) stopping: bool,
    /// Destroying it has failed.
    pub(crate) quarantined: bool,
    /// Its jobs; those whose end was accounted for with their status.
    pub(crate) jobs: BTreeMap<u32, Option<u32>>,
    /// The first address of its /30.
    pub(crate) network: Ipv4Addr,
    /// The first address of its /126, where it has one.
    pub(crate) network_v6: Option<Ipv6Addr>,
    /// The inside id of vcap.
    pub(crate) user: u32,
    pub(crate) ids: Option<IdRange>,
    pub(crate) limits: Requested,
    /// Ends of its memory that were told as events.
    pub(crate) out_of_memory: u64,
    /// What clients have opened of its network.
    pub(crate) opened: Records,
    /// The ports of the host that lead to it and are the pool's.
    pub(crate) ports: Vec<u16>,
}

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no snapshot: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("its version is {0}, which this wardend does not read")]
    Version(u32),
    #[error("{key} cannot be {value}")]
    Value { key: &'static str, value: String },
}

/// The file, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    state: String,
    #[serde(default, skip_serializing_if = "is_unknown")]
    birth: u64,
    events: Vec<String>,
    grace_time: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stopping: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    quarantined: bool,
    jobs: BTreeMap<u32, JobRecord>,
    /// Always empty, as in the original.
    #[serde(default)]
    limits: BTreeMap<String, Value>,
    resources: Resources,
}

/// An earlier daemon wrote no birth; births begin at 1.
fn is_unknown(birth: &u64) -> bool {
    *birth == 0
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct JobRecord {
    /// Exit status, and two texts that the original kept there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<(u32, String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Resources {
    ports: Vec<u16>,
    container_id: String,
    handle: ByteString,
    network: Ipv4Addr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_v6: Option<Ipv6Addr>,
    uid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_ids: Option<IdRange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_cpu: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_cpu_quota: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_bandwidth: Option<Bandwidth>,
    #[serde(default)]
    out_of_memory: u64,
    /// `net_in` and `net_out`.
    #[serde(flatten)]
    opened: Records,
}

const STATES: [State; 4] = [State::Born, State::Active, State::Stopped, State::Destroyed];

impl Snapshot {
    /// Its text.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let record = |status: &Option<u32>| JobRecord {
            status: status.map(|status| (status, String::new(), String::new())),
        };
        serde_json::to_vec(&Document {
            version: VERSION,
            state: self.state.to_string(),
            birth: self.birth,
            events: self.events.clone(),
            grace_time: self.grace_time,
            stopping: self.stopping,
            quarantined: self.quarantined,
            jobs: self.jobs.iter().map(|(job, status)| (*job, record(status))).collect(),
            limits: BTreeMap::new(),
            resources: Resources {
                ports: self.ports.clone(),
                container_id: self.id.to_string(),
                handle: ByteString(self.handle.clone()),
                network: self.network,
                network_v6: self.network_v6,
                uid: self.user,
                host_ids: self.ids,
                limit_memory: self.limits.memory,
                limit_cpu: self.limits.cpu.shares,
                limit_cpu_quota: self.limits.cpu.quota,
                limit_bandwidth: self.limits.bandwidth,
                out_of_memory: self.out_of_memory,
                opened: self.opened.clone(),
            },
        })
    }

    /// Reads a text, trusting nothing in it.
    pub(crate) fn decode(text: &[u8]) -> Result<Self, Unreadable> {
        let value: Value = serde_json::from_slice(text)?;
        // The version first: of another one nothing else is to be understood.
        let version = value.get("version").and_then(Value::as_u64).unwrap_or(0);
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        if !VERSIONS.contains(&version) {
            return Err(Unreadable::Version(version));
        }
        let Document { state, birth, events, grace_time, stopping, quarantined, jobs, resources, .. } =
            serde_json::from_value(value)?;
        let wrong = |key, value: &dyn ToString| Unreadable::Value { key, value: value.to_string() };
        let known = STATES.into_iter().find(|known| known.to_string() == state);
        let id = Id::parse(resources.container_id.as_bytes())
            .ok_or_else(|| wrong("container_id", &resources.container_id))?;
        if u32::from(resources.network) & 3 != 0 {
            return Err(wrong("network", &resources.network));
        }
        if let Some(network) = resources.network_v6.filter(|network| u128::from(*network) & 3 != 0) {
            return Err(wrong("network_v6", &network));
        }
        if resources.host_ids.is_some_and(|ids| ids.host_start.checked_add(ids.count).is_none()) {
            return Err(wrong("host_ids", &"a range beyond the last id"));
        }
        Ok(Self {
            id,
            state: known.ok_or_else(|| wrong("state", &state))?,
            birth,
            events,
            grace_time,
            stopping,
            quarantined,
            jobs: jobs
                .into_iter()
                .map(|(job, record)| (job, record.status.map(|(status, _, _)| status)))
                .collect(),
            network: resources.network,
            network_v6: resources.network_v6,
            user: resources.uid,
            ids: resources.host_ids,
            limits: Requested {
                memory: resources.limit_memory,
                cpu: Cpu { shares: resources.limit_cpu, quota: resources.limit_cpu_quota },
                bandwidth: resources.limit_bandwidth,
            },
            out_of_memory: resources.out_of_memory,
            opened: resources.opened,
            ports: resources.ports,
            handle: resources.handle.0,
        })
    }

    /// Writes it into a container's directory, in place of the one before.
    ///
    /// The two files change places, and what is next overwrites the older one: a file system that sends to the disk what
    /// replaces a file, or what is written to an emptied one, as ext4 does, takes forty times as long for either. Nobody
    /// reads beside the one who writes: who had it open over two writings would see parts of both.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let text = self.encode()?;
        if text.len() as u64 > MAX_LENGTH {
            // The next daemon would not read it, and remove the container.
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (new, current) = (directory.join(NEW), directory.join(NAME));
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.set_len(text.len() as u64)?;
        failpoint::reach(format_args!("rename snapshot"));
        match renameat_with(CWD, &new, CWD, &current, RenameFlags::EXCHANGE) {
            // The first, or a file system that cannot do it.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(&new, &current),
            exchanged => Ok(exchanged?),
        }
    }

    /// Says that the container of this directory is being destroyed, until it is written again; nothing where there is none.
    pub(crate) fn withdraw(directory: &Path) -> io::Result<()> {
        failpoint::reach(format_args!("withdraw snapshot"));
        match fs::rename(directory.join(NAME), directory.join(WITHDRAWN)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }

    /// Reads that of a container's directory; `None` where there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, Unreadable> {
        let read = Self::read_at(&directory.join(NAME))?;
        if read.is_some() {
            return Ok(read);
        }
        let withdrawn = Self::read_at(&directory.join(WITHDRAWN))?;
        Ok(withdrawn.map(|snapshot| Self { state: State::Destroyed, ..snapshot }))
    }

    fn read_at(path: &Path) -> Result<Option<Self>, Unreadable> {
        let file = match warden_linux::file::open_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut text = Vec::new();
        if file.take(MAX_LENGTH + 1).read_to_end(&mut text)? as u64 > MAX_LENGTH {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        Self::decode(&text).map(Some)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod exercise;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirEntryExt;

    use super::*;
    use crate::network::PortMapping;
    use crate::request::{NetOut, Protocol, Transport};

    fn sample() -> Snapshot {
        Snapshot {
            id: Id::parse(b"0123456789a").unwrap(),
            handle: b"\xffa\"b\n".to_vec(),
            state: State::Active,
            birth: 0,
            events: vec!["out of memory".to_owned()],
            grace_time: Some(60),
            stopping: false,
            quarantined: false,
            jobs: BTreeMap::from([(24, None), (25, Some(2))]),
            network: Ipv4Addr::new(10, 254, 0, 32),
            network_v6: Some("fd00::20".parse().unwrap()),
            user: 10_008,
            ids: Some(IdRange { host_start: 524_288, count: 65_536 }),
            limits: Requested {
                memory: Some(1 << 26),
                cpu: Cpu { shares: Some(300), quota: Some(u64::MAX) },
                bandwidth: Some(Bandwidth { rate: 1_000_000, burst: 100_000 }),
            },
            out_of_memory: 3,
            opened: Records {
                net_in: vec![
                    PortMapping { protocol: Transport::Tcp, host_port: 61_001, container_port: 80 },
                    PortMapping { protocol: Transport::Udp, host_port: 53, container_port: 53 },
                ],
                net_out: vec![
                    NetOut {
                        network: Some(b"4.2.2.2".to_vec()),
                        port_range: Some(b"80".to_vec()),
                        ..NetOut::default()
                    },
                    NetOut {
                        port_range: Some(b"1:9".to_vec()),
                        protocol: Protocol::Udp,
                        log: true,
                        ..NetOut::default()
                    },
                    NetOut {
                        network: Some(b"10.0.0.0/8".to_vec()),
                        protocol: Protocol::Icmp,
                        icmp_type: Some(8),
                        ..NetOut::default()
                    },
                ],
            },
            ports: vec![61_001],
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        // Each of these bytes takes six.
        let long = Snapshot { handle: vec![1; 12 << 20], ..sample() };
        assert_eq!(long.write(directory.path()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let short = Snapshot { handle: vec![1; 1 << 20], ..sample() };
        short.write(directory.path()).unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), Some(short));
    }

    #[test]
    fn nothing_is_lost_on_the_way_to_the_disk_and_back() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), None);
        let mut snapshot = sample();
        snapshot.write(directory.path()).unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), Some(snapshot.clone()));
        snapshot.grace_time = None;
        snapshot.state = State::Stopped;
        snapshot.stopping = true;
        snapshot.quarantined = true;
        snapshot.write(directory.path()).unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), Some(snapshot));
        // A shorter one over a longer one, again and again, in the same two files.
        let files = || {
            let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().ino());
            entries.collect::<std::collections::BTreeSet<_>>()
        };
        let before = files();
        for length in [1000, 1, 500, 2, 2] {
            let snapshot = Snapshot { events: vec!["x".repeat(length)], ..sample() };
            snapshot.write(directory.path()).unwrap();
            assert_eq!(Snapshot::read(directory.path()).unwrap(), Some(snapshot));
            assert_eq!(files(), before);
        }
        assert_eq!(before.len(), 2);
    }

    #[test]
    fn a_crash_between_the_two_steps_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        sample().write(directory.path()).unwrap();
        fs::write(directory.path().join(NEW), "{\"version\":1,\"sta").unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), Some(sample()));
        sample().write(directory.path()).unwrap();
    }

    #[test]
    fn one_that_is_withdrawn_is_of_a_container_that_is_being_destroyed() {
        let directory = tempfile::tempdir().unwrap();
        Snapshot::withdraw(directory.path()).unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), None);
        for _ in 0..2 {
            sample().write(directory.path()).unwrap();
            for _ in 0..2 {
                Snapshot::withdraw(directory.path()).unwrap();
                let read = Snapshot::read(directory.path()).unwrap();
                assert_eq!(read, Some(Snapshot { state: State::Destroyed, ..sample() }));
            }
        }
        sample().write(directory.path()).unwrap();
        assert_eq!(Snapshot::read(directory.path()).unwrap(), Some(sample()), "it could not be destroyed");
    }

    #[test]
    fn version_1_is_read_as_ever() {
        let text = include_bytes!("../tests/transcripts/v1/snapshot.json");
        let snapshot = Snapshot::decode(text).unwrap();
        assert_eq!(snapshot, sample());
        assert_eq!(snapshot.encode().unwrap(), text.trim_ascii_end());
    }

    #[test]
    fn a_birth_is_kept() {
        let born = Snapshot { birth: 7, ..sample() };
        assert_eq!(Snapshot::decode(&born.encode().unwrap()).unwrap(), born);
    }

    #[test]
    fn the_keys_are_the_originals() {
        let text = sample().encode().unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["jobs"]["25"]["status"], serde_json::json!([2, "", ""]));
        let resources = &value["resources"];
        assert_eq!(resources["ports"], serde_json::json!([61_001]));
        assert_eq!(resources["network"], "10.254.0.32");
        assert_eq!(resources["net_in"][0], serde_json::json!([61_001, 80]));
        let first = serde_json::json!(["4.2.2.2", "80", "tcp", null, null, null]);
        assert_eq!(resources["net_out"][0], first);
        assert_eq!((&value["grace_time"], &value["limits"]), (&60.into(), &serde_json::json!({})));
    }

    #[test]
    fn what_cannot_be_is_refused_and_what_is_new_is_passed_over() {
        let text = String::from_utf8(sample().encode().unwrap()).unwrap();
        let changed = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Snapshot::decode(text.replacen(from, to, 1).as_bytes())
        };
        assert!(changed("\"state\"", "\"new\":[1],\"state\"").is_ok());
        for (from, to) in [
            ("\"version\":1", "\"version\":99"),
            ("\"version\":1", "\"version\":-1"),
            ("\"active\"", "\"asleep\""),
            ("0123456789a", "../../../.."),
            ("10.254.0.32", "10.254.0.33"),
            ("10.254.0.32", "10.254.0.320"),
            ("524288", "4294967295"),
            ("[61001]", "[70000]"),
            ("[61001,80]", "[70000,80]"),
            ("10.0.0.0/8", "10.0.0.0/80"),
            ("\"udp\"", "\"ud\""),
            ("\"24\"", "\"x\""),
        ] {
            assert!(changed(from, to).is_err(), "{to}");
        }
        for text in [&b""[..], b"{}", b"[]", b"{\"version\":1}", b"\xff", &[b'['; 10_000]] {
            assert!(Snapshot::decode(text).is_err());
        }
    }
}
