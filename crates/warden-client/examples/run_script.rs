//! Creates a container, runs a script in it, prints what it wrote, and destroys the container.
//!
//! Usage: run_script SOCKET SCRIPT

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use warden_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(socket), Some(script)) = (arguments.next(), arguments.next()) else {
        return Err("usage: run_script SOCKET SCRIPT".into());
    };

    let mut client = Client::connect(socket).await?;
    let handle = client.create().await?;
    let answer = client.run(&handle, script.as_encoded_bytes()).await;
    // A script that could not be run is no reason to leave its container behind.
    client.destroy(&handle).await?;

    let answer = answer?;
    std::io::stdout().write_all(answer.stdout())?;
    std::io::stderr().write_all(answer.stderr())?;
    Ok(ExitCode::from(u8::try_from(answer.exit_status())?))
}
