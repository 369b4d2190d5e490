//! net_in and net_out.

use warden_protocol::Response;
use warden_protocol::messages::{NetInRequest, NetInResponse, NetOutRequest, NetOutResponse};

use super::{Refusal, Session};
use crate::convert;

impl Session<'_> {
    pub(super) async fn net_in(&self, request: NetInRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let (host_port, container_port) = container.net_in(convert::net_in(&request)?).await?;
        Ok(Response::NetIn(NetInResponse {
            host_port: Some(host_port.into()),
            container_port: Some(container_port.into()),
        }))
    }

    pub(super) async fn net_out(&self, request: NetOutRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        container.net_out(convert::net_out(request)?).await?;
        Ok(Response::NetOut(NetOutResponse::default()))
    }
}
