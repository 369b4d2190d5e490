//! What requests do not start: a request is done by the processes that are there.

use warden_protocol::messages::*;
use warden_tests::{Births, Connection, Daemon, Midwife, NOTHING_AHEAD};

const ROUNDS: usize = 5;

fn name(handle: &[u8]) -> Option<Vec<u8>> {
    Some(handle.to_vec())
}

/// Requests that change or look at a container, each once.
fn requests(client: &mut Connection, handle: &[u8], round: u64) {
    client.must(NetInRequest { handle: name(handle), ..NetInRequest::default() });
    let port = Some(u32::try_from(8_000 + round).unwrap());
    let network = Some(b"192.0.2.0/24".to_vec());
    client.must(NetOutRequest { handle: name(handle), network, port, ..NetOutRequest::default() });
    client.must(LimitMemoryRequest { handle: name(handle), limit_in_bytes: Some((64 + round) << 20) });
    client.must(LimitCpuRequest {
        handle: name(handle),
        limit_in_shares: Some(500 + round),
        quota_us: Some(50_000),
    });
    let (rate, burst) = (Some(1_000_000 + round), Some(100_000));
    client.must(LimitBandwidthRequest { handle: name(handle), rate, burst });
    let disk =
        LimitDiskRequest { handle: name(handle), byte: Some((64 + round) << 20), ..Default::default() };
    // Where the depot has no quotas, that is what it answers: without a process, too.
    let _ = client.ask(disk);
    client.info(handle);
    client.list();
}

#[test]
fn a_container_is_copies_of_iomux_and_no_program_and_limits_rules_and_info_start_none() {
    let daemon = Daemon::with(&[NOTHING_AHEAD]);
    let mut client = daemon.connect();
    // The first needs what the others are copied from.
    let first = client.create();
    client.destroy(&first);
    let mut midwife = Midwife::of(daemon.fork_server(), [daemon.pid()]);
    assert_eq!(midwife.look(), Births::default());
    for round in 0..ROUNDS {
        let handle = client.create();
        let created = midwife.look();
        assert_eq!((created.children, created.programs), (1, 0), "iomux, and wshd below it: {created:?}");
        requests(&mut client, &handle, round as u64);
        client.destroy(&handle);
        assert_eq!(midwife.look(), Births::default());
    }
    let handle = client.create();
    client.run(&handle, "/bin/true");
    let job = midwife.look();
    assert_eq!((job.children, job.programs), (1, 2), "a job is seen: bash and what it starts: {job:?}");
}
