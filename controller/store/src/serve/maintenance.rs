//! The store's upkeep: how it is, copies of it, and room given back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::members::alone;
use super::peer::Caller;
use super::protocol::etcdserverpb as rpc;
use super::{Server, convert, kv};
use crate::mvcc::Hash;

/// The version of etcd whose API is answered; clients ask for features by it.
const VERSION: &str = "3.5.0";

/// Pieces of a copy that wait for whoever takes it: one on its way, and one that is being read.
const PIECES: usize = 2;

/// Copies at once. Each keeps the room of what is overwritten meanwhile, and a thread.
pub(super) const COPIES: usize = 4;

/// The same, of those who do not run the store: whoever takes theirs slowly keeps no backup from being made.
pub(super) const COPIES_OF_OTHERS: usize = 2;

/// How long whoever takes a copy may leave a piece untaken.
const UNTAKEN: Duration = Duration::from_secs(60);

#[tonic::async_trait]
impl rpc::maintenance_server::Maintenance for Server {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<rpc::SnapshotResponse, Status>> + Send>>;

    async fn alarm(&self, _: Request<rpc::AlarmRequest>) -> Result<Response<rpc::AlarmResponse>, Status> {
        // What does not fit is refused at once; there is no alarm that would have to be disarmed.
        Ok(Response::new(rpc::AlarmResponse { header: self.header_now(), alarms: Vec::new() }))
    }

    async fn status(&self, _: Request<rpc::StatusRequest>) -> Result<Response<rpc::StatusResponse>, Status> {
        let revision = u64::try_from(self.engine.revision()).unwrap_or_default();
        let room = self.room.of(&self.engine).map_err(broken)?;
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(rpc::StatusResponse {
            header: self.header_now(),
            version: VERSION.to_owned(),
            db_size: bytes(room.file),
            db_size_in_use: bytes(room.used),
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
        request: Request<rpc::DefragmentRequest>,
    ) -> Result<Response<rpc::DefragmentResponse>, Status> {
        Caller::of(&request)?.may_do_everything("defragment")?;
        let engine = self.engine.clone();
        let done = tokio::task::spawn_blocking(move || engine.defragment()).await.map_err(|_| kv::stopped())?;
        done.map_err(broken)?;
        Ok(Response::new(rpc::DefragmentResponse { header: self.header_now() }))
    }

    async fn hash(&self, _: Request<rpc::HashRequest>) -> Result<Response<rpc::HashResponse>, Status> {
        let Hash { hash, revision, .. } = self.hash_at(0).await?;
        Ok(Response::new(rpc::HashResponse { header: self.header(revision), hash }))
    }

    async fn hash_kv(&self, request: Request<rpc::HashKvRequest>) -> Result<Response<rpc::HashKvResponse>, Status> {
        let Hash { hash, revision, compacted } = self.hash_at(request.into_inner().revision).await?;
        Ok(Response::new(rpc::HashKvResponse {
            header: self.header_now(),
            hash,
            // etcd says -1 where nothing was compacted.
            compact_revision: if compacted == 0 { -1 } else { compacted },
            hash_revision: revision,
        }))
    }

    async fn snapshot(&self, request: Request<rpc::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let owner = Caller::of(&request)?.is_owner();
        let (copies, most) = if owner { (&self.copies, COPIES) } else { (&self.copies_of_others, COPIES_OF_OTHERS) };
        let engine = self.engine.clone();
        let (taken, pieces) = mpsc::channel(PIECES);
        let place = Arc::clone(copies).try_acquire_owned();
        let place = place.map_err(|_| {
            Status::resource_exhausted(format!("{most} copies are being taken already; try again later"))
        })?;
        let send = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            let mut copy = match engine.snapshot() {
                Ok(copy) => copy,
                Err(error) => {
                    // Whoever asked may be gone.
                    let _ = taken.blocking_send(Err(broken(error)));
                    return;
                }
            };
            for piece in &mut copy {
                let piece = piece.map_err(broken);
                let last = piece.is_err();
                let piece = piece.map(|blob| rpc::SnapshotResponse { blob, ..Default::default() });
                let sent = send.block_on(tokio::time::timeout(UNTAKEN, taken.send(piece)));
                if !matches!(sent, Ok(Ok(()))) || last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
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

impl Server {
    async fn hash_at(&self, revision: i64) -> Result<Hash, Status> {
        let engine = self.engine.clone();
        let hashed = tokio::task::spawn_blocking(move || engine.hash(revision)).await.map_err(|_| kv::stopped())?;
        hashed.map_err(|refusal| convert::status(&refusal))
    }
}

fn broken(error: impl std::error::Error) -> Status {
    Status::internal(format!("the store's disk: {error}"))
}
