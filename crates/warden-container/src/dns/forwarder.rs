//! Passes questions on to the host's name servers, and their answers back.

// What arrives here may be anything: no length, index or sum may be taken on trust.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;

use super::resolvers::Resolvers;
use super::turns::{Turn, Turns};
use crate::error::{Context, Error};

/// Questions under way at the same time: each has one or two descriptors.
const MOST: usize = 256;
/// Those of one container.
const MOST_EACH: usize = 32;
/// How long one name server may take before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(20);
/// Ports that no program is given by chance, tried from the last to the first.
const PORTS: std::ops::Range<u16> = 600..1024;
const DNS: u16 = 53;

const HEADER: usize = 12;
/// In the third byte of a message: it is an answer.
const ANSWER: u8 = 0x80;
/// In the fourth byte of an answer: the server has failed.
const FAILED: u8 = 2;

/// A forwarder that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    port: u16,
    tasks: [AbortHandle; 2],
}

/// What both tasks know.
#[derive(Debug)]
struct Shared {
    pool: Ipv4Net,
    resolvers: Resolvers,
    turns: Turns,
}

impl Forwarder {
    /// Starts one for containers with addresses of this network.
    pub(super) fn start(pool: Ipv4Net) -> Result<Self, Error> {
        let action = || "opening a port for questions of containers".to_owned();
        let (udp, tcp) = open().context(action)?;
        let port = udp.local_addr().context(action)?.port();
        let shared =
            Arc::new(Shared { pool, resolvers: Resolvers::default(), turns: Turns::new(MOST, MOST_EACH) });
        let tasks = [
            tokio::spawn(serve_packets(Arc::new(udp), Arc::clone(&shared))).abort_handle(),
            tokio::spawn(serve_connections(tcp, shared)).abort_handle(),
        ];
        Ok(Self { port, tasks })
    }

    /// Its port on 127.0.0.1, of UDP and TCP.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Finds a port that is free in both protocols.
fn open() -> io::Result<(UdpSocket, TcpListener)> {
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for port in PORTS.rev() {
        let address = (Ipv4Addr::LOCALHOST, port);
        let both = std::net::UdpSocket::bind(address)
            .and_then(|udp| Ok((udp, std::net::TcpListener::bind(address)?)));
        match both {
            Ok((udp, tcp)) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?));
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

impl Shared {
    /// Lets a container ask; others have no business here.
    fn admit(&self, from: SocketAddr) -> Option<Turn> {
        match from.ip() {
            IpAddr::V4(address) if self.pool.contains(&address) => self.turns.take(from.ip()),
            _ => None,
        }
    }
}

async fn serve_packets(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        // An error is what became of an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let question = buffer.get(..length).unwrap_or_default();
        if flags(question).is_none_or(|flags| flags & ANSWER != 0) {
            continue;
        }
        // Who asks too much asks again by itself.
        let Some(turn) = shared.admit(from) else { continue };
        let (question, socket, shared) = (question.to_vec(), Arc::clone(&socket), Arc::clone(&shared));
        tokio::spawn(async move {
            let _turn = turn;
            let answer = answer(&question, &shared.resolvers).await.unwrap_or_else(|| failure(&question));
            // The container may be gone.
            let _ = socket.send_to(&answer, from).await;
        });
    }
}

/// Asks one server after the other.
async fn answer(question: &[u8], resolvers: &Resolvers) -> Option<Vec<u8>> {
    for server in resolvers.now() {
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, ask(question, server)).await {
            return Some(answer);
        }
    }
    None
}

/// Asks from a port of its own, which nobody guesses, and takes what answers this question.
async fn ask(question: &[u8], server: IpAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect((server, DNS)).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        let is_answer = flags(answer).is_some_and(|flags| flags & ANSWER != 0);
        if is_answer && answer.first_chunk::<2>() == question.first_chunk::<2>() {
            return Ok(answer.to_vec());
        }
    }
}

/// The byte of a message that says whether it is an answer; none where there is no header.
fn flags(message: &[u8]) -> Option<u8> {
    let [_, _, flags, ..] = message.first_chunk::<HEADER>()?;
    Some(*flags)
}

/// The answer that there is none: the question's header, without counts of what does not follow.
fn failure(question: &[u8]) -> Vec<u8> {
    let mut answer = question.get(..2).unwrap_or_default().to_vec();
    answer.extend([flags(question).unwrap_or_default() | ANSWER, FAILED]);
    answer.resize(HEADER, 0);
    answer
}

async fn serve_connections(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((connection, from)) => {
                let Some(turn) = shared.admit(from) else { continue };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _turn = turn;
                    // It ends for both when it ends for one.
                    let _ = tokio::time::timeout(CONNECTION_TIME, pass(connection, &shared.resolvers)).await;
                });
            }
            // No descriptor is left, perhaps: there will be one again.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn pass(mut connection: TcpStream, resolvers: &Resolvers) -> io::Result<()> {
    for server in resolvers.now() {
        if let Ok(Ok(mut other)) = tokio::time::timeout(PATIENCE, TcpStream::connect((server, DNS))).await {
            tokio::io::copy_bidirectional(&mut connection, &mut other).await?;
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_answer_to_its_question() {
        let question = [0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1, 7, 7];
        assert_eq!(failure(&question), [0xab, 0xcd, 0x81, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[tokio::test]
    async fn two_forwarders_have_two_ports_and_only_containers_are_admitted() {
        let pool: Ipv4Net = "10.254.0.0/24".parse().unwrap();
        let (one, two) = (Forwarder::start(pool).unwrap(), Forwarder::start(pool).unwrap());
        assert_ne!(one.port(), two.port());
        let shared = Shared { pool, resolvers: Resolvers::default(), turns: Turns::new(9, 9) };
        assert!(shared.admit("10.254.0.2:9".parse().unwrap()).is_some());
        for other in ["127.0.0.1:9", "10.254.1.2:9", "[::1]:9"] {
            assert!(shared.admit(other.parse().unwrap()).is_none(), "{other}");
        }
    }
}
