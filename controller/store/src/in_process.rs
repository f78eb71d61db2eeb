//! A store in this process, reached without a network: for simulation, and for tests that need no disk.
//!
//! It is what `windlass serve` carries, in memory: the same engine, the same answers, the same client. Only the way
//! between is another, and a [`Gate`] stands on it, which may hold up, lose or refuse whatever passes. Everything is
//! done where it is asked, by nobody's thread but the caller's.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use etcd_client::{Channel, Client};
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, service_fn};

use crate::connect::Store;
use crate::key::Prefix;
use crate::machine::Machine;
use crate::mvcc::{BackendError, Engine, Memory, Refusal, RestoreError, restore};
use crate::serve::{Caller, Identity, Server};

/// What passes on the way to the store and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// A question, before the store hears it.
    Question,
    /// The answer, of which the store knows nothing any more: whatever was asked has been done.
    Answer,
    /// A message of a stream that the client sends.
    Sent,
    /// A message of a stream that the store sends.
    Told,
}

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The way is cut: the client hears no more than that.
    Way,
    /// A message of a stream, of which neither side hears; elsewhere the same as the way.
    Message,
}

/// What becomes of what passes: it waits as long as the future does, and is lost where that says so.
pub trait Gate: Send + Sync + 'static {
    /// Something wants to pass; `call` is etcd's name of what is asked, such as `KV/Txn`.
    fn pass(&self, call: &str, passage: Passage) -> Passing;

    /// Ends when all streams that are open break.
    fn broken(&self) -> BoxFuture<'static, ()>;
}

