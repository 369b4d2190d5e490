//! The client library against a real daemon.

use warden_client::{Client, Error};
use warden_protocol::messages::StreamRequest;
use warden_tests::Daemon;

#[tokio::test]
async fn the_client_library_does_the_main_job() -> Result<(), Error> {
    let daemon = Daemon::own();
    let mut client = Client::connect(daemon.socket()).await?;
    client.ping().await?;
    let handle = client.create().await?;
    assert_eq!(client.list().await?, std::slice::from_ref(&handle));
    let ran = client.run(&handle, "echo out; echo err >&2; exit 3").await?;
    assert_eq!(
        (ran.exit_status(), ran.stdout.unwrap(), ran.stderr.unwrap()),
        (3, b"out\n".to_vec(), b"err\n".to_vec())
    );
    let job = client.spawn(&handle, "seq 3; exit 4").await?;
    let request = StreamRequest { handle: Some(handle.clone()), job_id: Some(job) };
    let (mut output, mut status) = (Vec::new(), None);
    let mut stream = client.stream(request).await?;
    while let Some(piece) = stream.next().await? {
        output.extend_from_slice(piece.data());
        status = piece.exit_status;
    }
    assert_eq!((output, status), (b"1\n2\n3\n".to_vec(), Some(4)));
    assert_eq!(client.info(&handle).await?.state.unwrap(), b"active");
    client.stop(&handle).await?;
    client.destroy(&handle).await?;
    let refused = client.info(&handle).await.unwrap_err();
    assert!(matches!(&refused, Error::Server { message, .. } if message == b"unknown handle"), "{refused}");
    Ok(())
}
