//! The capabilities that a privileged job has: those of Docker's default set.

/// A capability, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of capabilities(7)")]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    NetBindService = 10,
    NetRaw = 13,
    SysModule = 16,
    SysRawio = 17,
    SysChroot = 18,
    SysPtrace = 19,
    SysPacct = 20,
    SysAdmin = 21,
    SysBoot = 22,
    SysNice = 23,
    SysTime = 25,
    SysTtyConfig = 26,
    Mknod = 27,
    AuditWrite = 29,
    Setfcap = 31,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
}

/// A set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// All that there are and will be.
    pub const ALL: Self = Self(u64::MAX);

    const fn of(all: &[Capability]) -> Self {
        let (mut bits, mut n) = (0, 0);
        while n < all.len() {
            bits |= 1 << all[n] as u8;
            n += 1;
        }
        Self(bits)
    }

    /// Whether one is in it.
    pub fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// A bit for each, as /proc/PID/status shows them.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// What a privileged job needs to own its file system, to change its user and to serve: nothing in it reaches past the
/// container's namespaces.
pub const DEFAULT: Capabilities = Capabilities::of(&[
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers() {
        // CapEff of `docker run`.
        assert_eq!(DEFAULT.bits(), 0xa804_25fb);
        assert!(DEFAULT.has(Capability::Setfcap) && !DEFAULT.has(Capability::SysAdmin));
    }
}
