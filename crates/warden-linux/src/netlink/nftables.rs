//! Tables, chains, rules and sets of nf_tables, in batches that the kernel does whole or not at all.

use std::net::IpAddr;

use super::{Attributes, Refusal, Requests, Socket, attribute, flag, octets, text};

mod comment;
mod expression;
mod listing;
mod watch;

pub use comment::table_comment;
pub use expression::{Compare, Connection, Expression, Meta, Part, Verdict};
pub use listing::{Element, elements, ruled_chains};
pub use watch::Watch;

/// The subsystem's number, in the upper byte of a message's kind.
const SUBSYSTEM: u16 = 10 << 8;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;

/// IPv4 and IPv6 together.
const INET: u8 = 1;
const UNSPECIFIED: u8 = 0;

const LIST_ITEM: u16 = 1;

/// A place in a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's names")]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a chain at a hook may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Change addresses, once per connection.
    Nat,
}

/// The type of a part of a key, which programs that list a set go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// An IPv4 address.
    Address,
    /// An IPv6 address.
    Address6,
    /// A protocol over IP.
    Protocol,
    /// A port.
    Port,
    /// The name of an interface.
    Interface,
}

impl Field {
    /// The number that nft gives the type.
    fn number(self) -> u32 {
        match self {
            Self::Address => 7,
            Self::Address6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Interface => 41,
        }
    }

    /// Bytes in a key, where each part begins at a multiple of four.
    fn length(self) -> u32 {
        self.width().next_multiple_of(4)
    }

    /// Bytes of its own.
    fn width(self) -> u32 {
        match self {
            Self::Address => 4,
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Address6 | Self::Interface => 16,
        }
    }
}

/// What the elements of a set hold beside their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds<'a> {
    /// Nothing.
    Nothing,
    /// Verdicts.
    Verdicts,
    /// Values of these parts.
    Values(&'a [Field]),
}

/// What an element holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<'a> {
    /// Nothing.
    Nothing,
    /// A verdict.
    Verdict(Verdict<'a>),
    /// A value as bytes.
    Value(&'a [u8]),
}

/// Changes of one table of the family `inet`: all of them are done, or none.
#[derive(Debug)]
pub struct Batch<'a> {
    table: &'a str,
    requests: Requests,
    sets: u32,
}

impl<'a> Batch<'a> {
    /// Begins changes of a table.
    pub fn new(table: &'a str) -> Self {
        let mut requests = Requests::default();
        requests.make_transaction();
        let action = format!("changing the table {table}");
        requests.push(action, BEGIN, 0, &header(UNSPECIFIED, 10), |_| {});
        Self { table, requests, sets: 0 }
    }

    /// Makes sure that the table exists.
    pub fn add_table(&mut self) {
        let (table, action) = (self.table, format!("making the table {}", self.table));
        self.push(action, NEW_TABLE, flag::CREATE, |attributes| {
            attributes.text(1, table);
        });
    }

    /// Makes the table with a comment, which `nft` shows; without it where the kernel cannot keep one as long (253 bytes,
    /// Linux 5.10).
    pub fn add_table_of(&mut self, comment: &str) {
        let (table, action) = (self.table, format!("making the table {}", self.table));
        self.push(action, NEW_TABLE, flag::CREATE, |attributes| {
            attributes.text(1, table);
            if let Some(data) = comment::write(comment) {
                attributes.bytes(6, &data);
            }
        });
    }

    /// Makes the table one of this socket's own: nobody else can change it, and it goes with the socket.
    pub fn add_owned_table(&mut self) {
        let (table, action) = (self.table, format!("making the table {}", self.table));
        self.push(action, NEW_TABLE, flag::CREATE | flag::EXCL, |attributes| {
            attributes.text(1, table).big(2, OWNER);
        });
    }

    /// Deletes the table, with all it holds.
    pub fn delete_table(&mut self) {
        let (table, action) = (self.table, format!("deleting the table {}", self.table));
        self.push(action, DELETE_TABLE, 0, |attributes| {
            attributes.text(1, table);
        });
    }

    /// Adds a chain that others jump to.
    pub fn add_chain(&mut self, name: &str) {
        let table = self.table;
        self.push(format!("making the chain {name}"), NEW_CHAIN, flag::CREATE | flag::EXCL, |attributes| {
            attributes.text(1, table).text(3, name);
        });
    }

