//! Requests and responses as they travel: a type number and a payload, in a frame.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{self, DecodeContext, WireType};

use crate::descriptor::CommandDescriptor;
use crate::error::DecodeError;
use crate::messages::*;
use crate::reflect::{self, Reflect, Value};

/// The type number of ErrorResponse.
const ERROR: i32 = 1;

/// A request message and what answers it.
pub trait Command: Into<Request> {
    /// The answer when all goes well.
    type Response;

    /// Takes the answer out of a response; gives a response of another command back.
    fn response(response: Response) -> Result<Self::Response, Box<Response>>;
}

/// Makes the two enums of one list: type number, variant, command, request and response.
macro_rules! commands {
    ($($number:literal $variant:ident $name:literal $request:ident $response:ident,)+) => {
        /// What a client asks.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $(#[doc = concat!("[`", stringify!($request), "`].")] $variant($request),)+
        }

        /// What the server answers.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Response {
            /// Says why a request failed.
            Error(ErrorResponse),
            $(#[doc = concat!("[`", stringify!($response), "`].")] $variant($response),)+
        }

        /// All commands, by type number.
        pub const COMMANDS: &[CommandDescriptor] = &[$(CommandDescriptor {
            number: $number,
            name: $name,
            request: &$request::DESCRIPTOR,
            response: &$response::DESCRIPTOR,
        },)+];

        impl Request {
            /// Makes an empty request of a command, such as `copy_in`.
            pub fn new(command: &str) -> Option<Self> {
                match command {
                    $($name => Some(Self::$variant($request::default())),)+
                    _ => None,
                }
            }

            /// Decodes the content of a frame; fails when it is no request, or lacks a field that it must have.
            pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
                let (number, payload) = open(body)?;
                match number {
                    $($number => decode_payload(payload, $request::DESCRIPTOR.name).map(Self::$variant),)+
                    ERROR => Err(DecodeError::ErrorAsRequest),
                    other => Err(DecodeError::UnknownType(other)),
                }
            }

            /// Encodes a whole frame.
            pub fn encode(&self) -> Bytes {
                match self {
                    $(Self::$variant(message) => seal($number, message),)+
                }
            }

            /// The command's name, such as `copy_in`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// The message, for reading its fields by number.
            pub fn message(&self) -> &dyn Reflect {
                match self {
                    $(Self::$variant(message) => message,)+
                }
            }

            /// The message, for writing its fields by number.
            pub fn message_mut(&mut self) -> &mut dyn Reflect {
                match self {
                    $(Self::$variant(message) => message,)+
                }
            }
        }

        impl Response {
            /// Decodes the content of a frame; fails when it is no response, or lacks a field that it must have.
            pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
                let (number, payload) = open(body)?;
                match number {
                    ERROR => decode_payload(payload, ErrorResponse::DESCRIPTOR.name).map(Self::Error),
                    $($number => decode_payload(payload, $response::DESCRIPTOR.name).map(Self::$variant),)+
                    other => Err(DecodeError::UnknownType(other)),
                }
            }

            /// Encodes a whole frame.
            pub fn encode(&self) -> Bytes {
                match self {
                    Self::Error(message) => seal(ERROR, message),
                    $(Self::$variant(message) => seal($number, message),)+
                }
            }

            /// The name of the command that is answered, or `error`.
            pub fn name(&self) -> &'static str {
                match self {
                    Self::Error(_) => "error",
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// The message, for reading its fields by number.
            pub fn message(&self) -> &dyn Reflect {
                match self {
                    Self::Error(message) => message,
                    $(Self::$variant(message) => message,)+
                }
            }
        }

        $(
            impl From<$request> for Request {
                fn from(message: $request) -> Self {
                    Self::$variant(message)
                }
            }

            impl From<$response> for Response {
                fn from(message: $response) -> Self {
                    Self::$variant(message)
                }
            }

            impl Command for $request {
                type Response = $response;

                fn response(response: Response) -> Result<$response, Box<Response>> {
                    match response {
                        Response::$variant(message) => Ok(message),
                        other => Err(Box::new(other)),
                    }
                }
            }
        )+
    };
}

commands! {
    11 Create "create" CreateRequest CreateResponse,
    12 Stop "stop" StopRequest StopResponse,
    13 Destroy "destroy" DestroyRequest DestroyResponse,
    14 Info "info" InfoRequest InfoResponse,
    21 Spawn "spawn" SpawnRequest SpawnResponse,
    22 Link "link" LinkRequest LinkResponse,
    23 Run "run" RunRequest RunResponse,
    24 Stream "stream" StreamRequest StreamResponse,
    31 NetIn "net_in" NetInRequest NetInResponse,
    32 NetOut "net_out" NetOutRequest NetOutResponse,
    41 CopyIn "copy_in" CopyInRequest CopyInResponse,
    42 CopyOut "copy_out" CopyOutRequest CopyOutResponse,
    51 LimitMemory "limit_memory" LimitMemoryRequest LimitMemoryResponse,
    52 LimitDisk "limit_disk" LimitDiskRequest LimitDiskResponse,
    53 LimitBandwidth "limit_bandwidth" LimitBandwidthRequest LimitBandwidthResponse,
    54 LimitCpu "limit_cpu" LimitCpuRequest LimitCpuResponse,
    91 Ping "ping" PingRequest PingResponse,
    92 List "list" ListRequest ListResponse,
    93 Echo "echo" EchoRequest EchoResponse,
}

