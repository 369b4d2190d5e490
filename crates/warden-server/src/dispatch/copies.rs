//! copy_in and copy_out.

use warden_protocol::Response;
use warden_protocol::messages::{CopyInRequest, CopyInResponse, CopyOutRequest, CopyOutResponse};

use super::{Refusal, Session};
use crate::convert;

impl Session<'_> {
    pub(super) async fn copy_in(&self, request: CopyInRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let totals = container.copy(convert::copy_in(request)).await?;
        tracing::debug!(
            entries = totals.entries,
            bytes = totals.bytes,
            skipped = totals.skipped,
            "copied in"
        );
        Ok(Response::CopyIn(CopyInResponse::default()))
    }

    pub(super) async fn copy_out(&self, request: CopyOutRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let totals = container.copy(convert::copy_out(request)).await?;
        tracing::debug!(
            entries = totals.entries,
            bytes = totals.bytes,
            skipped = totals.skipped,
            "copied out"
        );
        Ok(Response::CopyOut(CopyOutResponse::default()))
    }
}
