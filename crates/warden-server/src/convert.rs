//! Between the protocol's messages and the domain's values: the only place that knows both.

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

use std::time::Duration;

use warden_container::disk::Limits;
use warden_container::error::Error;
use warden_container::info::{BandwidthStat, CpuStat, DiskStat, Info, MemoryStat, Pressure, PressureStat};
use warden_container::request::{
    Bind, Copy, Create, Direction, Disk, NetIn, NetOut, Protocol, Run, Space, Stop, Transport,
};
use warden_init::message::Resource;
use warden_protocol::messages;

/// A container to make; refuses a mode of a bind mount that does not exist.
pub(crate) fn create(request: messages::CreateRequest) -> Result<Create, Error> {
    Ok(Create {
        handle: request.handle,
        grace_time: request.grace_time.map(|seconds| Duration::from_secs(seconds.into())),
        network: request.network,
        rootfs: request.rootfs,
        binds: request.bind_mounts.into_iter().map(bind).collect::<Result<_, _>>()?,
    })
}

fn bind(mount: messages::create_request::BindMount) -> Result<Bind, Error> {
    let mode = mount.mode.and_then(|mode| messages::create_request::Mode::try_from(mode).ok());
    let writable = match mode.ok_or(Error::UnknownBindMode)? {
        messages::create_request::Mode::Ro => false,
        messages::create_request::Mode::Rw => true,
    };
    Ok(Bind {
        source: mount.src_path.unwrap_or_default(),
        destination: mount.dst_path.unwrap_or_default(),
        writable,
    })
}

/// A script to run.
pub(crate) fn run(request: messages::RunRequest) -> Run {
    Run {
        script: request.script.unwrap_or_default(),
        privileged: request.privileged.unwrap_or(false),
        rlimits: request.rlimits.as_ref().map(limits).unwrap_or_default(),
        discard_output: request.discard_output.unwrap_or(false),
        log_tag: request.log_tag,
    }
}

/// A script to run, the same fields under another name.
pub(crate) fn spawn(request: messages::SpawnRequest) -> Run {
    run(messages::RunRequest {
        handle: request.handle,
        script: request.script,
        privileged: request.privileged,
        rlimits: request.rlimits,
        discard_output: request.discard_output,
        log_tag: request.log_tag,
    })
}

/// How to stop.
pub(crate) fn copy_in(request: messages::CopyInRequest) -> Copy {
    Copy {
        direction: Direction::In,
        source: request.src_path.unwrap_or_default(),
        target: request.dst_path.unwrap_or_default(),
        owner: None,
    }
}

pub(crate) fn copy_out(request: messages::CopyOutRequest) -> Copy {
    Copy {
        direction: Direction::Out,
        source: request.src_path.unwrap_or_default(),
        target: request.dst_path.unwrap_or_default(),
        owner: request.owner.filter(|owner| !owner.is_empty()),
    }
}

pub(crate) fn stop(request: &messages::StopRequest) -> Stop {
    Stop { background: request.background.unwrap_or(false), kill: request.kill.unwrap_or(false) }
}

/// A port to forward; refuses what is no port.
pub(crate) fn net_in(request: &messages::NetInRequest) -> Result<NetIn, Error> {
    let port = |field, number: Option<u32>| match number {
        None => Ok(None),
        Some(number) => match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(Some(port)),
            _ => Err(Error::invalid(field, number.to_string().as_bytes(), "a number from 1 to 65535")),
        },
    };
    Ok(NetIn {
        protocol: match request.protocol.map(|number| (number, messages::Transport::try_from(number))) {
            None | Some((_, Ok(messages::Transport::Tcp))) => Transport::Tcp,
            Some((_, Ok(messages::Transport::Udp))) => Transport::Udp,
            Some((number, Err(_))) => {
                return Err(Error::invalid("protocol", number.to_string().as_bytes(), "0 (TCP) or 1 (UDP)"));
            }
        },
        host_port: port("host_port", request.host_port)?,
        container_port: port("container_port", request.container_port)?,
    })
}

