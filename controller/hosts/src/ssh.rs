//! Real hosts over SSH.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc};
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::{RevisionNumber, Sequence, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{HealthAnswer, HostObservation, Sample, Scope, StepRecord};
use windlass_crds::step::{ContactError, DataFate, Step, StepError, Verb};

use crate::check::Survey;
use crate::fleet::{Adoption, Fleet, Look, Material, Order, Question, Scrutiny, Seen, Stamp};
use crate::traffic::Traffic;

mod answer;
mod governor;
mod health;
mod link;
mod master;
mod payload;
mod shell;
mod survey;
mod tally;
mod tls;
mod unit;

use answer::Have;
use governor::Governor;
use link::{Link, Shared};
use payload::{Base, Payload, Seal, Texts};
use shell::{Answer, Request};
use tally::Tally;

/// Connections that are kept open while nobody uses them, unless told otherwise: as many as hosts are supported (see
/// `docs/decisions/0010`).
pub const KEPT: usize = 1000;

/// A look: connecting takes 10 s at most, and a busy host gets as much again.
const LOOK_DEADLINE: Duration = Duration::from_secs(25);

/// A look that hashes every file, at low priority.
const FULL_LOOK_DEADLINE: Duration = Duration::from_secs(900);

/// A quick look while a rollout waits: late is as bad as never, and a dead connection is noticed within 8 s.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(10);

/// An upload. A connection that is dead is noticed within 8 s, so this bounds only slow ones.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(3600);

/// What a step may take besides stopping the program: reload, hashing, starting, waiting for the lock.
const STEP_SLACK: Duration = Duration::from_secs(180);

/// What systemctl may take besides stopping the program: SIGKILL has to be noticed, and the start comes after it.
const SYSTEMCTL_SLACK: Duration = Duration::from_secs(30);

/// How long a step waits for another one that holds the lock, besides what that one may take to stop the program.
const LOCK_SLACK: Duration = Duration::from_secs(10);

/// Pieces in which a payload is handed over.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks between the reader of files and the connection.
const CHUNKS: usize = 4;

/// Hosts over SSH: a connection each, kept warm, and opened again when it is lost.
pub struct SshFleet {
    links: Mutex<HashMap<Route, Arc<Link>>>,
    shared: Arc<Shared>,
    // Last to go: the sockets are in it.
    _directory: master::PrivateDirectory,
}

/// What makes two targets the same connection, whatever they are called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route(String);

impl Route {
    fn of(target: &Target) -> Self {
        let Target { id: _, address, port, user, key_file, host_keys, privilege, remote_dir } = target;
        Self(format!("{:?}", (address, port, user, key_file, host_keys, privilege, remote_dir)))
    }
}

impl SshFleet {
    /// A fleet without any connection yet.
    ///
    /// # Errors
    /// When no private folder for sockets can be made in the temporary folder.
    pub fn new() -> io::Result<Self> {
        Self::with_shell("sh")
    }

    /// As [`SshFleet::new`], with another shell on the hosts: `dash`, `busybox sh`.
    ///
    /// # Errors
    /// When no private folder for sockets can be made in the temporary folder.
    pub fn with_shell(shell: &str) -> io::Result<Self> {
        Self::with(shell, KEPT)
    }

    /// As [`SshFleet::new`], keeping so many connections open while nobody uses them. Others are ended some seconds after
    /// their last use.
    ///
    /// # Errors
    /// When no private folder for sockets can be made in the temporary folder.
    pub fn keeping(connections: usize) -> io::Result<Self> {
        Self::with("sh", connections)
    }

    fn with(shell: &str, keep: usize) -> io::Result<Self> {
        let directory = master::PrivateDirectory::new()?;
        let shared = Shared {
            directory: directory.path().to_owned(),
            governor: Governor::new(keep),
            connections: AtomicU64::new(0),
            agrees_quickly: OnceCell::new(),
            shell: shell.to_owned(),
            tally: Tally::default(),
        };
        Ok(Self { links: Mutex::default(), shared: Arc::new(shared), _directory: directory })
    }

    /// Ends every connection. Without it, each ends by itself a minute after this process has.
    pub async fn close(&self) {
        let links: Vec<Arc<Link>> = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.drain().map(|(_, link)| link).collect()
        };
        let closing: Vec<_> = links.iter().map(|link| link.close()).collect();
        futures::future::join_all(closing).await;
    }

    /// What a host is like, found out without changing anything there. It takes 10 s at most to say that a host does
    /// not answer.
    pub async fn survey(&self, target: &Target) -> Survey {
        match self.link(target).connection().await {
            Ok(connection) => survey::survey(&connection, target, &self.shared.shell).await,
            Err(error) => Survey { contact: Err(error) },
        }
    }

    fn link(&self, target: &Target) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(Route::of(target));
        Arc::clone(link.or_insert_with(|| Arc::new(Link::new(target.clone(), Arc::clone(&self.shared)))))
    }

    async fn call(&self, target: &Target, request: &Request, deadline: Duration) -> Result<Answer, ContactError> {
        self.link(target).call(request, None, deadline).await
    }
}

