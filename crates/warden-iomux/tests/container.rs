//! The built iomux and wshd with real containers. Needs root.

mod support;

use support::Container;
use warden_iomux::message::ExitCause;

#[test]
fn a_job_runs() {
    let mut container = Container::new();
    let outcome = container.run("id; pwd; env; hostname; cat /proc/mounts; ls -la / /dev /home; exit 7");
    println!("{outcome:#?} {} {}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.cause, ExitCause::Code(7));
    container.kill();
}
