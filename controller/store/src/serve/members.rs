//! The cluster, which has one member, and its upkeep.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status};

use super::protocol::etcdserverpb as rpc;
use super::{Identity, Server};

/// The version of etcd whose API is answered; clients ask for features by it.
const VERSION: &str = "3.5.0";

fn alone() -> Status {
    Status::unimplemented(
        "this is Windlass's own store, which has one member; for several, move the keys to an etcd cluster: `windlass store migrate`",
    )
}

fn not_yet() -> Status {
    Status::unimplemented(
        "this store does not do that yet; to keep a copy of it, read all keys: `etcdctl get --prefix \"\"`",
    )
}

#[tonic::async_trait]
impl rpc::cluster_server::Cluster for Server {
    async fn member_add(&self, _: Request<rpc::MemberAddRequest>) -> Result<Response<rpc::MemberAddResponse>, Status> {
        Err(alone())
    }

    async fn member_remove(
        &self,
        _: Request<rpc::MemberRemoveRequest>,
    ) -> Result<Response<rpc::MemberRemoveResponse>, Status> {
        Err(alone())
    }

    async fn member_update(
        &self,
        _: Request<rpc::MemberUpdateRequest>,
    ) -> Result<Response<rpc::MemberUpdateResponse>, Status> {
        Err(alone())
    }

    async fn member_promote(
        &self,
        _: Request<rpc::MemberPromoteRequest>,
    ) -> Result<Response<rpc::MemberPromoteResponse>, Status> {
        Err(alone())
    }

    async fn member_list(
        &self,
        _: Request<rpc::MemberListRequest>,
    ) -> Result<Response<rpc::MemberListResponse>, Status> {
        let Identity { member, .. } = self.identity;
        let member = rpc::Member { id: member, name: "windlass".to_owned(), ..Default::default() };
        Ok(Response::new(rpc::MemberListResponse { header: self.header_now(), members: vec![member] }))
    }
}

#[tonic::async_trait]
impl rpc::maintenance_server::Maintenance for Server {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<rpc::SnapshotResponse, Status>> + Send>>;

    async fn alarm(&self, _: Request<rpc::AlarmRequest>) -> Result<Response<rpc::AlarmResponse>, Status> {
        // What does not fit is refused at once; there is no alarm that would have to be disarmed.
        Ok(Response::new(rpc::AlarmResponse { header: self.header_now(), alarms: Vec::new() }))
    }

    async fn status(&self, _: Request<rpc::StatusRequest>) -> Result<Response<rpc::StatusResponse>, Status> {
        let revision = u64::try_from(self.engine.revision()).unwrap_or_default();
        Ok(Response::new(rpc::StatusResponse {
            header: self.header_now(),
            version: VERSION.to_owned(),
            leader: self.identity.member,
            // There is no log beside the history: what is written is applied.
            raft_index: revision,
            raft_applied_index: revision,
            raft_term: 1,
            ..Default::default()
        }))
    }

    async fn defragment(
        &self,
        _: Request<rpc::DefragmentRequest>,
    ) -> Result<Response<rpc::DefragmentResponse>, Status> {
        Err(not_yet())
    }

    async fn hash(&self, _: Request<rpc::HashRequest>) -> Result<Response<rpc::HashResponse>, Status> {
        Err(not_yet())
    }

    async fn hash_kv(&self, _: Request<rpc::HashKvRequest>) -> Result<Response<rpc::HashKvResponse>, Status> {
        Err(not_yet())
    }

    async fn snapshot(&self, _: Request<rpc::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_yet())
    }

    async fn move_leader(
        &self,
        _: Request<rpc::MoveLeaderRequest>,
    ) -> Result<Response<rpc::MoveLeaderResponse>, Status> {
        Err(alone())
    }

    async fn downgrade(&self, _: Request<rpc::DowngradeRequest>) -> Result<Response<rpc::DowngradeResponse>, Status> {
        Err(alone())
    }
}