/// Twenty digits, as the fence's records have them.
fn padded(number: u64) -> String {
    format!("{number:020}")
}

/// Whole seconds, rounded up, for the host's timeouts.
fn whole_seconds(span: Duration) -> String {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).to_string()
}

fn contact(error: ContactError) -> StepError {
    StepError::Contact { error }
}

/// The arguments that every step begins with.
fn step_arguments(order: &Order) -> Result<Vec<String>, StepError> {
    // The shell's arithmetic has 63 bits.
    let Sequence(sequence) = order.stamp.sequence;
    if i64::try_from(sequence).is_err() {
        return Err(contact(ContactError::Local { detail: format!("{sequence} is too large for a sequence") }));
    }
    Ok(vec![order.service.folder(), order.stamp.cluster.to_string(), padded(sequence)])
}

/// The request of any step but a stage.
fn step_request(order: &Order) -> Result<Request, StepError> {
    let mut arguments = step_arguments(order)?;
    let wait = whole_seconds(order.force_after + LOCK_SLACK);
    let limit = whole_seconds(order.force_after + SYSTEMCTL_SLACK);
    let revision = |number: &RevisionNumber| [padded(number.0), number.to_string()];
    match &order.step {
        Step::Stage { .. } => {
            return Err(contact(ContactError::Local { detail: "a stage needs its material".to_owned() }));
        }
        Step::Stop => arguments.extend([wait, limit]),
        Step::Activate { revision: number } | Step::Revert { revision: number } => {
            arguments.extend(revision(number));
            arguments.extend([wait, limit, whole_seconds(order.confirm_within)]);
        }
        Step::Confirm { revision: number, keep } => {
            arguments.extend(revision(number));
            arguments.push(wait);
            arguments.push(number.to_string());
            arguments.extend(keep.iter().map(RevisionNumber::to_string));
        }
        Step::Remove { data } => {
            let fate = match data {
                DataFate::Keep => "keep",
                DataFate::Purge => "purge",
            };
            arguments.extend([wait, limit, fate.to_owned()]);
        }
    }
    Ok(Request { verb: order.step.verb().as_str(), arguments })
}

/// What to build on: the nearest of what is there.
fn choose_base(have: &Have, release: &ReleaseDigest, material: &Material) -> Base {
    match &have.damaged {
        Some(damaged) if damaged.is_empty() => return Base::Keep,
        Some(damaged) => return Base::Release(*release, damaged.clone()),
        None => {}
    }
    let usable = |digest: &ReleaseDigest| have.releases.contains(digest);
    let candidates = material.bases.iter().filter(|(digest, base)| usable(digest) && !base.entries.is_empty());
    let nearest = candidates.map(|(digest, base)| (payload::cost(&material.manifest, base), *digest)).min();
    match nearest {
        Some((cost, digest)) if cost < payload::cost(&material.manifest, &Manifest::default()) => {
            Base::Release(digest, BTreeSet::new())
        }
        _ => Base::Nothing,
    }
}

/// Reads the files of a payload on a thread of its own, and hands them over from `offset` on.
fn stream(payload: Arc<Payload>, offset: u64) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let mut out = Sender { sender, skip: offset, buffer: Vec::with_capacity(CHUNK_BYTES) };
        // Where the receiver is gone, or a file, the host misses the rest and says so.
        let written = payload.write_to(&mut out).and_then(|()| out.flush());
        if let Err(error) = written {
            tracing::debug!(%error, "a payload ended early");
        }
    });
    receiver
}

