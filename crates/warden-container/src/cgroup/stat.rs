//! What the kernel counts for a group, in the words of version 1.

use std::collections::HashMap;
use std::path::Path;

use warden_linux::file::read_text;

use crate::cgroup::hierarchy::Version;
use crate::info::{CpuStat, MemoryStat};

/// What version 1 shows where there is no limit: the most pages that it can count, in bytes.
pub(super) const UNLIMITED: u64 = 9_223_372_036_854_771_712;
/// Microseconds in a unit of USER_HZ.
const USER_HZ_MICROSECONDS: u64 = 10_000;

/// Reads the memory of a group.
pub(super) fn memory(version: Version, directory: &Path) -> Option<MemoryStat> {
    let read = |file: &str| read_text(&directory.join(file)).ok();
    let stat = read("memory.stat")?;
    Some(match version {
        Version::V1 => memory_v1(&stat),
        Version::V2 => {
            let swap = read("memory.swap.current").and_then(|text| text.trim().parse().ok());
            memory_v2(&stat, read("memory.max").as_deref(), read("memory.swap.max").as_deref(), swap)
        }
    })
}

/// Reads the CPU time of a group.
pub(super) fn cpu(version: Version, directory: &Path) -> Option<CpuStat> {
    let read = |file: &str| read_text(&directory.join(file)).ok();
    match version {
        Version::V1 => {
            let usage = read("cpuacct.usage")?.trim().parse().ok();
            let stat = read("cpuacct.stat")?;
            let fields = fields(&stat);
            let get = |name| fields.get(name).copied();
            Some(CpuStat { usage, user: get("user"), system: get("system") })
        }
        Version::V2 => Some(cpu_v2(&read("cpu.stat")?)),
    }
}

fn fields(text: &str) -> HashMap<&str, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name, value.trim().parse().ok()?)))
        .collect()
}

fn memory_v1(text: &str) -> MemoryStat {
    let fields = fields(text);
    let get = |name| fields.get(name).copied();
    MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        mapped_file: get("mapped_file"),
        pgpgin: get("pgpgin"),
        pgpgout: get("pgpgout"),
        swap: get("swap"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_memsw_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_mapped_file: get("total_mapped_file"),
        total_pgpgin: get("total_pgpgin"),
        total_pgpgout: get("total_pgpgout"),
        total_swap: get("total_swap"),
        total_pgfault: get("total_pgfault"),
        total_pgmajfault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
    }
}

/// Version 2 counts a group with all below it, so the plain and the total fields are the same; it does not count
/// pages in and out.
fn memory_v2(text: &str, limit: Option<&str>, swap_limit: Option<&str>, swap: Option<u64>) -> MemoryStat {
    let fields = fields(text);
    let get = |name| fields.get(name).copied();
    let (cache, rss, mapped_file) = (get("file"), get("anon"), get("file_mapped"));
    let (pgfault, pgmajfault) = (get("pgfault"), get("pgmajfault"));
    let (inactive_anon, active_anon) = (get("inactive_anon"), get("active_anon"));
    let (inactive_file, active_file) = (get("inactive_file"), get("active_file"));
    let unevictable = get("unevictable");
    let limit = limit.and_then(bytes_or_max);
    let both = |swap: u64| limit.map(|memory| memory.saturating_add(swap).min(UNLIMITED));
    MemoryStat {
        cache,
        rss,
        mapped_file,
        pgpgin: None,
        pgpgout: None,
        swap,
        pgfault,
        pgmajfault,
        inactive_anon,
        active_anon,
        inactive_file,
        active_file,
        unevictable,
        hierarchical_memory_limit: limit,
        hierarchical_memsw_limit: swap_limit.and_then(bytes_or_max).and_then(both),
        total_cache: cache,
        total_rss: rss,
        total_mapped_file: mapped_file,
        total_pgpgin: None,
        total_pgpgout: None,
        total_swap: swap,
        total_pgfault: pgfault,
        total_pgmajfault: pgmajfault,
        total_inactive_anon: inactive_anon,
        total_active_anon: active_anon,
        total_inactive_file: inactive_file,
        total_active_file: active_file,
        total_unevictable: unevictable,
    }
}

pub(super) fn bytes_or_max(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(UNLIMITED),
        number => number.parse().ok(),
    }
}

fn cpu_v2(text: &str) -> CpuStat {
    let fields = fields(text);
    let get = |name| fields.get(name).copied();
    CpuStat {
        usage: get("usage_usec").map(|microseconds| microseconds.saturating_mul(1_000)),
        user: get("user_usec").map(|microseconds| microseconds / USER_HZ_MICROSECONDS),
        system: get("system_usec").map(|microseconds| microseconds / USER_HZ_MICROSECONDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_taken_as_it_is() {
        let stat = memory_v1(
            "cache 12288\nrss 4096\nhierarchical_memory_limit 9223372036854771712\ntotal_rss 8192\nodd\nx y\n",
        );
        let expected = MemoryStat {
            cache: Some(12_288),
            rss: Some(4_096),
            hierarchical_memory_limit: Some(UNLIMITED),
            total_rss: Some(8_192),
            ..MemoryStat::default()
        };
        assert_eq!(stat, expected);
    }

    #[test]
    fn version_2_is_mapped_to_the_same_fields() {
        let text =
            "anon 100\nfile 200\nfile_mapped 20\ninactive_file 7\nactive_anon 9\nunevictable 0\npgfault 5\n";
        let stat = memory_v2(text, Some("4096\n"), Some("max\n"), Some(3));
        assert_eq!(
            (stat.rss, stat.total_rss, stat.cache, stat.total_cache),
            (Some(100), Some(100), Some(200), Some(200))
        );
        assert_eq!(
            (stat.mapped_file, stat.total_inactive_file, stat.active_anon),
            (Some(20), Some(7), Some(9))
        );
        assert_eq!((stat.swap, stat.total_swap, stat.pgpgin), (Some(3), Some(3), None));
        assert_eq!(stat.hierarchical_memory_limit, Some(4_096));
        assert_eq!(stat.hierarchical_memsw_limit, Some(UNLIMITED));
        let limited = memory_v2(text, Some("4096"), Some("1"), None);
        assert_eq!(limited.hierarchical_memsw_limit, Some(4_097));
        assert_eq!(memory_v2(text, None, None, None).hierarchical_memory_limit, None);
    }

    #[test]
    fn version_2_cpu_time_has_the_units_of_version_1() {
        let stat = cpu_v2("usage_usec 1234567\nuser_usec 999999\nsystem_usec 20000\nnr_periods 0\n");
        assert_eq!(stat, CpuStat { usage: Some(1_234_567_000), user: Some(99), system: Some(2) });
    }
}
