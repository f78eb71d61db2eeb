//! The cluster, which has one member.

use tonic::{Request, Response, Status};

use super::protocol::etcdserverpb as rpc;
use super::{Identity, Server};

pub(super) fn alone() -> Status {
    Status::unimplemented(
        "this is Windlass's own store, which has one member; for several, move the keys to an etcd cluster: `windlass store migrate`",
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