/// Hands over what is written to it, but for the first bytes.
struct Sender {
    sender: mpsc::Sender<Bytes>,
    skip: u64,
    buffer: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        self.buffer.extend_from_slice(&bytes[skipped..]);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender.blocking_send(chunk.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// One stage on its way.
struct Stage<'a> {
    link: &'a Link,
    order: &'a Order,
    material: &'a Material,
    revision: RevisionNumber,
    release: ReleaseDigest,
}

impl Stage<'_> {
    async fn run(&self) -> Result<(), StepError> {
        let mut seen = self.material.seen.as_ref();
        if let Some(have) = self.guess().await? {
            match self.attempt(&have).await {
                Err(StepError::Base { detail }) => {
                    tracing::info!(%detail, service = %self.order.service, "the host is not as it was seen");
                    // Nothing that was seen counts any more; what travels anyway is small.
                    seen = None;
                }
                result => return result,
            }
        }
        let mut have = self.have().await?;
        have.units = seen.map(|seen| seen.units.clone()).unwrap_or_default();
        if have.staged {
            return Ok(());
        }
        match self.attempt(&have).await {
            Err(StepError::Base { detail }) => self.without(have, detail).await,
            result => result,
        }
    }

    /// Goes on where what is there turned out to be no good. First the unit and the environment travel, which may be all
    /// that is damaged and are small; then everything does.
    async fn without(&self, mut have: Have, detail: String) -> Result<(), StepError> {
        tracing::info!(%detail, service = %self.order.service, "the base is not usable");
        if !have.units.is_empty() {
            have.units.clear();
            match self.attempt(&have).await {
                Err(StepError::Base { detail }) => {
                    tracing::info!(%detail, service = %self.order.service, "nor is it without the unit");
                }
                result => return result,
            }
        }
        self.send(&Base::Nothing, &self.have().await?).await
    }

    /// Sends what the nearest of what is there lacks.
    async fn attempt(&self, have: &Have) -> Result<(), StepError> {
        self.send(&choose_base(have, &self.release, self.material), have).await
    }

    /// What a look has found, where that says enough: nothing of the release is there, no upload has begun, and it is
    /// known what runs the program. The host refuses what it is not.
    async fn guess(&self) -> Result<Option<Have>, StepError> {
        let Some(seen) = &self.material.seen else { return Ok(None) };
        if seen.uploads || seen.releases.contains(&self.release) {
            return Ok(None);
        }
        let program = match unit::interpreter(self.material.spec.runtime.target) {
            None => None,
            Some(name) => match self.link.program(name).await.map_err(contact)? {
                None => return Ok(None),
                known => known,
            },
        };
        let Seen { releases, units, uploads: _ } = seen.clone();
        Ok(Some(Have { releases, units, program, ..Have::default() }))
    }

    async fn have(&self) -> Result<Have, StepError> {
        let mut arguments = step_arguments(self.order)?;
        let program = unit::interpreter(self.material.spec.runtime.target).unwrap_or("-");
        arguments.extend([padded(self.revision.0), self.release.to_string(), program.to_owned()]);
        let request = Request { verb: "have", arguments };
        let answer = self.link.call(&request, None, FULL_LOOK_DEADLINE).await.map_err(contact)?;
        if let Some(error) = answer::step_failure(&answer, self.order) {
            return Err(error);
        }
        let have = answer::have(&answer).map_err(contact)?;
        if let Some(path) = have.program.as_ref().filter(|path| !path.is_empty()) {
            self.link.learn_program(program, path).await.map_err(contact)?;
        }
        Ok(have)
    }

