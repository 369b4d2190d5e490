//! A connection that is made when it is needed, and again when the server was restarted.

use std::io::{self, Write};
use std::path::PathBuf;

use warden_client::{Client, Error};
use warden_protocol::{Command, Request, Response};

use crate::failure::Failure;

/// A connection that is made when it is needed.
#[derive(Debug)]
pub(crate) struct Connection {
    path: PathBuf,
    client: Option<Client>,
    /// Whether to say that the connection is made again.
    announced: bool,
    /// How often it was made again.
    renewals: u32,
}

impl Connection {
    /// Makes one to the server at a path, not connected yet, that says on standard error when it reconnects.
    pub(crate) fn announced(path: PathBuf) -> Self {
        Self { path, client: None, announced: true, renewals: 0 }
    }

    /// Makes one that reconnects in silence.
    pub(crate) fn silent(path: PathBuf) -> Self {
        Self { path, client: None, announced: false, renewals: 0 }
    }

    /// Lets some work use the connection. The work is done again, once and over a new connection, if the old one
    /// turned out to be closed before the server had the request. When the future is dropped before its end, the
    /// connection is dropped with it: what would come on it belongs to nobody.
    pub(crate) async fn with<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let kept = self.client.take();
        let is_new = kept.is_none();
        let mut client = match kept {
            Some(client) => client,
            None => Client::connect(&self.path).await?,
        };
        let mut result = work(&mut client).await;
        if matches!(result, Err(Failure::Client(Error::Unsent))) && !is_new {
            if self.announced {
                // Where standard error cannot be written, there is nobody to tell.
                let _ = io::stderr().write_all(b"Reconnecting...\n");
            }
            self.renewals += 1;
            client = Client::connect(&self.path).await?;
            result = work(&mut client).await;
        }
        if matches!(result, Ok(_) | Err(Failure::Client(Error::Server { .. }))) {
            self.client = Some(client);
        }
        result
    }

    /// How often the connection was found closed and made again.
    pub(crate) fn renewals(&self) -> u32 {
        self.renewals
    }

    /// Gives the connection up; it is made anew when it is needed.
    pub(crate) fn forget(&mut self) {
        self.client = None;
    }

    /// Sends a request and waits for its only response.
    pub(crate) async fn call(&mut self, request: impl Into<Request>) -> Result<Response, Failure> {
        let request = request.into();
        self.with(async |client| Ok(client.call(request.clone()).await?)).await
    }

    /// Sends a request and waits for the response that belongs to it.
    pub(crate) async fn request<C: Command + Clone>(&mut self, command: C) -> Result<C::Response, Failure> {
        self.with(async |client| Ok(client.request(command.clone()).await?)).await
    }
}
