//! Section `server`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use warden_container::settings::IoLimits;
use warden_init::message::Resource;

use warden_container::pressure::Thresholds;

use super::Notes;
use super::access::Access;
use super::confinement::Restrictions;
use super::memory_pressure;
use super::section::{ConfigError, Section, integer};
use super::value::Value;

/// The longest path of a Unix socket: sun_path without its NUL.
const LONGEST_SOCKET_PATH: usize = 107;

/// The ids of one container, and so the least that `server.host_ids.count` can be.
const IDS_PER_CONTAINER: u32 = 65536;

/// The class of containers that this daemon makes; the original's default was its `Insecure`, without any isolation.
const KLASS: &str = "Warden::Container::Linux";

/// The value of `server.container_rootfs_path` that stands for the built-in image.
pub(super) const HOST_IMAGE: &str = "host";

/// The socket, and the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Path of the socket.
    pub unix_domain_path: PathBuf,
    /// Mode of the socket.
    pub unix_domain_permissions: u32,
    /// Who may use the socket, beside its permissions.
    pub access: Access,
    /// Grace time of containers whose request names none; absent: they are never destroyed by themselves.
    pub grace_time: Option<Duration>,
    /// Bytes of output that a job may leave.
    pub job_output_limit: u64,
    /// Whether disk limits are asked for.
    pub disk_quota_enabled: bool,
    /// Whether containers may run a wardend of their own.
    pub allow_nested_warden: bool,
    /// Directory of the image; absent: the built-in image `host`.
    pub rootfs: Option<PathBuf>,
    /// Directory of the containers.
    pub depot: PathBuf,
    /// A file that holds the depot's file system; absent: the depot is a plain directory.
    pub depot_image: Option<DepotImage>,
    /// Limits of every job.
    pub rlimits: BTreeMap<Resource, u64>,
    /// File that holds the daemon's process id.
    pub pidfile: Option<PathBuf>,
    /// Where `log_tag` lines go; absent: /dev/log.
    pub syslog_socket: Option<PathBuf>,
    /// Whether each container has a user namespace.
    pub user_namespace: bool,
    /// Host ids that user namespaces are made of.
    pub host_ids: HostIds,
    /// What the containers' programs may not do.
    pub restrictions: Restrictions,
    /// Name of the cgroup that holds the containers' cgroups.
    pub cgroup_parent: String,
    /// Directory of the helper programs; absent: the directory of wardend's own program.
    pub helpers: Option<PathBuf>,
    /// Jobs that run at the same time in one container.
    pub max_running_jobs: usize,
    /// Finished jobs that are kept for a later link, per container.
    pub max_finished_jobs: usize,
    /// Bytes of output of finished jobs that are kept, per container.
    pub max_finished_bytes: u64,
    /// Connections at a time.
    pub max_clients: usize,
    /// Requests under way at a time, but for those that only look or wait for a job.
    pub max_requests: usize,
    /// Bytes of long requests that are held at a time.
    pub max_request_memory: u64,
    /// Processes and threads that one container may have at the same time.
    pub max_tasks: u64,
    /// Containers that are kept ready for requests to come.
    pub warm_pool_size: usize,
    /// What one container may read from the depot's device, and write to it.
    pub io_limits: IoLimits,
    /// When the machine has no memory left for another container.
    pub memory_thresholds: Thresholds,
    /// How long a copy may make no progress.
    pub copy_stall_timeout: Duration,
    /// How often the daemon looks for what is left over.
    pub reconcile_interval: Duration,
    /// Longest request, in bytes.
    pub max_request_bytes: usize,
    /// How long the daemon waits for the requests under way when a signal ends it.
    pub drain_timeout: Duration,
}

