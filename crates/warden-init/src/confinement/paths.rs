//! Paths of /proc and /sys that a container sees covered, or cannot write to.
//!
//! The user namespace alone keeps its root from most of them. They are for the rest, and for containers without one.

/// The masked directory that every kernel has: ACPI tables, EFI variables.
pub const FIRST_MASKED_DIRECTORY: &str = "/sys/firmware";

/// Directories that look empty, beside the first.
pub const MASKED_DIRECTORIES: [&str; 4] = [
    // Hardware of the host, and its switches.
    "/proc/acpi",
    "/proc/asound",
    "/proc/scsi",
    // Power meters precise enough to read secrets from (CVE-2020-8694).
    "/sys/devices/virtual/powercap",
];

/// Files that look empty, because /dev/null is in their place.
pub const MASKED_FILES: [&str; 7] = [
    // Tells when keys are pressed and packets come.
    "/proc/interrupts",
    // The kernel's memory, and where in it things are.
    "/proc/kcore",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/latency_stats",
    // Names and sizes of other users' keys.
    "/proc/keys",
];

/// Read-only.
pub const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    // core_pattern, modprobe and binfmt_misc name programs that the kernel runs as the host's root.
    "/proc/sys",
    "/proc/sysrq-trigger",
];
