//! The mounts that the benchmark and all that it starts see.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use warden_tests::kernel;

/// Set in the process that has its own view.
const DONE: &str = "WARDEN_BENCH_VIEW";

/// Starts this program again in a mount namespace of its own, where a machine has cgroups of both versions: there a
/// version 2 hierarchy beside version 1 is out of sight, because crun refuses to work beside one. For the others it
/// changes nothing: containers are counted and limited by the version that has the controllers.
pub(crate) fn enter_own() -> Result<()> {
    let unified: Vec<_> = kernel::cgroup_roots()
        .into_iter()
        .filter(|root| root.join("cgroup.controllers").exists())
        .filter(|root| root.parent().is_some_and(|above| above.join("memory/tasks").exists()))
        .collect();
    if unified.is_empty() || std::env::var_os(DONE).is_some() {
        return Ok(());
    }
    let script = "while [ \"$1\" != -- ]; do umount \"$1\"; shift; done; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]).args(unified).arg("--");
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(DONE, "1");
    Err(command.exec().into())
}
