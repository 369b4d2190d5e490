//! A group's share of processor time and its hard quota, as either version keeps them.

use std::fs;
use std::io;
use std::path::Path;

use crate::cgroup::hierarchy::Version;
use crate::cgroup::write_existing;

/// The shares that version 1 keeps; it brings others to the nearer end.
const SHARES: (u64, u64) = (2, 262_144);
/// The weights of version 2.
const WEIGHTS: (u64, u64) = (1, 10_000);
/// The shares and the weight of a group that nobody has changed: the kernel's own rate between them.
pub(crate) const DEFAULT_SHARES: u64 = 1024;
const DEFAULT_WEIGHT: u64 = 100;
/// The period of a quota, microseconds: the kernel's default.
pub(crate) const PERIOD: u64 = 100_000;
/// The least quota that the kernel takes, microseconds.
const LEAST_QUOTA: u64 = 1_000;

/// Brings shares into the range that the kernel keeps.
pub(crate) fn nearest_shares(shares: u64) -> u64 {
    shares.clamp(SHARES.0, SHARES.1)
}

/// Checks a quota against the machine's processors; `None` stands for none, or says why it cannot be.
pub(crate) fn check_quota(microseconds: u64, processors: u64) -> Result<Option<u64>, String> {
    let most = processors.saturating_mul(PERIOD);
    match microseconds {
        0..LEAST_QUOTA => Err(format!("less than {LEAST_QUOTA} microseconds in each {PERIOD}")),
        u64::MAX => Ok(None),
        _ if microseconds > most => {
            Err(format!("above the machine's {processors} processors, which are {most}"))
        }
        _ => Ok(Some(microseconds)),
    }
}

fn weight(shares: u64) -> u64 {
    let weight = (shares * DEFAULT_WEIGHT + DEFAULT_SHARES / 2) / DEFAULT_SHARES;
    weight.clamp(WEIGHTS.0, WEIGHTS.1)
}

fn shares_of_weight(weight: u64) -> u64 {
    nearest_shares(weight.saturating_mul(DEFAULT_SHARES) / DEFAULT_WEIGHT)
}

/// Reads the shares; where the kernel keeps a coarser weight, `asked` decides between those that it may stand for.
pub(super) fn shares(version: Version, directory: &Path, asked: Option<u64>) -> io::Result<u64> {
    match version {
        Version::V1 => number(&directory.join("cpu.shares")),
        Version::V2 => {
            let kept = number(&directory.join("cpu.weight"))?;
            Ok(asked.filter(|&shares| weight(shares) == kept).unwrap_or_else(|| shares_of_weight(kept)))
        }
    }
}

/// Sets the shares.
pub(super) fn set_shares(version: Version, directory: &Path, shares: u64) -> io::Result<()> {
    match version {
        Version::V1 => write_existing(&directory.join("cpu.shares"), &shares.to_string()),
        Version::V2 => write_existing(&directory.join("cpu.weight"), &weight(shares).to_string()),
    }
}

/// Reads the quota, microseconds in each [`PERIOD`]; `None` where there is none, or where the kernel has none.
pub(super) fn quota(version: Version, directory: &Path) -> io::Result<Option<u64>> {
    let read = |file: &str| match fs::read_to_string(directory.join(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    let parsed = match version {
        Version::V1 => quota_of(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
        Version::V2 => {
            let both = read("cpu.max")?;
            let (quota, period) = both.as_deref().and_then(|both| both.split_once(' ')).unzip();
            quota_of(quota, period)
        }
    };
    Ok(parsed)
}

/// Brings a quota of any period to ours.
fn quota_of(quota: Option<impl AsRef<str>>, period: Option<impl AsRef<str>>) -> Option<u64> {
    // Neither "-1" nor "max" is one.
    let quota: u64 = quota?.as_ref().trim().parse().ok()?;
    let period: u64 = period?.as_ref().trim().parse().ok()?;
    u64::try_from(u128::from(quota) * u128::from(PERIOD) / u128::from(period.max(1))).ok()
}

/// Sets the quota, or lifts it.
pub(super) fn set_quota(version: Version, directory: &Path, quota: Option<u64>) -> io::Result<()> {
    let text = |none: &str| quota.map_or_else(|| none.to_owned(), |quota| quota.to_string());
    match version {
        Version::V1 => {
            write_existing(&directory.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
            write_existing(&directory.join("cpu.cfs_quota_us"), &text("-1"))
        }
        Version::V2 => write_existing(&directory.join("cpu.max"), &format!("{} {PERIOD}", text("max"))),
    }
}

fn number(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_in_the_kernel_s_own_rate() {
        let cases =
            [(2, 1), (10, 1), (512, 50), (1024, 100), (1536, 150), (10_240, 1_000), (102_400, 10_000)];
        for (shares, expected) in cases {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert_eq!(weight(262_144), 10_000);
        assert_eq!(
            (shares_of_weight(100), shares_of_weight(1), shares_of_weight(10_000)),
            (1024, 10, 102_400)
        );
    }

    #[test]
    fn shares_are_brought_into_the_kernel_s_range() {
        let cases = [
            (0, 2),
            (1, 2),
            (2, 2),
            (1024, 1024),
            (262_144, 262_144),
            (262_145, 262_144),
            (u64::MAX, 262_144),
        ];
        for (asked, kept) in cases {
            assert_eq!(nearest_shares(asked), kept);
        }
    }

    #[test]
    fn a_quota_is_at_least_a_millisecond_and_at_most_the_machine() {
        for refused in [0, 1, 999, 200_001, u64::MAX - 1] {
            assert!(check_quota(refused, 2).is_err(), "{refused}");
        }
        for taken in [1_000, 50_000, 200_000] {
            assert_eq!(check_quota(taken, 2), Ok(Some(taken)));
        }
        assert_eq!(check_quota(u64::MAX, 2), Ok(None));
    }

    #[test]
    fn a_quota_is_read_in_our_period() {
        assert_eq!(quota_of(Some("-1\n"), Some("100000\n")), None);
        assert_eq!(quota_of(Some("max"), Some("100000\n")), None);
        assert_eq!(quota_of(Some("25000"), Some("50000\n")), Some(50_000));
        assert_eq!(quota_of(None::<&str>, None::<&str>), None);
    }

    #[test]
    fn version_2_tells_the_shares_that_were_asked_for() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cpu.weight"), "100\n").unwrap();
        assert_eq!(shares(Version::V2, group.path(), None).unwrap(), 1024);
        assert_eq!(shares(Version::V2, group.path(), Some(1023)).unwrap(), 1023);
        assert_eq!(shares(Version::V2, group.path(), Some(7)).unwrap(), 1024, "somebody else has changed it");
    }
}
