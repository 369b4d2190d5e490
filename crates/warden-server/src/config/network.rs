//! Sections `network`, `port` and `user`: the pools that containers draw from.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Notes;
use super::section::{ConfigError, Section};
use super::value::Value;

/// The longest prefix of a pool: one network of four addresses.
const LONGEST_PREFIX: u8 = 30;

/// The shortest prefix of a pool: what an address class ever held.
const SHORTEST_PREFIX: u8 = 8;

/// The greatest `network.pool_size`, in networks of four addresses: what fits in the shortest prefix.
const MOST_NETWORKS: u32 = 1 << (LONGEST_PREFIX - SHORTEST_PREFIX);

/// The least `network.mtu` with which the kernel does IPv6.
const LEAST_MTU_V6: u16 = 1280;

/// The first id that no container may have inside: the kernel's overflow id, which stands for "not mapped".
const NOBODY: u32 = 65534;

/// Addresses of the containers, and what they may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network that is cut into /30s.
    pub pool: Ipv4Net,
    /// The network that is cut into /126s, one for each /30; absent: containers have no IPv6.
    pub pool_v6: Option<Ipv6Net>,
    /// How long a released network rests.
    pub release_delay: Duration,
    /// Largest packet of the containers' interfaces, in bytes.
    pub mtu: u16,
    /// Networks that containers may reach.
    pub allow_networks: Vec<IpNet>,
    /// Whether containers may reach the host.
    pub allow_host_access: bool,
    /// The name of the packet filter's table.
    pub table: String,
    /// The number of the bit in the marks of connections that says what `net_out` has opened.
    pub connection_mark_bit: u8,
    /// Name servers inside; empty: the host's.
    pub dns_servers: Vec<IpAddr>,
    /// Whether containers reach the host's name server where only its loopback does.
    pub dns_forwarder: bool,
}

impl Network {
    /// Reads section `network`.
    pub(super) fn read(root: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = root.section("network")?;
        let pool = read_pool(&mut section, notes)?;
        let network = Self {
            pool,
            pool_v6: read_pool_v6(&mut section, pool)?,
            release_delay: Duration::from_secs(
                section.number("release_delay", 0, u32::MAX.into())?.unwrap_or(5),
            ),
            mtu: section.number("mtu", 68, u16::MAX.into())?.unwrap_or(1500),
            allow_networks: section.list(
                "allow_networks",
                "an IPv4 network such as 10.0.0.0/8, or an IPv6 network",
                destination,
            )?,
            allow_host_access: section.flag("allow_host_access")?.unwrap_or(false),
            table: section
                .read("table", "a name of 1 to 64 letters, digits, '-' and '_'", table_name)?
                .unwrap_or_else(|| "warden".to_owned()),
            connection_mark_bit: section.number("connection_mark_bit", 0, 31)?.unwrap_or(12),
            dns_servers: section.list("dns_servers", "an IP address", |text| text.parse().ok())?,
            dns_forwarder: section.flag("dns_forwarder")?.unwrap_or(true),
        };
        if network.pool_v6.is_some() && network.mtu < LEAST_MTU_V6 {
            let expected =
                format!("at least {LEAST_MTU_V6}, the least of IPv6, with network.pool_network_v6");
            return Err(ConfigError::value("network.mtu", &network.mtu, &expected));
        }
        section.finish(notes);
        Ok(network)
    }
}

fn table_name(value: &Value) -> Option<String> {
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match value {
        Value::Text(name) if (1..=64).contains(&name.len()) && plain(name) => Some(name.clone()),
        _ => None,
    }
}

/// Reads the pool: a start address with a size goes before a network.
fn read_pool(section: &mut Section, notes: &mut Notes) -> Result<Ipv4Net, ConfigError> {
    for (key, other) in [("pool_start_address", "pool_size"), ("pool_size", "pool_start_address")] {
        if section.has(key) && !section.has(other) {
            let (key, other) = (section.path(key), section.path(other));
            notes.warnings.push(format!("{key} has no effect without {other}"));
        }
    }
    let start = section.read("pool_start_address", "an IPv4 address", |value| match value {
        Value::Text(text) => text.parse::<Ipv4Addr>().ok(),
        _ => None,
    })?;
    let size: Option<u32> = section.number("pool_size", 1, MOST_NETWORKS.into())?;
    let expected = format!(
        "an IPv4 network such as 10.254.0.0/22, with a prefix from {SHORTEST_PREFIX} to {LONGEST_PREFIX}"
    );
    let network = section.read("pool_network", &expected, |value| match value {
        Value::Text(text) => pool_network(text),
        _ => None,
    })?;
    let given = start.zip(size).and_then(|(start, size)| Ipv4Net::new(start, pool_prefix(size)).ok());
    Ok(given.or(network).unwrap_or(default_pool()).trunc())
}

/// Reads the pool of IPv6: large enough for one network of four addresses beside each of IPv4, of unicast addresses.
fn read_pool_v6(section: &mut Section, pool: Ipv4Net) -> Result<Option<Ipv6Net>, ConfigError> {
    // Both cut off two bits for the four addresses.
    let longest = 128 - (32 - pool.prefix_len());
    let expected = format!(
        "an IPv6 network such as fd00:7761:7264::/64, of fc00::/7 or 2000::/3 and with a prefix of at most {longest}, \
         so that it has room beside {pool}"
    );
    section.read("pool_network_v6", &expected, |value| match value {
        Value::Text(text) => pool_network_v6(text, longest),
        _ => None,
    })
}

