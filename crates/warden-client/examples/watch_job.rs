//! Starts a script in a container that exists, and shows its output as it is written.
//!
//! Usage: watch_job SOCKET HANDLE SCRIPT

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use warden_client::Client;
use warden_client::protocol::messages::StreamRequest;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [socket, handle, script] = &arguments[..] else {
        return Err("usage: watch_job SOCKET HANDLE SCRIPT".into());
    };
    let handle = handle.as_encoded_bytes();

    let mut client = Client::connect(socket).await?;
    let job_id = client.spawn(handle, script.as_encoded_bytes()).await?;
    let request = StreamRequest { handle: Some(handle.to_vec()), job_id: Some(job_id) };
    let mut stream = client.stream(request).await?;
    while let Some(piece) = stream.next().await? {
        match piece.name() {
            b"stdout" => std::io::stdout().write_all(piece.data())?,
            b"stderr" => std::io::stderr().write_all(piece.data())?,
            _ => return Ok(ExitCode::from(u8::try_from(piece.exit_status())?)),
        }
    }
    Err("the stream ended without an exit status".into())
}
