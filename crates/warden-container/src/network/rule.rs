//! What `net_out` opens: from the words of a request to a rule, with the original's refusals.

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

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::error::Error;
use crate::request::{NetOut, Protocol};

/// Something that a container may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// First and last address, of one family; any of both when absent.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    pub(super) traffic: Traffic,
    /// Whether new connections are told to the kernel's log.
    pub(super) log: bool,
}

/// A kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    All,
    /// First and last port; any when absent.
    Tcp(Option<(u16, u16)>),
    Udp(Option<(u16, u16)>),
    /// Type, and code of that type; any when absent.
    Icmp(Option<(u8, Option<u8>)>),
}

/// Reads a request.
pub(super) fn read(request: &NetOut) -> Result<Rule, Error> {
    if request.network.is_none() && request.port.is_none() && request.port_range.is_none() {
        return Err(Error::NothingToOpen);
    }
    let ports = match (&request.port_range, request.port) {
        (Some(range), _) => Some(port_range(range)?),
        (None, Some(port)) => Some(port_of(port).map(|port| (port, port))?),
        (None, None) => None,
    };
    let traffic = match (request.protocol, ports) {
        (Protocol::Tcp, ports) => Traffic::Tcp(ports),
        (Protocol::Udp, ports) => Traffic::Udp(ports),
        (Protocol::All, None) => Traffic::All,
        (Protocol::Icmp, None) => Traffic::Icmp(icmp(request)?),
        (protocol, Some((first, _))) => return Err(Error::NoPorts { protocol, port: first }),
    };
    let addresses = request.network.as_deref().map(addresses).transpose()?;
    Ok(Rule { addresses, traffic, log: request.log })
}

/// Reads an address, a network (`a/n`, `a/mask`) or a range (`a-b`).
fn addresses(text: &[u8]) -> Result<(IpAddr, IpAddr), Error> {
    let refused = || {
        let expected = "an address, a network (a.b.c.d/n) or a range (a.b.c.d-e.f.g.h), of IPv4 or IPv6";
        Error::invalid("network", text, expected)
    };
    let words = std::str::from_utf8(text).map_err(|_| refused())?;
    let pair = if let Some((first, last)) = words.split_once('-') {
        let in_order = |(first, last): &(IpAddr, IpAddr)| first.is_ipv6() == last.is_ipv6() && first <= last;
        first.parse().ok().zip(last.parse().ok()).filter(in_order)
    } else if let Some((address, mask)) = words.split_once('/') {
        network(address, mask).map(|network| (network.network(), network.broadcast()))
    } else {
        words.parse().ok().map(|address| (address, address))
    };
    pair.ok_or_else(refused)
}

fn network(address: &str, mask: &str) -> Option<IpNet> {
    match mask.parse::<Ipv4Addr>() {
        Ok(mask) => Ipv4Net::with_netmask(address.parse().ok()?, mask).ok().map(IpNet::from),
        Err(_) => IpNet::new(address.parse().ok()?, mask.parse().ok()?).ok(),
    }
}

/// Reads `first:last`, where either may be left out as with iptables, or one port.
fn port_range(text: &[u8]) -> Result<(u16, u16), Error> {
    let refused = || Error::invalid("port_range", text, "two ports from 0 to 65535 (first:last)");
    let words = std::str::from_utf8(text).map_err(|_| refused())?;
    let is_port = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let port = |word: &str| word.parse::<u16>().ok().filter(|_| is_port(word)).ok_or_else(refused);
    let Some((first, last)) = words.split_once(':') else {
        // As where it is not called a range.
        let single = port(words)?;
        return if single == 0 { Err(refused()) } else { Ok((single, single)) };
    };
    let end = |word: &str, open: u16| if word.is_empty() { Ok(open) } else { port(word) };
    let (first, last) = (end(first, 0)?, end(last, u16::MAX)?);
    if last <= first { Err(Error::BadPortRange) } else { Ok((first, last)) }
}

/// Reads a port.
pub(crate) fn port_of(number: u32) -> Result<u16, Error> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| Error::invalid("port", number.to_string().as_bytes(), "a number from 1 to 65535"))
}

