//! Watches.
//!
//! A watcher holds the revision that it goes on from, and nothing else: what it has not seen yet is in the history. So
//! one that is slow costs no memory and holds nobody up; where compaction overtakes it, it is cancelled and told so.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::protocol::etcdserverpb as rpc;
use super::protocol::mvccpb;
use super::{Server, convert};
use crate::mvcc::{Change, History, KeyRange, MOST_BYTES, Refusal};

/// Answers that wait to be sent; then the stream waits too.
const WAITING: usize = 8;

/// Changes that are read from the history at once.
const CHANGES: usize = 1000;

/// How often a watcher that wants to is told how far the store is while nothing happens: as often as etcd does.
const PROGRESS_EVERY: Duration = Duration::from_secs(10 * 60);

/// Watchers of one stream. A controller has one, a person a handful.
const MOST_WATCHERS: usize = 10_000;

type Answers = mpsc::Sender<Result<rpc::WatchResponse, Status>>;

#[tonic::async_trait]
impl rpc::watch_server::Watch for Server {
    type WatchStream = ReceiverStream<Result<rpc::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<rpc::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, waiting) = mpsc::channel(WAITING);
        let stream = Stream { server: self.clone(), answers, watchers: BTreeMap::new(), next_id: 0 };
        tokio::spawn(stream.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(waiting)))
    }
}

/// One client's stream, with all its watchers.
struct Stream {
    server: Server,
    answers: Answers,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
}

/// What one watcher wants.
struct Watcher {
    keys: KeyRange,
    /// The first revision that it has not seen.
    next: i64,
    puts: bool,
    deletions: bool,
    previous: bool,
    fragments: bool,
    progress: bool,
    told: Instant,
}

/// The client is gone, or has made no sense.
struct Over;

