//! iomux: `iomux SPEC.json` builds the container that the file describes and supervises it until its end; with `--adopt` it
//! takes over a container whose iomux has died. `iomux --fork-server` is what wardend has copied for each container.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use warden_init::note::note;
use warden_iomux::{Origin, fork_server, program};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        // What follows is room for what its copies show in its place.
        [option, _] if option == "--fork-server" => serve(),
        [option, spec] if option == "--adopt" => run(spec, Origin::Adopted),
        [spec] => run(spec, Origin::Built),
        _ => {
            note(format_args!("usage: iomux [--adopt] SPEC.json"));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("iomux: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), String> {
    protect()?;
    fork_server::serve().map_err(|error| error.to_string())
}

fn run(spec: &OsStr, origin: Origin) -> Result<(), String> {
    protect()?;
    warden_iomux::run(Path::new(spec), origin).map_err(|error| error.to_string())
}

fn protect() -> Result<(), String> {
    program::protect().map_err(|error| format!("protect the program: {error}"))
}