/// Reads type and code; -1 is any, and so is a code without a type.
fn icmp(request: &NetOut) -> Result<Option<(u8, Option<u8>)>, Error> {
    let number = |field, value: Option<i32>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u8::try_from(value).map(Some).map_err(|_| {
            Error::invalid(field, value.to_string().as_bytes(), "a number from 0 to 255, or -1")
        }),
    };
    let kind = number("icmp_type", request.icmp_type)?;
    let code = number("icmp_code", request.icmp_code)?;
    Ok(kind.map(|kind| (kind, code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(network: &str) -> NetOut {
        NetOut { network: Some(network.as_bytes().to_vec()), ..NetOut::default() }
    }

    fn range(text: &str) -> Result<Rule, Error> {
        read(&NetOut { port_range: Some(text.as_bytes().to_vec()), port: Some(9), ..NetOut::default() })
    }

    #[test]
    fn networks_are_addresses_masks_and_ranges() {
        for (text, first, last) in [
            ("1.2.3.4", [1, 2, 3, 4], [1, 2, 3, 4]),
            ("1.2.3.4/30", [1, 2, 3, 4], [1, 2, 3, 7]),
            ("1.2.3.4/8", [1, 0, 0, 0], [1, 255, 255, 255]),
            ("1.2.3.4/255.255.0.0", [1, 2, 0, 0], [1, 2, 255, 255]),
            ("0.0.0.0/0", [0; 4], [255; 4]),
            ("1.2.3.4-1.2.3.9", [1, 2, 3, 4], [1, 2, 3, 9]),
            ("1.2.3.4-1.2.3.4", [1, 2, 3, 4], [1, 2, 3, 4]),
        ] {
            let rule = read(&request(text)).unwrap();
            assert_eq!(rule.addresses, Some((IpAddr::from(first), IpAddr::from(last))), "{text}");
            assert_eq!((rule.traffic, rule.log), (Traffic::Tcp(None), false));
        }
        for (text, first, last) in [
            ("2001:db8::7", "2001:db8::7", "2001:db8::7"),
            ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::7/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fd00::1-fd00::9", "fd00::1", "fd00::9"),
        ] {
            let rule = read(&request(text)).unwrap();
            assert_eq!(rule.addresses, Some((first.parse().unwrap(), last.parse().unwrap())), "{text}");
        }
        for text in [
            "",
            " ",
            "x",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/",
            "/8",
            "1.2.3.4/8/8",
            "1.2.3.4/255.0.255.0",
            "1.2.3.9-1.2.3.4",
            "1.2.3.4-",
            "-1.2.3.4",
            "1.2.3.4-::1",
            "1.2.3.4 ",
            "-",
            "/",
            "01.2.3.4",
            "0x1.2.3.4",
            "example.com",
            "::1/129",
            "::1/255.0.0.0",
            "fe80::1%lo",
            "::2-::1",
            ":::",
            "1.2.3.4\n",
        ] {
            let refused = read(&request(text)).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("invalid network \"{text}\": ")), "{refused}");
        }
        assert!(read(&NetOut { network: Some(vec![0xff]), ..NetOut::default() }).is_err());
    }

    #[test]
    fn ports_and_ranges() {
        assert_eq!(range("80:90").unwrap().traffic, Traffic::Tcp(Some((80, 90))));
        assert_eq!(range("80").unwrap().traffic, Traffic::Tcp(Some((80, 80))));
        for (text, expected) in
            [("0:65535", (0, 65535)), (":100", (0, 100)), ("100:", (100, 65535)), (":", (0, 65535))]
        {
            assert_eq!(range(text).unwrap().traffic, Traffic::Tcp(Some(expected)), "{text}");
        }
        for text in ["90:80", "80:80"] {
            assert_eq!(
                range(text).unwrap_err().to_string(),
                "Port range maximum must be greater than minimum"
            );
        }
        for text in ["", "0", "1:65536", "-1:5", "+1:5", "a:b", "1-5", "1:2:3", " 1:2"] {
            let refused = range(text).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("invalid port_range \"{text}\": ")), "{refused}");
        }
        for port in [0, 65_536, u32::MAX] {
            let refused = read(&NetOut { port: Some(port), ..NetOut::default() }).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("invalid port \"{port}\": ")), "{refused}");
        }
        let udp = NetOut { port: Some(53), protocol: Protocol::Udp, ..NetOut::default() };
        assert_eq!(read(&udp).unwrap().traffic, Traffic::Udp(Some((53, 53))));
        assert_eq!(read(&udp).unwrap().addresses, None);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::All] {
            let refused = read(&NetOut { protocol, ..NetOut::default() }).unwrap_err().to_string();
            assert_eq!(refused, "Please specify network, port, and/or port_range.");
        }
    }

    #[test]
    fn only_tcp_and_udp_have_ports() {
        for protocol in [Protocol::All, Protocol::Icmp] {
            assert!(read(&NetOut { port: Some(80), protocol, ..NetOut::default() }).is_err());
            assert!(read(&NetOut { protocol, ..request("1.2.3.4") }).is_ok());
        }
    }

    #[test]
    fn icmp_types_and_codes() {
        let traffic = |icmp_type, icmp_code| {
            let protocol = Protocol::Icmp;
            read(&NetOut { protocol, icmp_type, icmp_code, ..request("0.0.0.0/0") }).map(|rule| rule.traffic)
        };
        assert_eq!(traffic(None, None).unwrap(), Traffic::Icmp(None));
        assert_eq!(traffic(Some(-1), Some(-1)).unwrap(), Traffic::Icmp(None));
        assert_eq!(traffic(Some(8), None).unwrap(), Traffic::Icmp(Some((8, None))));
        assert_eq!(traffic(Some(3), Some(0)).unwrap(), Traffic::Icmp(Some((3, Some(0)))));
        assert!(traffic(Some(256), None).unwrap_err().to_string().contains("icmp_type \"256\""));
        assert!(traffic(Some(8), Some(-2)).unwrap_err().to_string().contains("icmp_code \"-2\""));
    }
}