impl Request {
    /// The container that must exist for the request; create only names one that shall not exist yet.
    pub fn handle(&self) -> Option<&[u8]> {
        if matches!(self, Self::Create(_)) {
            return None;
        }
        let message = self.message();
        match message.values(message.descriptor().field("handle")?.number).first() {
            Some(Value::Bytes(handle)) => Some(handle),
            _ => None,
        }
    }

    /// Names the first required field that is not set.
    pub fn missing(&self) -> Option<String> {
        reflect::missing(self.message())
    }
}

impl From<ErrorResponse> for Response {
    fn from(message: ErrorResponse) -> Self {
        Self::Error(message)
    }
}

impl Response {
    /// Makes the answer to a request that failed.
    pub fn error(message: impl Into<Vec<u8>>) -> Self {
        Self::Error(ErrorResponse { message: Some(message.into()), ..ErrorResponse::default() })
    }
}

/// Opens a frame's content without copying it: the type number and the payload.
fn open(mut body: &[u8]) -> Result<(i32, &[u8]), DecodeError> {
    let malformed = |reason| DecodeError::Malformed { message: "Message", reason };
    let missing = |field: &str| DecodeError::MissingField { message: "Message", field: field.to_owned() };
    let (mut number, mut payload) = (None, None);
    while !body.is_empty() {
        let (field, wire_type) = encoding::decode_key(&mut body).map_err(malformed)?;
        match field {
            1 => {
                let value = number.get_or_insert(0);
                encoding::int32::merge(wire_type, value, &mut body, DecodeContext::default()).map_err(
                    |mut reason| {
                        reason.push("Message", "type");
                        malformed(reason)
                    },
                )?;
            }
            2 => payload = Some(slice(wire_type, &mut body).map_err(malformed)?),
            _ => encoding::skip_field(wire_type, field, &mut body, DecodeContext::default())
                .map_err(malformed)?,
        }
    }
    Ok((number.ok_or_else(|| missing("type"))?, payload.ok_or_else(|| missing("payload"))?))
}

/// Cuts a length-delimited value off.
fn slice<'a>(wire_type: WireType, body: &mut &'a [u8]) -> Result<&'a [u8], prost::DecodeError> {
    let mut rest = *body;
    // Skipping checks the length against what is there; the value is then what was skipped, without its length.
    encoding::check_wire_type(WireType::LengthDelimited, wire_type).map_err(payload_field)?;
    encoding::skip_field(wire_type, 2, body, DecodeContext::default()).map_err(payload_field)?;
    encoding::decode_varint(&mut rest).map_err(payload_field)?;
    // Both end where the frame does; the value is what the longer one has more.
    Ok(rest.get(..rest.len().saturating_sub(body.len())).unwrap_or_default())
}

fn payload_field(mut reason: prost::DecodeError) -> prost::DecodeError {
    reason.push("Message", "payload");
    reason
}

/// Decodes a payload and checks that nothing is missing.
fn decode_payload<M: Message + Default + Reflect>(
    payload: &[u8],
    name: &'static str,
) -> Result<M, DecodeError> {
    let message = M::decode(payload).map_err(|reason| DecodeError::Malformed { message: name, reason })?;
    match reflect::missing(&message) {
        Some(field) => Err(DecodeError::MissingField { message: name, field }),
        None => Ok(message),
    }
}

/// Encodes a whole frame in one allocation.
fn seal(number: i32, message: &impl Message) -> Bytes {
    let payload = message.encoded_len();
    let mut frame = BytesMut::with_capacity(payload.saturating_add(HEAD_MAX + 2));
    put_head(&mut frame, number, payload as u64);
    // Writing to a growing buffer cannot run out of room.
    message.encode_raw(&mut frame);
    frame.put_slice(b"\r\n");
    frame.freeze()
}

/// The most bytes before a payload: the length in decimal, CRLF, and two keys with their varints.
const HEAD_MAX: usize = 20 + 2 + 1 + 10 + 1 + 10;

/// Writes all of a frame that comes before its payload, for type numbers below 128.
pub(crate) fn put_head(frame: &mut BytesMut, number: i32, payload: u64) {
    let length = message_len(payload);
    frame.put_slice(format!("{length}\r\n").as_bytes());
    encoding::int32::encode(1, &number, frame);
    encoding::encode_key(2, WireType::LengthDelimited, frame);
    encoding::encode_varint(payload, frame);
}

/// The length of the Message around a payload, in bytes: two for the type, one for the payload's key, its length, itself.
pub(crate) fn message_len(payload: u64) -> u64 {
    let length = encoding::encoded_len_varint(payload) as u64;
    payload.saturating_add(length).saturating_add(3)
}
