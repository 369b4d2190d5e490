//! What the daemon is told by its configuration: plain values, already validated by who read them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use warden_init::confinement::Confinement;
use warden_init::message::Resource;
use warden_init::spec::IdRange;

use crate::pressure::Thresholds;

/// Everything that the domain needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory that holds one directory per container; made when it is missing.
    pub depot: PathBuf,
    /// A file that holds the depot's file system; absent: the depot is a plain directory.
    pub depot_image: Option<DepotImage>,
    /// Whether what containers store is limited and counted.
    pub disk_quota: bool,
    /// The image of containers whose request names none.
    pub image: Image,
    /// The directory of the helper program `iomux`.
    pub helpers: PathBuf,
    /// The name of the directory below which `instance-<id>` cgroups are made, relative to each hierarchy's root.
    pub cgroup_parent: String,
    /// The host ids that containers are given 65,536 at a time; absent: no user namespaces.
    pub ids: Option<IdRange>,
    /// Grace time of containers whose request names none; absent: they are never destroyed by themselves.
    pub grace_time: Option<Duration>,
    /// Bytes of output that a job may leave.
    pub job_output_limit: u64,
    /// Limits of every job, before those of its request.
    pub rlimits: BTreeMap<Resource, u64>,
    /// Finished jobs that nobody has linked are kept up to this number per container; the oldest is forgotten first.
    pub max_finished_jobs: usize,
    /// The same, by the bytes of their output.
    pub max_finished_bytes: u64,
    /// Jobs that run at the same time in one container.
    pub max_running_jobs: usize,
    /// Processes and threads that one container may have at the same time.
    pub max_tasks: u64,
    /// Containers that are kept ready for requests to come.
    pub warm_pool_size: usize,
    /// What one container may read from the depot's device, and write to it.
    pub io_limits: IoLimits,
    /// When a new container is refused for want of memory.
    pub memory_thresholds: Thresholds,
    /// How long a copy may make no progress before it is given up.
    pub copy_stall_time: Duration,
    /// How often the daemon looks for what is left over.
    pub reconcile_interval: Duration,
    /// Where `log_tag` lines go.
    pub syslog_socket: PathBuf,
    /// LANG of every job.
    pub lang: String,
    /// Addresses of the containers: a /30 each.
    pub network: NetworkPool,
    /// What containers may reach.
    pub firewall: Firewall,
    /// Ports of the host that are forwarded where none is named.
    pub ports: PortPool,
    /// The inside's name servers; empty: the host's.
    pub dns_servers: Vec<String>,
    /// Whether containers reach the host's name server where only its loopback does.
    pub dns_forwarder: bool,
    /// Inside ids of vcap: one for each container.
    pub users: UserPool,
    /// A container may run a wardend of its own (all devices).
    pub allow_nested_warden: bool,
    /// What a container's programs may not do.
    pub confinement: Confinement,
    /// Which devices a container may use; else all.
    pub device_rules: bool,
}

impl Settings {
    /// The depot without links in its path; as it is configured where there is none.
    pub(crate) fn real_depot(&self) -> PathBuf {
        self.depot.canonicalize().unwrap_or_else(|_| self.depot.clone())
    }
}

/// A file that holds a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepotImage {
    /// Where it is; made when it is missing.
    pub path: PathBuf,
    /// Bytes of a new one.
    pub size: u64,
}

/// Limits of reading and writing a device, in each second; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoLimits {
    /// Bytes that are read.
    pub read_bytes: Option<u64>,
    /// Bytes that are written.
    pub write_bytes: Option<u64>,
    /// Reads.
    pub read_operations: Option<u64>,
    /// Writes.
    pub write_operations: Option<u64>,
}

/// A root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The host's programs and libraries, read-only, with a generated rest.
    Host,
    /// A directory.
    Directory(PathBuf),
}

/// The pool of networks.
#[derive(Clone, Debug)]
pub struct NetworkPool {
    /// The network that is cut into /30s.
    pub network: Ipv4Net,
    /// The network that is cut into as many /126s; absent: containers have no IPv6.
    pub network_v6: Option<Ipv6Net>,
    /// How long a released network rests.
    pub release_delay: Duration,
}

