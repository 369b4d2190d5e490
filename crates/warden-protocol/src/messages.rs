//! The messages of the protocol.
//!
//! Every field is an `Option` or a `Vec`, strings hold any bytes, and enums are raw numbers that `TryFrom` turns into
//! the named ones. The getter of an optional number or bool returns the declared default when the field is not set.

mod container;
mod copy;
mod job;
mod limit;
mod network;
mod server;

pub use container::{
    BandwidthStat, BindMount, CpuStat, CreateRequest, CreateResponse, DestroyRequest, DestroyResponse,
    DiskStat, InfoRequest, InfoResponse, MemoryStat, Mode, Pressure, PressureStat, StopRequest, StopResponse,
};
pub use copy::{CopyInRequest, CopyInResponse, CopyOutRequest, CopyOutResponse};
pub use job::{
    LinkRequest, LinkResponse, ResourceLimits, RunRequest, RunResponse, SpawnRequest, SpawnResponse,
    StreamRequest, StreamResponse,
};
pub use limit::{
    LimitBandwidthRequest, LimitBandwidthResponse, LimitCpuRequest, LimitCpuResponse, LimitDiskRequest,
    LimitDiskResponse, LimitMemoryRequest, LimitMemoryResponse,
};
pub use network::{NetInRequest, NetInResponse, NetOutRequest, NetOutResponse, Protocol, Transport};
pub use server::{
    EchoRequest, EchoResponse, ErrorResponse, ListRequest, ListResponse, PingRequest, PingResponse,
};

/// The messages and enums that the protocol declares inside CreateRequest.
pub mod create_request {
    pub use super::{BindMount, Mode};
}

/// The messages that the protocol declares inside InfoResponse.
pub mod info_response {
    pub use super::{BandwidthStat, CpuStat, DiskStat, MemoryStat, Pressure, PressureStat};
}

/// The enum that the protocol declares inside NetInRequest.
pub mod net_in_request {
    pub use super::Transport as Protocol;
}

/// The enum that the protocol declares inside NetOutRequest.
pub mod net_out_request {
    pub use super::Protocol;
}
