//! The language in which the messages are declared.
//!
//! `message NAME { NUMBER FIELD: LABEL TYPE, ... }` declares a message once: its structure with the wire format of
//! each field, its descriptor, and the access to its fields by number all follow from it. The types are the
//! protocol's; `flag` is a bool whose declared default is false. A required field is an `Option` too: whether a
//! decoded message holds what it must is a question for [`crate::reflect::missing`], whose answer names the field.

/// Declares messages and enums.
macro_rules! schema {
    () => {};
    ($(#[doc = $doc:literal])+ message $message:ident { $($body:tt)* } $($rest:tt)*) => {
        schema!(@fields $message [$($doc)+] {} $($body)*);
        schema!($($rest)*);
    };
    (
        $(#[doc = $doc:literal])+
        enum $enum:ident $name:literal {
            $($(#[doc = $about:literal])+ $variant:ident $text:literal = $number:literal,)+
        }
        $($rest:tt)*
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum {
            $($(#[doc = $about])+ $variant = $number,)+
        }

        impl $enum {
            /// Describes the enum.
            pub const DESCRIPTOR: $crate::descriptor::EnumDescriptor = $crate::descriptor::EnumDescriptor {
                name: $name,
                values: &[$(($text, $number)),+],
            };
        }

        impl TryFrom<i32> for $enum {
            type Error = i32;

            /// Finds the value of a number; fails with the number when there is none.
            fn try_from(number: i32) -> Result<Self, i32> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    other => Err(other),
                }
            }
        }

        impl From<$enum> for i32 {
            fn from(value: $enum) -> i32 {
                value as i32
            }
        }

        schema!($($rest)*);
    };

    // The type of the next field: its wire format, what holds it, and its description.
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident string, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [bytes = "vec"] [Vec<u8>] [String] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident uint32, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [uint32] [u32] [Uint32] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: repeated uint64, $($rest:tt)*) => {
        schema!(@label repeated $m $d $done [$($doc)+] $n $f [uint64, packed = "false"] [u64] [Uint64] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident uint64, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [uint64] [u64] [Uint64] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident int32, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [int32] [i32] [Int32] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident bool, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [bool] [bool] [Bool] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident flag, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [bool] [bool] [Flag] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident enum $t:ident, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [int32] [i32] [Enum(&$t::DESCRIPTOR)] $($rest)*);
    };
    (@fields $m:ident $d:tt $done:tt $(#[doc = $doc:literal])+ $n:tt $f:ident: $label:ident message $t:ident, $($rest:tt)*) => {
        schema!(@label $label $m $d $done [$($doc)+] $n $f [message] [$t] [Message(&$t::DESCRIPTOR)] $($rest)*);
    };

    // The label of that field; required is optional until the message is checked as a whole.
    (@label required $m:ident $d:tt {$($done:tt)*} $doc:tt $n:tt $f:ident $wire:tt $t:tt $kind:tt $($rest:tt)*) => {
        schema!(@fields $m $d {$($done)* {$doc $n $f $wire optional Option $t Required $kind}} $($rest)*);
    };
    (@label optional $m:ident $d:tt {$($done:tt)*} $doc:tt $n:tt $f:ident $wire:tt $t:tt $kind:tt $($rest:tt)*) => {
        schema!(@fields $m $d {$($done)* {$doc $n $f $wire optional Option $t Optional $kind}} $($rest)*);
    };
    (@label repeated $m:ident $d:tt {$($done:tt)*} $doc:tt $n:tt $f:ident $wire:tt $t:tt $kind:tt $($rest:tt)*) => {
        schema!(@fields $m $d {$($done)* {$doc $n $f $wire repeated Vec $t Repeated $kind}} $($rest)*);
    };

    // All fields are known.
    (@fields $message:ident [$($doc:literal)+] {$({
        [$($about:literal)+] $number:tt $field:ident
        [$($wire:tt)+] $occurs:ident $holder:ident [$($held:tt)+] $label:ident [$($kind:tt)+]
    })*}) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, ::prost::Message)]
        pub struct $message {
            $(
                $(#[doc = $about])+
                #[prost($($wire)+, $occurs, tag = $number)]
                pub $field: $holder<$($held)+>,
            )*
        }

        impl $message {
            /// Describes the message.
            pub const DESCRIPTOR: $crate::descriptor::MessageDescriptor = $crate::descriptor::MessageDescriptor {
                name: stringify!($message),
                doc: concat!($($doc),+).trim_ascii(),
                fields: &[$($crate::descriptor::FieldDescriptor {
                    number: $number,
                    name: $crate::descriptor::plain(stringify!($field)),
                    doc: concat!($($about),+).trim_ascii(),
                    label: $crate::descriptor::Label::$label,
                    kind: $crate::descriptor::Kind::$($kind)+,
                }),*],
            };
        }

        #[allow(unused_variables, reason = "a message may have no fields")]
        impl $crate::reflect::Reflect for $message {
            fn descriptor(&self) -> &'static $crate::descriptor::MessageDescriptor {
                &Self::DESCRIPTOR
            }

            fn values(&self, number: u32) -> Vec<$crate::reflect::Value<'_>> {
                match number {
                    $($number => $crate::reflect::Slot::values(&self.$field),)*
                    _ => Vec::new(),
                }
            }

            fn put(
                &mut self,
                number: u32,
                value: $crate::reflect::Scalar,
            ) -> Result<(), $crate::reflect::Mismatch> {
                match number {
                    $($number => $crate::reflect::Slot::put(&mut self.$field, value),)*
                    _ => Err($crate::reflect::Mismatch),
                }
            }

            fn nested(
                &mut self,
                number: u32,
                position: usize,
            ) -> Result<&mut dyn $crate::reflect::Reflect, $crate::reflect::Mismatch> {
                match number {
                    $($number => $crate::reflect::Slot::nested(&mut self.$field, position),)*
                    _ => Err($crate::reflect::Mismatch),
                }
            }
        }

        impl $crate::reflect::Element for $message {
            fn value(&self) -> $crate::reflect::Value<'_> {
                $crate::reflect::Value::Message(self)
            }

            fn from_scalar(_: $crate::reflect::Scalar) -> Result<Self, $crate::reflect::Mismatch> {
                Err($crate::reflect::Mismatch)
            }

            fn as_message(&mut self) -> Result<&mut dyn $crate::reflect::Reflect, $crate::reflect::Mismatch> {
                Ok(self)
            }
        }
    };
}

pub(crate) use schema;
