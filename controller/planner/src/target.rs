//! Which revision the hosts of a Service are brought to, and why that one.

use windlass_crds::digest::{ReleaseDigest, SpecDigest};
use windlass_crds::id::RevisionNumber;
use windlass_crds::record::{BlockCause, Blocked, Owned, Revision, Rollout, SourceOrigin};
use windlass_crds::service::ServiceSpec;

use crate::input::{Files, Goal, HostView, Inputs};
use crate::planted::{Bug, planted};

/// Which revision hosts are brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// The declared one.
    Declared(RevisionNumber),
    /// The last good one, since the declared one was unhealthy, or its rollout was ended by a person.
    Back {
        /// Where to.
        to: RevisionNumber,
        /// What is not to run.
        blocked: Blocked,
    },
    /// The one that a person chose.
    Undone {
        /// Which.
        to: RevisionNumber,
    },
    /// None: the first revision was unhealthy or aborted, and there is nothing to go back to.
    Nothing {
        /// What was unhealthy.
        blocked: Blocked,
    },
    /// Whatever each host has: an unhealthy revision stays, because `rollbackOnFailure` is off.
    Stay {
        /// What was unhealthy.
        blocked: Blocked,
    },
    /// None yet: nothing has ever been read from the source.
    Unknown,
    /// Off the hosts.
    Removed,
}

impl Aim {
    /// The revision, where it is one.
    pub fn revision(&self) -> Option<RevisionNumber> {
        match self {
            Self::Declared(revision) | Self::Back { to: revision, .. } | Self::Undone { to: revision } => {
                Some(*revision)
            }
            Self::Nothing { .. } | Self::Stay { .. } | Self::Unknown | Self::Removed => None,
        }
    }
}

/// An aim, and the revision that has to be recorded first where what is declared is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Where hosts are brought to.
    pub aim: Aim,
    /// The revision of what is declared.
    pub declared: Option<RevisionNumber>,
    /// A revision that nobody has recorded yet.
    pub new: Option<Revision>,
}

/// Decides which revision the hosts are brought to.
pub fn choose(inputs: &Inputs<'_>) -> Choice {
    let (spec, files) = match &inputs.goal {
        Goal::Remove => return Choice { aim: Aim::Removed, declared: None, new: None },
        Goal::Run { spec, files, .. } => (*spec, files),
    };
    match files {
        Files::AsBefore => {
            // What was blocked stays blocked while the source is away, also where hosts have gone back since.
            if let Some(blocked) = inputs.owned.blocked.last() {
                let aim = around(inputs, spec, blocked.revision, blocked);
                return Choice { aim, declared: Some(blocked.revision), new: None };
            }
            let current = before(inputs.owned, inputs.rollout);
            Choice { aim: current.map_or(Aim::Unknown, Aim::Declared), declared: current, new: None }
        }
        Files::Release { digest, origin } => {
            let (declared, new) = number(inputs, spec, digest, origin, |_| true);
            let aim = match blocked(inputs.owned, &spec.digest(), digest) {
                Some(blocked) => around(inputs, spec, declared, blocked),
                None => Aim::Declared(declared),
            };
            Choice { aim, declared: Some(declared), new }
        }
    }
}

/// The revision of what was in force last, whether or not it may be deployed.
pub(crate) fn before(owned: &Owned, rollout: Option<&Rollout>) -> Option<RevisionNumber> {
    let blocked = owned.blocked.last().map(|blocked| blocked.revision);
    let current = || rollout.and_then(|rollout| rollout.revision);
    blocked.or_else(current).or_else(|| owned.good.last().copied())
}

/// Why these files with this spec are not deployed by themselves, if they are not.
fn blocked<'a>(owned: &'a Owned, spec: &SpecDigest, release: &ReleaseDigest) -> Option<&'a Blocked> {
    if planted(Bug::NothingIsBlocked) {
        return None;
    }
    owned.blocked.iter().find(|blocked| blocked.spec == *spec && blocked.release == *release)
}

/// Where to go instead of a blocked revision.
fn around(inputs: &Inputs<'_>, spec: &ServiceSpec, declared: RevisionNumber, blocked: &Blocked) -> Aim {
    let usable = |good: &&RevisionNumber| {
        **good != declared && inputs.revisions.get(good).is_some_and(|record| !contradicted(inputs, record))
    };
    // What some hosts confirmed while others were out of reach is better than nothing.
    let confirmed = || confirmed_by_hosts(inputs).filter(|good| usable(&good)).max();
    match &blocked.cause {
        BlockCause::Undone { to } => Aim::Undone { to: *to },
        BlockCause::Unhealthy { .. } if !spec.rollout.rollback_on_failure => Aim::Stay { blocked: blocked.clone() },
        BlockCause::Unhealthy { .. } | BlockCause::Aborted { .. } => {
            match inputs.owned.good.iter().rev().find(usable).copied().or_else(confirmed) {
                Some(to) => Aim::Back { to, blocked: blocked.clone() },
                None => Aim::Nothing { blocked: blocked.clone() },
            }
        }
    }
}

/// The number of the revision that these files and this spec are: an earlier one's where hosts would get the same
/// from it, so that going back and forth restarts nothing and brings nothing twice.
pub(crate) fn number(
    inputs: &Inputs<'_>,
    spec: &ServiceSpec,
    release: &ReleaseDigest,
    origin: &SourceOrigin,
    usable: impl Fn(&Revision) -> bool,
) -> (RevisionNumber, Option<Revision>) {
    let workload = spec.workload(release);
    let known =
        |revision: &&Revision| revision.workload == workload && !contradicted(inputs, revision) && usable(revision);
    if let Some(known) = inputs.revisions.values().rev().find(known) {
        return (known.number, None);
    }
    // Above what hosts carry as well: from before it was disowned, or from a store that is lost. And above what is
    // recorded and not owned, whoever has left it there: nothing could be recorded under its number.
    let recorded = inputs.revisions.keys().next_back().copied().unwrap_or_default();
    let number = inputs.owned.last_revision.max(highest_on_hosts(inputs)).max(recorded).next();
    let new = Revision {
        number,
        spec: Box::new(spec.clone()),
        release: *release,
        workload,
        created: inputs.now,
        source: origin.clone(),
    };
    (number, Some(new))
}

/// Whether a host that has confirmed a revision has other files under its number than the record says: the records are
/// those of an older store. What is good there must not be overwritten.
fn contradicted(inputs: &Inputs<'_>, record: &Revision) -> bool {
    inputs.hosts.values().any(|host| match &host.view {
        HostView::Seen(seen) => {
            let good = seen.service.good == Some(record.number);
            good && seen.service.revisions.get(&record.number).is_some_and(|release| *release != record.release)
        }
        _ => false,
    })
}

/// The revisions that hosts go back to by themselves.
fn confirmed_by_hosts(inputs: &Inputs<'_>) -> impl Iterator<Item = RevisionNumber> {
    inputs.hosts.values().filter_map(|host| match &host.view {
        HostView::Seen(seen) => seen.service.good,
        _ => None,
    })
}

/// The highest revision that any host carries something of.
fn highest_on_hosts(inputs: &Inputs<'_>) -> RevisionNumber {
    let seen = inputs.hosts.values().filter_map(|host| match &host.view {
        HostView::Seen(seen) => Some(&seen.service),
        _ => None,
    });
    let numbers = seen.flat_map(|seen| seen.revisions.keys().copied().chain(seen.unit.revision()).chain(seen.good));
    numbers.max().unwrap_or_default()
}