fn pool_network_v6(text: &str, longest: u8) -> Option<Ipv6Net> {
    let network: Ipv6Net = text.parse().ok()?;
    let first = network.network().segments()[0];
    let unicast = (first & 0xfe00 == 0xfc00 && network.prefix_len() >= 7)
        || (first & 0xe000 == 0x2000 && network.prefix_len() >= 3);
    (unicast && network.prefix_len() <= longest).then(|| network.trunc())
}

/// The prefix of a pool of `size` networks of four addresses, rounded up to a power of two.
fn pool_prefix(size: u32) -> u8 {
    let bits = size.next_power_of_two().trailing_zeros();
    LONGEST_PREFIX.saturating_sub(u8::try_from(bits).unwrap_or(u8::MAX))
}

/// 10.254.0.0/24: 64 networks.
fn default_pool() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 254, 0, 0), 24)
}

fn pool_network(text: &str) -> Option<Ipv4Net> {
    text.parse()
        .ok()
        .filter(|network: &Ipv4Net| (SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&network.prefix_len()))
}

/// A network, by prefix or by mask, or one address.
fn destination(text: &str) -> Option<IpNet> {
    let network: IpNet = match text.split_once('/') {
        None => text.parse::<IpAddr>().ok()?.into(),
        Some((address, mask)) if mask.contains('.') => {
            Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?).ok()?.into()
        }
        Some(_) => text.parse().ok()?,
    };
    Some(network.trunc())
}

/// Ports of the host that net_in draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first; absent: the one after the kernel's ephemeral ports.
    pub start: Option<u16>,
    /// How many; absent: all up to 65000.
    pub size: Option<u16>,
}

/// The kernel's first and last ephemeral port.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The last port of a pool whose size is not configured.
const LAST_PORT: u16 = 65_000;
/// The fewest ports of such a pool.
const FEWEST_PORTS: u16 = 1000;

impl Ports {
    /// The first port and how many there are, on a machine with these ephemeral ports (`first last`).
    fn pool(&self, ephemeral: &str) -> Result<(u16, u16), ConfigError> {
        let last = || ephemeral.split_whitespace().nth(1).and_then(|last| last.parse::<u16>().ok());
        let start = self.start.or_else(|| last()?.checked_add(1)).unwrap_or(LAST_PORT);
        let size = self.size.unwrap_or((LAST_PORT + 1).saturating_sub(start));
        if self.size.is_none() && size < FEWEST_PORTS {
            return Err(ConfigError::new(format!(
                "Insufficient non-ephemeral ports available (expected >= {FEWEST_PORTS}, got: {size})"
            )));
        }
        Ok((start, size.min(u16::MAX - start + u16::from(start > 0))))
    }

    /// The same on this machine.
    pub(super) fn pool_here(&self) -> Result<(u16, u16), ConfigError> {
        self.pool(&std::fs::read_to_string(EPHEMERAL).unwrap_or_default())
    }
}

impl Ports {
    /// Reads section `port`.
    pub(super) fn read(root: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = root.section("port")?;
        let start: Option<u16> = section.number("pool_start_port", 1, u16::MAX.into())?;
        let size: Option<u16> = section.number("pool_size", 1, u16::MAX.into())?;
        if let (Some(start), Some(size)) = (start, size)
            && start.checked_add(size - 1).is_none()
        {
            let most =
                format!("at most {}: the first port is {start}, the last one 65535", u16::MAX - start + 1);
            return Err(ConfigError::value("port.pool_size", &size, &most));
        }
        section.finish(notes);
        Ok(Self { start, size })
    }
}

/// Ids of the containers' unprivileged user: one for each container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// The first.
    pub start: u32,
    /// How many.
    pub size: u32,
}

impl Users {
    /// Reads section `user`.
    pub(super) fn read(root: &mut Section, notes: &mut Notes, namespaces: bool) -> Result<Self, ConfigError> {
        // Inside a user namespace a container has the ids 0 to 65535; without one 2^32 - 1 means "no id".
        let end = if namespaces { NOBODY } else { u32::MAX };
        let mut section = root.section("user")?;
        let start = section.number("pool_start_uid", 1, i128::from(end) - 1)?.unwrap_or(10_000);
        let size = section.number("pool_size", 1, i128::from(end) - 1)?.unwrap_or(64);
        if u64::from(start) + u64::from(size) > u64::from(end) {
            let most = format!("at most {}: the first id is {start}, the last one {}", end - start, end - 1);
            return Err(ConfigError::value("user.pool_size", &size, &most));
        }
        section.finish(notes);
        Ok(Self { start, size })
    }

    /// Refuses a pool that holds a user of the host, which a container without a user namespace would then be.
    pub(super) fn check_host(&self, namespaces: bool, passwd: &str) -> Result<(), ConfigError> {
        let ids = passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
        match ids.into_iter().find(|id| (self.start..self.start.saturating_add(self.size)).contains(id)) {
            Some(id) if !namespaces => Err(ConfigError::new(format!(
                "user.pool_start_uid is {}, user.pool_size {}: UID in user pool overlaps with user in /etc/passwd: {id}",
                self.start, self.size
            ))),
            _ => Ok(()),
        }
    }
}
