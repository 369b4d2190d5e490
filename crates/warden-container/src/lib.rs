//! The domain: lifecycle of containers and jobs, pools, images. Knows no wire protocol.

mod activity;
mod actor;
mod admission;
mod cgroup;
pub mod container;
mod copies;
mod create;
mod depot;
pub mod device;
pub mod disk;
mod dns;
mod ending;
pub mod error;
mod failpoint;
mod fork_server;
mod ground;
pub mod host;
pub mod id;
mod image;
pub mod info;
mod inherited;
pub mod job;
mod jobs;
mod leases;
mod ledger;
pub mod leftovers;
mod limits;
mod link;
mod loss;
mod machine;
mod network;
mod out_of_memory;
mod owner;
mod plan;
mod pool;
pub mod pressure;
mod process;
mod quarantine;
mod recovery;
mod references;
mod registry;
mod removal;
pub mod request;
mod rlimits;
mod saving;
pub mod settings;
mod shared;
mod snapshot;
mod standing;
mod starting;
pub mod state;
mod stdin;
mod stop_plan;
mod stopping;
mod supervisor;
mod take_over;
mod tree;
mod undying;
mod warm_pool;

/// What can be tried before a daemon is started.
pub mod trial {
    pub use crate::network::trial::attempt;
}

/// What the fuzzer is let into.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::snapshot::exercise::exercise as snapshot;
}

/// What the benchmark is let into.
#[cfg(feature = "benchmark")]
pub mod benchmark {
    pub use crate::network::exercise::FilterTable;
}
