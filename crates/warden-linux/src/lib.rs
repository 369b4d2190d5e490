//! Wrappers of kernel interfaces, without policy: the only crate with `unsafe`, each error naming the operation and
//! its object.

pub mod socket;