/// Traffic to let out; refuses what is no protocol.
pub(crate) fn net_out(request: messages::NetOutRequest) -> Result<NetOut, Error> {
    Ok(NetOut {
        protocol: protocol(request.protocol)?,
        network: request.network,
        port: request.port,
        port_range: request.port_range,
        icmp_type: request.icmp_type,
        icmp_code: request.icmp_code,
        log: request.log.unwrap_or(false),
    })
}

/// The protocol of this number; TCP when absent.
fn protocol(number: Option<i32>) -> Result<Protocol, Error> {
    use messages::net_out_request::Protocol as Asked;
    let Some(number) = number else { return Ok(Protocol::Tcp) };
    match Asked::try_from(number) {
        Ok(Asked::Tcp) => Ok(Protocol::Tcp),
        Ok(Asked::Udp) => Ok(Protocol::Udp),
        Ok(Asked::Icmp) => Ok(Protocol::Icmp),
        Ok(Asked::All) => Ok(Protocol::All),
        Err(_) => {
            let expected = "0 (TCP), 1 (UDP), 2 (ICMP) or 3 (ALL)";
            Err(Error::invalid("protocol", number.to_string().as_bytes(), expected))
        }
    }
}

/// Limits of what is stored; of several names for one limit the last one wins, and blocks go before bytes.
pub(crate) fn limit_disk(request: &messages::LimitDiskRequest) -> Disk {
    let last = |names: [Option<u64>; 3]| names.into_iter().flatten().last();
    let space = |bytes: Option<u64>, blocks: Option<u64>| {
        blocks.map(Space::Blocks).or_else(|| bytes.map(Space::Bytes))
    };
    let bytes = last([request.byte_limit, request.byte, request.byte_hard]);
    let blocks = last([request.block_limit, request.block, request.block_hard]);
    Disk {
        soft: space(request.byte_soft, request.block_soft),
        hard: space(bytes, blocks),
        soft_inodes: request.inode_soft,
        hard_inodes: last([request.inode_limit, request.inode, request.inode_hard]),
    }
}

/// The limits as they are kept, under each of their names; nothing where none are.
pub(crate) fn disk_limits(limits: Option<Limits>) -> messages::LimitDiskResponse {
    let Some(limits) = limits else { return messages::LimitDiskResponse::default() };
    let (hard, soft) = (Some(limits.hard_bytes), Some(limits.soft_bytes));
    let blocks = |bytes: u64| Some(bytes.div_ceil(Space::BLOCK));
    let (block_hard, block_soft) = (blocks(limits.hard_bytes), blocks(limits.soft_bytes));
    let (inode_hard, inode_soft) = (Some(limits.hard_inodes), Some(limits.soft_inodes));
    messages::LimitDiskResponse {
        block_limit: block_hard,
        block: block_hard,
        block_soft,
        block_hard,
        inode_limit: inode_hard,
        inode: inode_hard,
        inode_soft,
        inode_hard,
        byte_limit: hard,
        byte: hard,
        byte_soft: soft,
        byte_hard: hard,
    }
}

