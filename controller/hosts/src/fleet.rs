//! What the engine asks of hosts, whichever they are: real ones over SSH, or those in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use windlass_crds::digest::{FileDigest, ReleaseDigest, UnitDigest};
use windlass_crds::host::Target;
use windlass_crds::id::{ClusterId, Sequence, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{HealthAnswer, HostObservation, Sample, ServiceObservation, StepRecord};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::{ContactError, Step, StepError, Verb};

use crate::traffic::Traffic;

/// How closely the files of what runs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrutiny {
    /// Paths, sizes, times and modes.
    Quick,
    /// Every file's SHA-256 as well.
    Full,
}

/// What makes a host refuse everything older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The rollout's number.
    pub sequence: Sequence,
    /// The store that it comes from; a host of another store refuses.
    pub cluster: ClusterId,
}

/// One look at a service on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Which service.
    pub service: ServiceKey,
    /// The stamp that the host gets in the same call; without one the look changes nothing there.
    pub stamp: Option<Stamp>,
    /// How closely.
    pub scrutiny: Scrutiny,
}

/// A step for one service under a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which service.
    pub service: ServiceKey,
    /// Under which sequence, and for which store.
    pub stamp: Stamp,
    /// What to do.
    pub step: Step,
    /// How long the program may take to stop, before SIGKILL; bounds every step that stops it.
    pub force_after: Duration,
    /// How long a switch may go without a confirmation: then the host goes back by itself to what was confirmed last,
    /// or stops the program where that is nothing.
    pub confirm_within: Duration,
}

/// Where the contents of a file with this digest lie on the controller's machine.
pub type ContentPath = Arc<dyn Fn(&FileDigest) -> PathBuf + Send + Sync>;

/// What a stage brings.
#[derive(Clone)]
pub struct Material {
    /// What the unit and its environment are made from.
    pub spec: ServiceSpec,
    /// The release's files.
    pub manifest: Arc<Manifest>,
    /// Manifests of releases that may be on the host, to build on the nearest of those that are.
    pub bases: BTreeMap<ReleaseDigest, Arc<Manifest>>,
    /// Where the files' contents are.
    pub contents: ContentPath,
    /// What has just been seen on the host, to save asking again; a host that has changed since then says so.
    pub seen: Option<Seen>,
}

/// What a stage can build on, as a look found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Releases that are there.
    pub releases: BTreeSet<ReleaseDigest>,
    /// Units that are there.
    pub units: BTreeSet<UnitDigest>,
    /// Whether an upload has arrived in part.
    pub uploads: bool,
}

impl From<&ServiceObservation> for Seen {
    fn from(seen: &ServiceObservation) -> Self {
        Self { releases: seen.releases.clone(), units: seen.units.clone(), uploads: seen.incoming.is_some() }
    }
}

/// A question to a service: is it well?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The port on the host's loopback address.
    pub port: NonZeroU16,
    /// What is asked there.
    pub probe: Probe,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// A host that changes its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Whose it was when somebody decided this.
    pub from: ClusterId,
    /// Whose it shall be.
    pub to: ClusterId,
}

/// What a service is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Whether it accepts a connection.
    Connect,
    /// An HTTP GET of this path.
    Http(String),
    /// A TLS handshake with a verified certificate, and an HTTP GET inside it where there is a path.
    Tls {
        /// The path.
        path: Option<String>,
        /// What is demanded of the certificate.
        issued: Issued,
    },
}

/// What a certificate must be, to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The name or address that it is for.
    pub to: String,
    /// A file of authorities on this machine, one of which signed it; whom this machine trusts where there is none.
    pub by: Option<PathBuf>,
}

/// Hosts that can be observed and acted on.
pub trait Fleet: Send + Sync + 'static {
    /// The connections at this moment. A fleet without any has none.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// Looks at a service on a host, and stamps the host in the same call where `look` says so.
    ///
    /// # Errors
    /// [`StepError::Contact`] where the host cannot be talked to; where it was to be stamped, also
    /// [`StepError::Superseded`] and [`StepError::OwnedByAnother`].
    fn observe(&self, target: &Target, look: &Look) -> impl Future<Output = Result<HostObservation, StepError>> + Send;

    /// Stamps a host that has just been looked at: it refuses everything older from now on. Returns its records of
    /// steps as they are then: where they are those that the look found, nobody has done anything there since.
    ///
    /// # Errors
    /// As for a look that stamps.
    fn stamp(
        &self,
        target: &Target,
        service: &ServiceKey,
        stamp: &Stamp,
    ) -> impl Future<Output = Result<BTreeMap<Verb, StepRecord>, StepError>> + Send {
        let look = Look { service: service.clone(), stamp: Some(stamp.clone()), scrutiny: Scrutiny::Quick };
        async move { self.observe(target, &look).await.map(|seen| seen.service.steps) }
    }

    /// Brings a release and a revision to a host: `order.step` is [`Step::Stage`].
    ///
    /// # Errors
    /// See [`StepError`]. Nothing visible has changed on the host.
    fn stage(
        &self,
        target: &Target,
        order: &Order,
        material: &Material,
    ) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Does any other step. A switch to another revision than the one that was confirmed last is confirmed over a
    /// connection whose login is made for that: what broke SSH leaves those that are open as they are.
    ///
    /// # Errors
    /// See [`StepError`]; after [`StepError::Contact`] and [`StepError::TimedOut`] it may have run.
    fn act(&self, target: &Target, order: &Order) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Makes a host another store's; what runs there, and the fences, stay as they are. One that nobody owns yet is
    /// left to the first stamp.
    ///
    /// # Errors
    /// [`StepError::OwnedByAnother`] where it is neither `from`'s nor `to`'s by now: nothing has changed then.
    fn adopt(&self, target: &Target, adoption: &Adoption) -> impl Future<Output = Result<(), StepError>> + Send;

    /// Looks at a unit, and at who listens on its port, while a rollout waits for its verdict.
    ///
    /// # Errors
    /// When the host cannot be talked to.
    fn sample(
        &self,
        target: &Target,
        service: &ServiceKey,
        port: Option<NonZeroU16>,
    ) -> impl Future<Output = Result<Sample, ContactError>> + Send;

    /// Asks a service how it is. What stands between us and the program is [`HealthAnswer::Unknown`].
    fn ask(&self, target: &Target, question: &Question) -> impl Future<Output = HealthAnswer> + Send;

    /// The last `lines` lines that a service's unit has logged, oldest first.
    ///
    /// # Errors
    /// When the host cannot be talked to.
    fn logs(
        &self,
        target: &Target,
        service: &ServiceKey,
        lines: u32,
    ) -> impl Future<Output = Result<Vec<String>, ContactError>> + Send;

    /// What is in a release that a host holds for a service, as it was when it came; `None` where it holds none such.
    ///
    /// # Errors
    /// When the host cannot be talked to, or what it answers is not that release.
    fn manifest(
        &self,
        target: &Target,
        service: &ServiceKey,
        release: &ReleaseDigest,
    ) -> impl Future<Output = Result<Option<Manifest>, ContactError>> + Send;
}
