//! wshd: the init of a container. Its stdin is the socket that it listens on.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(error) = warden_init::wshd::run();
    eprintln!("wshd: {error}");
    ExitCode::FAILURE
}
