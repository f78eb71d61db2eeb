//! Keys and values.

use std::pin::Pin;

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};

use super::peer::Caller;
use super::protocol::etcdserverpb as rpc;
use super::{Server, check, convert};
use crate::mvcc::{self, Done, MOST_BYTES, Refusal, Reply};

/// Pairs from which on a range is read on a thread of its own: fewer are quicker read than handed over.
const MANY: i64 = 100;

#[tonic::async_trait]
impl rpc::kv_server::Kv for Server {
    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<rpc::RangeStreamResponse, Status>> + Send>>;

    async fn range(&self, request: Request<rpc::RangeRequest>) -> Result<Response<rpc::RangeResponse>, Status> {
        let range = convert::range(request.into_inner())?;
        let few = matches!(range.keys, mvcc::KeyRange::One(_)) || (1..MANY).contains(&range.limit);
        let engine = self.engine.clone();
        let read = move || engine.range(&range);
        let found = if few { read() } else { self.hands.run(read).await.ok_or_else(stopped)? };
        let (revision, found) = found.map_err(|refusal| convert::status(&refusal))?;
        Ok(Response::new(convert::found(self.header(revision), found)))
    }

    async fn range_stream(&self, _: Request<rpc::RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("this store does not stream ranges; ask for pages by Range with a limit"))
    }

    async fn put(&self, request: Request<rpc::PutRequest>) -> Result<Response<rpc::PutResponse>, Status> {
        let caller = Caller::of(&request)?;
        check::put(request.get_ref()).map_err(|refusal| convert::status(&refusal))?;
        let done = self.write(&caller, mvcc::Request::Put(convert::put(bounded(request)?))).await?;
        let prev_kv = match done.reply {
            Reply::Put(previous) => previous.map(convert::pair),
            other => return Err(mixed_up(&other)),
        };
        Ok(Response::new(rpc::PutResponse { header: self.header(done.revision), prev_kv }))
    }

    async fn delete_range(
        &self,
        request: Request<rpc::DeleteRangeRequest>,
    ) -> Result<Response<rpc::DeleteRangeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let done = self.write(&caller, mvcc::Request::Delete(convert::delete(bounded(request)?))).await?;
        let (deleted, prev_kvs) = match done.reply {
            Reply::Delete(count, deleted) => (count, convert::pairs(deleted)),
            other => return Err(mixed_up(&other)),
        };
        Ok(Response::new(rpc::DeleteRangeResponse { header: self.header(done.revision), deleted, prev_kvs }))
    }

    async fn txn(&self, request: Request<rpc::TxnRequest>) -> Result<Response<rpc::TxnResponse>, Status> {
        let caller = Caller::of(&request)?;
        check::txn(request.get_ref()).map_err(|refusal| convert::status(&refusal))?;
        let done = self.write(&caller, mvcc::Request::Txn(convert::txn(bounded(request)?)?)).await?;
        match done.reply {
            Reply::Txn(outcome) => Ok(Response::new(convert::outcome(self.header(done.revision), outcome))),
            other => Err(mixed_up(&other)),
        }
    }

    async fn compact(
        &self,
        request: Request<rpc::CompactionRequest>,
    ) -> Result<Response<rpc::CompactionResponse>, Status> {
        Caller::of(&request)?.may_do_everything("compact")?;
        // Whether it is to wait for the space makes no difference: history is gone at once, space comes back later.
        let done = self.writer.compact(request.into_inner().revision).await;
        let done = done.map_err(|refusal| convert::status(&refusal))?;
        Ok(Response::new(rpc::CompactionResponse { header: self.header(done.revision) }))
    }
}

impl Server {
    /// Writes something for whoever asks, where they may.
    pub(super) async fn write(&self, caller: &Caller, request: mvcc::Request) -> Result<Done, Status> {
        caller.may_write(&request, &self.prefix)?;
        let done = self.writer.write(caller.order(request)).await;
        done.map_err(|refusal| convert::status(&refusal))
    }
}

/// A request that is not too large.
fn bounded<T: Message>(request: Request<T>) -> Result<T, Status> {
    let request = request.into_inner();
    if request.encoded_len() > MOST_BYTES { Err(convert::status(&Refusal::TooLarge)) } else { Ok(request) }
}

pub(super) fn stopped() -> Status {
    Status::unavailable("the store is being stopped")
}

pub(super) fn mixed_up(reply: &Reply) -> Status {
    Status::internal(format!("the store answered something else than was asked: {reply:?}"))
}