impl Stream {
    async fn run(mut self, mut requests: Streaming<rpc::WatchRequest>) {
        let mut revisions = self.server.writer.revisions();
        let mut progress = tokio::time::interval(PROGRESS_EVERY / 10);
        loop {
            let done = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request).await,
                    Ok(None) | Err(_) => Err(Over),
                },
                changed = revisions.changed() => match changed {
                    Ok(()) => self.catch_up().await,
                    Err(_) => Err(Over),
                },
                _ = progress.tick() => self.tell_progress().await,
                () = self.answers.closed() => Err(Over),
                () = self.server.closing.cancelled() => Err(Over),
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, request: rpc::WatchRequest) -> Result<(), Over> {
        use rpc::watch_request::RequestUnion;
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                self.create(request).await?;
                self.catch_up().await
            }
            Some(RequestUnion::CancelRequest(rpc::WatchCancelRequest { watch_id })) => {
                match self.watchers.remove(&watch_id) {
                    Some(_) => self.cancelled(watch_id, 0).await,
                    None => Ok(()),
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                // Every watcher has seen everything up to there.
                self.catch_up().await?;
                self.send(self.answer(-1)).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: rpc::WatchCreateRequest) -> Result<(), Over> {
        let taken = request.watch_id != 0 && self.watchers.contains_key(&request.watch_id);
        if taken || self.watchers.len() >= MOST_WATCHERS {
            let why = if taken { "mvcc: duplicate watch ID provided on the WatchStream" } else { "too many watchers" };
            let refused =
                rpc::WatchResponse { created: true, canceled: true, cancel_reason: why.to_owned(), ..self.answer(-1) };
            return self.send(refused).await;
        }
        let id = if request.watch_id != 0 { request.watch_id } else { self.free_id() };
        let now = self.server.engine.revision();
        let filters = &request.filters;
        let hides = |filter: rpc::watch_create_request::FilterType| filters.contains(&i32::from(filter));
        // No key is the first there may be; etcd does not take "" for one.
        let key = if request.key.is_empty() { vec![0].into() } else { request.key.clone() };
        let watcher = Watcher {
            keys: KeyRange::new(key, request.range_end.clone()),
            next: if request.start_revision > 0 { request.start_revision } else { now + 1 },
            puts: !hides(rpc::watch_create_request::FilterType::Noput),
            deletions: !hides(rpc::watch_create_request::FilterType::Nodelete),
            previous: request.prev_kv,
            fragments: request.fragment,
            progress: request.progress_notify,
            told: Instant::now(),
        };
        let created = rpc::WatchResponse { created: true, ..self.answer(id) };
        self.watchers.insert(id, watcher);
        self.send(created).await
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Brings every watcher to the store's revision.
    async fn catch_up(&mut self) -> Result<(), Over> {
        loop {
            let now = self.server.engine.revision();
            let Some(from) = self.watchers.values().map(|watcher| watcher.next).min().filter(|from| *from <= now)
            else {
                return Ok(());
            };
            let engine = self.server.engine.clone();
            let read = tokio::task::spawn_blocking(move || engine.history(from, CHANGES, MOST_BYTES)).await;
            match read {
                Ok(Ok(history)) => self.tell(&history).await?,
                Ok(Err(Refusal::Compacted)) => self.cancel_overtaken().await?,
                Ok(Err(refusal)) => {
                    let _ = self.answers.send(Err(convert::status(&refusal))).await;
                    return Err(Over);
                }
                Err(_) => return Err(Over),
            }
        }
    }

    /// Tells each watcher what is for it in a piece of the history.
    async fn tell(&mut self, history: &History) -> Result<(), Over> {
        let ids: Vec<i64> = self.watchers.keys().copied().collect();
        for id in ids {
            let Some(watcher) = self.watchers.get_mut(&id) else { continue };
            let next = watcher.next;
            let wanted: Vec<&Change> =
                history.changes.iter().filter(|change| change.at.main >= next && watcher.wants(change)).collect();
            watcher.next = next.max(history.next);
            let (previous, fragments) = (watcher.previous, watcher.fragments);
            if wanted.is_empty() {
                continue;
            }
            watcher.told = Instant::now();
            let mut events = Vec::with_capacity(wanted.len());
            for change in wanted {
                let before = if previous { self.server.engine.before(change).unwrap_or(None) } else { None };
                events.push(convert::event(change.clone(), before));
            }
            self.send_events(id, events, fragments).await?;
        }
        Ok(())
    }

    /// All at once, or in pieces where they are large and the client puts pieces together.
    async fn send_events(&self, id: i64, events: Vec<mvccpb::Event>, fragments: bool) -> Result<(), Over> {
        let mut piece = Vec::new();
        let mut size = 0;
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            size += prost::Message::encoded_len(&event);
            piece.push(event);
            let full = fragments && size >= MOST_BYTES && events.peek().is_some();
            if full || events.peek().is_none() {
                let answer =
                    rpc::WatchResponse { events: std::mem::take(&mut piece), fragment: full, ..self.answer(id) };
                size = 0;
                self.send(answer).await?;
            }
        }
        Ok(())
    }

    /// Cancels the watchers whose history is gone.
    async fn cancel_overtaken(&mut self) -> Result<(), Over> {
        let compacted = self.server.engine.compacted();
        let gone: Vec<i64> =
            self.watchers.iter().filter(|(_, watcher)| watcher.next < compacted).map(|(id, _)| *id).collect();
        for id in gone {
            self.watchers.remove(&id);
            self.cancelled(id, compacted).await?;
        }
        Ok(())
    }

    async fn cancelled(&self, id: i64, compact_revision: i64) -> Result<(), Over> {
        self.send(rpc::WatchResponse { canceled: true, compact_revision, ..self.answer(id) }).await
    }

    async fn tell_progress(&mut self) -> Result<(), Over> {
        self.catch_up().await?;
        let due = |watcher: &Watcher| watcher.progress && watcher.told.elapsed() >= PROGRESS_EVERY;
        let ids: Vec<i64> = self.watchers.iter().filter(|(_, watcher)| due(watcher)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.told = Instant::now();
            }
            self.send(self.answer(id)).await?;
        }
        Ok(())
    }

    fn answer(&self, watch_id: i64) -> rpc::WatchResponse {
        rpc::WatchResponse { header: self.server.header_now(), watch_id, ..Default::default() }
    }

    async fn send(&self, answer: rpc::WatchResponse) -> Result<(), Over> {
        self.answers.send(Ok(answer)).await.map_err(|_| Over)
    }
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        let kind = if change.deleted { self.deletions } else { self.puts };
        kind && self.keys.contains(&change.pair.key)
    }
}
