//! What rules are made of.
//!
//! An expression reads something of the packet into a register, or looks at a register and ends the rule where it does
//! not match. Registers are the kernel's of four bytes each: `slot` counts them from 0.

use super::super::Attributes;

/// The kernel's number of slot 0.
const FIRST_SLOT: u32 = 8;
/// The register that a verdict is put into.
const VERDICT: u32 = 0;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It leaves this chain's hook accepted.
    Accept,
    /// It is gone.
    Drop,
    /// It passes through a chain, then goes on behind this rule.
    Jump(&'a str),
    /// It passes through a chain instead of the rest of this one.
    Goto(&'a str),
}

impl Verdict<'_> {
    pub(super) fn write(self, data: &mut Attributes<'_>) {
        let (code, chain) = match self {
            Self::Accept => (1, None),
            Self::Drop => (0, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        data.nested(2, |verdict| {
            verdict.bytes(1, &i32::to_be_bytes(code));
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    }
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Name of the interface that it came by, in four slots.
    InputInterface = 6,
    /// Name of the interface that it leaves by, in four slots.
    OutputInterface = 7,
    /// Its address family: one byte.
    Family = 15,
    /// Its protocol over IP: one byte.
    Protocol = 16,
}

/// What is known of a packet's connection; nothing of what belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Its state: four bytes of bits in the machine's order. What belongs to none has one too.
    State = 0,
    /// What was done to it, likewise.
    Status = 2,
    /// Its mark, likewise.
    Mark = 3,
    /// Its address family: one byte.
    Family = 7,
    /// Its protocol over IP: one byte.
    Protocol = 10,
}

impl Connection {
    /// The state of packets that can belong to none.
    pub const INVALID: u32 = 1;
    /// The state of packets that belong to a connection.
    pub const ESTABLISHED: u32 = 2;
    /// The state of packets that a connection causes.
    pub const RELATED: u32 = 4;
    /// The state of the first packet.
    pub const NEW: u32 = 8;
    /// The status of connections whose destination was changed.
    pub const REDIRECTED: u32 = 0x20;
}

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of the header of IP.
    Network = 1,
    /// Of the header over IP.
    Transport = 2,
}

/// How a register is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// It is the value.
    Equal = 0,
    /// It is another.
    Different = 1,
}

/// A part of a rule; `slot` is the first register that it reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the named things")]
pub enum Expression<'a> {
    /// Reads what is known of the packet.
    Meta { key: Meta, slot: u32 },
    /// Reads what is known of its connection.
    Connection { key: Connection, slot: u32 },
    /// Reads bytes of the packet.
    Payload { part: Part, offset: u32, length: u32, slot: u32 },
    /// Reads what kind of address its destination is to this host.
    DestinationKind { slot: u32 },
    /// Puts a value into registers.
    Value { slot: u32, value: &'a [u8] },
    /// Keeps the bits of a register that the mask has.
    Mask { slot: u32, mask: &'a [u8] },
    /// Sets these bits of a register.
    SetBits { slot: u32, bits: &'a [u8] },
    /// Makes a register the mark of the packet's connection.
    MarkConnection { slot: u32 },
    /// Goes on where the comparison holds.
    Compare { slot: u32, how: Compare, value: &'a [u8] },
    /// Goes on where the register lies in a range, both ends included.
    Range { slot: u32, from: &'a [u8], to: &'a [u8] },
    /// Goes on where a set has the key.
    Lookup { set: &'a str, slot: u32 },
    /// Takes the value of a key from a map; goes on where it has one.
    Map { set: &'a str, slot: u32, into: u32 },
    /// Takes the verdict of a key from a map; goes on where it has none.
    VerdictMap { set: &'a str, slot: u32 },
    /// Sends to the address and the port in two registers; the address is one of IPv4 or of IPv6.
    Redirect { ipv6: bool, address: u32, port: u32 },
    /// Hides the source behind the host's address.
    Masquerade,
    /// Writes a line with this prefix to the kernel's log.
    Log { prefix: &'a str },
    /// Drops the packet and tells its sender that this is forbidden.
    Reject,
    /// Ends the rule.
    Verdict(Verdict<'a>),
}

/// The kind of address that is the host's own.
pub(crate) const LOCAL: u32 = 2;
const FIB_KIND: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const NAT_DESTINATION: u32 = 1;
const FAMILY_INET: u32 = 2;
const FAMILY_INET6: u32 = 10;
const REJECT_BY_FAMILY: u32 = 2;
/// What iptables says by default: who connects hears "connection refused".
const PORT_UNREACHABLE: u8 = 1;
const LEVEL_INFO: u32 = 6;

impl Expression<'_> {
    /// The value of [`Expression::DestinationKind`] that is the host's own.
    pub const LOCAL: [u8; 4] = LOCAL.to_ne_bytes();

    pub(crate) fn write(&self, item: &mut Attributes<'_>) {
        item.text(1, self.name()).nested(2, |data| self.write_data(data));
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Connection { .. } | Self::MarkConnection { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::DestinationKind { .. } => "fib",
            Self::Mask { .. } | Self::SetBits { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Lookup { .. } | Self::Map { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Redirect { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Log { .. } => "log",
            Self::Reject => "reject",
            Self::Value { .. } | Self::Verdict(_) => "immediate",
        }
    }

    fn write_data(&self, data: &mut Attributes<'_>) {
        match *self {
            Self::Meta { key, slot } => data.big(1, register(slot)).big(2, key as u32),
            Self::Connection { key, slot } => data.big(1, register(slot)).big(2, key as u32),
            Self::Payload { part, offset, length, slot } => {
                data.big(1, register(slot)).big(2, part as u32).big(3, offset).big(4, length)
            }
            Self::DestinationKind { slot } => {
                data.big(1, register(slot)).big(2, FIB_KIND).big(3, FIB_DESTINATION)
            }
            Self::Value { slot, value: bytes } => {
                data.big(1, register(slot));
                value(data, 2, bytes)
            }
            Self::MarkConnection { slot } => data.big(2, Connection::Mark as u32).big(4, register(slot)),
            Self::Mask { slot, mask } => bitwise(data, slot, mask, &vec![0; mask.len()]),
            Self::SetBits { slot, bits } => {
                let others: Vec<_> = bits.iter().map(|byte| !byte).collect();
                bitwise(data, slot, &others, bits)
            }
            Self::Compare { slot, how, value: with } => {
                data.big(1, register(slot)).big(2, how as u32);
                value(data, 3, with)
            }
            Self::Range { slot, from, to } => {
                data.big(1, register(slot)).big(2, 0);
                value(data, 3, from);
                value(data, 4, to)
            }
            Self::Lookup { set, slot } => data.text(1, set).big(2, register(slot)),
            Self::Map { set, slot, into } => data.text(1, set).big(2, register(slot)).big(3, register(into)),
            Self::VerdictMap { set, slot } => data.text(1, set).big(2, register(slot)).big(3, VERDICT),
            Self::Redirect { ipv6, address, port } => data
                .big(1, NAT_DESTINATION)
                .big(2, if ipv6 { FAMILY_INET6 } else { FAMILY_INET })
                .big(3, register(address))
                .big(5, register(port)),
            Self::Masquerade => data,
            Self::Log { prefix } => data.text(2, prefix).big(5, LEVEL_INFO),
            Self::Reject => data.big(1, REJECT_BY_FAMILY).bytes(2, &[PORT_UNREACHABLE]),
            Self::Verdict(verdict) => data.big(1, VERDICT).nested(2, |inner| verdict.write(inner)),
        };
    }
}

fn register(slot: u32) -> u32 {
    FIRST_SLOT + slot
}

/// Keeps the bits of a register that `mask` has, then turns those that `flip` has.
fn bitwise<'a, 'b>(
    data: &'a mut Attributes<'b>,
    slot: u32,
    mask: &[u8],
    flip: &[u8],
) -> &'a mut Attributes<'b> {
    data.big(1, register(slot)).big(2, register(slot)).big(3, mask.len() as u32);
    value(data, 4, mask);
    value(data, 5, flip)
}

fn value<'a, 'b>(data: &'a mut Attributes<'b>, kind: u16, bytes: &[u8]) -> &'a mut Attributes<'b> {
    data.nested(kind, |inner| {
        inner.bytes(1, bytes);
    })
}
