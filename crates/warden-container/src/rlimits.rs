//! Limits of a job that cannot be as high as they were asked to be.

use rustix::process::{Resource as Kernel, getrlimit};
use rustix::thread::CapabilitySet;
use warden_init::message::Resource;

/// A limit that a job gets instead of a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lowered {
    pub(crate) resource: Resource,
    pub(crate) asked: u64,
    pub(crate) given: u64,
}

/// Finds the limits above what this process may have itself.
///
/// What it starts inherits that, and only CAP_SYS_RESOURCE of the host may raise it, which no user namespace has.
pub(crate) fn lowered(
    asked: impl IntoIterator<Item = (Resource, u64)>,
    in_user_namespace: bool,
) -> Vec<Lowered> {
    let may_raise = || {
        let sets = rustix::thread::capabilities(None);
        sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
    };
    if !in_user_namespace && may_raise() {
        return Vec::new();
    }
    compare(asked, |resource| getrlimit(kernels(resource)).maximum)
}

fn compare(
    asked: impl IntoIterator<Item = (Resource, u64)>,
    ceiling: impl Fn(Resource) -> Option<u64>,
) -> Vec<Lowered> {
    let lower = |(resource, asked)| {
        ceiling(resource).filter(|&given| given < asked).map(|given| Lowered { resource, asked, given })
    };
    asked.into_iter().filter_map(lower).collect()
}

fn kernels(resource: Resource) -> Kernel {
    match resource {
        Resource::As => Kernel::As,
        Resource::Core => Kernel::Core,
        Resource::Cpu => Kernel::Cpu,
        Resource::Data => Kernel::Data,
        Resource::Fsize => Kernel::Fsize,
        Resource::Locks => Kernel::Locks,
        Resource::Memlock => Kernel::Memlock,
        Resource::Msgqueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::Nofile => Kernel::Nofile,
        Resource::Nproc => Kernel::Nproc,
        Resource::Rss => Kernel::Rss,
        Resource::Rtprio => Kernel::Rtprio,
        Resource::Sigpending => Kernel::Sigpending,
        Resource::Stack => Kernel::Stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_above_the_ceiling_is_lowered() {
        let ceiling = |resource| match resource {
            Resource::Nofile => Some(20_000),
            _ => None,
        };
        let lower = |limits: &[(Resource, u64)]| compare(limits.iter().copied(), ceiling);
        assert!(lower(&[(Resource::Nofile, 20_000), (Resource::As, u64::MAX)]).is_empty());
        let expected = Lowered { resource: Resource::Nofile, asked: 20_001, given: 20_000 };
        assert_eq!(lower(&[(Resource::As, 5), (Resource::Nofile, 20_001)]), [expected]);
    }
}
