//! The daemon's life: start in order, serve, drain.
//!
//! Nothing that another daemon may hold (pidfile, socket, port) is found taken after containers were touched: the
//! domain's start removes what an earlier daemon left, and must not take a living one's for that.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use warden_container::host::Host;
use warden_protocol::Response;

use crate::capacity::Capacity;
use crate::config::{Config, Server};
use crate::connection::Client;
use crate::drain::{self, Drain, Order, Signals};
use crate::failure::Failure;
use crate::gate::{Gate, Peer};
use crate::listener::{self, Listener, SocketFile};
use crate::logging::LogFile;
use crate::pidfile::Pidfile;
use crate::{descriptors, health, ready};

/// How long to wait when a connection cannot be accepted, mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How long work on other threads is waited for at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves until a signal ends it.
pub(crate) fn run(config: &Config, log: Option<Arc<LogFile>>) -> Result<ExitCode, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot);
    }
    descriptors::raise();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(async_threads()).enable_all().build();
    let runtime = runtime.map_err(|source| Failure::io("starting the runtime", source))?;
    let outcome = runtime.block_on(start(config, log));
    runtime.shutdown_timeout(FAREWELL);
    outcome.map(|()| ExitCode::SUCCESS)
}

/// How many threads the async tasks have: for half of the processors, since what takes long is done by the kernel, which other
/// threads wait for, and by containers. More of them wake each other for less than that costs.
fn async_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors / 2).max(1)
}

/// Starts everything in order, then serves.
async fn start(config: &Config, log: Option<Arc<LogFile>>) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    tokio::spawn(follow_log(drain::sighups()?, log));
    let settings = config.settings()?;
    let gate = Gate::of(&config.server.access)?;
    let mut pidfile = config.server.pidfile.as_deref().map(Pidfile::lock).transpose()?;
    listener::refuse_live(&config.server.unix_domain_path)?;
    let health = health::listen(config.health_check_port).await?;
    let host = tokio::select! {
        host = Host::start(settings) => host?,
        () = signals.end() => return Ok(()),
    };
    let served = async {
        let socket = Listener::bind(&config.server.unix_domain_path, config.server.unix_domain_permissions)?;
        pidfile.as_mut().map(Pidfile::write).transpose()?;
        log_start(config, &health);
        ready::tell();
        let health = tokio::spawn(health::serve(health));
        serve(config, &host, gate, socket, &mut signals).await;
        health.abort();
        Ok(())
    };
    let outcome = served.await;
    host.shutdown().await;
    outcome
}

/// Opens the log file anew at each SIGHUP, which does nothing without one.
async fn follow_log(mut sighups: Signal, log: Option<Arc<LogFile>>) {
    while sighups.recv().await.is_some() {
        if let Some(log) = &log {
            log.reopen();
        }
    }
}

fn log_start(config: &Config, health: &TcpListener) {
    let port = health.local_addr().map(|address| address.port()).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(
        health_check_port = port,
        version,
        "Listening on {}",
        config.server.unix_domain_path.display()
    );
}

/// Accepts clients until a signal, then lets their requests end.
async fn serve(config: &Config, host: &Host, gate: Gate, listener: Listener, signals: &mut Signals) {
    let mut clients = Clients::new(host, gate, &config.server);
    let order = tokio::select! {
        order = signals.next() => order,
        () = clients.accept(&listener.socket) => Order::End,
    };
    drop(listener.socket);
    clients.drain(order, config.server.drain_timeout, listener.file, signals).await;
    tracing::info!("ended; containers and their jobs go on");
}

/// The connections.
struct Clients<'a> {
    host: &'a Host,
    gate: Gate,
    capacity: Capacity,
    /// The longest request, in bytes.
    limit: usize,
    start_drain: watch::Sender<bool>,
    drain: Drain,
    tasks: JoinSet<()>,
    count: u64,
    /// The most clients at a time, and whether the last one was refused.
    most: usize,
    full: bool,
}

impl<'a> Clients<'a> {
    fn new(host: &'a Host, gate: Gate, settings: &Server) -> Self {
        let (start_drain, drain) = Drain::new();
        Self {
            host,
            gate,
            capacity: Capacity::new(settings.max_requests, settings.max_request_memory),
            limit: settings.max_request_bytes,
            start_drain,
            drain,
            tasks: JoinSet::new(),
            count: 0,
            most: settings.max_clients,
            full: false,
        }
    }

    /// Takes in clients for ever.
    async fn accept(&mut self, socket: &UnixListener) {
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, _)) => self.add(stream),
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection");
                        sleep(PAUSE).await;
                    }
                },
                Some(ended) = self.tasks.join_next() => log_end(ended),
            }
        }
    }

    /// Waits for the last request: without a limit after SIGUSR2, for a limited time after SIGTERM and SIGINT.
    async fn drain(&mut self, order: Order, limit: Duration, file: SocketFile, signals: &mut Signals) {
        tracing::info!(connections = self.tasks.len(), "draining");
        self.start_drain.send_replace(true);
        if order == Order::Drain {
            tokio::select! {
                () = self.all_done() => return file.leave(),
                () = signals.end() => {}
            }
        }
        drop(file);
        let reason = tokio::select! {
            done = timeout(limit, self.all_done()) => match done {
                Ok(()) => return,
                Err(_) => "drain_timeout passed",
            },
            () = signals.end() => "a second signal",
        };
        tracing::warn!(connections = self.tasks.len(), reason, "requests under way are given up");
        self.tasks.shutdown().await;
    }

    fn add(&mut self, stream: UnixStream) {
        self.count += 1;
        let number = self.count;
        if self.tasks.len() >= self.most {
            return self.refuse(&stream);
        }
        self.full = false;
        match self.take_over(number, stream) {
            Ok(Some(client)) => {
                self.tasks.spawn(client.serve(self.limit));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(client = number, %error, "taking over a connection"),
        }
    }

    /// Makes a client of a connection, unless it is of somebody who may not use the server.
    fn take_over(&self, number: u64, stream: UnixStream) -> std::io::Result<Option<Client>> {
        let peer = Peer::of(&stream)?;
        if !self.gate.admits(&peer) {
            tracing::warn!(
                client = number,
                user = peer.user,
                pid = peer.pid,
                "refusing a connection: server.access"
            );
            let text = format!("user {} may not use this server (server.access)", peer.user);
            let _ = stream.try_write(&Response::error(text).encode());
            return Ok(None);
        }
        tracing::debug!(client = number, user = peer.user, pid = peer.pid, "connected");
        let (domain, drain, capacity) = (self.host.connect(), self.drain.clone(), self.capacity.clone());
        Client::new(number, stream, peer, domain, drain, capacity).map(Some)
    }

    /// Says why, as far as the socket takes it, and closes: descriptors are left for the clients and containers there are.
    fn refuse(&mut self, stream: &UnixStream) {
        let text =
            format!("too many connections: the server has {}, its limit (server.max_clients)", self.most);
        let _ = stream.try_write(&Response::error(text).encode());
        if !std::mem::replace(&mut self.full, true) {
            tracing::warn!(limit = self.most, "refusing connections: server.max_clients is reached");
        }
    }

    async fn all_done(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            log_end(ended);
        }
    }
}

/// A panic ends its own connection only, but is never silent.
fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
