//! Large answers: few of them at once, for each is in memory until its client has taken it.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;

use super::Server;
use super::peer::Caller;
use crate::mvcc::{KeyRange, Operation, Range, Txn};

/// How many at once, of those who run the store and of others: whoever does not take what they asked for keeps nobody
/// out who runs it. Each may have [`MOST_ANSWER`](crate::mvcc::MOST_ANSWER), once as it was read and once as it is sent.
const AT_ONCE: usize = 4;
const OF_OTHERS_AT_ONCE: usize = 2;

/// How long whoever asks waits for that: a few answers, over a slow network.
const WAIT: Duration = Duration::from_secs(30);

/// An answer of fewer bytes is no large one, once it is read.
const LARGE: usize = 1 << 20;

/// Pairs from which on a range may be large: fewer are quicker read than handed over to another thread.
const MANY: i64 = 100;

/// Places for large answers.
#[derive(Debug)]
pub(super) struct Places {
    ours: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self { ours: Arc::new(Semaphore::new(AT_ONCE)), others: Arc::new(Semaphore::new(OF_OTHERS_AT_ONCE)) }
    }
}

/// A place among large answers, which goes with an answer until it is sent.
#[derive(Debug, Clone)]
pub(super) struct Place {
    _kept: Arc<OwnedSemaphorePermit>,
}

impl Place {
    /// What is to go with an answer of so many bytes.
    pub(super) fn for_bytes(self, bytes: usize) -> Option<Self> {
        (bytes >= LARGE).then_some(self)
    }
}

impl Server {
    /// Waits for a place among large answers.
    pub(super) async fn large(&self, caller: &Caller) -> Result<Place, Status> {
        let places = if caller.is_owner() { &self.large.ours } else { &self.large.others };
        match timeout(WAIT, Arc::clone(places).acquire_owned()).await {
            Ok(place) => Ok(Place { _kept: Arc::new(place.expect("it is never closed")) }),
            Err(_) => Err(Status::resource_exhausted(
                "as many large answers as may be are on their way; hint: try again, or ask for fewer keys (`--limit`)",
            )),
        }
    }
}

/// Whether a range may find much.
pub(super) fn finds_much(range: &Range) -> bool {
    !matches!(range.keys, KeyRange::One(_)) && !(1..MANY).contains(&range.limit)
}

/// Whether a transaction may find much, in either branch.
pub(super) fn tells_much(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match operation {
        Operation::Range(range) => finds_much(range),
        Operation::Delete(delete) => delete.tell_previous && !matches!(delete.keys, KeyRange::One(_)),
        Operation::Put(_) => false,
        Operation::Txn(txn) => tells_much(txn),
    })
}

/// An answer that keeps its place until it is sent, or nobody takes it any more.
pub(super) fn kept(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Place>() {
        None => response,
        Some(place) => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _kept = &place;
                frame
            }))
        }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, BytesMut};
    use tonic::Code;
    use tonic::codegen::Service as _;
    use tonic::codegen::http::Request as HttpRequest;

    use super::*;
    use crate::key::Prefix;
    use crate::mvcc::{Engine, Field, LeaseNumber, Memory, Order, Put, Request};
    use crate::serve::peer::{Peer, Rights};
    use crate::serve::protocol::etcdserverpb as rpc;
    use crate::serve::refusal::Worded;
    use crate::serve::{Identity, Server};

    /// A store of so many pairs with values of so many bytes.
    fn server(pairs: usize, bytes: usize) -> Server {
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO).expect("an empty store");
        for number in 0..pairs {
            let (value, lease) = (Field::New(vec![b'v'; bytes].into()), Field::New(LeaseNumber::NONE));
            let put = Put { key: format!("k{number:06}").into(), value, lease, tell_previous: false };
            let done = engine.write(&[Order { request: Request::Put(put), author: None }], Duration::ZERO);
            assert!(done.iter().all(Result::is_ok));
        }
        Server::new(Arc::new(engine), Identity { cluster: 7, member: 8 }, Prefix::default()).expect("a thread")
    }

    /// Asks as a client's connection does, for everything.
    async fn ask(server: &Server, path: &str, message: impl prost::Message) -> Response<Body> {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.encoded_len()).expect("short"));
        message.encode(&mut framed).expect("it has room");
        let body = Body::new(http_body_util::Full::new(framed.freeze()));
        let request = HttpRequest::post(format!("/etcdserverpb.KV/{path}")).header("content-type", "application/grpc");
        let mut request = request.body(body).expect("a request");
        request.extensions_mut().insert(Caller::Anybody);
        let mut service = Worded(rpc::kv_server::KvServer::new(server.clone()));
        service.call(request).await.expect("it never fails")
    }

    fn everything() -> rpc::RangeRequest {
        rpc::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() }
    }

    fn in_transaction() -> rpc::TxnRequest {
        let request = Some(rpc::request_op::Request::RequestRange(everything()));
        rpc::TxnRequest { success: vec![rpc::RequestOp { request }], ..Default::default() }
    }

    #[tokio::test]
    async fn a_large_answer_keeps_its_place_until_it_is_sent() {
        let large = server(200, 10_000);
        let answers = [ask(&large, "Range", everything()).await, ask(&large, "Txn", in_transaction()).await];
        assert_eq!(large.large.ours.available_permits(), AT_ONCE - 2);
        for answer in answers {
            assert!(answer.into_body().collect().await.expect("sent").to_bytes().len() > LARGE);
        }
        assert_eq!(large.large.ours.available_permits(), AT_ONCE);
        let small = server(200, 10);
        let _answer = ask(&small, "Range", everything()).await;
        assert_eq!(small.large.ours.available_permits(), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_place_is_told_what_to_do() {
        let server = server(200, 10);
        let mut places = Vec::new();
        for _ in 0..AT_ONCE {
            places.push(server.large(&Caller::Anybody).await.expect("a place"));
        }
        for path in ["Range", "Txn"] {
            let answer = match path {
                "Range" => ask(&server, path, everything()).await,
                _ => ask(&server, path, in_transaction()).await,
            };
            let told = Status::from_header_map(answer.headers()).expect("a refusal");
            assert!(told.code() == Code::ResourceExhausted && told.message().contains("--limit"), "{told:?}");
        }
        // Others have places of their own, so neither keeps the other out.
        let peer = Peer { name: "ana".parse().expect("a name"), rights: Rights::Declare };
        let _place = server.large(&Caller::Known(Arc::new(peer))).await.expect("a place");
        let few = rpc::RangeRequest { limit: 10, ..everything() };
        let answer = ask(&server, "Range", few).await;
        assert!(Status::from_header_map(answer.headers()).is_none(), "few pairs need no place");
    }
}