/// What goes in and out of all containers.
#[derive(Clone, Debug)]
pub struct Firewall {
    /// The name of the packet filter's table; no other program has one of this name.
    pub table: String,
    /// Largest packet of the interfaces, in bytes.
    pub mtu: u16,
    /// Networks that all containers may reach.
    pub allow_networks: Vec<IpNet>,
    /// Whether containers may reach the host.
    pub allow_host_access: bool,
    /// The number of the bit in the marks of connections that says what `net_out` has opened, below 32.
    pub connection_mark_bit: u8,
}

impl Firewall {
    /// That bit.
    pub(crate) fn mark(&self) -> u32 {
        1_u32.unbounded_shl(self.connection_mark_bit.into())
    }
}

/// The pool of ports.
#[derive(Clone, Copy, Debug)]
pub struct PortPool {
    /// The first port.
    pub start: u16,
    /// How many.
    pub size: u16,
}

/// The pool of users.
#[derive(Clone, Debug)]
pub struct UserPool {
    /// The first id.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// The addresses of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The /30.
    pub network: Ipv4Net,
    /// The host's end: network + 1.
    pub host: Ipv4Addr,
    /// The container's end: network + 2.
    pub container: Ipv4Addr,
    /// Those of IPv6, where containers have some.
    pub v6: Option<AddressesV6>,
}

/// The addresses of one container in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressesV6 {
    /// The /126.
    pub network: Ipv6Net,
    /// The host's end: network + 1.
    pub host: Ipv6Addr,
    /// The container's end: network + 2.
    pub container: Ipv6Addr,
}

impl Addresses {
    /// The container's ends.
    pub fn inside(self) -> impl Iterator<Item = IpAddr> {
        [Some(self.container.into()), self.v6.map(|v6| v6.container.into())].into_iter().flatten()
    }

    /// For each family: the host's end, the container's, and the length of the network's prefix.
    pub fn pairs(self) -> impl Iterator<Item = (IpAddr, IpAddr, u8)> {
        let v4 = (self.host.into(), self.container.into(), self.network.prefix_len());
        let v6 = self.v6.map(|v6| (v6.host.into(), v6.container.into(), v6.network.prefix_len()));
        [Some(v4), v6].into_iter().flatten()
    }
}

/// Settings of a test: small pools, no grace time.
#[cfg(any(test, feature = "benchmark"))]
pub(crate) fn sample(depot: &std::path::Path) -> Settings {
    Settings {
        depot: depot.to_owned(),
        depot_image: None,
        disk_quota: true,
        image: Image::Host,
        helpers: PathBuf::from("/nowhere"),
        cgroup_parent: format!("warden-test-{}", std::process::id()),
        ids: None,
        grace_time: None,
        job_output_limit: 10 << 20,
        rlimits: BTreeMap::new(),
        max_finished_jobs: 10,
        max_finished_bytes: 1 << 20,
        max_running_jobs: 10,
        max_tasks: 2048,
        warm_pool_size: 0,
        io_limits: IoLimits::default(),
        memory_thresholds: Thresholds { pressure: 100, available: 0 },
        copy_stall_time: Duration::from_secs(5),
        reconcile_interval: Duration::from_secs(3600),
        syslog_socket: PathBuf::from("/dev/log"),
        lang: "C.UTF-8".to_owned(),
        network: NetworkPool {
            network: Ipv4Net::new_assert(Ipv4Addr::new(10, 254, 0, 0), 24),
            network_v6: None,
            release_delay: Duration::ZERO,
        },
        firewall: Firewall {
            table: "warden".to_owned(),
            mtu: 1500,
            allow_networks: Vec::new(),
            allow_host_access: false,
            connection_mark_bit: 12,
        },
        ports: PortPool { start: 61_001, size: 100 },
        dns_servers: Vec::new(),
        dns_forwarder: true,
        users: UserPool { start: 10_000, size: 64 },
        allow_nested_warden: false,
        confinement: Confinement::FULL,
        device_rules: true,
    }
}
