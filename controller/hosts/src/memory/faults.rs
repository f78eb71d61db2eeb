//! The faults that a test can inject: links, single calls that go wrong, and hands that change a host.

use std::num::NonZeroU16;
use std::time::Duration;

use windlass_crds::id::{ClusterId, MachineId};
use windlass_crds::step::{ContactError, StepError};

use super::behaviour::Behaviour;
use super::calls::Call;

/// The way from a controller to a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Link {
    /// It works.
    #[default]
    Up,
    /// Every call fails with this, after so long. It also cuts off the answers of calls under way.
    Down {
        /// What the caller is told.
        error: ContactError,
        /// After how long.
        after: Duration,
    },
}

/// How long a host that swallows packets goes unnoticed; the design allows 10 s.
pub(super) const UNNOTICED: Duration = Duration::from_secs(8);
/// How long a connection takes that the host or its sshd turns down.
const TURNED_DOWN: Duration = Duration::from_millis(250);

impl Link {
    /// Packets vanish: [`ContactError::Timeout`] after 8 s.
    pub fn partitioned() -> Self {
        Self::Down { error: ContactError::Timeout { seconds: UNNOTICED.as_secs() }, after: UNNOTICED }
    }

    /// Nothing listens on sshd's port.
    pub fn refused() -> Self {
        Self::down(ContactError::Refused { detail: "Connection refused".to_owned() })
    }

    /// No key of ours lets us in.
    pub fn login_refused() -> Self {
        Self::down(ContactError::Login { detail: "Permission denied (publickey)".to_owned() })
    }

    /// The host shows another key than the pinned or known one.
    pub fn wrong_host_key() -> Self {
        Self::down(ContactError::HostKey { detail: "Host key verification failed".to_owned() })
    }

    /// The name has no address.
    pub fn no_address() -> Self {
        Self::down(ContactError::NoAddress { detail: "Name or service not known".to_owned() })
    }

    /// The host lacks something.
    pub fn unsuitable(detail: &str) -> Self {
        Self::down(ContactError::Unsuitable { detail: detail.to_owned() })
    }

    /// Any other error, after the time that a refusal takes.
    pub fn down(error: ContactError) -> Self {
        Self::Down { error, after: TURNED_DOWN }
    }
}

/// What a host does wrong all the time. Hosts that are real do not: it is planted, to see that somebody notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Its fence lets a sequence in that is older than the last.
    TakesOldOrders,
    /// What is brought takes the place of everything that was there.
    KeepsTheLastAlone,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mishap {
    /// The connection breaks before the host has heard of it.
    LostBefore,
    /// The host does it, and the answer is lost.
    LostReply,
    /// The connection breaks after so many bytes of a stage's payload; what arrived stays there.
    HalfUpload {
        /// How many bytes arrive.
        bytes: u64,
    },
    /// The host loses power after so many effects of the step, and is back after `dark`.
    ///
    /// The record of the step says that it had begun, unless the cut comes after its end. Effects are: of
    /// activate and revert the switch of the unit, the reload, the stop and the start; of remove the stop and the
    /// erasure; of any other step the one thing that it does; and last of each the record of its end.
    PowerCut {
        /// How many effects still happen.
        effects: usize,
        /// How long the host is away.
        dark: Duration,
    },
    /// systemd takes longer than the script waits: [`StepError::TimedOut`]; the record says that it had
    /// begun, and what was begun happens all the same.
    TimesOut,
    /// The host answers this and does nothing else; the record of a step says so where that is final, as it is
    /// for `StartFailed` and `Failed`.
    Answers(StepError),
}

/// A mishap and the call that it waits for.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// Which call; any that changes something where there is none.
    pub(super) call: Option<Call>,
    /// What goes wrong with it.
    pub(super) mishap: Mishap,
}

impl Waiting {
    /// Whether it waits for this call.
    pub(super) fn fits(&self, call: Call) -> bool {
        self.call.map_or_else(|| call.changes(), |awaited| awaited == call)
    }
}

/// How somebody changes a file of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileChange {
    /// By a new file in its place, or one beside it, or none any more.
    Replaced,
    /// In place, which changes every release that links to the same file.
    WrittenThrough,
    /// In place, with size and time put back: only hashes tell.
    Hidden,
}

/// What a hand other than ours does to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A file of the release that the unit names is changed, added or removed.
    File {
        /// Its path in the release.
        path: String,
        /// How.
        how: FileChange,
    },
    /// The unit file is changed.
    Unit,
    /// Something else stands in the unit's place.
    ForeignUnit,
    /// The unit file is deleted.
    NoUnit,
    /// A drop-in changes the unit.
    DropIn {
        /// Its path.
        path: String,
    },
    /// The files of the revision that the unit names (unit, environment) are changed.
    Revision,
    /// The unit is stopped.
    Stop,
    /// The unit is started.
    Start,
    /// The unit no longer starts at boot.
    Disable,
    /// The main process is killed; systemd starts another.
    Kill,
    /// The fence is gone: sequence and records.
    LoseFence,
    /// Everything of the service is deleted, the fence too.
    Wipe,
    /// The program behaves like this from now on, without a restart.
    Behave(Behaviour),
}

/// What is different about a host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// The disk is full: stages fail with `NoSpace`.
    DiskFull,
    /// The disk has room again.
    DiskFree,
    /// Its machine id, for instance that of the image that another host was cloned from, too.
    Machine(MachineId),
    /// The store that owns what is there; `None`: nobody has been there.
    Cluster(Option<ClusterId>),
    /// Another program listens on this port, and answers 200.
    Occupied(NonZeroU16),
    /// No other program listens on this port any more.
    Vacated(NonZeroU16),
    /// It does not let us see who listens.
    HidesListeners,
    /// sshd refuses to forward ports.
    RefusesForwarding,
}
