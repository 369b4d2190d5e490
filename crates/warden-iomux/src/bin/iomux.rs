//! iomux: `iomux SPEC.json` builds the container that the file describes and supervises it until its end; with `--adopt` it
//! takes over a container whose iomux has died.

use std::path::Path;
use std::process::ExitCode;

use warden_iomux::Origin;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (origin, spec) = match arguments.as_slice() {
        [spec] => (Origin::Built, spec),
        [option, spec] if option == "--adopt" => (Origin::Adopted, spec),
        _ => {
            eprintln!("usage: iomux [--adopt] SPEC.json");
            return ExitCode::from(2);
        }
    };
    match warden_iomux::run(Path::new(spec), origin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iomux: {error}");
            ExitCode::FAILURE
        }
    }
}