/// Why there is no store, or no such copy of it.
#[derive(Debug, thiserror::Error)]
pub enum InProcessError {
    /// Memory did not take it.
    #[error("the store in memory failed")]
    Backend(#[from] BackendError),
    /// It is no copy.
    #[error("a copy of the store in memory cannot be restored")]
    Restore(#[from] RestoreError),
    /// It refused.
    #[error("the store in memory refused")]
    Refused(#[from] Refusal),
    /// It did not let us in.
    #[error("the store in memory gives no connection")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store in this process. Dropped, its leases end no more.
pub struct InProcess {
    prefix: Prefix,
    machine: Machine,
    present: Arc<Mutex<Present>>,
}

/// What answers at present: another one once the store was turned back.
struct Present {
    engine: Arc<Engine>,
    server: Server,
    routes: Routes,
    _leases: AbortOnDropHandle<()>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("InProcess").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl InProcess {
    /// An empty one, on a machine. Wants a runtime.
    ///
    /// # Errors
    /// [`InProcessError::Backend`].
    pub fn new(machine: Machine, prefix: Prefix) -> Result<Self, InProcessError> {
        let present = Present::over(Memory::default(), &machine, &prefix, 1)?;
        Ok(Self { prefix, machine, present: Arc::new(Mutex::new(present)) })
    }

    /// The newest revision. It grows with each write and with nothing else.
    pub fn revision(&self) -> i64 {
        self.engine().revision()
    }

    /// Forgets all history before the newest revision.
    ///
    /// # Errors
    /// [`InProcessError::Refused`] where that was done before.
    pub fn compact(&self) -> Result<(), InProcessError> {
        let engine = self.engine();
        engine.compact(engine.revision())?;
        Ok(())
    }

    /// A copy of everything, such as an operator makes.
    ///
    /// # Errors
    /// [`InProcessError::Backend`].
    pub fn copy(&self) -> Result<Vec<u8>, InProcessError> {
        let pieces = self.engine().snapshot()?;
        let mut copy = Vec::new();
        for piece in pieces {
            copy.extend_from_slice(&piece?);
        }
        Ok(copy)
    }

    /// Becomes what a copy holds, under another member's number; what happened since is gone.
    ///
    /// # Errors
    /// [`InProcessError::Restore`].
    pub fn turn_back(&self, copy: &[u8], member: u64) -> Result<(), InProcessError> {
        let memory = Memory::default();
        restore(&mut &*copy, &memory)?;
        let present = Present::over(memory, &self.machine, &self.prefix, member)?;
        let before = std::mem::replace(&mut *self.present.lock().unwrap_or_else(PoisonError::into_inner), present);
        // Streams that are open lead to what is no more.
        before.server.close();
        Ok(())
    }

    /// A client on a machine of its own, with a gate on its way.
    ///
    /// # Errors
    /// [`InProcessError::Client`].
    pub async fn client(&self, machine: Machine, gate: Arc<dyn Gate>) -> Result<Store, InProcessError> {
        let present = Arc::clone(&self.present);
        let ask = service_fn(move |request: Request<Body>| {
            let routes = present.lock().unwrap_or_else(PoisonError::into_inner).routes.clone();
            pass(request, routes, Arc::clone(&gate))
        });
        let channel = Channel::Custom(BoxCloneSyncService::new(ask));
        let client = Client::from_channel(channel, None).await;
        let client = client.map_err(|error| InProcessError::Client(Box::new(error)))?;
        Ok(Store::within(client, self.prefix.clone(), machine))
    }

    fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.present.lock().unwrap_or_else(PoisonError::into_inner).engine)
    }
}

impl Present {
    fn over(memory: Memory, machine: &Machine, prefix: &Prefix, member: u64) -> Result<Self, InProcessError> {
        let engine = Arc::new(Engine::open(Box::new(memory), machine.since_boot())?);
        // As a store that an operator restored: another one to its clients.
        let identity = Identity { cluster: member, member };
        let server = Server::within(Arc::clone(&engine), identity, prefix.clone(), machine.clone());
        let (routes, ending) = (server.routes(), server.clone());
        let leases = AbortOnDropHandle::new(tokio::spawn(async move { ending.end_leases().await }));
        Ok(Self { engine, server, routes, _leases: leases })
    }
}

/// Asks the store something, through a gate.
async fn pass(request: Request<Body>, mut routes: Routes, gate: Arc<dyn Gate>) -> Result<Response<Body>, BoxError> {
    let call = request.uri().path().trim_start_matches("/etcdserverpb.").to_owned();
    let streams = matches!(call.as_str(), "Watch/Watch" | "Lease/LeaseKeepAlive");
    let gated = |body: Body, passage: Passage| {
        if streams { Body::new(Gated::new(body, Arc::clone(&gate), call.clone(), passage)) } else { body }
    };
    gate.pass(&call, Passage::Question).await.map_err(|_cut| lost())?;
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Caller::Anybody);
    let answer = routes.call(Request::from_parts(parts, gated(body, Passage::Sent))).await?;
    gate.pass(&call, Passage::Answer).await.map_err(|_cut| lost())?;
    Ok(answer.map(|body| gated(body, Passage::Told)))
}

/// As tonic says that a connection broke.
fn lost() -> BoxError {
    Box::new(tonic::Status::unavailable("the connection broke"))
}

/// How long something takes at the gate, and whether it is lost there.
type Passing = BoxFuture<'static, Result<(), Cut>>;

/// A stream, each message of which passes the gate.
struct Gated {
    body: Body,
    gate: Arc<dyn Gate>,
    call: String,
    passage: Passage,
    broken: BoxFuture<'static, ()>,
    /// What waits at the gate.
    waiting: Option<(Frame<Bytes>, Passing)>,
    over: bool,
}

impl Gated {
    fn new(body: Body, gate: Arc<dyn Gate>, call: String, passage: Passage) -> Self {
        let broken = gate.broken();
        Self { body, gate, call, passage, broken, waiting: None, over: false }
    }
}

impl HttpBody for Gated {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let broke = Poll::Ready(Some(Err(tonic::Status::unavailable("the connection broke"))));
        if this.broken.as_mut().poll(context).is_ready() {
            this.over = true;
            return broke;
        }
        loop {
            if this.waiting.is_none() {
                match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        let passing = this.gate.pass(&this.call, this.passage);
                        this.waiting = Some((frame, passing));
                    }
                    other => return Poll::Ready(other),
                }
            }
            let Some((_, passing)) = &mut this.waiting else { return Poll::Pending };
            let passed = ready!(passing.as_mut().poll(context));
            let frame = this.waiting.take().map(|(frame, _)| frame);
            match (passed, frame) {
                (Ok(()), Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                // A frame holds whole messages, so that what follows can be read.
                (Err(Cut::Message), Some(frame)) if frame.is_data() => {}
                _ => {
                    this.over = true;
                    return broke;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use futures::FutureExt as _;
    use windlass_crds::id::ResourceKey;

    use super::*;
    use crate::follow::{Follower, Update};
    use crate::key::{Control, Key};
    use crate::scope::{Scope, Section};

    /// Lets everything pass.
    struct Open;

    impl Gate for Open {
        fn pass(&self, _: &str, _: Passage) -> BoxFuture<'static, Result<(), Cut>> {
            ready(Ok(())).boxed()
        }

        fn broken(&self) -> BoxFuture<'static, ()> {
            pending().boxed()
        }
    }

    /// Loses the answer to the first transaction.
    #[derive(Default)]
    struct Forgetful(AtomicBool);

    impl Gate for Forgetful {
        fn pass(&self, call: &str, passage: Passage) -> BoxFuture<'static, Result<(), Cut>> {
            let loses = call == "KV/Txn" && passage == Passage::Answer;
            let loses = loses && !self.0.swap(true, Ordering::Relaxed);
            ready(if loses { Err(Cut::Way) } else { Ok(()) }).boxed()
        }

        fn broken(&self) -> BoxFuture<'static, ()> {
            pending().boxed()
        }
    }

