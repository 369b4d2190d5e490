//! The domain: lifecycle of containers and jobs, pools, images. Knows no wire protocol.

pub mod container;
pub mod error;
pub mod host;
pub mod info;
pub mod job;
pub mod request;
pub mod settings;
pub mod state;
