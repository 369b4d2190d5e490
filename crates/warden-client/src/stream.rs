//! A job's output as it arrives.

use warden_protocol::messages::StreamResponse;
use warden_protocol::{Request, Response};

use crate::client::Client;
use crate::error::Error;

/// A job's output as it arrives. When it is dropped before its end, the connection cannot be used any more.
#[derive(Debug)]
pub struct Stream<'a> {
    client: &'a mut Client,
    request: Request,
    ended: bool,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(client: &'a mut Client, request: Request) -> Self {
        Self { client, request, ended: false }
    }

    /// Waits for the next response: a piece of output, at last one with an exit status, and nothing after that.
    pub async fn next(&mut self) -> Result<Option<StreamResponse>, Error> {
        if self.ended {
            return Ok(None);
        }
        let response = self.client.receive(&self.request).await;
        self.ended = !matches!(&response, Ok(Response::Stream(piece)) if piece.exit_status.is_none());
        if self.ended {
            self.client.settle(&response);
        }
        match response? {
            Response::Stream(piece) => Ok(Some(piece)),
            other => Err(Error::Mismatch { asked: self.request.name(), answered: other.name() }),
        }
    }
}
