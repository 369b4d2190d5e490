//! The domain: lifecycle of containers and jobs, pools, images. Knows no wire protocol.

pub mod settings;
