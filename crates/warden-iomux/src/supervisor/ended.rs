//! The ends of jobs, for clients that come later.

use std::collections::BTreeMap;

use crate::layout::Layout;
use crate::message::Exit;

/// The fewest ends for which the disk is asked which of them are still of use.
const FEW: usize = 1024;

/// The ends of those jobs whose directories, which the daemon removes, are still there.
#[derive(Debug, Default)]
pub(super) struct Ended {
    exits: BTreeMap<u32, Exit>,
    /// How many there were when the removed ones were last forgotten.
    checked: usize,
}

impl Ended {
    /// Remembers a job's end; now and then forgets those that were removed, so that a long life needs no more memory.
    pub(super) fn remember(&mut self, job: u32, exit: Exit, layout: &Layout) {
        self.exits.insert(job, exit);
        if self.exits.len() > FEW.max(2 * self.checked) {
            self.forget_removed(layout);
        }
    }

    /// Forgets the end of a job whose number is given to another.
    pub(super) fn forget(&mut self, job: u32) {
        self.exits.remove(&job);
    }

    /// Forgets those jobs whose directories are gone.
    pub(super) fn forget_removed(&mut self, layout: &Layout) {
        self.exits.retain(|job, _| layout.job(*job).exists());
        self.checked = self.exits.len();
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Exit)> {
        self.exits.iter().map(|(job, exit)| (*job, *exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ExitCause;

    #[test]
    fn only_jobs_with_a_directory_are_remembered_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        let exit = Exit { cause: ExitCause::Code(0), stdout: 0, stderr: 0 };
        std::fs::create_dir_all(layout.job(5)).unwrap();
        let mut ended = Ended::default();
        for job in 0..5000 {
            ended.remember(job, exit, &layout);
            assert!(ended.exits.len() <= FEW + 1);
        }
        ended.forget_removed(&layout);
        assert_eq!(ended.iter().map(|(job, _)| job).collect::<Vec<_>>(), [5]);
        ended.forget(5);
        assert_eq!(ended.iter().count(), 0);
    }
}
