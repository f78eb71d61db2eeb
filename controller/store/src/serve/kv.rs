//! Keys and values.

use std::pin::Pin;

use futures::Stream;
use prost::Message;
use tonic::{Request, Response, Status};

use super::large::{Place, finds_much, tells_much};
use super::peer::Caller;
use super::protocol::etcdserverpb as rpc;
use super::{Server, check, convert};
use crate::mvcc::{self, Done, KeyRange, MOST_BYTES, Refusal, Reply};

#[tonic::async_trait]
impl rpc::kv_server::Kv for Server {
    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<rpc::RangeStreamResponse, Status>> + Send>>;

    async fn range(&self, request: Request<rpc::RangeRequest>) -> Result<Response<rpc::RangeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let range = convert::range(request.into_inner())?;
        let place = if finds_much(&range) { Some(self.large(&caller).await?) } else { None };
        let engine = self.engine.clone();
        let read = move || engine.range(&range);
        let found = match place {
            None => read(),
            Some(_) => self.hands.run(read).await.ok_or_else(stopped)?,
        };
        let (revision, found) = found.map_err(|refusal| convert::status(&refusal))?;
        Ok(answered(convert::found(self.header(revision), found), place))
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
        let delete = convert::delete(bounded(request)?);
        let much = delete.tell_previous && !matches!(delete.keys, KeyRange::One(_));
        let place = if much { Some(self.large(&caller).await?) } else { None };
        let done = self.write(&caller, mvcc::Request::Delete(delete)).await?;
        let (deleted, prev_kvs) = match done.reply {
            Reply::Delete(count, deleted) => (count, convert::pairs(deleted)),
            other => return Err(mixed_up(&other)),
        };
        Ok(answered(rpc::DeleteRangeResponse { header: self.header(done.revision), deleted, prev_kvs }, place))
    }

    async fn txn(&self, request: Request<rpc::TxnRequest>) -> Result<Response<rpc::TxnResponse>, Status> {
        let caller = Caller::of(&request)?;
        check::txn(request.get_ref()).map_err(|refusal| convert::status(&refusal))?;
        let txn = convert::txn(bounded(request)?)?;
        let place = if tells_much(&txn) { Some(self.large(&caller).await?) } else { None };
        let done = self.write(&caller, mvcc::Request::Txn(txn)).await?;
        match done.reply {
            Reply::Txn(outcome) => Ok(answered(convert::outcome(self.header(done.revision), outcome), place)),
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

/// An answer, which keeps its place where it is large.
fn answered<T: Message>(answer: T, place: Option<Place>) -> Response<T> {
    let place = place.and_then(|place| place.for_bytes(answer.encoded_len()));
    let mut response = Response::new(answer);
    if let Some(place) = place {
        response.extensions_mut().insert(place);
    }
    response
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