    /// Adds a chain that packets enter at a hook, and leave accepted; chains of lower priority come first.
    pub fn add_base_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
        let table = self.table;
        self.push(format!("making the chain {name}"), NEW_CHAIN, flag::CREATE | flag::EXCL, |attributes| {
            attributes.text(1, table).text(3, name);
            attributes.nested(4, |place| {
                place.big(1, hook as u32).bytes(2, &priority.to_be_bytes());
            });
            attributes.big(5, 1);
            attributes.text(7, if kind == ChainKind::Nat { "nat" } else { "filter" });
        });
    }

    /// Deletes a chain with its rules; nothing may jump to it any more.
    pub fn delete_chain(&mut self, name: &str) {
        let table = self.table;
        self.push(format!("deleting the chain {name}"), DELETE_CHAIN, 0, |attributes| {
            attributes.text(1, table).text(3, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Expression<'_>]) {
        self.rule(chain, flag::CREATE | flag::APPEND, expressions);
    }

    /// Adds a rule at the beginning of a chain.
    pub fn insert_rule(&mut self, chain: &str, expressions: &[Expression<'_>]) {
        self.rule(chain, flag::CREATE, expressions);
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let table = self.table;
        self.push(format!("deleting the rules of the chain {name}"), DELETE_RULE, 0, |attributes| {
            attributes.text(1, table).text(2, name);
        });
    }

    fn rule(&mut self, chain: &str, flags: u16, expressions: &[Expression<'_>]) {
        let table = self.table;
        self.push(format!("adding a rule to the chain {chain}"), NEW_RULE, flags, |attributes| {
            attributes.text(1, table).text(2, chain);
            attributes.nested(4, |list| {
                for expression in expressions {
                    list.nested(LIST_ITEM, |item| expression.write(item));
                }
            });
        });
    }

    /// Adds a set, or a map: keys of these parts, with what the elements hold.
    pub fn add_set(&mut self, name: &str, key: &[Field], holds: Holds<'_>) {
        let table = self.table;
        self.sets += 1;
        let number = self.sets;
        self.push(format!("making the set {name}"), NEW_SET, flag::CREATE | flag::EXCL, |attributes| {
            attributes.text(1, table).text(2, name);
            attributes.big(3, if holds == Holds::Nothing { 0 } else { IS_MAP });
            attributes.big(4, types(key)).big(5, length(key));
            match holds {
                Holds::Nothing => {}
                Holds::Verdicts => {
                    attributes.big(6, VERDICTS).big(7, 0);
                }
                Holds::Values(fields) => {
                    attributes.big(6, types(fields)).big(7, length(fields));
                }
            }
            attributes.big(10, number);
            if key == [Field::Interface] {
                // A note of nft's to itself: it reads names alone in the machine's order.
                attributes.bytes(13, &MACHINE_ORDER);
            }
        });
    }

    /// Adds an element to a set; one with its key and another content is refused.
    pub fn add_element(&mut self, set: &str, key: &[u8], held: Held<'_>) {
        let table = self.table;
        let action = format!("adding an element to the set {set}");
        self.push(action, NEW_ELEMENT, flag::CREATE | flag::EXCL, |attributes| {
            attributes.text(1, table).text(2, set);
            attributes.nested(3, |list| {
                list.nested(LIST_ITEM, |element| {
                    element.nested(1, |value| {
                        value.bytes(1, key);
                    });
                    match held {
                        Held::Nothing => {}
                        Held::Verdict(verdict) => {
                            element.nested(2, |data| verdict.write(data));
                        }
                        Held::Value(bytes) => {
                            element.nested(2, |data| {
                                data.bytes(1, bytes);
                            });
                        }
                    }
                });
            });
        });
    }

    /// Deletes an element of a set.
    pub fn delete_element(&mut self, set: &str, key: &[u8]) {
        let table = self.table;
        let action = format!("deleting an element of the set {set}");
        self.push(action, DELETE_ELEMENT, 0, |attributes| {
            attributes.text(1, table).text(2, set);
            attributes.nested(3, |list| {
                list.nested(LIST_ITEM, |element| {
                    element.nested(1, |value| {
                        value.bytes(1, key);
                    });
                });
            });
        });
    }

    /// Does all changes, or none.
    pub fn commit(self, socket: &mut Socket) -> Result<(), Refusal> {
        socket.execute(self.finish())
    }

    fn finish(mut self) -> Requests {
        // The end itself is answered by recent kernels only.
        self.requests.acknowledge_last();
        let action = format!("changing the table {}", self.table);
        self.requests.push(action, END, 0, &header(UNSPECIFIED, 10), |_| {});
        self.requests
    }

    fn push(&mut self, action: String, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.requests.push(action, kind, flags, &header(INET, 0), fill);
    }
}

const OWNER: u32 = 2;
const IS_MAP: u32 = 8;
const MACHINE_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
const VERDICTS: u32 = 0xffff_ff00;

/// A chain that packets enter at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The number of its hook.
    pub hook: u32,
    /// Whether packets that none of its rules decides are dropped.
    pub drops: bool,
}

/// Lists all chains of all tables that packets enter at a hook.
pub fn base_chains(socket: &mut Socket) -> Result<Vec<BaseChain>, Refusal> {
    let mut request = Requests::default();
    let action = "listing the packet filter's chains".to_owned();
    request.push(action, GET_CHAIN, flag::DUMP, &header(UNSPECIFIED, 0), |_| {});
    let mut chains = Vec::new();
    socket.ask(request, |body| chains.extend(body.get(4..).and_then(read_base_chain)))?;
    Ok(chains)
}

fn read_base_chain(bytes: &[u8]) -> Option<BaseChain> {
    let big = |value: &[u8]| value.first_chunk().copied().map(u32::from_be_bytes);
    let hook = attribute(bytes, 4)?;
    Some(BaseChain {
        table: attribute(bytes, 1).map(text)?,
        name: attribute(bytes, 3).map(text)?,
        hook: attribute(hook, 1).and_then(big)?,
        drops: attribute(bytes, 5).and_then(big) == Some(0),
    })
}

/// A struct nfgenmsg.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The number that nft gives to parts in a row: six bits each.
fn types(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |number, field| number << 6 | field.number())
}

/// Bytes of parts in a row; one part alone is not padded.
fn length(fields: &[Field]) -> u32 {
    match fields {
        [field] => field.width(),
        fields => fields.iter().map(|field| field.length()).sum(),
    }
}

/// The name of an interface as it is in keys and registers.
pub fn interface(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}

/// An address as it is in keys and registers.
pub fn address(address: IpAddr) -> Vec<u8> {
    octets(address)
}

/// An interface's name and an address as one key.
pub fn interface_and_address(name: &str, address: IpAddr) -> Vec<u8> {
    [&interface(name)[..], &octets(address)].concat()
}

/// A protocol and a port as one key.
pub fn protocol_and_port(protocol: u8, port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [protocol, 0, 0, 0, high, low, 0, 0]
}

/// An address and a port as one value.
pub fn address_and_port(address: IpAddr, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [&octets(address)[..], &[high, low, 0, 0]].concat()
}