/// A range of ids of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIds {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl Server {
    /// Reads the section.
    pub(super) fn read(root: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = root.section("server")?;
        check_klass(&mut section)?;
        let server = Self {
            unix_domain_path: read_socket_path(&mut section)?
                .unwrap_or_else(|| PathBuf::from("/tmp/warden.sock")),
            unix_domain_permissions: read_mode(&mut section)?.unwrap_or(0o755),
            access: Access::read(&mut section, notes)?,
            grace_time: read_grace_time(&mut section)?.unwrap_or(Some(Duration::from_secs(300))),
            job_output_limit: section.number("job_output_limit", 0, i64::MAX.into())?.unwrap_or(10 << 20),
            disk_quota_enabled: read_quota(&mut section, notes)?,
            allow_nested_warden: section.flag("allow_nested_warden")?.unwrap_or(false),
            rootfs: section
                .optional_path("container_rootfs_path")?
                .filter(|path| path != Path::new(HOST_IMAGE)),
            depot: section
                .optional_path("container_depot_path")?
                .unwrap_or_else(|| PathBuf::from("/var/lib/warden/containers")),
            depot_image: DepotImage::read(&mut section, notes)?,
            rlimits: read_rlimits(&mut section, notes)?,
            pidfile: section.optional_path("pidfile")?,
            syslog_socket: section.optional_path("syslog_socket")?,
            user_namespace: section.flag("user_namespace")?.unwrap_or(true),
            host_ids: HostIds::read(&mut section, notes)?,
            restrictions: Restrictions::read(&mut section, notes)?,
            cgroup_parent: read_cgroup_parent(&mut section)?.unwrap_or_else(|| "warden".to_owned()),
            helpers: section.optional_path("helpers_path")?,
            max_running_jobs: section.number("max_running_jobs", 1, 1 << 20)?.unwrap_or(512),
            max_finished_jobs: section.number("max_finished_jobs", 0, 1 << 20)?.unwrap_or(1024),
            max_finished_bytes: section.number("max_finished_bytes", 0, i64::MAX.into())?.unwrap_or(1 << 30),
            max_clients: section.number("max_clients", 1, 1 << 20)?.unwrap_or(4096),
            max_requests: section.number("max_requests", 1, 1 << 20)?.unwrap_or(1024),
            max_request_memory: section.number("max_request_memory", 1024, 1 << 40)?.unwrap_or(512 << 20),
            memory_thresholds: memory_pressure::read(&mut section, notes)?,
            reconcile_interval: Duration::from_secs(
                section.number("reconcile_interval", 1, 31_536_000)?.unwrap_or(3_600),
            ),
            copy_stall_timeout: Duration::from_secs(
                section.number("copy_stall_timeout", 1, 86_400)?.unwrap_or(60),
            ),
            io_limits: read_io_limits(&mut section, notes)?,
            max_tasks: section.number("max_tasks", 16, 1 << 22)?.unwrap_or(2048),
            warm_pool_size: section.number("warm_pool_size", 0, 1024)?.unwrap_or(4),
            max_request_bytes: section.number("max_request_bytes", 1024, (1 << 31) - 1)?.unwrap_or(64 << 20),
            drain_timeout: Duration::from_secs(section.number("drain_timeout", 0, 86_400)?.unwrap_or(10)),
        };
        section.finish(notes);
        Ok(server)
    }
}

impl HostIds {
    /// The range that systemd leaves to containers: 524288 to 1879048191.
    const DEFAULT: Self = Self { start: 524_288, count: 1_878_523_904 };

    /// Reads our own map `host_ids`.
    fn read(server: &mut Section, notes: &mut Notes) -> Result<Self, ConfigError> {
        let mut section = server.section("host_ids")?;
        let least = IDS_PER_CONTAINER.into();
        let start = section.number("start", least, i128::from(u32::MAX - IDS_PER_CONTAINER))?;
        let count = section.number("count", least, u32::MAX.into())?;
        let ids =
            Self { start: start.unwrap_or(Self::DEFAULT.start), count: count.unwrap_or(Self::DEFAULT.count) };
        // 2^32 - 1 is no id: it means "do not change" to chown and setresuid.
        if ids.start.checked_add(ids.count).is_none() {
            let most = format!(
                "at most {}: the first id is {}, the last one 4294967294",
                u32::MAX - ids.start,
                ids.start
            );
            return Err(ConfigError::value("server.host_ids.count", &ids.count, &most));
        }
        section.finish_strictly(notes)?;
        Ok(ids)
    }
}

/// A file that holds a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepotImage {
    /// Where it is; made when it is missing.
    pub path: PathBuf,
    /// Bytes of a new one.
    pub size: u64,
}

impl DepotImage {
    /// Less than this cannot be made a file system that is of use.
    const LEAST: i128 = 256 << 20;

