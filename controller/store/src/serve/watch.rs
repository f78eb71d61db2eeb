//! Watches.
//!
//! A watcher holds the revision that it goes on from, and nothing else: what it has not seen yet is in the history. So
//! one that is slow costs no memory and holds nobody up; where compaction overtakes it, it is cancelled and told so.

use std::collections::{BTreeMap, BTreeSet};
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
use super::watcher::{Piece, Told, Watcher, read};
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
const MOST_WATCHERS: usize = 10_000;

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
        let (watchers, overtaken) = (BTreeMap::new(), BTreeSet::new());
        let stream = Stream { server: self.clone(), answers, watchers, overtaken, next_id: 0 };
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

/// One client's stream, with all its watchers.
struct Stream {
    server: Server,
    answers: Answers,
    watchers: BTreeMap<i64, Watcher>,
    /// Those that compaction has overtaken. As with etcd their ids stay taken until the client cancels them.
    overtaken: BTreeSet<i64>,
    next_id: i64,
}

/// Why a stream ends.
enum Over {
    /// The client is gone, or the store is.
    Gone,
    /// The client is told this behind what waits for it already.
    Told(Status),
}

impl Stream {
    async fn run(mut self, mut requests: Streaming<rpc::WatchRequest>, end: oneshot::Sender<Status>) {
        let mut revisions = self.server.writer.revisions();
        let mut progress = tokio::time::interval(PROGRESS_EVERY / 10);
        let mut asking = true;
        loop {
            let done = tokio::select! {
                request = requests.message(), if asking => match request {
                    Ok(Some(request)) => self.take(request).await,
                    // It may listen on.
                    Ok(None) => {
                        asking = false;
                        Ok(())
                    }
                    Err(status) => Err(Over::Told(worded(status))),
                },
                changed = revisions.changed() => match changed {
                    Ok(()) => self.catch_up().await.map(|_| ()),
                    Err(_) => Err(Over::Gone),
                },
                _ = progress.tick() => self.tell_progress().await,
                () = self.answers.closed() => Err(Over::Gone),
                () = self.server.closing.cancelled() => Err(Over::Gone),
            };
            match done {
                Ok(()) => {}
                Err(Over::Gone) => return,
                Err(Over::Told(status)) => {
                    // Where nobody listens any more, nobody wants to know.
                    let _ = end.send(status);
                    return;
                }
            }
        }
    }

    async fn take(&mut self, request: rpc::WatchRequest) -> Result<(), Over> {
        use rpc::watch_request::RequestUnion;
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                self.create(request).await?;
                self.catch_up().await.map(|_| ())
            }
            Some(RequestUnion::CancelRequest(rpc::WatchCancelRequest { watch_id })) => {
                let known = self.watchers.remove(&watch_id).is_some() || self.overtaken.remove(&watch_id);
                if known { self.cancelled(watch_id, 0).await } else { Ok(()) }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                let now = self.catch_up().await?;
                self.send(self.answer(-1, now)).await
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

    /// Brings every watcher to the store's revision of now, and says which that was.
    async fn catch_up(&mut self) -> Result<i64, Over> {
        let now = self.server.engine.revision();
        loop {
            let from = self.watchers.values().map(Watcher::next).min();
            let Some(from) = from.filter(|from| *from <= now) else { return Ok(now) };
            let engine = self.server.engine.clone();
            let mut watchers = std::mem::take(&mut self.watchers);
            // The disk is read, and that must hold up nobody.
            let reading = self.server.hands.run(move || {
                let piece = read(&engine, &mut watchers, from);
                (watchers, piece)
            });
            let Some((watchers, piece)) = reading.await else { return Err(Over::Gone) };
            self.watchers = watchers;
            match piece {
                Ok(Piece { until, told }) => {
                    for told in told {
                        self.send_events(told, until).await?;
                    }
                }
                Err(Refusal::Compacted) => self.cancel_overtaken().await?,
                Err(refusal) => return Err(Over::Told(convert::status(&refusal))),
            }
        }
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
        let now = self.catch_up().await?;
        let due: Vec<i64> = self
            .watchers
            .iter_mut()
            .filter_map(|(id, watcher)| watcher.takes_progress(PROGRESS_EVERY, Instant::now()).then_some(*id))
            .collect();
        for id in due {
            self.send(self.answer(id, now)).await?;
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
    use crate::mvcc::{Engine, Memory};
    use crate::serve::Identity;

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_told_so_behind_what_waits() {
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO).expect("an empty store");
        let identity = Identity { cluster: 7, member: 8 };
        let server = Server::new(Arc::new(engine), identity, Prefix::default()).expect("a thread");
        let (answers, waiting) = mpsc::channel(WAITING);
        let (watchers, overtaken) = (BTreeMap::new(), BTreeSet::new());
        let stream = Stream { server, answers, watchers, overtaken, next_id: 0 };
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
