//! iomux: `iomux SPEC.json` builds the container that the file describes and supervises it until its end.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(spec), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: iomux SPEC.json");
        return ExitCode::from(2);
    };
    match warden_iomux::run(Path::new(&spec)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iomux: {error}");
            ExitCode::FAILURE
        }
    }
}
