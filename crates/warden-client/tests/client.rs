//! The client against a fake server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fake;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fake::{Fake, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use warden_client::{Client, Error};
use warden_protocol::messages::*;
use warden_protocol::{Request, Response};

fn bytes(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn piece(name: &str, data: &[u8]) -> Response {
    StreamResponse { name: bytes(name), data: Some(data.to_vec()), ..StreamResponse::default() }.into()
}

fn end(exit_status: u32) -> Response {
    StreamResponse { exit_status: Some(exit_status), ..StreamResponse::default() }.into()
}

fn frames(responses: &[Response]) -> Bytes {
    responses
        .iter()
        .fold(BytesMut::new(), |mut all, response| {
            all.extend_from_slice(&response.encode());
            all
        })
        .freeze()
}

/// Answers the common commands.
fn answer(request: &Request) -> Reply {
    let response: Response = match request {
        Request::Create(_) => CreateResponse { handle: bytes("h") }.into(),
        Request::Destroy(_) => DestroyResponse {}.into(),
        Request::Stop(_) => StopResponse {}.into(),
        Request::Ping(_) => PingResponse {}.into(),
        Request::List(_) => ListResponse { handles: vec![b"h".to_vec(), b"\xff".to_vec()] }.into(),
        Request::Info(_) => InfoResponse { state: bytes("active"), ..InfoResponse::default() }.into(),
        Request::Spawn(_) => SpawnResponse { job_id: Some(7) }.into(),
        Request::Run(run) => {
            RunResponse { exit_status: Some(3), stdout: run.script.clone(), ..RunResponse::default() }.into()
        }
        Request::Link(_) => LinkResponse { exit_status: Some(0), ..LinkResponse::default() }.into(),
        Request::Stream(_) => {
            return Reply::Send(frames(&[piece("stdout", b"a\xff"), piece("stderr", b"b"), end(4)]));
        }
        _ => Response::error("unknown handle"),
    };
    Reply::Send(response.encode())
}

fn stream_request() -> StreamRequest {
    StreamRequest { handle: bytes("h"), job_id: Some(7) }
}

#[tokio::test]
async fn common_commands_are_typed() {
    let fake = Fake::start(answer);
    let mut client = Client::connect(fake.path()).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(client.list().await.unwrap(), [b"h".to_vec(), b"\xff".to_vec()]);
    let handle = client.create().await.unwrap();
    assert_eq!(client.info(&handle).await.unwrap().state(), b"active");
    let answer = client.run(&handle, b"\xfe").await.unwrap();
    assert_eq!((answer.exit_status(), answer.stdout()), (3, &b"\xfe"[..]));
    let job_id = client.spawn(&handle, "true").await.unwrap();
    assert_eq!(client.link(&handle, job_id).await.unwrap().exit_status(), 0);
    client.stop(&handle).await.unwrap();
    client.destroy(&handle).await.unwrap();
    assert_eq!(fake.requests()[6], Request::Link(LinkRequest { handle: bytes("h"), job_id: Some(7) }));
}

#[tokio::test]
async fn the_connection_goes_on_after_an_error_of_the_server() {
    let fake = Fake::start(answer);
    let mut client = Client::connect(fake.path()).await.unwrap();
    let error = client
        .request(LimitCpuRequest { handle: bytes("x"), ..LimitCpuRequest::default() })
        .await
        .unwrap_err();
    assert!(matches!(&error, Error::Server { message } if message == b"unknown handle"), "{error}");
    client.ping().await.unwrap();
}

#[tokio::test]
async fn a_stream_yields_its_pieces_and_its_end() {
    let fake = Fake::start(answer);
    let mut client = Client::connect(fake.path()).await.unwrap();
    let mut stream = client.stream(stream_request()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().map(Response::from), Some(piece("stdout", b"a\xff")));
    assert_eq!(stream.next().await.unwrap().map(Response::from), Some(piece("stderr", b"b")));
    assert_eq!(stream.next().await.unwrap().map(Response::from), Some(end(4)));
    assert_eq!(stream.next().await.unwrap(), None);
    client.ping().await.unwrap();
    assert!(matches!(client.call(stream_request()).await, Err(Error::ManyResponses)));
    client.ping().await.unwrap();
}

#[tokio::test]
async fn a_stream_can_end_with_an_error() {
    let fake = Fake::start(|request| match request {
        Request::Stream(_) => Reply::Send(frames(&[piece("stdout", b"a"), Response::error("no such job")])),
        other => answer(other),
    });
    let mut client = Client::connect(fake.path()).await.unwrap();
    let mut stream = client.stream(stream_request()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert!(matches!(stream.next().await, Err(Error::Server { .. })));
    assert!(matches!(stream.next().await, Ok(None)));
    client.ping().await.unwrap();
}

#[tokio::test]
async fn an_abandoned_answer_is_not_taken_for_another() {
    let fake = Fake::start(answer);
    let mut client = Client::connect(fake.path()).await.unwrap();
    let mut stream = client.stream(stream_request()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert!(matches!(client.ping().await, Err(Error::Abandoned)));

    let fake = Fake::start(|_| Reply::Send(Bytes::new()));
    let mut client = Client::connect(fake.path()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), client.ping()).await.is_err());
    assert!(matches!(client.ping().await, Err(Error::Abandoned)));
}

#[tokio::test]
async fn a_closed_connection_is_told_from_a_broken_answer() {
    let fake = Fake::start(|_| Reply::Last(Bytes::from_static(b"6\r\n\x08")));
    let mut client = Client::connect(fake.path()).await.unwrap();
    assert!(matches!(client.ping().await, Err(Error::Closed)));

    for (answer, name) in [
        (&b"x\r\n"[..], "Frame"),
        (b"4\r\n\x08\x4d\x12\x00\r\n", "Decode"),
        (b"4\r\n\x08\x0c\x12\x00\r\n", "Mismatch"),
    ] {
        let fake = Fake::start(|_| Reply::Send(Bytes::from_static(answer)));
        let mut client = Client::connect(fake.path()).await.unwrap();
        let error = format!("{:?}", client.ping().await.unwrap_err());
        assert!(error.starts_with(name), "{error}");
    }
}

#[tokio::test]
async fn a_request_that_was_never_sent_is_told_from_one_without_answer() {
    let fake = Fake::start(|_| Reply::Last(Response::Ping(PingResponse {}).encode()));
    let mut client = Client::connect(fake.path()).await.unwrap();
    client.ping().await.unwrap();
    // The fake closes after it has answered; a write before that would get no answer, but might have been read.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(client.ping().await, Err(Error::Unsent)));
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_path_where_nobody_listens_is_named() {
    let error = Client::connect("/nonexistent/warden.sock").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot connect to /nonexistent/warden.sock");
}

#[tokio::test]
async fn a_long_answer_in_small_pieces_is_read_whole() {
    let script: Vec<u8> = (0..5_000_000u32).map(|at| at.to_le_bytes()[0]).collect();
    let fake = Fake::start(answer);
    let mut client = Client::connect(fake.path()).await.unwrap();
    assert_eq!(client.run("h", &script).await.unwrap().stdout, Some(script));
}

#[tokio::test]
async fn what_the_server_said_before_it_closed_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("warden.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_u8().await.unwrap();
        socket.write_all(&Response::error("too long").encode()).await.unwrap();
    });
    let mut client = Client::connect(&path).await.unwrap();
    let error = client.run("h", vec![0; 8 << 20]).await.unwrap_err();
    assert!(matches!(&error, Error::Server { message } if message == b"too long"), "{error:?}");
    server.await.unwrap();
}
