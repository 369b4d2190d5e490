//! Twenty-one commands whose output is compared literally with the shape that the original's client gave to such
//! answers: one line `field : value` for each field that is set, with the path to it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use support::server::{Answer, Server};
use support::{WARDEN, World, bytes, end, piece};
use warden_protocol::messages::*;
use warden_protocol::{Request, Response};

/// Commands and what they print to standard output.
const TRANSCRIPT: [(&str, &str); 21] = [
    ("ping", ""),
    ("echo --message 'hello, world'", "message : hello, world\n"),
    ("create --handle web --grace_time 600 --rootfs /srv/root", "handle : web\n"),
    ("list", "handles[0] : 17r47v9ocsi\nhandles[1] : web\n"),
    ("limit_memory --handle web --limit_in_bytes 0x10000000", "limit_in_bytes : 268435456\n"),
    ("limit_cpu --handle web --limit_in_shares 512", "limit_in_shares : 512\n"),
    (
        "limit_disk --handle web --byte 2048 --inode 10",
        "block_limit : 2\nblock : 2\nblock_soft : 2\nblock_hard : 2\ninode_limit : 10\ninode : 10\n\
         inode_soft : 10\ninode_hard : 10\nbyte_limit : 2048\nbyte : 2048\nbyte_soft : 2048\nbyte_hard : 2048\n",
    ),
    ("limit_bandwidth --handle web --rate 1_000 --burst 200", "rate : 1000\nburst : 200\n"),
    ("net_in --handle web --container_port 8080", "host_port : 61001\ncontainer_port : 8080\n"),
    ("net_out --handle web --network 10.0.0.0/8 --protocol ICMP --icmp_type -1", ""),
    ("copy_in --handle web --src_path /a/ --dst_path /b", ""),
    ("copy_out --handle web --src_path /b/ --dst_path /a --owner 1000:1000", ""),
    ("spawn --handle web --script \"exit 3\" --rlimits.nofile 1024", "job_id : 7\n"),
    (
        "link --handle web --job_id 7",
        "exit_status : 3\nstdout : out\n\nstderr : \ninfo.state : active\ninfo.events[0] : out of memory\n\
         info.memory_stat.rss : 4096\n",
    ),
    ("stream --handle web --job_id 7", "out\n"),
    ("run --handle web --script 'echo out'", "out\n"),
    (
        "info --handle web",
        "state : active\nhost_ip : 10.254.0.1\ncontainer_ip : 10.254.0.2\ncontainer_path : /depot/17r47v9ocsp\n\
         memory_stat.cache : 12288\nmemory_stat.rss : 4096\ncpu_stat.usage : 90655481463\ncpu_stat.user : 3814\n\
         cpu_stat.system : 4928\ndisk_stat.bytes_used : 223223808\ndisk_stat.inodes_used : 2014\n\
         bandwidth_stat.in_rate : 4294967295\nbandwidth_stat.out_burst : 4294967295\njob_ids[0] : 39\njob_ids[1] : 40\n",
    ),
    ("stop --handle web --background --kill", ""),
    ("destroy --handle web", ""),
    ("echo --message ''", "message : \n"),
    ("list", "handles[0] : 17r47v9ocsi\nhandles[1] : web\n"),
];

fn info() -> InfoResponse {
    InfoResponse {
        state: bytes("active"),
        host_ip: bytes("10.254.0.1"),
        container_ip: bytes("10.254.0.2"),
        container_path: bytes("/depot/17r47v9ocsp"),
        memory_stat: Some(MemoryStat { cache: Some(12_288), rss: Some(4096), ..MemoryStat::default() }),
        cpu_stat: Some(CpuStat { usage: Some(90_655_481_463), user: Some(3814), system: Some(4928) }),
        disk_stat: Some(DiskStat { bytes_used: Some(223_223_808), inodes_used: Some(2014), backend: None }),
        bandwidth_stat: Some(BandwidthStat {
            in_rate: Some(u32::MAX.into()),
            out_burst: Some(u32::MAX.into()),
            ..BandwidthStat::default()
        }),
        job_ids: vec![39, 40],
        ..InfoResponse::default()
    }
}

fn disk_limits(blocks: Option<u64>, inodes: Option<u64>, bytes: Option<u64>) -> LimitDiskResponse {
    LimitDiskResponse {
        block_limit: blocks,
        block: blocks,
        block_soft: blocks,
        block_hard: blocks,
        inode_limit: inodes,
        inode: inodes,
        inode_soft: inodes,
        inode_hard: inodes,
        byte_limit: bytes,
        byte: bytes,
        byte_soft: bytes,
        byte_hard: bytes,
    }
}

