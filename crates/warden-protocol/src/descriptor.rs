//! What the messages are made of, for programs that derive something from it.

use std::fmt;

/// A message's name, meaning and fields.
#[derive(Debug)]
pub struct MessageDescriptor {
    /// Its name in the protocol, without the package and the messages around it.
    pub name: &'static str,
    /// A sentence or more on its meaning.
    pub doc: &'static str,
    /// Its fields, by number.
    pub fields: &'static [FieldDescriptor],
}

impl MessageDescriptor {
    /// Finds a field by its name.
    pub fn field(&self, name: &str) -> Option<&'static FieldDescriptor> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One field of a message.
#[derive(Debug)]
pub struct FieldDescriptor {
    /// Its number on the wire.
    pub number: u32,
    /// Its name in the protocol.
    pub name: &'static str,
    /// A sentence or more on its meaning and unit.
    pub doc: &'static str,
    /// How often it occurs.
    pub label: Label,
    /// What it holds.
    pub kind: Kind,
}

/// How often a field occurs in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// Exactly once.
    Required,
    /// Once or never.
    Optional,
    /// Any number of times.
    Repeated,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any bytes, mostly text.
    String,
    /// A number from 0 to 2^32-1.
    Uint32,
    /// A number from 0 to 2^64-1.
    Uint64,
    /// A number from -2^31 to 2^31-1.
    Int32,
    /// True or false.
    Bool,
    /// True or false, with false as the declared default.
    Flag,
    /// One of some named numbers.
    Enum(&'static EnumDescriptor),
    /// A message.
    Message(&'static MessageDescriptor),
}

impl fmt::Display for Kind {
    /// Writes the protocol's word for the type.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::String => "string",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Int32 => "int32",
            Self::Bool | Self::Flag => "bool",
            Self::Enum(of) => of.name,
            Self::Message(of) => of.name,
        })
    }
}

/// Named numbers.
#[derive(Debug)]
pub struct EnumDescriptor {
    /// Its name in the protocol, without the package and the messages around it.
    pub name: &'static str,
    /// The names and their numbers.
    pub values: &'static [(&'static str, i32)],
}

impl EnumDescriptor {
    /// Finds a number by its name.
    pub fn number(&self, name: &str) -> Option<i32> {
        self.values.iter().find(|value| value.0 == name).map(|value| value.1)
    }

    /// Finds a name by its number.
    pub fn name(&self, number: i32) -> Option<&'static str> {
        self.values.iter().find(|value| value.1 == number).map(|value| value.0)
    }
}

/// A request and its answer.
#[derive(Debug)]
pub struct CommandDescriptor {
    /// The type number that both have on the wire.
    pub number: i32,
    /// The command's name, such as `copy_in`.
    pub name: &'static str,
    /// What is asked.
    pub request: &'static MessageDescriptor,
    /// What is answered when all goes well.
    pub response: &'static MessageDescriptor,
}

/// Strips the mark of a raw identifier, so that `r#as` is called `as`.
pub(crate) const fn plain(identifier: &'static str) -> &'static str {
    match identifier.as_bytes() {
        [b'r', b'#', rest @ ..] => match std::str::from_utf8(rest) {
            Ok(name) => name,
            Err(_) => identifier,
        },
        _ => identifier,
    }
}
