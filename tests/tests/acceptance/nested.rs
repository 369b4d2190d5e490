//! A wardend in a container of a wardend.

use std::path::Path;

use warden_protocol::messages::{BindMount, CreateRequest};
use warden_tests::{Daemon, files, programs};

#[test]
fn the_demo_passes_in_a_container() {
    let daemon = Daemon::with(&[
        ("server.user_namespace", "false"),
        ("server.allow_nested_warden", "true"),
        ("user.pool_start_uid", "34567"),
    ]);
    let mut client = daemon.connect();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let bind = |source: &Path, destination: &str, mode| BindMount {
        src_path: Some(files::bytes(source)),
        dst_path: Some(destination.as_bytes().to_vec()),
        mode: Some(mode),
    };
    let depot = files::directory();
    let programs = programs::find("wardend").parent().unwrap().to_path_buf();
    let handle = client.create_with(CreateRequest {
        bind_mounts: vec![
            bind(&repository.join("scripts"), "/opt/scripts", 0),
            bind(&repository.join("examples"), "/opt/examples", 0),
            bind(&programs, "/opt/programs", 0),
            // The inner depot: before Linux 6.3 a tmpfs shows no other owners than its own.
            bind(depot.path(), "/run/nested", 1),
        ],
        ..CreateRequest::default()
    });
    let script = "set -e; /opt/examples/prepare-nested; TMPDIR=/run/nested /opt/scripts/demo /opt/programs";
    let output = client.run_privileged(&handle, script);
    assert_eq!(output.status, 0, "{}{}", output.text(), output.errors());
    let text = output.text();
    // The inner container's user namespace, and the inner demo's own proof that nothing is left.
    assert!(text.contains("uid=10000(vcap)"), "{text}");
    assert!(text.contains("nothing: no process, no mount, no cgroup, no file"), "{text}");
}
