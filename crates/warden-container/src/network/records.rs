//! What the network keeps of one container, and how a snapshot carries it: as the original's does.
//!
//! ```text
//! net_in   [[61001, 8080], [53, 53, "udp"]]               ports of the host and of the container; TCP is not named
//! net_out  [["4.2.2.2", "80:90", "tcp", null, null, null]] network, ports, protocol, ICMP type and code, log
//! ```

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

use serde::{Deserialize, Serialize};

use super::rule;
use crate::error::Error;
use crate::id::Id;
use crate::request::{NetOut, Protocol, Transport};
use crate::settings::Addresses;

/// All that makes the network of a container which an earlier daemon has connected.
#[derive(Clone, Debug)]
pub(crate) struct ContainerNetwork {
    pub(crate) id: Id,
    pub(crate) addresses: Addresses,
    pub(crate) records: Records,
}

/// What clients have opened for one container, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) net_in: Vec<PortMapping>,
    pub(crate) net_out: Vec<NetOut>,
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "MappingFields", try_from = "MappingFields")]
pub(crate) struct PortMapping {
    pub(crate) protocol: Transport,
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
}

/// A mapping in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum MappingFields {
    Tcp(u16, u16),
    Named(u16, u16, Transport),
}

impl From<PortMapping> for MappingFields {
    fn from(mapping: PortMapping) -> Self {
        let PortMapping { protocol, host_port, container_port } = mapping;
        match protocol {
            Transport::Tcp => Self::Tcp(host_port, container_port),
            Transport::Udp => Self::Named(host_port, container_port, protocol),
        }
    }
}

impl TryFrom<MappingFields> for PortMapping {
    type Error = Error;

    fn try_from(fields: MappingFields) -> Result<Self, Error> {
        let (host_port, container_port, protocol) = match fields {
            MappingFields::Tcp(host, container) => (host, container, Transport::Tcp),
            MappingFields::Named(host, container, protocol) => (host, container, protocol),
        };
        for port in [host_port, container_port] {
            rule::port_of(port.into())?;
        }
        Ok(Self { protocol, host_port, container_port })
    }
}

/// Network, ports, protocol, ICMP type, ICMP code, log: a request in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OutFields(
    Option<String>,
    Option<String>,
    Option<Protocol>,
    Option<i32>,
    Option<i32>,
    Option<bool>,
);

impl From<NetOut> for OutFields {
    fn from(request: NetOut) -> Self {
        // Whatever was admitted is text.
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let ports = request.port_range.map(text).or(request.port.map(|port| port.to_string()));
        Self(
            request.network.map(text),
            ports,
            Some(request.protocol),
            request.icmp_type,
            request.icmp_code,
            request.log.then_some(true),
        )
    }
}

impl TryFrom<OutFields> for NetOut {
    type Error = Error;

    fn try_from(fields: OutFields) -> Result<Self, Error> {
        let OutFields(network, ports, protocol, icmp_type, icmp_code, log) = fields;
        let request = Self {
            network: network.map(String::into_bytes),
            port: None,
            port_range: ports.map(String::into_bytes),
            protocol: protocol.unwrap_or_default(),
            icmp_type,
            icmp_code,
            log: log.unwrap_or_default(),
        };
        rule::read(&request).map(|_| request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(protocol: Transport, host_port: u16, container_port: u16) -> PortMapping {
        PortMapping { protocol, host_port, container_port }
    }

    #[test]
    fn a_snapshot_has_the_originals_form() {
        let records = Records {
            net_in: vec![mapping(Transport::Tcp, 61_001, 8_080), mapping(Transport::Udp, 53, 5_353)],
            net_out: vec![
                NetOut { network: Some(b"4.2.2.2".to_vec()), port: Some(80), ..NetOut::default() },
                NetOut {
                    port_range: Some(b"80:90".to_vec()),
                    protocol: Protocol::Udp,
                    log: true,
                    ..NetOut::default()
                },
                NetOut {
                    network: Some(b"10.0.0.0/8".to_vec()),
                    protocol: Protocol::Icmp,
                    icmp_type: Some(8),
                    icmp_code: Some(-1),
                    ..NetOut::default()
                },
            ],
        };
        let text = serde_json::to_string(&records).unwrap();
        let expected = concat!(
            r#"{"net_in":[[61001,8080],[53,5353,"udp"]],"#,
            r#""net_out":[["4.2.2.2","80","tcp",null,null,null],[null,"80:90","udp",null,null,true],"#,
            r#"["10.0.0.0/8",null,"icmp",8,-1,null]]}"#
        );
        assert_eq!(text, expected);
        let read: Records = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        for (one, other) in read.net_out.iter().zip(&records.net_out) {
            assert_eq!(rule::read(one).unwrap(), rule::read(other).unwrap());
        }
        let originals = r#"{"net_in":[[61001,61001]],"net_out":[["4.2.2.2","80",null,null,null,null]]}"#;
        assert_eq!(serde_json::from_str::<Records>(originals).unwrap().net_out[0].protocol, Protocol::Tcp);
    }

    #[test]
    fn a_snapshot_that_cannot_be_is_refused_by_its_value() {
        for (text, part) in [
            (r#"{"net_in":[[0,1]],"net_out":[]}"#, "\"0\""),
            (r#"{"net_in":[[1,70000]],"net_out":[]}"#, ""),
            (r#"{"net_in":[[1,1,"icmp"]],"net_out":[]}"#, ""),
            (r#"{"net_in":[],"net_out":[["1.2.3.4/40",null,"tcp",null,null,null]]}"#, "1.2.3.4/40"),
            (r#"{"net_in":[],"net_out":[[null,"0","tcp",null,null,null]]}"#, "\"0\""),
            (r#"{"net_in":[],"net_out":[[null,null,"all",null,null,null]]}"#, "specify network"),
        ] {
            let refused = serde_json::from_str::<Records>(text).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