    /// Reads our own map `depot_image`; an empty one is none.
    fn read(server: &mut Section, notes: &mut Notes) -> Result<Option<Self>, ConfigError> {
        let mut section = server.section("depot_image")?;
        let path = section.optional_path("path")?;
        let size = section.number("size", Self::LEAST, i64::MAX.into())?;
        section.finish_strictly(notes)?;
        match (path, size) {
            (None, None) => Ok(None),
            (Some(path), Some(size)) => Ok(Some(Self { path, size })),
            (Some(_), None) => Err(ConfigError::new("server.depot_image has a path, but no size")),
            (None, Some(_)) => Err(ConfigError::new("server.depot_image has a size, but no path")),
        }
    }
}

fn check_klass(section: &mut Section) -> Result<(), ConfigError> {
    let expected = format!("{KLASS}, the only class that this daemon has, or no such key");
    section.read("container_klass", &expected, |value| match value {
        Value::Text(class) if class == KLASS => Some(()),
        _ => None,
    })?;
    Ok(())
}

fn read_socket_path(section: &mut Section) -> Result<Option<PathBuf>, ConfigError> {
    let expected = format!("a path of at most {LONGEST_SOCKET_PATH} bytes that names a file");
    section.read("unix_domain_path", &expected, |value| match value {
        Value::Text(path) if path.len() <= LONGEST_SOCKET_PATH && !path.contains('\0') => {
            Path::new(path).file_name().map(|_| PathBuf::from(path))
        }
        _ => None,
    })
}

fn read_mode(section: &mut Section) -> Result<Option<u32>, ConfigError> {
    section.read(
        "unix_domain_permissions",
        "file permissions from 0 to 0777, in octal with a leading 0",
        |value| integer(value, 0, 0o777),
    )
}

/// Reads the grace time; an empty key means that there is none.
fn read_grace_time(section: &mut Section) -> Result<Option<Option<Duration>>, ConfigError> {
    let expected = "a whole number of seconds from 0 to 4294967295, or empty for ever";
    section.read("container_grace_time", expected, |value| match value {
        Value::Null => Some(None),
        other => integer(other, 0, u32::MAX.into()).map(|seconds| Some(Duration::from_secs(seconds))),
    })
}

/// Reads `quota`: a shallow merge, so that a map without the key turns quotas off.
fn read_quota(section: &mut Section, notes: &mut Notes) -> Result<bool, ConfigError> {
    let given = section.has("quota");
    let mut quota = section.section("quota")?;
    let enabled = quota.flag("disk_quota_enabled")?;
    quota.finish(notes);
    Ok(enabled.unwrap_or(!given))
}

/// Reads our own map `io_limits`.
fn read_io_limits(server: &mut Section, notes: &mut Notes) -> Result<IoLimits, ConfigError> {
    let mut section = server.section("io_limits")?;
    // The kernel counts operations in 32 bits.
    let limits = IoLimits {
        read_bytes: section.number("read_bps", 1, i64::MAX.into())?,
        write_bytes: section.number("write_bps", 1, i64::MAX.into())?,
        read_operations: section.number("read_iops", 1, (1 << 32) - 1)?,
        write_operations: section.number("write_iops", 1, (1 << 32) - 1)?,
    };
    section.finish_strictly(notes)?;
    Ok(limits)
}

fn read_rlimits(section: &mut Section, notes: &mut Notes) -> Result<BTreeMap<Resource, u64>, ConfigError> {
    let mut limits = section.section("container_rlimits")?;
    let mut read = BTreeMap::new();
    for (name, resource) in RESOURCES {
        if let Some(limit) = limits.number(name, 0, u64::MAX.into())? {
            read.insert(resource, limit);
        }
    }
    limits.finish(notes);
    Ok(read)
}

fn read_cgroup_parent(section: &mut Section) -> Result<Option<String>, ConfigError> {
    section.read("cgroup_parent", "a relative path without '.' and '..'", |value| match value {
        Value::Text(path) if is_plain_relative(path) => Some(path.clone()),
        _ => None,
    })
}

/// Whether a path only goes down, and is spelled plainly.
fn is_plain_relative(path: &str) -> bool {
    let plain =
        path.split('/').all(|name| !name.is_empty() && name != "." && name != ".." && !name.contains('\0'));
    plain && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The names of the limits, as the original's files have them.
const RESOURCES: [(&str, Resource); 15] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];