/// The limits that are set.
fn limits(limits: &messages::ResourceLimits) -> Vec<(Resource, u64)> {
    let all = [
        (Resource::As, limits.r#as),
        (Resource::Core, limits.core),
        (Resource::Cpu, limits.cpu),
        (Resource::Data, limits.data),
        (Resource::Fsize, limits.fsize),
        (Resource::Locks, limits.locks),
        (Resource::Memlock, limits.memlock),
        (Resource::Msgqueue, limits.msgqueue),
        (Resource::Nice, limits.nice),
        (Resource::Nofile, limits.nofile),
        (Resource::Nproc, limits.nproc),
        (Resource::Rss, limits.rss),
        (Resource::Rtprio, limits.rtprio),
        (Resource::Sigpending, limits.sigpending),
        (Resource::Stack, limits.stack),
    ];
    all.into_iter().filter_map(|(resource, limit)| Some((resource, limit?))).collect()
}

/// A container at one moment.
pub(crate) fn info(info: Info) -> messages::InfoResponse {
    messages::InfoResponse {
        state: Some(info.state.to_string().into_bytes()),
        events: info.events.into_iter().map(String::into_bytes).collect(),
        host_ip: Some(info.host_ip.to_string().into_bytes()),
        container_ip: Some(info.container_ip.to_string().into_bytes()),
        host_ipv6: info.ipv6.map(|(host, _)| host.to_string().into_bytes()),
        container_ipv6: info.ipv6.map(|(_, container)| container.to_string().into_bytes()),
        container_path: Some(info.path.into_os_string().into_encoded_bytes()),
        memory_stat: info.memory.map(memory),
        cpu_stat: info.cpu.map(cpu),
        disk_stat: info.disk.map(disk),
        bandwidth_stat: Some(bandwidth(info.bandwidth)),
        pressure_stat: info.pressure.map(pressure_stat),
        job_ids: info.jobs.into_iter().map(u64::from).collect(),
    }
}

fn disk(stat: DiskStat) -> messages::DiskStat {
    messages::DiskStat {
        bytes_used: Some(stat.bytes_used),
        inodes_used: stat.inodes_used,
        backend: Some(stat.backend.into()),
    }
}

fn cpu(stat: CpuStat) -> messages::CpuStat {
    messages::CpuStat { usage: stat.usage, user: stat.user, system: stat.system }
}

fn pressure_stat(stat: PressureStat) -> messages::PressureStat {
    messages::PressureStat {
        cpu: stat.cpu.map(pressure),
        memory: stat.memory.map(pressure),
        io: stat.io.map(pressure),
    }
}

fn pressure(pressure: Pressure) -> messages::Pressure {
    let (some, full) = (pressure.some, pressure.full);
    messages::Pressure {
        some_avg10: some.map(|stall| stall.avg10),
        some_avg60: some.map(|stall| stall.avg60),
        some_avg300: some.map(|stall| stall.avg300),
        some_total: some.map(|stall| stall.total),
        full_avg10: full.map(|stall| stall.avg10),
        full_avg60: full.map(|stall| stall.avg60),
        full_avg300: full.map(|stall| stall.avg300),
        full_total: full.map(|stall| stall.total),
    }
}

fn bandwidth(stat: BandwidthStat) -> messages::BandwidthStat {
    messages::BandwidthStat {
        in_rate: Some(stat.in_rate),
        in_burst: Some(stat.in_burst),
        out_rate: Some(stat.out_rate),
        out_burst: Some(stat.out_burst),
    }
}

fn memory(stat: MemoryStat) -> messages::MemoryStat {
    messages::MemoryStat {
        cache: stat.cache,
        rss: stat.rss,
        mapped_file: stat.mapped_file,
        pgpgin: stat.pgpgin,
        pgpgout: stat.pgpgout,
        swap: stat.swap,
        pgfault: stat.pgfault,
        pgmajfault: stat.pgmajfault,
        inactive_anon: stat.inactive_anon,
        active_anon: stat.active_anon,
        inactive_file: stat.inactive_file,
        active_file: stat.active_file,
        unevictable: stat.unevictable,
        hierarchical_memory_limit: stat.hierarchical_memory_limit,
        hierarchical_memsw_limit: stat.hierarchical_memsw_limit,
        total_cache: stat.total_cache,
        total_rss: stat.total_rss,
        total_mapped_file: stat.total_mapped_file,
        total_pgpgin: stat.total_pgpgin,
        total_pgpgout: stat.total_pgpgout,
        total_swap: stat.total_swap,
        total_pgfault: stat.total_pgfault,
        total_pgmajfault: stat.total_pgmajfault,
        total_inactive_anon: stat.total_inactive_anon,
        total_active_anon: stat.total_active_anon,
        total_inactive_file: stat.total_inactive_file,
        total_active_file: stat.total_active_file,
        total_unevictable: stat.total_unevictable,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use warden_container::info::Stall;
    use warden_container::state::State;

    use super::*;

    fn mount(mode: Option<i32>) -> messages::create_request::BindMount {
        messages::create_request::BindMount {
            src_path: Some(b"/s\xff".into()),
            dst_path: Some(b"/d".into()),
            mode,
        }
    }

    #[test]
    fn a_create_keeps_every_field_and_every_byte() {
        let request = messages::CreateRequest {
            bind_mounts: vec![mount(Some(0)), mount(Some(1))],
            grace_time: Some(0),
            handle: Some(b"h\xfe".into()),
            network: Some(b"10.254.0.4".into()),
            rootfs: Some(b"/r".into()),
        };
        let made = create(request).unwrap();
        assert_eq!(made.handle, Some(b"h\xfe".to_vec()));
        assert_eq!(made.grace_time, Some(Duration::ZERO));
        assert_eq!((made.network, made.rootfs), (Some(b"10.254.0.4".to_vec()), Some(b"/r".to_vec())));
        let binds: Vec<_> =
            made.binds.into_iter().map(|bind| (bind.source, bind.destination, bind.writable)).collect();
        assert_eq!(
            binds,
            [(b"/s\xff".to_vec(), b"/d".to_vec(), false), (b"/s\xff".to_vec(), b"/d".to_vec(), true)]
        );
        let plain = create(messages::CreateRequest::default()).unwrap();
        assert!(plain.handle.is_none() && plain.grace_time.is_none() && plain.binds.is_empty());
    }

    #[test]
    fn an_unknown_mode_is_refused_in_the_original_s_words() {
        for mode in [Some(2), Some(-1), None] {
            let request = messages::CreateRequest { bind_mounts: vec![mount(mode)], ..Default::default() };
            assert_eq!(create(request).unwrap_err().to_string(), "Unknown mode");
        }
    }

    #[test]
    fn a_run_has_the_declared_defaults_and_only_the_limits_that_are_set() {
        let plain = run(messages::RunRequest { script: Some(b"\xff".into()), ..Default::default() });
        assert_eq!(plain.script, b"\xff");
        assert!(
            !plain.privileged && !plain.discard_output && plain.rlimits.is_empty() && plain.log_tag.is_none()
        );
        let limits = messages::ResourceLimits { r#as: Some(1), stack: Some(0), ..Default::default() };
        let full = spawn(messages::SpawnRequest {
            handle: Some(b"h".into()),
            script: Some(b"s".into()),
            privileged: Some(true),
            rlimits: Some(limits),
            discard_output: Some(true),
            log_tag: Some(b"t".into()),
        });
        assert!(full.privileged && full.discard_output);
        assert_eq!(full.rlimits, [(Resource::As, 1), (Resource::Stack, 0)]);
        assert_eq!(full.log_tag, Some(b"t".to_vec()));
    }

    #[test]
    fn every_limit_reaches_its_own_resource() {
        let all = messages::ResourceLimits {
            r#as: Some(1),
            core: Some(2),
            cpu: Some(3),
            data: Some(4),
            fsize: Some(5),
            locks: Some(6),
            memlock: Some(7),
            msgqueue: Some(8),
            nice: Some(9),
            nofile: Some(10),
            nproc: Some(11),
            rss: Some(12),
            rtprio: Some(13),
            sigpending: Some(14),
            stack: Some(15),
        };
        let read = limits(&all);
        assert!(read.is_sorted_by_key(|(resource, _)| *resource));
        assert_eq!(read.iter().map(|(_, limit)| *limit).collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
    }

    #[test]
    fn of_several_names_of_a_disk_limit_the_later_one_wins() {
        use messages::LimitDiskRequest as Request;
        let all = Request {
            block_limit: Some(1),
            block: Some(2),
            block_soft: Some(3),
            block_hard: Some(4),
            inode_limit: Some(5),
            inode: Some(6),
            inode_soft: Some(7),
            inode_hard: Some(8),
            byte_limit: Some(9),
            byte: Some(10),
            byte_soft: Some(11),
            byte_hard: Some(12),
            ..Request::default()
        };
        let (hard, soft) = (Some(Space::Blocks(4)), Some(Space::Blocks(3)));
        let expected = Disk { soft, hard, soft_inodes: Some(7), hard_inodes: Some(8) };
        assert_eq!(limit_disk(&all), expected);
        let hard = |request: Request| limit_disk(&request).hard;
        let without = Request { block_hard: None, inode_hard: None, block_soft: None, ..all };
        assert_eq!(limit_disk(&without).hard, Some(Space::Blocks(2)));
        assert_eq!(limit_disk(&without).hard_inodes, Some(6));
        assert_eq!(limit_disk(&without).soft, Some(Space::Bytes(11)));
        let bytes = Request { block_limit: None, block: None, ..without };
        assert_eq!(hard(bytes.clone()), Some(Space::Bytes(12)));
        assert_eq!(hard(Request { byte_hard: None, ..bytes.clone() }), Some(Space::Bytes(10)));
        assert_eq!(hard(Request { byte_hard: None, byte: None, ..bytes }), Some(Space::Bytes(9)));
        let first =
            Request { block_limit: Some(1), byte_hard: Some(9), inode_limit: Some(3), ..Request::default() };
        assert_eq!(limit_disk(&first).hard_inodes, Some(3));
        assert_eq!(hard(first), Some(Space::Blocks(1)));
        assert_eq!(limit_disk(&Request::default()), Disk::default());
    }

    #[test]
    fn the_limits_of_the_disk_are_told_under_each_name() {
        let limits = Limits { soft_bytes: 512, hard_bytes: 4096, soft_inodes: 5, hard_inodes: 9 };
        let told = disk_limits(Some(limits));
        for blocks in [told.block_limit, told.block, told.block_hard] {
            assert_eq!(blocks, Some(4));
        }
        for bytes in [told.byte_limit, told.byte, told.byte_hard] {
            assert_eq!(bytes, Some(4096));
        }
        for inodes in [told.inode_limit, told.inode, told.inode_hard] {
            assert_eq!(inodes, Some(9));
        }
        assert_eq!((told.block_soft, told.byte_soft, told.inode_soft), (Some(1), Some(512), Some(5)));
        assert_eq!(disk_limits(None), messages::LimitDiskResponse::default());
    }

    #[test]
    fn stop_has_the_declared_defaults() {
        let plain = stop(&messages::StopRequest::default());
        assert!(!plain.background && !plain.kill);
        let request =
            messages::StopRequest { background: Some(true), kill: Some(true), ..Default::default() };
        assert!(stop(&request).background && stop(&request).kill);
    }

    #[test]
    fn info_tells_what_the_domain_knows_and_nothing_else() {
        let told = info(Info {
            state: State::Stopped,
            events: vec!["out of memory".to_owned()],
            host_ip: Ipv4Addr::new(10, 254, 0, 1),
            container_ip: Ipv4Addr::new(10, 254, 0, 2),
            ipv6: None,
            path: "/depot/id".into(),
            memory: Some(MemoryStat { rss: Some(7), total_unevictable: Some(0), ..MemoryStat::default() }),
            cpu: None,
            disk: Some(DiskStat { bytes_used: 4096, inodes_used: None, backend: "btrfs" }),
            pressure: Some(PressureStat {
                io: Some(Pressure { some: Some(Stall { total: 9, ..Stall::default() }), full: None }),
                ..PressureStat::default()
            }),
            bandwidth: BandwidthStat { in_rate: 7, ..BandwidthStat::default() },
            jobs: vec![1, 4_294_967_295],
        });
        assert_eq!(told.state, Some(b"stopped".to_vec()));
        assert_eq!(told.events, [b"out of memory".to_vec()]);
        assert_eq!(told.host_ip, Some(b"10.254.0.1".to_vec()));
        assert_eq!(told.container_path, Some(b"/depot/id".to_vec()));
        let memory = told.memory_stat.unwrap();
        assert_eq!((memory.rss, memory.total_unevictable, memory.cache), (Some(7), Some(0), None));
        assert!(told.cpu_stat.is_none());
        let disk = told.disk_stat.unwrap();
        assert_eq!((disk.bytes_used, disk.inodes_used), (Some(4096), None));
        assert_eq!(disk.backend, Some(b"btrfs".to_vec()));
        let waiting = told.pressure_stat.unwrap();
        assert_eq!((waiting.cpu, waiting.io.as_ref().unwrap().some_total), (None, Some(9)));
        assert_eq!(waiting.io.unwrap().full_avg10, None);
        let bandwidth = told.bandwidth_stat.unwrap();
        assert_eq!((bandwidth.in_rate, bandwidth.out_burst), (Some(7), Some(u32::MAX.into())));
        assert_eq!(told.job_ids, [1, 4_294_967_295]);
    }
}
