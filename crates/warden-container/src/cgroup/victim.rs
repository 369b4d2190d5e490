//! Which process was killed when a group ran out of memory: only the kernel's log tells.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

/// The longest record of the log, bytes.
const RECORD: usize = 8192;

/// A process that the kernel has killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    /// The name of its program, at most 15 bytes.
    pub(crate) name: String,
    /// Its id on the host.
    pub(crate) pid: u32,
}

/// Finds the first process that was killed for the limit of the group of this name; none where nobody may read the log.
pub(super) fn find(group: &str) -> Option<Victim> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut log = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg").ok()?;
    let mut record = [0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(length) => {
                let found = parse(&String::from_utf8_lossy(&record[..length]), group);
                if found.is_some() {
                    return found;
                }
            }
            // The log has moved on past the record to read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => return None,
        }
    }
}

/// Reads `oom-kill:constraint=...,oom_memcg=/parent/instance-x,...,task=name,pid=1,uid=0`; a name may hold commas.
fn parse(record: &str, group: &str) -> Option<Victim> {
    let message = record.lines().next()?.split_once(';')?.1.strip_prefix("oom-kill:")?;
    let (memcg, rest) = message.split_once("oom_memcg=")?.1.split_once(",task_memcg=")?;
    if memcg.rsplit('/').next() != Some(group) {
        return None;
    }
    let (name, numbers) = rest.split_once(",task=")?.1.rsplit_once(",pid=")?;
    let pid = numbers.split(',').next()?.parse().ok()?;
    Some(Victim { name: name.to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD_OF_KERNEL: &str = "6,731,8293715808,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
        mems_allowed=0,oom_memcg=/warden/instance-1j0vpg7iqe4,task_memcg=/warden/instance-1j0vpg7iqe4,task=a,pid=3,x,\
        pid=15312,uid=534288\n SUBSYSTEM=x\n";

    #[test]
    fn the_kernel_s_record_of_this_group_names_the_process() {
        let victim = parse(RECORD_OF_KERNEL, "instance-1j0vpg7iqe4").unwrap();
        assert_eq!(victim, Victim { name: "a,pid=3,x".to_owned(), pid: 15_312 });
    }

    #[test]
    fn other_groups_and_other_records_do_not() {
        for group in ["instance-1j0vpg7iqe", "warden", ""] {
            assert_eq!(parse(RECORD_OF_KERNEL, group), None);
        }
        let spoken = "4,1,1,-;a program says ;oom-kill:";
        for record in ["", "6,1,1,-;something", spoken, "6,1,1,-;oom-kill:oom_memcg=/instance-a"] {
            assert_eq!(parse(record, "instance-a"), None, "{record}");
        }
    }
}
