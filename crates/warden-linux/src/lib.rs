//! Wrappers of kernel interfaces, without policy: the only crate with `unsafe`. Errors are the kernel's; where one call does
//! several things (netlink, spawn) they name which has failed.

pub mod bpf;
pub mod btrfs;
pub mod bystander;
pub mod clock;
pub mod epoll;
pub mod file;
pub mod keyring;
pub mod limit;
pub mod loop_device;
pub mod mount;
pub mod mount_table;
pub mod namespace;
pub mod netlink;
pub mod peer;
pub mod process;
pub mod quota;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod terminal;
