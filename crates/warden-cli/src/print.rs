//! Responses as lines for people.

use std::io::{self, Write};

use warden_protocol::descriptor::{FieldDescriptor, Kind, Label};
use warden_protocol::reflect::{Reflect, Value};

/// Writes a line `field : value` for each field that is set, with the path to it; strings as they are.
pub(crate) fn print(message: &dyn Reflect, out: &mut dyn Write) -> io::Result<()> {
    print_fields(message, "", out)
}

fn print_fields(message: &dyn Reflect, prefix: &str, out: &mut dyn Write) -> io::Result<()> {
    for field in message.descriptor().fields {
        for (position, value) in message.values(field.number).into_iter().enumerate() {
            let index = if field.label == Label::Repeated { format!("[{position}]") } else { String::new() };
            let path = format!("{prefix}{}{index}", field.name);
            match value {
                Value::Message(nested) => print_fields(nested, &format!("{path}."), out)?,
                value => {
                    write!(out, "{path} : ")?;
                    print_value(value, field, out)?;
                    out.write_all(b"\n")?;
                }
            }
        }
    }
    Ok(())
}

fn print_value(value: Value<'_>, field: &FieldDescriptor, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Bytes(bytes) => out.write_all(bytes),
        Value::Unsigned(number) => write!(out, "{number}"),
        Value::Signed(number) => match name(number, field) {
            Some(name) => out.write_all(name.as_bytes()),
            None => write!(out, "{number}"),
        },
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Message(_) => Ok(()),
    }
}

/// The name of an enum's number.
pub(crate) fn name(number: i32, field: &FieldDescriptor) -> Option<&'static str> {
    match field.kind {
        Kind::Enum(of) => of.name(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warden_protocol::messages::*;

    fn text(message: &dyn Reflect) -> Vec<u8> {
        let mut out = Vec::new();
        print(message, &mut out).unwrap();
        out
    }

    #[test]
    fn set_fields_are_lines() {
        let info = InfoResponse {
            state: Some(b"active".to_vec()),
            events: vec![b"out of memory".to_vec(), Vec::new()],
            cpu_stat: Some(CpuStat { usage: Some(1_000_000), user: Some(0), ..CpuStat::default() }),
            job_ids: vec![1, 300],
            ..InfoResponse::default()
        };
        let expected = "state : active\nevents[0] : out of memory\nevents[1] : \ncpu_stat.usage : 1000000\n\
                        cpu_stat.user : 0\njob_ids[0] : 1\njob_ids[1] : 300\n";
        assert_eq!(text(&info), expected.as_bytes());
    }

    #[test]
    fn strings_are_written_as_they_are() {
        let answer = LinkResponse {
            exit_status: Some(0),
            stdout: Some(b"\xff\x00\r\n".to_vec()),
            ..LinkResponse::default()
        };
        assert_eq!(text(&answer), b"exit_status : 0\nstdout : \xff\x00\r\n\n");
    }

    #[test]
    fn enums_are_named_and_empty_messages_say_nothing() {
        let mount = |mode| BindMount { mode: Some(mode), ..BindMount::default() };
        let request =
            CreateRequest { bind_mounts: vec![mount(0), mount(1), mount(7)], ..CreateRequest::default() };
        let expected = "bind_mounts[0].mode : RO\nbind_mounts[1].mode : RW\nbind_mounts[2].mode : 7\n";
        assert_eq!(text(&request), expected.as_bytes());
        assert_eq!(text(&NetOutRequest { log: Some(true), ..NetOutRequest::default() }), b"log : true\n");
        assert_eq!(text(&PingResponse {}), b"");
    }
}
