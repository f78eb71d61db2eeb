//! Watches.
//!
//! A watcher holds the revision that it goes on from, and nothing else: what it has not seen yet is in the history. So
//! one that is slow costs no memory and holds nobody up; where compaction overtakes it, it is cancelled and told so.
//! Those of a stream who have seen everything go before those who have not: whoever begins with what was long ago
//! reads a piece of it at a time, between what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::protocol::etcdserverpb as rpc;
use super::protocol::mvccpb;
use super::refusal::worded;
use super::watcher::{Part, Piece, Told, Watcher, is_at_hand, read};
use super::{Server, convert};
use crate::mvcc::{MOST_BYTES, Refusal};

/// Answers that wait to be sent; then the stream waits too.
const WAITING: usize = 8;

/// How long a client may take nothing. Our own takes everything at once; what waits for one that has stopped, at most
/// [`WAITING`] answers, is not held for longer.
const STALLED: Duration = Duration::from_secs(60);

/// How often a watcher that wants to is told how far the store is while nothing happens: as often as etcd does.
const PROGRESS_EVERY: Duration = Duration::from_secs(10 * 60);

/// Watchers of one stream. A controller has one, a person a handful.
const MOST_WATCHERS: usize = 1000;

type Answers = mpsc::Sender<Result<rpc::WatchResponse, Status>>;

#[tonic::async_trait]
impl rpc::watch_server::Watch for Server {
    type WatchStream = Pin<Box<dyn futures::Stream<Item = Result<rpc::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<rpc::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, waiting) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        let stream = Stream::new(self.clone(), answers);
        tokio::spawn(stream.run(request.into_inner(), end));
        Ok(Response::new(sent(waiting, ended)))
    }
}

/// What a client is sent: all that waits for it, and then why there is no more, where that is to be told.
fn sent(
    waiting: mpsc::Receiver<Result<rpc::WatchResponse, Status>>,
    ended: oneshot::Receiver<Status>,
) -> <Server as rpc::watch_server::Watch>::WatchStream {
    let why = futures::stream::once(ended).filter_map(|why| ready(why.ok().map(Err)));
    ReceiverStream::new(waiting).chain(why).boxed()
}

/// What a client asks.
trait Requests: futures::Stream<Item = Result<rpc::WatchRequest, Status>> + Unpin {}

impl<S: futures::Stream<Item = Result<rpc::WatchRequest, Status>> + Unpin> Requests for S {}

/// One client's stream, with all its watchers.
struct Stream {
    server: Server,
    answers: Answers,
    watchers: BTreeMap<i64, Watcher>,
    /// The revision up to which everybody has seen everything who is not behind.
    front: i64,
    /// Those that compaction has overtaken. As with etcd their ids stay taken until the client cancels them.
    overtaken: BTreeSet<i64>,
    next_id: i64,
    /// How often the client has asked how far the store is, and was not told yet.
    asked: usize,
}

/// Why a stream ends.
enum Over {
    /// The client is gone, or the store is.
    Gone,
    /// The client is told this behind what waits for it already.
    Told(Status),
}

impl Stream {
    fn new(server: Server, answers: Answers) -> Self {
        let front = server.engine.revision();
        let (watchers, overtaken) = (BTreeMap::new(), BTreeSet::new());
        Self { server, answers, watchers, front, overtaken, next_id: 0, asked: 0 }
    }

    async fn run(mut self, requests: impl Requests, end: oneshot::Sender<Status>) {
        if let Err(Over::Told(status)) = self.go_on(requests).await {
            // Where nobody listens any more, nobody wants to know.
            let _ = end.send(status);
        }
    }

