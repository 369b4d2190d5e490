//! Responses as JSON for programs.

use serde_json::{Map, Value as Json, json};
use warden_protocol::descriptor::{FieldDescriptor, Label};
use warden_protocol::reflect::{Reflect, Value};

use crate::print;

/// Makes an object of the fields that are set; a string that is not UTF-8 becomes an object with the key `base64`.
pub(crate) fn object(message: &dyn Reflect) -> Json {
    let mut object = Map::new();
    for field in message.descriptor().fields {
        let mut values: Vec<Json> =
            message.values(field.number).into_iter().map(|value| convert(value, field)).collect();
        if field.label != Label::Repeated {
            object.extend(values.pop().map(|value| (field.name.to_owned(), value)));
        } else if !values.is_empty() {
            object.insert(field.name.to_owned(), Json::Array(values));
        }
    }
    Json::Object(object)
}

fn convert(value: Value<'_>, field: &FieldDescriptor) -> Json {
    match value {
        Value::Bytes(bytes) => text(bytes),
        Value::Unsigned(number) => json!(number),
        Value::Signed(number) => print::name(number, field).map_or(json!(number), |name| json!(name)),
        Value::Bool(flag) => json!(flag),
        Value::Message(nested) => object(nested),
    }
}

/// Makes a string of bytes, or an object with the key `base64` if they are not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}

/// Encodes bytes in the alphabet of RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            (0..3).fold(0usize, |bits, at| bits << 8 | usize::from(group.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let present = digit <= group.len();
            text.push(if present { ALPHABET[bits >> (18 - 6 * digit) & 63].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use warden_protocol::messages::*;

    #[test]
    fn set_fields_are_members() {
        let answer = LinkResponse {
            exit_status: Some(0),
            stdout: Some("h\u{e9}\n".into()),
            stderr: Some(b"\xff".to_vec()),
            info: Some(InfoResponse {
                events: vec![b"out of memory".to_vec()],
                memory_stat: Some(MemoryStat { cache: Some(u64::MAX), ..MemoryStat::default() }),
                ..InfoResponse::default()
            }),
        };
        let expected = r#"{"exit_status":0,"info":{"events":["out of memory"],"memory_stat":{"cache":18446744073709551615}},"stderr":{"base64":"/w=="},"stdout":"hé\n"}"#;
        assert_eq!(object(&answer).to_string(), expected);
        assert_eq!(object(&PingResponse {}).to_string(), "{}");
        let request = NetOutRequest { protocol: Some(3), log: Some(false), ..NetOutRequest::default() };
        assert_eq!(object(&request).to_string(), r#"{"log":false,"protocol":"ALL"}"#);
    }

    #[test]
    fn base64_is_padded() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(b"\xfb\xff\xbf"), "+/+/");
    }
}
