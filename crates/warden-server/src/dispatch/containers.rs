//! create, info, stop and destroy.

use warden_protocol::Response;
use warden_protocol::messages::{
    CreateRequest, CreateResponse, DestroyRequest, DestroyResponse, InfoRequest, StopRequest, StopResponse,
};

use super::{Refusal, Session};
use crate::convert;

impl Session<'_> {
    pub(super) async fn create(&self, request: CreateRequest) -> Result<Response, Refusal> {
        let handle = self.domain.create(convert::create(request)?).await?;
        Ok(Response::Create(CreateResponse { handle: Some(handle) }))
    }

    pub(super) async fn info(&self, request: InfoRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        Ok(Response::Info(convert::info(container.info().await?)))
    }

    pub(super) async fn stop(&self, request: StopRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        container.stop(convert::stop(&request)).await?;
        Ok(Response::Stop(StopResponse::default()))
    }

    pub(super) async fn destroy(&self, request: DestroyRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        container.destroy().await?;
        Ok(Response::Destroy(DestroyResponse::default()))
    }
}
