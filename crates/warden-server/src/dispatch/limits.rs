//! limit_memory, limit_cpu, limit_disk and limit_bandwidth.

use warden_container::request::{Bandwidth, Cpu};
use warden_protocol::Response;
use warden_protocol::messages::{
    LimitBandwidthRequest, LimitBandwidthResponse, LimitCpuRequest, LimitCpuResponse, LimitDiskRequest,
    LimitMemoryRequest, LimitMemoryResponse,
};

use super::{Refusal, Session};
use crate::convert;

impl Session<'_> {
    pub(super) async fn limit_memory(&self, request: LimitMemoryRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let limit = container.limit_memory(request.limit_in_bytes).await?;
        Ok(Response::LimitMemory(LimitMemoryResponse { limit_in_bytes: Some(limit) }))
    }

    pub(super) async fn limit_cpu(&self, request: LimitCpuRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let asked = Cpu { shares: request.limit_in_shares, quota: request.quota_us };
        let kept = container.limit_cpu(asked).await?;
        Ok(Response::LimitCpu(LimitCpuResponse { limit_in_shares: kept.shares, quota_us: kept.quota }))
    }

    pub(super) async fn limit_disk(&self, request: LimitDiskRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        let kept = container.limit_disk(convert::limit_disk(&request)).await?;
        Ok(Response::LimitDisk(convert::disk_limits(kept)))
    }

    pub(super) async fn limit_bandwidth(&self, request: LimitBandwidthRequest) -> Result<Response, Refusal> {
        let container = self.container(request.handle.as_deref())?;
        // Both are required: the decoder has refused a request without them.
        let (rate, burst) = (request.rate.unwrap_or_default(), request.burst.unwrap_or_default());
        container.limit_bandwidth(Bandwidth { rate, burst }).await?;
        Ok(Response::LimitBandwidth(LimitBandwidthResponse { rate: Some(rate), burst: Some(burst) }))
    }
}
