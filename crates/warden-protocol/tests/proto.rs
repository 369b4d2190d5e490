//! docs/warden.proto says the same as the declarations of the messages.
//!
//! `UPDATE=1 cargo test -p warden-protocol --test proto` writes the file anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write;

use warden_protocol::descriptor::{FieldDescriptor, Kind, Label, MessageDescriptor};
use warden_protocol::envelope::COMMANDS;
use warden_protocol::messages::{ErrorResponse, InfoResponse, NetOutRequest, Protocol, ResourceLimits};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/warden.proto");

const HEAD: &str = "\
// Warden's messages, for client authors. docs/protocol.md says how they travel.
//
// Strings hold any bytes: a library that insists on UTF-8 in them needs `bytes` in their place, which is the same on
// the wire.

syntax = \"proto2\";

package warden;

";

#[test]
fn the_file_agrees_with_the_declarations() {
    let text = file();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    assert!(std::fs::read_to_string(FILE).unwrap() == text, "docs/warden.proto says something else");
}

fn file() -> String {
    let mut text = HEAD.to_owned();
    write_envelope(&mut text);
    for message in [&ErrorResponse::DESCRIPTOR, &ResourceLimits::DESCRIPTOR] {
        write_message(&mut text, message, 0);
    }
    for command in COMMANDS {
        write_message(&mut text, command.request, 0);
        write_message(&mut text, command.response, 0);
    }
    text.trim_end().to_owned() + "\n"
}

fn write_envelope(text: &mut String) {
    text.push_str(
        "// What a frame holds: a request and its response have the same type.\nmessage Message {\n",
    );
    text.push_str("  enum Type {\n    Error = 1;\n");
    for command in COMMANDS {
        let name = command.request.name.strip_suffix("Request").unwrap();
        assert_eq!(command.response.name.strip_suffix("Response"), Some(name));
        writeln!(text, "    {name} = {};", command.number).unwrap();
    }
    text.push_str("  }\n\n  required Type type = 1;\n");
    text.push_str("  // The encoded message of that type.\n  required bytes payload = 2;\n}\n\n");
}

fn write_message(text: &mut String, message: &MessageDescriptor, depth: usize) {
    let indent = "  ".repeat(depth);
    writeln!(text, "{indent}// {}", message.doc).unwrap();
    if message.fields.is_empty() {
        writeln!(text, "{indent}message {} {{}}\n", message.name).unwrap();
        return;
    }
    writeln!(text, "{indent}message {} {{", message.name).unwrap();
    for (position, field) in message.fields.iter().enumerate() {
        // A type of several fields is declared once.
        let earlier = &message.fields[..position];
        let is_declared = earlier.iter().any(|other| other.kind.to_string() == field.kind.to_string());
        if !is_declared && elsewhere(message, field).is_none() {
            write_declared_inside(text, field, depth + 1);
        }
    }
    for field in message.fields {
        write_field(text, message, field, depth + 1);
    }
    writeln!(text, "{indent}}}\n").unwrap();
}

/// The message that declares the enum of a field, where that is another one than the field's own.
fn elsewhere(message: &MessageDescriptor, field: &FieldDescriptor) -> Option<&'static str> {
    let owner = NetOutRequest::DESCRIPTOR.name;
    let shared = matches!(field.kind, Kind::Enum(of) if of.name == Protocol::DESCRIPTOR.name && of.values.len() == Protocol::DESCRIPTOR.values.len());
    (shared && message.name != owner).then_some(owner)
}

/// Writes the message or enum of a field where it belongs to the message around it.
fn write_declared_inside(text: &mut String, field: &FieldDescriptor, depth: usize) {
    let indent = "  ".repeat(depth);
    match field.kind {
        Kind::Message(of)
            if ![InfoResponse::DESCRIPTOR.name, ResourceLimits::DESCRIPTOR.name].contains(&of.name) =>
        {
            write_message(text, of, depth);
        }
        Kind::Enum(of) => {
            writeln!(text, "{indent}enum {} {{", of.name).unwrap();
            for (name, number) in of.values {
                writeln!(text, "{indent}  {name} = {number};").unwrap();
            }
            writeln!(text, "{indent}}}\n").unwrap();
        }
        _ => {}
    }
}

fn write_field(text: &mut String, message: &MessageDescriptor, field: &FieldDescriptor, depth: usize) {
    let indent = "  ".repeat(depth);
    let label = match field.label {
        Label::Required => "required",
        Label::Optional => "optional",
        Label::Repeated => "repeated",
    };
    let default = if matches!(field.kind, Kind::Flag) { " [default = false]" } else { "" };
    writeln!(text, "{indent}// {}", field.doc).unwrap();
    let scope = elsewhere(message, field).map(|owner| format!("{owner}.")).unwrap_or_default();
    let kind = &field.kind;
    writeln!(text, "{indent}{label} {scope}{kind} {} = {}{default};", field.name, field.number).unwrap();
}
