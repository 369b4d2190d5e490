//! What the domain is told of the configuration.

use std::env;
use std::io;
use std::path::{Path, PathBuf, absolute};

use warden_container::settings::{self, Firewall, Image, NetworkPool, PortPool, Settings, UserPool};
use warden_init::spec::IdRange;

use super::{Config, DepotImage, Server};
use crate::failure::Failure;

/// LANG of the jobs where the daemon has none itself.
const LANG: &str = "en_US.UTF-8";

impl Config {
    /// The domain's settings; paths are made absolute, because helpers do not share the daemon's directory.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let server = &self.server;
        let (start, size) = self.ports.pool_here()?;
        let restrictions = server.restrictions.with_nested_warden(server.allow_nested_warden);
        Ok(Settings {
            depot: whole(&server.depot)?,
            depot_image: server.depot_image.as_ref().map(DepotImage::settings).transpose()?,
            disk_quota: server.disk_quota_enabled,
            image: match &server.rootfs {
                None => Image::Host,
                Some(path) => Image::Directory(whole(path)?),
            },
            helpers: server.helpers_directory()?,
            cgroup_parent: server.cgroup_parent.clone(),
            ids: server
                .user_namespace
                .then_some(IdRange { host_start: server.host_ids.start, count: server.host_ids.count }),
            grace_time: server.grace_time,
            job_output_limit: server.job_output_limit,
            rlimits: server.rlimits.clone(),
            max_finished_jobs: server.max_finished_jobs,
            max_finished_bytes: server.max_finished_bytes,
            max_running_jobs: server.max_running_jobs,
            max_tasks: server.max_tasks,
            warm_pool_size: server.warm_pool_size,
            io_limits: server.io_limits,
            memory_thresholds: server.memory_thresholds,
            copy_stall_time: server.copy_stall_timeout,
            reconcile_interval: server.reconcile_interval,
            syslog_socket: server.syslog_socket.clone().unwrap_or_else(|| PathBuf::from("/dev/log")),
            lang: env::var("LANG").ok().filter(|lang| !lang.is_empty()).unwrap_or_else(|| LANG.to_owned()),
            network: NetworkPool {
                network: self.network.pool,
                network_v6: self.network.pool_v6,
                release_delay: self.network.release_delay,
            },
            firewall: Firewall {
                table: self.network.table.clone(),
                mtu: self.network.mtu,
                allow_networks: self.network.allow_networks.clone(),
                allow_host_access: self.network.allow_host_access,
                connection_mark_bit: self.network.connection_mark_bit,
            },
            ports: PortPool { start, size },
            dns_servers: self.network.dns_servers.iter().map(ToString::to_string).collect(),
            dns_forwarder: self.network.dns_forwarder,
            users: UserPool { start: self.users.start, size: self.users.size },
            allow_nested_warden: server.allow_nested_warden,
            confinement: restrictions.confinement,
            device_rules: restrictions.devices,
        })
    }
}

impl DepotImage {
    fn settings(&self) -> Result<settings::DepotImage, Failure> {
        Ok(settings::DepotImage { path: whole(&self.path)?, size: self.size })
    }
}

impl Server {
    /// The directory of iomux: the configured one, or that of this very program.
    pub fn helpers_directory(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.helpers {
            return whole(path);
        }
        let program =
            env::current_exe().map_err(|source| Failure::io("finding wardend's own program", source))?;
        program
            .parent()
            .map(Path::to_path_buf)
            .ok_or_else(|| Failure::file("finding the directory of", &program, io::ErrorKind::NotFound))
    }
}

fn whole(path: &Path) -> Result<PathBuf, Failure> {
    absolute(path).map_err(|source| Failure::file("making absolute", path, source))
}
