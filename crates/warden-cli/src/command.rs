//! From the words of a command to its request.

use warden_protocol::Request;
use warden_protocol::descriptor::{CommandDescriptor, EnumDescriptor, FieldDescriptor, Kind, Label};
use warden_protocol::envelope::COMMANDS;
use warden_protocol::reflect::{Reflect, Scalar};

use crate::arguments::no_value;
use crate::failure::Failure;
use crate::human::text;
use crate::integer;
use crate::shell::{self, Shell};

/// What a line of words asks.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// To explain something, or all there is.
    Help(Option<Topic>),
    /// To do something.
    Call(Call),
}

/// What can be explained by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Topic {
    /// A command of the protocol.
    Command(&'static CommandDescriptor),
    /// The shell.
    Shell,
}

/// What can be done.
#[derive(Debug)]
pub(crate) enum Call {
    /// Send a request, and print its answer.
    Request(Box<Request>),
    /// Print a table of the containers.
    Table,
    /// Open a shell in a container.
    Shell(Shell),
}

/// Reads a command and its flags.
pub(crate) fn parse(words: &[Vec<u8>]) -> Result<Parsed, Failure> {
    read(words).map_err(Failure::Usage)
}

fn read(words: &[Vec<u8>]) -> Result<Parsed, String> {
    let Some((name, words)) = words.split_first() else { return Ok(Parsed::Help(None)) };
    if name == b"help" {
        return words.first().map(|name| topic(name)).transpose().map(Parsed::Help);
    }
    let command = match topic(name)? {
        Topic::Command(command) => command,
        Topic::Shell => {
            return Ok(match Shell::parse(words)? {
                Some(shell) => Parsed::Call(Call::Shell(shell)),
                None => Parsed::Help(Some(Topic::Shell)),
            });
        }
    };
    if words.iter().any(|word| word == b"--help") && asks_for_help(command, words) {
        return Ok(Parsed::Help(Some(Topic::Command(command))));
    }
    if command.name == "list" && !words.is_empty() && words.iter().all(|word| word == LONG.as_bytes()) {
        return Ok(Parsed::Call(Call::Table));
    }
    let mut reading = Reading::new(command).ok_or_else(|| unknown(name))?;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        reading.take(word, &mut words)?;
    }
    match reading.request.missing() {
        Some(field) => Err(format!("Command: '{}', the flag: '--{field}' is required.", command.name)),
        None => Ok(Parsed::Call(Call::Request(Box::new(reading.request)))),
    }
}

/// The flag of list that asks for a table.
pub(crate) const LONG: &str = "--long";

/// The fields that a command takes from bare words, in their order.
pub(crate) fn bare_fields(command: &CommandDescriptor) -> &'static [&'static str] {
    match command.name {
        "run" | "spawn" => &["handle", "script"],
        "link" | "stream" => &["handle", "job_id"],
        _ if command.request.field("handle").is_some() => &["handle"],
        _ => &[],
    }
}

/// Finds the field that a flag such as `--rlimits.as` or `--bind_mounts[0].mode` names.
pub(crate) fn flag_field(command: &CommandDescriptor, flag: &str) -> Option<&'static FieldDescriptor> {
    let mut message = command.request;
    let mut segments = flag.strip_prefix("--")?.split('.').peekable();
    loop {
        let segment = segments.next()?;
        let field = message.field(segment.split('[').next().unwrap_or(segment))?;
        match field.kind {
            _ if segments.peek().is_none() => return Some(field),
            Kind::Message(nested) => message = nested,
            _ => return None,
        }
    }
}

/// A request of which some words were read.
struct Reading {
    request: Request,
    /// The fields that bare words may still fill.
    bare: std::slice::Iter<'static, &'static str>,
    /// The fields that bare words have filled.
    filled: Vec<&'static str>,
}

impl Reading {
    fn new(command: &CommandDescriptor) -> Option<Self> {
        let request = Request::new(command.name)?;
        Some(Self { request, bare: bare_fields(command).iter(), filled: Vec::new() })
    }

    /// Takes a flag with its value, or a bare word.
    fn take<'a>(
        &mut self,
        word: &'a Vec<u8>,
        values: &mut impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), String> {
        if word.starts_with(b"-") {
            // Of two handles, one is a mistake, and the wrong container might be destroyed.
            if let Some(field) = self.filled.iter().find(|field| word[..] == *format!("--{field}").as_bytes())
            {
                return Err(format!("In flag: '--{field}', the value is given twice."));
            }
            return set(self.request.message_mut(), word, values);
        }
        let message = self.request.message();
        let is_unset = |field: &&'static str| {
            let field = message.descriptor().field(field);
            field.is_some_and(|field| message.values(field.number).is_empty())
        };
        let field = self.bare.by_ref().copied().find(is_unset);
        let field = field.ok_or_else(|| format!("Invalid flag: '{}'.", text(word)))?;
        self.filled.push(field);
        set(self.request.message_mut(), format!("--{field}").as_bytes(), &mut std::iter::once(word))
    }
}

fn topic(name: &[u8]) -> Result<Topic, String> {
    if name == shell::NAME.as_bytes() { Ok(Topic::Shell) } else { find(name).map(Topic::Command) }
}

fn find(name: &[u8]) -> Result<&'static CommandDescriptor, String> {
    COMMANDS.iter().find(|command| command.name.as_bytes() == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &[u8]) -> String {
    format!("Command: '{}' is non-existent.", text(name))
}

