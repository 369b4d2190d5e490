//! iomux, the supervisor of one container (the field's word is shim): keeps its jobs' output and exit statuses
//! while the daemon comes and goes.

pub mod message;
