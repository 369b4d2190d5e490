//! Wall-clock time in this machine's zone.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::SystemTime;

/// A moment of a year, in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 (January) to 11.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
}

/// Tells the local time of a moment; the epoch's for one that the C library cannot represent.
pub fn local_time(moment: SystemTime) -> LocalTime {
    let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = libc::time_t::try_from(seconds).unwrap_or(0);
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: localtime_r writes only `parts`, all fields of which are integers or a pointer, valid as zeroes too.
    let parts = unsafe {
        libc::localtime_r(&raw const seconds, parts.as_mut_ptr());
        parts.assume_init()
    };
    LocalTime {
        month: parts.tm_mon as u8,
        day: (parts.tm_mday as u8).max(1),
        hour: parts.tm_hour as u8,
        minute: parts.tm_min as u8,
        second: parts.tm_sec as u8,
    }
}
