//! Leases.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::peer::Caller;
use super::protocol::etcdserverpb as rpc;
use super::{Server, convert, kv};
use crate::mvcc::{self, LeaseNumber, LeaseState, MOST_LEASES, Refusal, Reply};

/// Leases that there may be where somebody asks for one who does not run the store: the rest is for the controller.
const OF_OTHERS: usize = MOST_LEASES / 2;

#[tonic::async_trait]
impl rpc::lease_server::Lease for Server {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<rpc::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(
        &self,
        request: Request<rpc::LeaseGrantRequest>,
    ) -> Result<Response<rpc::LeaseGrantResponse>, Status> {
        let caller = Caller::of(&request)?;
        let rpc::LeaseGrantRequest { ttl, id } = request.into_inner();
        let id = if id == 0 { self.number() } else { id };
        if !caller.is_owner() && self.engine.lease_count() >= OF_OTHERS {
            return Err(convert::status(&Refusal::TooManyLeases(OF_OTHERS)));
        }
        let done = self.write(&caller, mvcc::Request::Grant(LeaseNumber(id), ttl)).await?;
        let Reply::Granted(ttl) = done.reply else { return Err(kv::mixed_up(&done.reply)) };
        let header = self.header(done.revision);
        Ok(Response::new(rpc::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<rpc::LeaseRevokeRequest>,
    ) -> Result<Response<rpc::LeaseRevokeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let done = self.write(&caller, mvcc::Request::Revoke(LeaseNumber(request.into_inner().id))).await?;
        Ok(Response::new(rpc::LeaseRevokeResponse { header: self.header(done.revision) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<rpc::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let caller = Caller::of(&request)?;
        let server = self.clone();
        let closing = self.closing.clone().cancelled_owned();
        let answers = request.into_inner().take_until(closing).map(move |request| {
            let id = request?.id;
            if let Ok(LeaseState { keys, .. }) = server.engine.lease(LeaseNumber(id), server.machine.since_boot()) {
                caller.may_keep(&keys, &server.prefix)?;
            }
            // One that is not there any more has no time left; that is no error.
            let ttl = server.engine.keep_alive(LeaseNumber(id), server.machine.since_boot()).unwrap_or(0);
            Ok(rpc::LeaseKeepAliveResponse { header: server.header_now(), id, ttl })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<rpc::LeaseTimeToLiveRequest>,
    ) -> Result<Response<rpc::LeaseTimeToLiveResponse>, Status> {
        let rpc::LeaseTimeToLiveRequest { id, keys: with_keys } = request.into_inner();
        let header = self.header_now();
        let known = match self.engine.lease(LeaseNumber(id), self.machine.since_boot()) {
            Ok(LeaseState { granted, remaining, keys }) => {
                let keys = if with_keys { keys } else { Vec::new() };
                rpc::LeaseTimeToLiveResponse { header, id, ttl: whole_seconds(remaining), granted_ttl: granted, keys }
            }
            Err(Refusal::LeaseNotFound) => rpc::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
            Err(refusal) => return Err(convert::status(&refusal)),
        };
        Ok(Response::new(known))
    }

    async fn lease_leases(
        &self,
        _: Request<rpc::LeaseLeasesRequest>,
    ) -> Result<Response<rpc::LeaseLeasesResponse>, Status> {
        let leases = self.engine.leases().into_iter().map(|lease| rpc::LeaseStatus { id: lease.0 });
        Ok(Response::new(rpc::LeaseLeasesResponse { header: self.header_now(), leases: leases.collect() }))
    }
}

impl Server {
    /// A number for a lease whose caller chose none: positive, as etcd's.
    fn number(&self) -> i64 {
        (self.machine.chance().cast_signed() & i64::MAX).max(1)
    }
}

/// As etcd says it: what is left of a second is none.
fn whole_seconds(remaining: Duration) -> i64 {
    i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX)
}