    /// Does one thing after the other, and between two of them brings those who are not behind to what is new.
    async fn go_on(&mut self, mut requests: impl Requests) -> Result<Infallible, Over> {
        let mut revisions = self.server.writer.revisions();
        let mut progress = tokio::time::interval(PROGRESS_EVERY / 10);
        let mut asking = true;
        loop {
            tokio::select! {
                request = requests.next(), if asking => match request {
                    Some(Ok(request)) => self.take(request).await?,
                    // It may listen on.
                    None => asking = false,
                    Some(Err(status)) => return Err(Over::Told(worded(status))),
                },
                changed = revisions.changed() => changed.map_err(|_| Over::Gone)?,
                _ = progress.tick() => self.tell_progress().await?,
                () = ready(()), if self.is_behind() => self.read(Part::Behind(self.front)).await?,
                () = self.answers.closed() => return Err(Over::Gone),
                () = self.server.closing.cancelled() => return Err(Over::Gone),
            }
            self.follow().await?;
        }
    }

    async fn take(&mut self, request: rpc::WatchRequest) -> Result<(), Over> {
        use rpc::watch_request::RequestUnion;
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(rpc::WatchCancelRequest { watch_id })) => {
                let known = self.watchers.remove(&watch_id).is_some() || self.overtaken.remove(&watch_id);
                if known { self.cancelled(watch_id, 0).await } else { Ok(()) }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.asked += 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: rpc::WatchCreateRequest) -> Result<(), Over> {
        // The client goes on from the revision that it is told here, so nothing may happen between the two.
        let now = self.server.engine.revision();
        let id = request.watch_id;
        let watcher = Watcher::new(request, now);
        let refused = if watcher.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if id != 0 && self.is_taken(id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else if self.watchers.len() + self.overtaken.len() >= MOST_WATCHERS {
            Some("too many watchers on one stream; hint: open another one")
        } else {
            None
        };
        if let Some(why) = refused {
            let cancel_reason = why.to_owned();
            let refused = rpc::WatchResponse { created: true, canceled: true, cancel_reason, ..self.answer(-1, now) };
            return self.send(refused).await;
        }
        let id = if id != 0 { id } else { self.free_id() };
        self.watchers.insert(id, watcher);
        self.send(rpc::WatchResponse { created: true, ..self.answer(id, now) }).await
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.overtaken.contains(&id)
    }

    fn free_id(&mut self) -> i64 {
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn is_behind(&self) -> bool {
        self.watchers.values().any(|watcher| watcher.next() <= self.front)
    }

    /// Brings whoever is not behind to the store's revision of now, and says how far that is to who has asked, once
    /// nobody is behind.
    async fn follow(&mut self) -> Result<(), Over> {
        let now = self.server.engine.revision();
        while self.front < now {
            self.read(Part::Front(self.front)).await?;
        }
        while self.asked > 0 && !self.is_behind() {
            self.asked -= 1;
            self.send(self.answer(-1, self.front)).await?;
        }
        Ok(())
    }

    /// Reads a piece of the history, and sends it.
    async fn read(&mut self, part: Part) -> Result<(), Over> {
        let now = self.server.engine.revision();
        let engine = self.server.engine.clone();
        let piece = if is_at_hand(&engine, &self.watchers, part) {
            read(&engine, &mut self.watchers, part)
        } else {
            let mut watchers = std::mem::take(&mut self.watchers);
            // The disk is read, and that must hold up nobody.
            let reading = self.server.hands.run(move || {
                let piece = read(&engine, &mut watchers, part);
                (watchers, piece)
            });
            let Some((watchers, piece)) = reading.await else { return Err(Over::Gone) };
            self.watchers = watchers;
            piece
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(Refusal::Compacted) => return self.cancel_overtaken().await,
            Err(refusal) => return Err(Over::Told(convert::status(&refusal))),
        };
        // Where nobody reads, nobody misses anything.
        let Piece { until, told } = piece.unwrap_or(Piece { until: now, told: Vec::new() });
        if let Part::Front(front) = part {
            self.front = until.max(front);
        }
        for told in told {
            self.send_events(told, until).await?;
        }
        Ok(())
    }

    /// All at once, or in pieces where they are large and the client puts pieces together.
    async fn send_events(&self, told: Told, until: i64) -> Result<(), Over> {
        let Told { id, events, fragments } = told;
        let mut piece: Vec<mvccpb::Event> = Vec::new();
        let mut size = 0;
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            size += prost::Message::encoded_len(&event);
            piece.push(event);
            let full = fragments && size >= MOST_BYTES && events.peek().is_some();
            if full || events.peek().is_none() {
                let events = std::mem::take(&mut piece);
                size = 0;
                self.send(rpc::WatchResponse { events, fragment: full, ..self.answer(id, until) }).await?;
            }
        }
        Ok(())
    }

    /// Cancels the watchers whose history is gone.
    async fn cancel_overtaken(&mut self) -> Result<(), Over> {
        let compacted = self.server.engine.compacted();
        // Whoever is left begins there, or later.
        self.front = self.front.max(compacted - 1);
        let gone: Vec<i64> =
            self.watchers.iter().filter(|(_, watcher)| watcher.next() < compacted).map(|(id, _)| *id).collect();
        for id in gone {
            self.watchers.remove(&id);
            self.overtaken.insert(id);
            self.cancelled(id, compacted).await?;
        }
        Ok(())
    }

    async fn cancelled(&self, id: i64, compact_revision: i64) -> Result<(), Over> {
        let now = self.server.engine.revision();
        self.send(rpc::WatchResponse { canceled: true, compact_revision, ..self.answer(id, now) }).await
    }

    async fn tell_progress(&mut self) -> Result<(), Over> {
        self.follow().await?;
        let front = self.front;
        let due: Vec<i64> = self
            .watchers
            .iter_mut()
            .filter(|(_, watcher)| watcher.next() > front)
            .filter_map(|(id, watcher)| watcher.takes_progress(PROGRESS_EVERY, Instant::now()).then_some(*id))
            .collect();
        for id in due {
            self.send(self.answer(id, front)).await?;
        }
        Ok(())
    }

    fn answer(&self, watch_id: i64, revision: i64) -> rpc::WatchResponse {
        rpc::WatchResponse { header: self.server.header(revision), watch_id, ..Default::default() }
    }

    async fn send(&self, answer: rpc::WatchResponse) -> Result<(), Over> {
        let sent = timeout(STALLED, self.answers.send(Ok(answer)));
        match self.server.closing.run_until_cancelled(sent).await {
            Some(Ok(Ok(()))) => Ok(()),
            None | Some(Ok(Err(_))) => Err(Over::Gone),
            Some(Err(_)) => Err(Over::Told(Status::resource_exhausted(format!(
                "nothing of this watch was taken for {} s, so it was ended; hint: watch again from the revision after \
                 the last one that came",
                STALLED.as_secs()
            )))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::Code;

    use super::*;
    use crate::key::Prefix;
    use crate::mvcc::{self, Engine, Field, LeaseNumber, Memory, Order, Put};
    use crate::serve::Identity;

    fn server() -> Server {
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO).expect("an empty store");
        Server::new(Arc::new(engine), Identity { cluster: 7, member: 8 }, Prefix::default()).expect("a thread")
    }

    async fn put(server: &Server, key: &str, bytes: usize) {
        let (value, lease) = (Field::New(vec![b'v'; bytes].into()), Field::New(LeaseNumber::NONE));
        let put = Put { key: key.to_owned().into(), value, lease, tell_previous: false };
        server.writer.write(Order { request: mvcc::Request::Put(put), author: None }).await.expect("written");
    }

    fn create(key: &str, start_revision: i64) -> rpc::WatchCreateRequest {
        rpc::WatchCreateRequest { key: key.to_owned().into(), start_revision, ..Default::default() }
    }

    fn asked(request: rpc::WatchCreateRequest) -> rpc::WatchRequest {
        let request_union = Some(rpc::watch_request::RequestUnion::CreateRequest(request));
        rpc::WatchRequest { request_union }
    }

    /// A stream of a server: what its client asks, and what it is told.
    fn stream(server: &Server) -> (mpsc::Sender<Result<rpc::WatchRequest, Status>>, Told) {
        let (asks, requests) = mpsc::channel(WAITING);
        let (answers, waiting) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        let stream = Stream::new(server.clone(), answers);
        tokio::spawn(stream.run(ReceiverStream::new(requests), end));
        (asks, sent(waiting, ended))
    }

    type Told = <Server as rpc::watch_server::Watch>::WatchStream;

    async fn next(told: &mut Told) -> rpc::WatchResponse {
        told.next().await.expect("the stream goes on").expect("no error")
    }

    #[tokio::test]
    async fn a_quiet_watcher_is_told_how_far_the_store_is_every_ten_minutes() {
        let server = server();
        let (asks, mut told) = stream(&server);
        let watches = [create("quiet", 0), rpc::WatchCreateRequest { progress_notify: true, ..create("a", 0) }];
        for watch in watches {
            asks.send(Ok(asked(watch))).await.expect("somebody listens");
            assert!(next(&mut told).await.created);
        }
        put(&server, "elsewhere", 1).await;
        tokio::time::pause();
        let mut last = Instant::now();
        for _ in 0..3 {
            let progress = next(&mut told).await;
            assert!(progress.events.is_empty() && progress.watch_id == 1, "{progress:?}");
            assert_eq!(progress.header.expect("a header").revision, 2);
            let (now, tick) = (Instant::now(), PROGRESS_EVERY / 10);
            let passed = now - last;
            assert!((PROGRESS_EVERY - tick..=PROGRESS_EVERY + tick).contains(&passed), "{passed:?}");
            last = now;
        }
    }

    #[tokio::test]
    async fn one_who_reads_what_was_long_ago_holds_up_nobody_on_the_same_stream() {
        let server = server();
        let history = 200;
        for _ in 0..history {
            // Each is an answer of its own.
            put(&server, "old", MOST_BYTES).await;
        }
        let (asks, mut told) = stream(&server);
        for watch in [create("old", 2), create("new", 0)] {
            asks.send(Ok(asked(watch))).await.expect("somebody listens");
        }
        // Nothing more is sent than waits for us, so the history is not through when this is put.
        let mut seen = 0;
        let mut wait_for = async |what: &mut dyn FnMut(&rpc::WatchResponse) -> bool| loop {
            let answer = next(&mut told).await;
            seen += if answer.watch_id == 0 { answer.events.len() } else { 0 };
            if what(&answer) {
                return seen;
            }
        };
        wait_for(&mut |answer| answer.created && answer.watch_id == 1).await;
        put(&server, "new", 1).await;
        let seen = wait_for(&mut |answer| answer.watch_id == 1 && !answer.events.is_empty()).await;
        assert!(seen < history / 2, "{seen} of {history} came before what is new");
        // And the other one gets everything.
        let mut left = history;
        wait_for(&mut |answer| {
            left -=
                answer.events.iter().filter(|event| event.kv.as_ref().is_some_and(|kv| &kv.key[..] == b"old")).count();
            seen + history - left == history
        })
        .await;
    }

    #[tokio::test]
    async fn a_stream_has_a_bound_of_watchers() {
        let server = server();
        let (asks, mut told) = stream(&server);
        for number in 0..=MOST_WATCHERS {
            asks.send(Ok(asked(create("a", 0)))).await.expect("somebody listens");
            let answer = next(&mut told).await;
            let refused = answer.canceled && answer.cancel_reason.contains("hint: open another one");
            assert_eq!(refused, number == MOST_WATCHERS, "{number}: {answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_told_so_behind_what_waits() {
        let (answers, waiting) = mpsc::channel(WAITING);
        let stream = Stream::new(server(), answers);
        for _ in 0..WAITING {
            assert!(stream.send(stream.answer(0, 1)).await.is_ok(), "there is room");
        }
        let begun = Instant::now();
        let Err(Over::Told(status)) = stream.send(stream.answer(0, 1)).await else { panic!("nobody is told") };
        assert_eq!(begun.elapsed().as_secs(), STALLED.as_secs());
        let (end, ended) = oneshot::channel();
        end.send(status).expect("somebody listens");
        drop(stream);
        let sent: Vec<_> = sent(waiting, ended).collect().await;
        assert!(sent.len() == WAITING + 1 && sent[..WAITING].iter().all(Result::is_ok));
        let last = sent.last().and_then(|last| last.as_ref().err()).expect("why it ended");
        assert!(last.code() == Code::ResourceExhausted && last.message().contains("watch again"), "{last:?}");
    }
}