fn answer(request: &Request) -> Answer {
    match request.clone() {
        Request::Ping(_) => PingResponse {}.into(),
        Request::Echo(echo) => EchoResponse { message: echo.message }.into(),
        Request::Create(create) => CreateResponse { handle: create.handle }.into(),
        Request::List(_) => ListResponse { handles: vec![b"17r47v9ocsi".to_vec(), b"web".to_vec()] }.into(),
        Request::LimitMemory(limit) => LimitMemoryResponse { limit_in_bytes: limit.limit_in_bytes }.into(),
        Request::LimitCpu(limit) => {
            LimitCpuResponse { limit_in_shares: limit.limit_in_shares, quota_us: None }.into()
        }
        Request::LimitDisk(limit) => {
            disk_limits(limit.byte.map(|bytes| bytes / 1024), limit.inode, limit.byte).into()
        }
        Request::LimitBandwidth(limit) => {
            LimitBandwidthResponse { rate: limit.rate, burst: limit.burst }.into()
        }
        Request::NetIn(port) => {
            NetInResponse { host_port: Some(61001), container_port: port.container_port }.into()
        }
        Request::NetOut(_) => NetOutResponse {}.into(),
        Request::CopyIn(_) => CopyInResponse {}.into(),
        Request::CopyOut(_) => CopyOutResponse {}.into(),
        Request::Spawn(_) => SpawnResponse { job_id: Some(7) }.into(),
        Request::Stream(_) => Answer::Send(vec![piece("stdout", "out\n"), end(0)]),
        Request::Link(_) => LinkResponse {
            exit_status: Some(3),
            stdout: bytes("out\n"),
            stderr: bytes(""),
            info: Some(InfoResponse {
                state: bytes("active"),
                events: vec![b"out of memory".to_vec()],
                memory_stat: Some(MemoryStat { rss: Some(4096), ..MemoryStat::default() }),
                ..InfoResponse::default()
            }),
        }
        .into(),
        Request::Info(info) if info.handle() == b"17r47v9ocsi" => Response::error("unknown handle").into(),
        Request::Info(_) => info().into(),
        Request::Stop(_) => StopResponse {}.into(),
        Request::Destroy(destroy) if destroy.handle() == b"absent" => {
            Response::error("unknown handle").into()
        }
        Request::Destroy(_) => DestroyResponse {}.into(),
        Request::Run(_) => panic!("run is spawn and stream"),
    }
}

/// Calls the program with words that a shell splits, and with standard input.
fn warden(world: &World, words: &str, input: &[u8]) -> Output {
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec \"$WARDEN\" --socket \"$SOCKET\" {words}")])
        .env("WARDEN", WARDEN)
        .env("SOCKET", world.socket())
        .env("HOME", world.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that takes no input may have ended before.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn assert_output(output: &Output, status: i32, stdout: &str, stderr: &str) {
    assert_eq!(
        (
            output.status.code(),
            &*String::from_utf8_lossy(&output.stdout),
            &*String::from_utf8_lossy(&output.stderr)
        ),
        (Some(status), stdout, stderr)
    );
}

#[test]
fn each_command_prints_what_the_original_printed() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    for (line, expected) in TRANSCRIPT {
        assert_output(&warden(&world, line, b""), 0, expected, "");
        assert_output(&warden(&world, &format!("-- {line}"), b""), 0, expected, "");
    }
}

#[test]
fn commands_from_a_pipe_print_the_same() {
    let world = World::new();
    let server = Server::start(&world.socket(), answer);
    let lines: String = TRANSCRIPT.iter().map(|(line, _)| format!("{line}\n")).collect();
    let outputs: String = TRANSCRIPT.iter().map(|(_, output)| *output).collect();
    assert_output(&warden(&world, "", lines.as_bytes()), 0, &outputs, "");
    // Run is two requests, spawn and stream.
    assert_eq!(server.requests().len(), TRANSCRIPT.len() + 1);
    let traced: String = TRANSCRIPT.iter().map(|(line, output)| format!("+ {line}\n{output}")).collect();
    assert_output(&warden(&world, "--trace --exit_on_error", lines.as_bytes()), 0, &traced, "");
    assert!(!world.path(".warden_history").exists());
}

#[test]
fn errors_from_a_pipe_are_lines_and_end_it_only_if_wanted() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    let input =
        b"\n  \ndestroy absent\nbogus\necho --message \xff\nlist 'x\ny'\necho --message end\nrun 'open\n";
    let stderr = "unknown handle\nCommand: 'bogus' is non-existent.\nInvalid flag: 'x\\ny'.\n\
                  Unmatched quote or backslash.\n";
    let output = warden(&world, "", input);
    assert_output(&output, 0, "message : \u{fffd}\nmessage : end\n", stderr);
    assert!(output.stdout.starts_with(b"message : \xff\n"));
    assert_output(&warden(&world, "--exit_on_error", input), 1, "", "unknown handle\n");
    assert_output(&warden(&world, "", b"ping\nquit\nlist\n"), 0, "", "");
    assert_output(&warden(&world, "", b""), 0, "", "");
}

#[test]
fn containers_are_listed_in_a_table() {
    let world = World::new();
    let _server = Server::start(&world.socket(), answer);
    // The first handle of the list is of a container that has vanished.
    let output = warden(&world, "list --long", b"");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["HANDLE", "STATE", "ADDRESS", "MEMORY", "JOBS", "AGE"]);
    assert_eq!(lines[1][..3], ["web", "active", "10.254.0.2"]);
    assert_eq!(lines.len(), 2);
    let output = warden(&world, "--json list --long", b"");
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&row["handle"], &row["jobs"]), (&"web".into(), &2.into()));
    assert!(row["age_seconds"].as_u64().unwrap() > 300_000_000, "{row}");
}

#[test]
fn bare_words_are_taken() {
    let world = World::new();
    let server = Server::start(&world.socket(), answer);
    assert_output(&warden(&world, "run web 'echo out'", b""), 0, "out\n", "");
    assert_output(&warden(&world, "stream web 7", b""), 0, "out\n", "");
    assert_output(&warden(&world, "destroy web", b""), 0, "", "");
    let spawn = SpawnRequest { handle: bytes("web"), script: bytes("echo out"), ..SpawnRequest::default() };
    let stream = StreamRequest { handle: bytes("web"), job_id: Some(7) };
    let destroy = DestroyRequest { handle: bytes("web") };
    let expected: [Request; 4] = [spawn.into(), stream.clone().into(), stream.into(), destroy.into()];
    assert_eq!(server.requests(), expected);
}