    /// The unit and the environment.
    async fn texts(&self, have: &Have) -> Result<Texts, StepError> {
        let hello = self.link.hello().await.map_err(contact)?;
        let spec = &self.material.spec;
        let program = have.program.as_deref();
        if let (Some(name), None | Some("")) = (unit::interpreter(spec.runtime.target), program) {
            let detail =
                format!("{name} is not installed on the host, or not in the PATH of {}; install it", hello.user);
            return Err(StepError::NotStaged { revision: self.revision, detail });
        }
        let scope = answer::scope(&hello).map_err(contact)?;
        if let (Some(user), Scope::User) = (&spec.runtime.user, scope) {
            let detail = format!(
                "runtime.user is {user}, and what {} starts here runs as {}: only a host that Windlass reaches as root, or with sudo, can run a service as somebody else; leave runtime.user out",
                hello.user, hello.user
            );
            return Err(StepError::NotStaged { revision: self.revision, detail });
        }
        let place = unit::Place { service: &self.order.service, remote_dir: &hello.dir, scope, program };
        Ok(Texts { unit: unit::unit(&place, spec), environment: unit::environment(spec) })
    }

    async fn send(&self, base: &Base, have: &Have) -> Result<(), StepError> {
        let texts = self.texts(have).await?;
        let sums = texts.sums();
        let texts = Some(texts).filter(|texts| !have.units.contains(&texts.digest()));
        let program = have.program.as_deref().filter(|path| !path.is_empty());
        let program = program.zip(unit::interpreter(self.material.spec.runtime.target));
        let (path, name) = program.unwrap_or(("-", "-"));
        let base_manifest = match base {
            Base::Release(digest, _) if *digest == self.release => Some(&*self.material.manifest),
            Base::Release(digest, _) => self.material.bases.get(digest).map(|base| &**base),
            Base::Keep | Base::Nothing => None,
        };
        let contents = Arc::clone(&self.material.contents);
        let payload = Arc::new(Payload::new(&self.material.manifest, base, base_manifest, texts, contents));
        let Seal { digest, length } = seal(&payload).await?;
        let offset = have.incoming.get(&digest).copied().filter(|offset| *offset <= length).unwrap_or(0);
        let mut arguments = step_arguments(self.order)?;
        arguments.extend([padded(self.revision.0), self.revision.to_string(), self.release.to_string(), base.word()]);
        arguments.extend([digest.to_string(), length.to_string(), offset.to_string()]);
        arguments.extend([whole_seconds(self.order.force_after + LOCK_SLACK), payload.files().to_owned()]);
        arguments.extend(sums.split(' ').map(str::to_owned));
        let user = self.material.spec.runtime.user.as_ref().map_or("-", |user| user.as_str());
        arguments.extend([name, path, user].map(str::to_owned));
        let request = Request { verb: "stage", arguments };
        tracing::debug!(service = %self.order.service, base = base.word(), length, offset, "stage");
        let chunks = stream(payload, offset);
        let answer = self.link.call(&request, Some(chunks), UPLOAD_DEADLINE).await.map_err(contact)?;
        answer::step_failure(&answer, self.order).map_or(Ok(()), Err)
    }
}

/// Names and measures a payload, on a thread of its own: it looks at every file.
async fn seal(payload: &Arc<Payload>) -> Result<Seal, StepError> {
    let payload = Arc::clone(payload);
    let sealed = tokio::task::spawn_blocking(move || payload.seal()).await;
    let local = |detail: String| contact(ContactError::Local { detail });
    sealed.map_err(|error| local(error.to_string()))?.map_err(|error| local(error.to_string()))
}

impl Fleet for SshFleet {
    fn traffic(&self) -> Traffic {
        self.shared.tally.traffic()
    }

    async fn observe(&self, target: &Target, look: &Look) -> Result<HostObservation, StepError> {
        let (cluster, sequence, ours) = match &look.stamp {
            Some(stamp) => (stamp.cluster.to_string(), padded(stamp.sequence.0), stamp.sequence),
            None => ("-".to_owned(), "-".to_owned(), Sequence(0)),
        };
        let (scrutiny, deadline) = match look.scrutiny {
            Scrutiny::Quick => ("quick", LOOK_DEADLINE),
            Scrutiny::Full => ("full", FULL_LOOK_DEADLINE),
        };
        let folder = look.service.folder();
        let arguments = vec![folder.clone(), cluster, sequence, scrutiny.to_owned()];
        let link = self.link(target);
        let answer = link.call(&Request { verb: "observe", arguments }, None, deadline).await.map_err(contact)?;
        if let Some(error) = answer::failure(&answer, ours, RevisionNumber(0)) {
            return Err(error);
        }
        let hello = link.hello().await.map_err(contact)?;
        answer::observation(&answer, &hello, &folder).map_err(contact)
    }

