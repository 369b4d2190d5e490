//! What the tests share: the samples, and messages written as text.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::fmt::Write;

use warden_protocol::descriptor::{Kind, MessageDescriptor};
use warden_protocol::reflect::{Reflect, Value};

pub mod exercise;

/// One sample of tests/data/wire-samples.txt.
pub struct Sample {
    pub name: String,
    pub fields: String,
    pub content: Vec<u8>,
}

impl Sample {
    pub fn frame(&self) -> Vec<u8> {
        frame(&self.content)
    }

    pub fn is_request(&self) -> bool {
        self.name.ends_with("Request")
    }
}

pub fn samples() -> Vec<Sample> {
    let mut lines = include_str!("../data/wire-samples.txt").lines().filter(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let mut samples = Vec::new();
    while let (Some(message), Some(content)) = (lines.next(), lines.next()) {
        let (name, fields) = message.split_once(' ').unwrap_or((message, ""));
        samples.push(Sample { name: name.into(), fields: fields.into(), content: unhex(content.trim()) });
    }
    samples
}

pub fn frame(content: &[u8]) -> Vec<u8> {
    [format!("{}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Writes a message's fields in the samples' notation.
pub fn notation(message: &dyn Reflect) -> String {
    let mut text = String::new();
    write_fields(message, "", &mut text);
    text.trim_start().to_owned()
}

fn write_fields(message: &dyn Reflect, prefix: &str, text: &mut String) {
    let descriptor: &MessageDescriptor = message.descriptor();
    for field in descriptor.fields {
        let repeated = field.label == warden_protocol::descriptor::Label::Repeated;
        for (position, value) in message.values(field.number).into_iter().enumerate() {
            let index = if repeated { format!("[{position}]") } else { String::new() };
            let path = format!("{prefix}{}{index}", field.name);
            match (value, field.kind) {
                (Value::Message(nested), _) => write_fields(nested, &format!("{path}."), text),
                (Value::Bytes(bytes), _) => write!(text, " {path}=\"{}\"", quote(bytes)).unwrap(),
                (Value::Unsigned(number), _) => write!(text, " {path}={number}").unwrap(),
                (Value::Bool(flag), _) => write!(text, " {path}={flag}").unwrap(),
                (Value::Signed(number), Kind::Enum(of)) => {
                    write!(text, " {path}={}", of.name(number).unwrap()).unwrap();
                }
                (Value::Signed(number), _) => write!(text, " {path}={number}").unwrap(),
            }
        }
    }
}

fn quote(bytes: &[u8]) -> String {
    let plain = |byte: u8| (32..127).contains(&byte) && byte != b'"' && byte != b'\\';
    bytes.iter().fold(String::new(), |text, &byte| {
        if plain(byte) { text + &char::from(byte).to_string() } else { text + &format!("\\x{byte:02x}") }
    })
}
