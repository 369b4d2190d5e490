//! What a container consists of: written by the daemon to `spec.json`, read by iomux, built by [`crate::build`].
//!
//! The daemon decides every name, path and content; the builder only obeys.

use serde::{Deserialize, Serialize};

use crate::byte_string::ByteString;
use crate::confinement::Confinement;

/// Version of `spec.json` that this code writes.
pub const VERSION: u32 = 2;

/// Versions of it that this code reads.
pub const VERSIONS: std::ops::RangeInclusive<u32> = crate::version::spoken(VERSION);

/// Everything that the builder needs to know of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// [`VERSION`].
    pub version: u32,
    /// The container's id: 11 characters of `[0-9a-v]`; also its hostname.
    pub id: String,
    /// Of version 1: the program that became the container's PID 1.
    #[serde(default, skip_serializing)]
    pub init: Option<ByteString>,
    /// The host ids that the container's 0.. are mapped to; absent: no user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<IdRange>,
    /// What the container's first process joins.
    pub cgroups: Vec<Cgroup>,
    /// The root file system.
    pub root: Root,
    /// Bind mounts, in the order in which they are made.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// Files that are written inside once the root file system stands, as its root.
    #[serde(default)]
    pub files: Vec<InsideFile>,
    /// The unprivileged user that jobs run as.
    pub user: User,
    /// What its programs may not do.
    #[serde(default)]
    pub confinement: Confinement,
}

/// A range of ids: inside `0..count`, on the host `host_start..host_start+count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host's id of the container's id 0.
    pub host_start: u32,
    /// How many ids.
    pub count: u32,
}

/// A cgroup that exists already, and how to join it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroup {
    /// A directory of a version 1 hierarchy: joined by writing 0 to its `tasks`.
    V1(ByteString),
    /// A directory of the version 2 hierarchy: the process is born in it.
    V2(ByteString),
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The directory whose content is the shared, read-only lower layer.
    pub lower: ByteString,
    /// The directory that holds `rootfs` (the writable layer) and `work`, both made by the daemon, owned by the container's root.
    pub writable: ByteString,
    /// Host directories that appear read-only over the lower layer, such as the host's /usr.
    #[serde(default)]
    pub system: Vec<Bind>,
}

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: ByteString,
    /// Absolute path inside; missing directories are made.
    pub destination: ByteString,
    /// Whether the inside may write to it.
    #[serde(default)]
    pub writable: bool,
}

/// A file of known content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideFile {
    /// Absolute path inside.
    pub path: ByteString,
    /// Permission bits.
    pub mode: u32,
    /// The whole content.
    pub content: ByteString,
}

/// An entry of /etc/passwd and /etc/group that must exist inside, with a home directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `vcap`.
    pub name: String,
    /// The id of the user and of its group, inside.
    pub id: u32,
}