/// Tells whether `--help` stands where a flag does; as the value of one it is no question.
fn asks_for_help(command: &CommandDescriptor, words: &[Vec<u8>]) -> bool {
    let Some(mut probe) = Reading::new(command) else { return false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == b"--help" {
            return true;
        }
        if probe.take(word, &mut words).is_err() {
            // What is wrong with the flag matters less to somebody who asks how to write it.
            return words.any(|word| word == b"--help");
        }
    }
    false
}

/// Sets the field that a flag names to the value that may follow it.
fn set<'a>(
    message: &mut dyn Reflect,
    word: &[u8],
    values: &mut impl Iterator<Item = &'a Vec<u8>>,
) -> Result<(), String> {
    let flag = text(word);
    if word == b"--" {
        return Err("Delimiter: '--' specified multiple times.".to_owned());
    }
    let path = flag.strip_prefix("--").filter(|path| !path.is_empty() && !path.contains(char::is_whitespace));
    let path = path.ok_or_else(|| format!("Invalid flag: '{flag}'."))?;
    let mut segments = path.split('.').map(|segment| Segment::parse(segment, &flag)).peekable();
    let mut message = message;
    while let Some(segment) = segments.next() {
        let segment = segment?;
        let field = segment.field(message, &flag)?;
        if segments.peek().is_some() {
            message = segment.enter(message, field, &flag)?;
        } else {
            return put(message, &segment, field, &flag, values);
        }
    }
    Ok(())
}

/// A part of a flag's path: a field's name, and an index where there may be several.
struct Segment<'a> {
    text: &'a str,
    name: &'a str,
    index: Option<usize>,
}

impl<'a> Segment<'a> {
    fn parse(text: &'a str, flag: &str) -> Result<Self, String> {
        let invalid = || format!("Invalid flag: '{flag}'.");
        let Some((name, index)) = text.split_once('[') else {
            return Ok(Self { text, name: text, index: None });
        };
        let index = index.strip_suffix(']').ok_or_else(invalid)?;
        if !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        Ok(Self { text, name, index: Some(index.parse().map_err(|_| invalid())?) })
    }

    /// Finds the field of a message; it must be indexed exactly if it is repeated.
    fn field(&self, message: &dyn Reflect, flag: &str) -> Result<&'static FieldDescriptor, String> {
        let field = message.descriptor().field(self.name).ok_or_else(|| self.invalid(flag))?;
        match (field.label, self.index) {
            (Label::Repeated, None) => {
                Err(format!("In flag: '{flag}', the field: '{}' is not indexed.", self.name))
            }
            (Label::Required | Label::Optional, Some(_)) => Err(self.invalid(flag)),
            _ => Ok(field),
        }
    }

    /// Goes into the message that the field holds.
    fn enter<'m>(
        &self,
        message: &'m mut dyn Reflect,
        field: &FieldDescriptor,
        flag: &str,
    ) -> Result<&'m mut dyn Reflect, String> {
        if !matches!(field.kind, Kind::Message(_)) {
            return Err(self.invalid(flag));
        }
        message.nested(field.number, self.index.unwrap_or(0)).map_err(|_| self.badly_indexed(flag))
    }

    fn invalid(&self, flag: &str) -> String {
        format!("In flag: '{flag}', the field: '{}' is invalid.", self.text)
    }

    fn badly_indexed(&self, flag: &str) -> String {
        format!("In flag: '{flag}', the field: '{}' is not indexed correctly.", self.name)
    }
}

/// Puts the value of a flag into its field.
fn put<'a>(
    message: &mut dyn Reflect,
    segment: &Segment<'_>,
    field: &FieldDescriptor,
    flag: &str,
    values: &mut impl Iterator<Item = &'a Vec<u8>>,
) -> Result<(), String> {
    if segment.index.is_some_and(|index| index != message.values(field.number).len()) {
        return Err(segment.badly_indexed(flag));
    }
    let mut value = || values.next().ok_or_else(|| no_value(flag));
    let scalar = match field.kind {
        Kind::Message(_) => return Err(segment.invalid(flag)),
        Kind::Bool | Kind::Flag => Scalar::Bool(true),
        Kind::String => Scalar::Bytes(value()?.clone()),
        Kind::Uint32 => Scalar::Unsigned(number::<u32>(value()?, flag)?.into()),
        Kind::Uint64 => Scalar::Unsigned(number(value()?, flag)?),
        Kind::Int32 => Scalar::Signed(number(value()?, flag)?),
        Kind::Enum(of) => Scalar::Signed(constant(value()?, of)?),
    };
    message.put(field.number, scalar).map_err(|_| segment.invalid(flag))
}

/// A type of numbers and what is in it.
trait Number: TryFrom<i128> {
    const RANGE: &str;
}

impl Number for u32 {
    const RANGE: &str = "0 to 4294967295";
}

impl Number for u64 {
    const RANGE: &str = "0 to 18446744073709551615";
}

impl Number for i32 {
    const RANGE: &str = "-2147483648 to 2147483647";
}

fn number<N: Number>(value: &[u8], flag: &str) -> Result<N, String> {
    let number = std::str::from_utf8(value).ok().and_then(integer::parse);
    number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| {
        format!("In flag: '{flag}', the value: '{}' is not a number from {}.", text(value), N::RANGE)
    })
}

fn constant(value: &[u8], of: &EnumDescriptor) -> Result<i32, String> {
    let value = text(value);
    of.number(&value).ok_or_else(|| {
        let names: Vec<_> = of.values.iter().map(|value| value.0).collect();
        let names = names.join(", ");
        format!("The constant: '{value}' is not defined in the module: '{}' ({names}).", of.name)
    })
}

#[cfg(test)]
mod tests;
