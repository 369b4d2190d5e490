//! Messages about what may go into and out of a container's network.

use crate::schema::schema;

schema! {
    /// Forwards a port of the host to the container.
    message NetInRequest {
        /// The container.
        1 handle: required string,
        /// Port in the container; the host's number when absent.
        2 container_port: optional uint32,
        /// Port on the host; the next of the pool when absent.
        3 host_port: optional uint32,
        /// Protocol; TCP when absent.
        4 protocol: optional enum Transport,
    }

    /// A protocol that has ports.
    enum Transport "Protocol" {
        /// TCP.
        Tcp "TCP" = 0,
        /// UDP.
        Udp "UDP" = 1,
    }

    /// The ports that are connected.
    message NetInResponse {
        /// Port on the host.
        1 host_port: required uint32,
        /// Port in the container.
        2 container_port: required uint32,
    }

    /// Allows the container to reach a network, a port, or both.
    message NetOutRequest {
        /// The container.
        1 handle: required string,
        /// Address, network (`a.b.c.d/n`) or range (`a.b.c.d-e.f.g.h`) of IPv4 or IPv6; any when absent.
        2 network: optional string,
        /// Port there; any when absent.
        3 port: optional uint32,
        /// Range of ports there (`first:last`); it wins over a port.
        4 port_range: optional string,
        /// Protocol; TCP when absent.
        5 protocol: optional enum Protocol,
        /// ICMP type, of ICMPv6 for a network of IPv6; -1 is any.
        6 icmp_type: optional int32,
        /// ICMP code; -1 is any.
        7 icmp_code: optional int32,
        /// Write new connections to the kernel's log.
        8 log: optional bool,
    }

    /// A protocol over IP.
    enum Protocol "Protocol" {
        /// TCP.
        Tcp "TCP" = 0,
        /// UDP.
        Udp "UDP" = 1,
        /// ICMP.
        Icmp "ICMP" = 2,
        /// Every protocol.
        All "ALL" = 3,
    }

    /// Says that it is allowed.
    message NetOutResponse {}
}
