//! The product under measurement: a real daemon and a client of its socket.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use warden_client::Client;
use warden_protocol::messages::{InfoRequest, NetInRequest, NetOutRequest, RunRequest, SpawnRequest};
use warden_tests::{Config, Daemon, programs};

use crate::options::Options;

/// The handle of a container.
pub(crate) type Handle = Vec<u8>;

/// Configuration of every daemon that is measured: the defaults, with pools for more than 2,000 containers. The output
/// limit lets a job write a gigabyte.
const SETTINGS: [(&str, &str); 7] = [
    ("logging.level", "info"),
    ("network.pool_network", "10.192.0.0/18"),
    ("network.release_delay", "1"),
    ("user.pool_size", "4096"),
    ("server.job_output_limit", "4000000000"),
    ("health_check_server.port", "0"),
    ("server.container_grace_time", "86400"),
];

/// The key of the pool of containers made ahead.
pub(crate) const WARM_POOL: &str = "server.warm_pool_size";

/// A daemon with a client.
pub(crate) struct Warden {
    runtime: Rc<Runtime>,
    client: Client,
    pub(crate) daemon: Daemon,
}

impl Warden {
    /// Starts a daemon without containers made ahead, and with further settings; those of the command line win.
    pub(crate) fn start(options: &Options, further: &[(&str, &str)]) -> Result<Self> {
        let mut settings = SETTINGS.to_vec();
        if knows(WARM_POOL)? {
            settings.push((WARM_POOL, "0"));
        }
        settings.extend(further);
        settings.extend(options.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let daemon = Daemon::with(&settings);
        let runtime = Rc::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        let client = runtime.block_on(Client::connect(daemon.socket()))?;
        Ok(Self { runtime, client, daemon })
    }

    /// Connects anew, as after a restart.
    pub(crate) fn reconnect(&mut self) -> Result<()> {
        self.client = self.runtime.block_on(Client::connect(self.daemon.socket()))?;
        Ok(())
    }

    /// Runs something with the runtime of the client.
    pub(crate) fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Makes a container; gives the milliseconds too.
    pub(crate) fn create(&mut self) -> Result<(Handle, f64)> {
        timed(|| Ok(self.runtime.block_on(self.client.create())?))
    }

    /// Runs a script that must succeed; gives the milliseconds.
    pub(crate) fn run(&mut self, handle: &Handle, script: &str) -> Result<f64> {
        let request =
            RunRequest { handle: Some(handle.clone()), script: Some(script.into()), ..RunRequest::default() };
        let (answer, took) = timed(|| Ok(self.runtime.block_on(self.client.request(request))?))?;
        let errors = answer.stderr.unwrap_or_default();
        ensure!(answer.exit_status == Some(0), "'{script}' failed: {}", errors.escape_ascii());
        Ok(took)
    }

    /// Starts a script; gives the job and the milliseconds.
    pub(crate) fn spawn(&mut self, handle: &Handle, script: &str) -> Result<(u32, f64)> {
        let request = SpawnRequest {
            handle: Some(handle.clone()),
            script: Some(script.into()),
            ..SpawnRequest::default()
        };
        let (answer, took) = timed(|| Ok(self.runtime.block_on(self.client.request(request))?))?;
        Ok((answer.job_id.context("spawn answers without a job")?, took))
    }

    /// Waits for the end of a job.
    pub(crate) fn link(&mut self, handle: &Handle, job: u32) -> Result<()> {
        self.runtime.block_on(self.client.link(handle, job))?;
        Ok(())
    }

    /// Asks for the state of a container; gives the milliseconds.
    pub(crate) fn info(&mut self, handle: &Handle) -> Result<f64> {
        let request = InfoRequest { handle: Some(handle.clone()) };
        Ok(timed(|| Ok(self.runtime.block_on(self.client.request(request))?))?.1)
    }

    /// Forwards a port; gives the milliseconds.
    pub(crate) fn net_in(&mut self, handle: &Handle) -> Result<f64> {
        let request = NetInRequest { handle: Some(handle.clone()), ..NetInRequest::default() };
        Ok(timed(|| Ok(self.runtime.block_on(self.client.request(request))?))?.1)
    }

    /// Opens a way to a network; gives the milliseconds.
    pub(crate) fn net_out(&mut self, handle: &Handle) -> Result<f64> {
        let request = NetOutRequest {
            handle: Some(handle.clone()),
            network: Some("10.1.2.0/24".into()),
            port: Some(80),
            ..NetOutRequest::default()
        };
        Ok(timed(|| Ok(self.runtime.block_on(self.client.request(request))?))?.1)
    }

    /// Removes a container in which nothing runs; gives the milliseconds.
    pub(crate) fn destroy(&mut self, handle: &Handle) -> Result<f64> {
        Ok(timed(|| Ok(self.runtime.block_on(self.client.destroy(handle))?))?.1)
    }

    /// The client itself, for what needs more of it.
    pub(crate) fn parts(&mut self) -> (&Runtime, &mut Client) {
        (&self.runtime, &mut self.client)
    }

    /// The handles of all containers.
    pub(crate) fn list(&mut self) -> Result<Vec<Handle>> {
        Ok(self.runtime.block_on(self.client.list())?)
    }

    /// The directory of a container in the depot.
    pub(crate) fn directory_of(&mut self, handle: &Handle) -> Result<PathBuf> {
        let request = InfoRequest { handle: Some(handle.clone()) };
        let info = self.runtime.block_on(self.client.request(request))?;
        let path = info.container_path.context("info tells no container_path")?;
        Ok(PathBuf::from(String::from_utf8(path)?))
    }
}

/// Does something; gives the milliseconds that it took.
pub(crate) fn timed<T>(action: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let result = action()?;
    Ok((result, start.elapsed().as_secs_f64() * 1e3))
}

/// Whether this wardend has a key of configuration: what is built later is measured as soon as it is there.
pub(crate) fn knows(key: &str) -> Result<bool> {
    let directory = tempfile::tempdir()?;
    let mut config = Config::default();
    // Of a wrong type for every key, which only an unknown one does not mind.
    config.set(key, "[[]]");
    let file = directory.path().join("wardend.yml");
    std::fs::write(&file, config.text())?;
    let output =
        Command::new(programs::find("wardend")).arg("--check").arg("--config").arg(&file).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(!String::from_utf8_lossy(&said).contains(&format!("{key} is unknown")))
}
