//! Reading and writing the fields of a message by their numbers.

use crate::descriptor::{Kind, Label, MessageDescriptor};

/// A value in a message.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A string of any bytes.
    Bytes(&'a [u8]),
    /// A uint32 or uint64.
    Unsigned(u64),
    /// An int32, or the number of an enum.
    Signed(i32),
    /// A bool.
    Bool(bool),
    /// A message.
    Message(&'a dyn Reflect),
}

/// A value to put into a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string of any bytes.
    Bytes(Vec<u8>),
    /// A uint32 or uint64.
    Unsigned(u64),
    /// An int32, or the number of an enum.
    Signed(i32),
    /// A bool.
    Bool(bool),
}

/// The field does not exist, holds something else, or the number is too large for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the field does not hold such a value")]
pub struct Mismatch;

/// A message whose fields can be reached by their numbers.
pub trait Reflect {
    /// Describes the message.
    fn descriptor(&self) -> &'static MessageDescriptor;

    /// Lists the values of a field: none when it is not set or does not exist.
    fn values(&self, number: u32) -> Vec<Value<'_>>;

    /// Sets a field, or appends to a repeated one; fails when the field cannot hold the value.
    fn put(&mut self, number: u32, value: Scalar) -> Result<(), Mismatch>;

    /// Returns the message in a field, made when it is the next one; fails when the position lies beyond that.
    fn nested(&mut self, number: u32, position: usize) -> Result<&mut dyn Reflect, Mismatch>;
}

/// Names the first required field that is not set, such as `bind_mounts.dst_path`.
pub fn missing(message: &dyn Reflect) -> Option<String> {
    for field in message.descriptor().fields {
        if field.label != Label::Required && !matches!(field.kind, Kind::Message(_)) {
            continue;
        }
        let values = message.values(field.number);
        if field.label == Label::Required && values.is_empty() {
            return Some(field.name.to_owned());
        }
        let inner = values.iter().find_map(|value| match value {
            Value::Message(nested) => missing(*nested),
            _ => None,
        });
        if let Some(inner) = inner {
            return Some(format!("{}.{inner}", field.name));
        }
    }
    None
}

/// The content of one field: what a message holds of it.
pub(crate) trait Slot {
    fn values(&self) -> Vec<Value<'_>>;
    fn put(&mut self, value: Scalar) -> Result<(), Mismatch>;
    fn nested(&mut self, position: usize) -> Result<&mut dyn Reflect, Mismatch>;
}

/// One value of a field.
pub(crate) trait Element: Default {
    fn value(&self) -> Value<'_>;
    fn from_scalar(value: Scalar) -> Result<Self, Mismatch>;
    fn as_message(&mut self) -> Result<&mut dyn Reflect, Mismatch> {
        Err(Mismatch)
    }
}

impl<T: Element> Slot for Option<T> {
    fn values(&self) -> Vec<Value<'_>> {
        self.iter().map(Element::value).collect()
    }

    fn put(&mut self, value: Scalar) -> Result<(), Mismatch> {
        *self = Some(T::from_scalar(value)?);
        Ok(())
    }

    fn nested(&mut self, position: usize) -> Result<&mut dyn Reflect, Mismatch> {
        if position == 0 { self.get_or_insert_default().as_message() } else { Err(Mismatch) }
    }
}

impl<T: Element> Slot for Vec<T> {
    fn values(&self) -> Vec<Value<'_>> {
        self.iter().map(Element::value).collect()
    }

    fn put(&mut self, value: Scalar) -> Result<(), Mismatch> {
        self.push(T::from_scalar(value)?);
        Ok(())
    }

    fn nested(&mut self, position: usize) -> Result<&mut dyn Reflect, Mismatch> {
        if position == self.len() {
            self.push(T::default());
        }
        self.get_mut(position).ok_or(Mismatch)?.as_message()
    }
}

/// Implements `Element` for a scalar by its two variants' name and the two conversions.
macro_rules! scalar {
    ($type:ty, $variant:ident, $held:ident => $value:expr, $given:ident => $made:expr) => {
        impl Element for $type {
            fn value(&self) -> Value<'_> {
                let $held = self;
                Value::$variant($value)
            }

            fn from_scalar(value: Scalar) -> Result<Self, Mismatch> {
                match value {
                    Scalar::$variant($given) => $made,
                    _ => Err(Mismatch),
                }
            }
        }
    };
}

scalar!(Vec<u8>, Bytes, held => held, given => Ok(given));
scalar!(u32, Unsigned, held => u64::from(*held), given => u32::try_from(given).map_err(|_| Mismatch));
scalar!(u64, Unsigned, held => *held, given => Ok(given));
scalar!(i32, Signed, held => *held, given => Ok(given));
scalar!(bool, Bool, held => *held, given => Ok(given));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{CreateRequest, ListResponse, NetInRequest, RunRequest};

    #[test]
    fn fields_are_reached_by_number() {
        let mut request = CreateRequest::default();
        request.put(2, Scalar::Unsigned(7)).unwrap();
        request.nested(1, 0).unwrap().put(3, Scalar::Signed(1)).unwrap();
        request.nested(1, 1).unwrap().put(1, Scalar::Bytes(b"/\xff".to_vec())).unwrap();
        assert_eq!(request.grace_time, Some(7));
        assert_eq!(request.bind_mounts[0].mode, Some(1));
        assert_eq!(request.bind_mounts[1].src_path.as_deref(), Some(&b"/\xff"[..]));
        assert!(matches!(request.values(2)[..], [Value::Unsigned(7)]));
        assert_eq!(request.values(1).len(), 2);
        assert!(request.values(99).is_empty());

        let mut list = ListResponse::default();
        list.put(1, Scalar::Bytes(b"a".to_vec())).unwrap();
        list.put(1, Scalar::Bytes(b"b".to_vec())).unwrap();
        assert_eq!(list.handles, [b"a", b"b"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut request = NetInRequest::default();
        assert_eq!(request.put(2, Scalar::Unsigned(1 << 32)), Err(Mismatch));
        assert_eq!(request.put(2, Scalar::Bool(true)), Err(Mismatch));
        assert_eq!(request.put(9, Scalar::Bool(true)), Err(Mismatch));
        assert!(request.nested(1, 0).is_err());
        assert!(CreateRequest::default().nested(1, 1).is_err());
        assert!(RunRequest::default().nested(4, 1).is_err());
    }

    #[test]
    fn the_first_missing_field_is_named() {
        let mut request = CreateRequest::default();
        assert_eq!(missing(&request), None);
        request.nested(1, 0).unwrap().put(1, Scalar::Bytes(Vec::new())).unwrap();
        assert_eq!(missing(&request).as_deref(), Some("bind_mounts.dst_path"));
        assert_eq!(missing(&RunRequest::default()).as_deref(), Some("handle"));
    }
}
