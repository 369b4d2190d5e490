//! Small root file systems made from the host's programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::files;
use crate::programs::host;

/// Programs that the tests' scripts use in a directory image.
const PROGRAMS: [&str; 10] = ["bash", "cat", "id", "ls", "mkdir", "rm", "sleep", "stat", "touch", "env"];

/// Fills a directory with a root file system that can run the tests' scripts, without a user vcap.
pub fn fill(directory: &Path) {
    files::make_directory(directory, 0o755);
    for name in ["dev", "proc", "sys", "home", "etc", "root"] {
        files::make_directory(&directory.join(name), 0o755);
    }
    files::make_directory(&directory.join("tmp"), 0o1777);
    files::write(&directory.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n", 0o644);
    files::write(&directory.join("etc/group"), "root:x:0:\n", 0o644);
    PROGRAMS.iter().for_each(|name| add_program(directory, name));
}

/// Adds a program of the host as /bin/NAME, with the libraries that it needs.
pub fn add_program(directory: &Path, name: &str) {
    let program = host("bash", &["-c", &format!("type -P {name}")]);
    let program = fs::canonicalize(program.trim()).unwrap();
    copy(&program, &directory.join("bin").join(name));
    for library in libraries(&program) {
        copy(Path::new(&library), &directory.join(library.trim_start_matches('/')));
    }
}

/// What the dynamic linker loads for a program, itself among it.
fn libraries(program: &Path) -> BTreeSet<String> {
    let listed = host("ldd", &[program.to_str().unwrap()]);
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn copy(from: &Path, to: &Path) {
    if !to.exists() {
        files::make_directory(to.parent().unwrap(), 0o755);
        fs::copy(from, to).unwrap_or_else(|error| panic!("copying {}: {error}", from.display()));
    }
}
