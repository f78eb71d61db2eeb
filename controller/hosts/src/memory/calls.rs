//! The ordered log of what a fleet was asked, what happened on the host for it, and what was answered.

use std::fmt;
use std::sync::Arc;

use windlass_crds::id::{HostId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::step::{StepError, Verb};

use super::behaviour::Moment;

/// What a fleet can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A look that changes nothing.
    Observe,
    /// A look that stamps the host.
    Stamp,
    /// A step.
    Step(Verb),
    /// Another store takes it over.
    Adopt,
    /// A quick look at a unit.
    Sample,
    /// A health question.
    Ask,
    /// For the log.
    Logs,
    /// For what is in a release.
    Manifest,
}

impl Call {
    /// Whether it may change something on the host.
    pub fn changes(self) -> bool {
        matches!(self, Self::Stamp | Self::Step(_) | Self::Adopt)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observe => out.pad("observe"),
            Self::Stamp => out.pad("stamp"),
            Self::Step(verb) => verb.fmt(out),
            Self::Adopt => out.pad("adopt"),
            Self::Sample => out.pad("sample"),
            Self::Ask => out.pad("ask"),
            Self::Logs => out.pad("logs"),
            Self::Manifest => out.pad("manifest"),
        }
    }
}

/// What a call did on the host, whatever the caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Nothing: it did not get there, was refused, or only looked.
    Nothing,
    /// The step was done before: its record was the answer.
    Replayed,
    /// The step was begun; it goes on also where the caller goes away.
    Begun,
}

/// One call of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Its place in the log, from 0.
    pub number: u64,
    /// Which controller called.
    pub caller: Caller,
    /// What it called the host.
    pub host: HostId,
    /// The machine that it reached for.
    pub address: String,
    /// What it asked.
    pub call: Call,
    /// About which service; `None` for a health question, which names only a port.
    pub service: Option<ServiceKey>,
    /// Under which sequence, where it may change something.
    pub sequence: Option<Sequence>,
    /// The revision that the step is about.
    pub revision: Option<RevisionNumber>,
    /// When it was called.
    pub began: Moment,
    /// When it was answered; `None` while it is not, and for ever where the caller went away.
    pub ended: Option<Moment>,
    /// What it did on the host.
    pub deed: Deed,
    /// Why it failed; `None` where it succeeded or is not answered.
    pub error: Option<StepError>,
}

impl fmt::Display for Called {
    /// `web1 activate 2 under 7: begun, ok`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.host, self.call)?;
        if let Some(revision) = self.revision {
            write!(out, " {revision}")?;
        }
        if let Some(sequence) = self.sequence {
            write!(out, " under {sequence}")?;
        }
        out.write_str(match self.deed {
            Deed::Nothing => ": ",
            Deed::Replayed => ": replayed, ",
            Deed::Begun => ": begun, ",
        })?;
        match (&self.error, self.ended) {
            (Some(error), _) => error.fmt(out),
            (None, Some(_)) => out.write_str("ok"),
            (None, None) => out.write_str("unanswered"),
        }
    }
}

/// Which controller calls: each has its own links to the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Caller(pub u32);

/// What is told of each call, when it begins and when it ends.
pub type OnCall = Arc<dyn Fn(&Called) + Send + Sync>;