    fn store() -> InProcess {
        InProcess::new(Machine::default(), Prefix::default()).expect("memory")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_is_followed() {
        let store = store();
        let client = store.client(Machine::default(), Arc::new(Open)).await.expect("a client");
        let mut follower = client.follow(Scope::key(&Key::Control(Control::ClusterId)));
        assert!(matches!(follower.next().await, Update::Snapshot { entries, .. } if entries.is_empty()));
        let id = client.cluster_id().await.expect("an id");
        let Update::Changes { changes, .. } = follower.next().await else { panic!("a change") };
        assert_eq!(changes.len(), 1);
        let before = store.revision();
        assert_eq!(client.cluster_id().await.expect("an id"), id);
        assert_eq!(store.revision(), before, "reading writes nothing");
    }

    /// Loses what a watch is told, as long as it is so.
    #[derive(Default)]
    struct Mute(AtomicBool);

    impl Gate for Mute {
        fn pass(&self, call: &str, passage: Passage) -> BoxFuture<'static, Result<(), Cut>> {
            let loses = call == "Watch/Watch" && passage == Passage::Told;
            let loses = loses && self.0.load(Ordering::Relaxed);
            ready(if loses { Err(Cut::Message) } else { Ok(()) }).boxed()
        }

        fn broken(&self) -> BoxFuture<'static, ()> {
            pending().boxed()
        }
    }

    /// What is listed anew, within half a minute and before any change is told.
    async fn listed(follower: &mut Follower) -> Vec<Key> {
        let listed = async {
            loop {
                match follower.next().await {
                    Update::Snapshot { entries, .. } => return entries.into_iter().map(|entry| entry.key).collect(),
                    Update::Interrupted { error } => panic!("{error}"),
                    Update::Changes { changes, .. } => panic!("{changes:?}"),
                    Update::Progress { .. } => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listed).await.expect("a list")
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_watch_does_not_tell_is_noticed() {
        let (store, gate) = (store(), Arc::new(Mute::default()));
        let client = store.client(Machine::default(), Arc::clone(&gate) as Arc<dyn Gate>).await.expect("a client");
        let [a, b, c] = ["a", "b", "c"].map(|name| ResourceKey::from_path(&format!("hosts/{name}")).expect("a host"));
        let declare = async |host| client.declare(host, b"1".to_vec()).await.expect("an answer");
        let mute = async |muted| {
            // What was said before has been heard.
            tokio::time::sleep(Duration::from_millis(1)).await;
            gate.0.store(muted, Ordering::Relaxed);
        };
        declare(&a).await;
        let mut follower = client.follow(Scope::state());
        listed(&mut follower).await;
        mute(true).await;
        declare(&b).await;
        mute(false).await;
        // Nothing comes after it.
        assert_eq!(listed(&mut follower).await, [&a, &b].map(|host| Key::Declared(host.clone())));
        mute(true).await;
        client.delete_declaration(&b).await.expect("an answer");
        mute(false).await;
        declare(&c).await;
        assert_eq!(listed(&mut follower).await, [&a, &c].map(|host| Key::Declared(host.clone())));
    }

    /// Requests are others' here: only declarations are followed.
    #[tokio::test(start_paused = true)]
    async fn beside_other_writes_what_a_watch_does_not_tell_is_noticed_later() {
        let (store, gate) = (store(), Arc::new(Mute::default()));
        let client = store.client(Machine::default(), Arc::clone(&gate) as Arc<dyn Gate>).await.expect("a client");
        let [a, b] = ["a", "b"].map(|name| ResourceKey::from_path(&format!("hosts/{name}")).expect("a host"));
        let mut follower = client.follow(Scope::section(Section::Declared));
        assert_eq!(listed(&mut follower).await, []);
        let mut told = 0;
        for round in 0..300 {
            let request = format!("{round:06}").parse().expect("an id");
            client.request(&a, &request, b"{}".to_vec()).await.expect("an answer");
            client.declare(&a, b"1".to_vec()).await.expect("an answer");
            client.declare(&b, b"1".to_vec()).await.expect("an answer");
            client.delete_declaration(&b).await.expect("an answer");
            while told < 3 * (round + 1) {
                match follower.next().await {
                    Update::Changes { changes, .. } => told += changes.len(),
                    Update::Progress { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        gate.0.store(true, Ordering::Relaxed);
        client.declare(&b, b"1".to_vec()).await.expect("an answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
        gate.0.store(false, Ordering::Relaxed);
        let writes = async {
            for round in 300.. {
                let request = format!("{round:06}").parse().expect("an id");
                client.request(&a, &request, b"{}".to_vec()).await.expect("an answer");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let listed = async {
            loop {
                if let Update::Snapshot { entries, .. } = follower.next().await {
                    return entries.len();
                }
            }
        };
        let listed = tokio::time::timeout(Duration::from_secs(90), listed);
        let listed = tokio::select! { listed = listed => listed, () = writes => unreachable!() };
        assert_eq!(listed.expect("a list"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_lost_after_the_deed() {
        let store = store();
        let client = store.client(Machine::default(), Arc::new(Forgetful::default())).await.expect("a client");
        let before = store.revision();
        let id = client.cluster_id().await.expect("asked again, the store answers what it made");
        assert_eq!(store.revision(), before + 1, "made once");
        assert_eq!(client.cluster_id().await.expect("an id"), id);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_leads_until_its_lease_ends_and_a_copy_turns_time_back() {
        let began = tokio::time::Instant::now();
        let machine = Machine::simulated(move || began.elapsed(), || 7);
        let store = InProcess::new(machine.clone(), Prefix::default()).expect("memory");
        let client = store.client(machine, Arc::new(Open)).await.expect("a client");
        let empty = store.copy().expect("a copy");
        let leadership = client.campaign("one", Duration::from_secs(15)).await.expect("nobody else leads");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(leadership.is_valid(), "it is kept alive");
        store.turn_back(&empty, 2).expect("a copy");
        leadership.lost().await;
        assert!(client.leader().await.expect("an answer").is_none(), "the copy knows of no leader");
    }
}
