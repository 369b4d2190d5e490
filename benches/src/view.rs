//! The mounts that the benchmark and all that it starts see.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use warden_tests::kernel;

/// Set in the process that has its own view.
const DONE: &str = "WARDEN_BENCH_VIEW";

/// Bytes of the file system that all is measured on; those that hold nothing take no room.
const SIZE: &str = "32G";

/// Where it is mounted: what else is there is out of sight meanwhile.
const PLACE: &str = "/mnt";

/// Unmounts what is named before `--`, mounts a fresh ext4 for temporary files, and becomes the rest.
const SCRIPT: &str = r#"
    while [ "$1" != -- ]; do umount "$1"; shift; done; shift
    image=$(mktemp)
    truncate -s "$SIZE" "$image"
    mkfs.ext4 -q -E nodiscard "$image"
    mount -o loop,noinit_itable "$image" "$PLACE"
    rm "$image"
    TMPDIR=$PLACE exec "$@"
"#;

/// Starts this program again in a mount namespace of its own, with which all that it mounts goes.
///
/// Temporary files are on a fresh ext4 as `mkfs.ext4` makes it, in a file. That of the machine may be anything: on an ext4
/// without a journal, for one, a new file takes twenty times as long once many have been deleted, because the kernel passes
/// over the inodes of the last minutes one after another.
///
/// Where a machine has cgroups of both versions, a version 2 hierarchy beside version 1 is out of sight, because crun
/// refuses to work beside one. For the others it changes nothing: containers are counted and limited by the version
/// that has the controllers.
pub(crate) fn enter_own() -> Result<()> {
    if std::env::var_os(DONE).is_some() {
        return Ok(());
    }
    let unified = kernel::cgroup_roots()
        .into_iter()
        .filter(|root| root.join("cgroup.controllers").exists())
        .filter(|root| root.parent().is_some_and(|above| above.join("memory/tasks").exists()));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", SCRIPT, "sh"]).args(unified).arg("--");
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    command.env(DONE, "1").env("SIZE", SIZE).env("PLACE", PLACE);
    Err(command.exec().into())
}