    async fn stamp(
        &self,
        target: &Target,
        service: &ServiceKey,
        stamp: &Stamp,
    ) -> Result<BTreeMap<Verb, StepRecord>, StepError> {
        let arguments = vec![service.folder(), stamp.cluster.to_string(), padded(stamp.sequence.0)];
        let request = Request { verb: "stamp", arguments };
        let answer = self.call(target, &request, LOOK_DEADLINE).await.map_err(contact)?;
        match answer::failure(&answer, stamp.sequence, RevisionNumber(0)) {
            Some(error) => Err(error),
            None => answer::records(&answer).map_err(contact),
        }
    }

    async fn stage(&self, target: &Target, order: &Order, material: &Material) -> Result<(), StepError> {
        let Step::Stage { revision, release } = order.step else {
            return Err(contact(ContactError::Local { detail: format!("{} is not a stage", order.step) }));
        };
        let link = self.link(target);
        Stage { link: &link, order, material, revision, release }.run().await
    }

    async fn act(&self, target: &Target, order: &Order) -> Result<(), StepError> {
        let request = step_request(order)?;
        let deadline = order.force_after * 2 + STEP_SLACK;
        let (link, folder) = (self.link(target), order.service.folder());
        let confirms = order.step.verb() == Verb::Confirm;
        let mut answer = None;
        if !confirms || !link.is_armed(&folder) {
            let kept = link.call(&request, None, deadline).await.map_err(contact)?;
            // Another controller may have armed it.
            answer = Some(kept).filter(|kept| !confirms || kept.code != answer::NEEDS_LOGIN);
        }
        let answer = match answer {
            Some(answer) => answer,
            None => link.call_by_login(&request, deadline).await.map_err(contact)?,
        };
        match order.step.verb() {
            Verb::Activate | Verb::Revert => link.note_armed(&folder, answer.lines.iter().any(|line| line == "armed")),
            Verb::Confirm if answer.code == 0 => link.note_armed(&folder, false),
            _ => {}
        }
        answer::step_failure(&answer, order).map_or(Ok(()), Err)
    }

    async fn adopt(&self, target: &Target, adoption: &Adoption) -> Result<(), StepError> {
        let arguments = vec![adoption.from.to_string(), adoption.to.to_string()];
        let answer = self.call(target, &Request { verb: "adopt", arguments }, LOOK_DEADLINE).await.map_err(contact)?;
        answer::failure(&answer, Sequence(0), RevisionNumber(0)).map_or(Ok(()), Err)
    }

    async fn sample(
        &self,
        target: &Target,
        service: &ServiceKey,
        port: Option<NonZeroU16>,
    ) -> Result<Sample, ContactError> {
        let (decimal, hexadecimal) = match port {
            Some(port) => (port.to_string(), format!("{port:04X}")),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let request = Request { verb: "sample", arguments: vec![service.folder(), decimal, hexadecimal] };
        let link = self.link(target);
        let answer = link.call(&request, None, SAMPLE_DEADLINE).await?;
        let hello = link.hello().await?;
        answer::look_failure(&answer).map_or_else(|| answer::sample(&answer, &hello), Err)
    }

    async fn ask(&self, target: &Target, question: &Question) -> HealthAnswer {
        health::ask(&self.link(target), question).await
    }

    async fn logs(&self, target: &Target, service: &ServiceKey, lines: u32) -> Result<Vec<String>, ContactError> {
        let request = Request { verb: "logs", arguments: vec![service.folder(), lines.to_string()] };
        let answer = self.call(target, &request, LOOK_DEADLINE).await?;
        answer::look_failure(&answer).map_or_else(|| Ok(answer::logs(&answer)), Err)
    }

    async fn manifest(
        &self,
        target: &Target,
        service: &ServiceKey,
        release: &ReleaseDigest,
    ) -> Result<Option<Manifest>, ContactError> {
        let request = Request { verb: "manifest", arguments: vec![service.folder(), release.to_string()] };
        let answer = self.call(target, &request, LOOK_DEADLINE).await?;
        answer::look_failure(&answer).map_or_else(|| answer::manifest(&answer, release), Err)
    }
}

impl std::fmt::Debug for SshFleet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SshFleet").finish_non_exhaustive()
    }
}
