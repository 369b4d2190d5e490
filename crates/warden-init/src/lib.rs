//! wshd, the init of a container: builds the container from a spec, then runs and reaps processes in it.

pub mod byte_string;
pub mod message;
pub mod spec;
