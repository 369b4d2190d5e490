//! A gigabyte of output of one job through `run` and through `stream`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use warden_protocol::Request;
use warden_protocol::messages::{RunRequest, StreamRequest};
use warden_tests::kernel;

use crate::bench::Bench;
use crate::report::Unit;
use crate::warden::{Handle, Warden, timed};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// Measures both ways in turns, then the daemon's memory.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (rounds, length) = bench.options.pick((5, 1_000_000_000), (2, 100_000_000));
    let size = length / 1_000_000;
    let mut warden = Warden::start(&bench.options, &[])?;
    let handle = warden.create()?.0;
    let script = format!("head -c {length} /dev/zero");
    for _ in 0..rounds {
        let (received, took) = timed(|| run(&warden, &handle, &script))?;
        ensure!(received > length, "run brought {received} of {length} bytes");
        let speed = |took: f64| length as f64 / 1e3 / took;
        bench.report.figure(&format!("run of {size} MB"), Unit::MegabytesPerSecond, speed(took));
        let (received, took) = timed(|| stream(&mut warden, &handle, &script))?;
        ensure!(received == length, "stream brought {received} of {length} bytes");
        bench.report.figure(&format!("stream of {size} MB"), Unit::MegabytesPerSecond, speed(took));
    }
    let peak = kernel::peak_memory(warden.daemon.pid()) as f64 / 1024.0;
    bench.report.figure(&format!("wardend: peak memory after {size} MB"), Unit::Megabytes, peak);
    warden.destroy(&handle).map(drop)
}

/// Takes the whole answer, which is one frame, and keeps none of it: a client that decodes it measures itself.
fn run(warden: &Warden, handle: &Handle, script: &str) -> Result<usize> {
    let request =
        RunRequest { handle: Some(handle.clone()), script: Some(script.into()), ..RunRequest::default() };
    let mut socket = UnixStream::connect(warden.daemon.socket())?;
    socket.write_all(&Request::Run(request).encode())?;
    let mut buffer = vec![0; CHUNK];
    let mut start = Vec::new();
    let head = loop {
        let count = socket.read(&mut buffer)?;
        ensure!(count > 0, "the daemon closed the connection");
        start.extend_from_slice(&buffer[..count]);
        if let Some(head) = start.windows(2).position(|pair| pair == b"\r\n") {
            break head;
        }
    };
    let length: usize = std::str::from_utf8(&start[..head])?.parse().context("reading a frame's length")?;
    let mut missing = (head + 2 + length + 2).saturating_sub(start.len());
    while missing > 0 {
        let count = socket.read(&mut buffer)?;
        ensure!(count > 0, "the daemon closed the connection");
        missing = missing.saturating_sub(count);
    }
    Ok(length)
}

/// Takes all pieces as a client of the library does.
fn stream(warden: &mut Warden, handle: &Handle, script: &str) -> Result<usize> {
    let (job, _) = warden.spawn(handle, script)?;
    let request = StreamRequest { handle: Some(handle.clone()), job_id: Some(job) };
    let (runtime, client) = warden.parts();
    runtime.block_on(async {
        let mut stream = client.stream(request).await?;
        let mut received = 0;
        while let Some(piece) = stream.next().await? {
            received += piece.data.map_or(0, |data| data.len());
        }
        Ok(received)
    })
}
