//! Bugs that are planted on purpose, one at a time, to see that the simulator finds each of them. In a program that is
//! built without the feature of this name there are none, and asking costs nothing.

/// A bug: in the planner, in the engine, or in what the hosts do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Planner: as many hosts as there are may be down.
    AllHostsAtOnce,
    /// Planner: what was blocked is deployed again by itself.
    NothingIsBlocked,
    /// Planner: what was switched is confirmed without a verdict.
    NobodyJudges,
    /// Planner: what somebody changed on a host is left as it is.
    NothingIsRepaired,
    /// Planner: a rollout that is done is opened again.
    NeverDone,
    /// Planner: a host that was stopped is called ready.
    RowsLie,
    /// Planner: a host is worked on that is in nobody's records.
    HostsUnclaimed,
    /// Planner: what a host has taken back by itself is tried there for ever.
    TriesForEver,
    /// Planner: what a host has taken back by itself goes to the next one.
    OthersGoOn,
    /// Planner: that many hosts turn unhealthy together stops nothing.
    BrakeUnasked,
    /// Planner: how often something was put right is not counted.
    RepairsUncounted,
    /// Planner: hosts that are about to be switched are not recorded.
    TouchForgotten,
    /// Planner: what hosts have seen says nothing about the number of the next rollout.
    HostsUnasked,
    /// Planner: the steps of a canary wait for nobody.
    StepsUnapproved,
    /// Planner: what is removed is purged.
    DataPurged,
    /// Engine: what cannot be read is taken for deleted.
    NonsenseRemoves,
    /// Host: its fence lets a sequence in that is older than the last.
    OldOrdersTaken,
    /// Host: what is brought takes the place of everything that was there.
    LastAloneKept,
    /// Engine: who owns what is not recorded.
    OwnedForgotten,
    /// Engine: what is missing in a new list is not taken for deleted.
    ListsAddOnly,
    /// Engine: an unhealthy verdict is forgotten.
    VerdictForgotten,
    /// Engine: a status says when it was written, each time.
    StatusTells,
    /// Engine: that a rollout has ended is not said.
    EndUnsaid,
    /// Engine: a rollout goes on under the number of the one before.
    SequenceReused,
    /// Engine: hashes of files are never read again.
    HashesUnread,
    /// Engine: what has not begun begins, though it was called off.
    RecallUnheard,
    /// Engine: what fails on one host ends the wait for a verdict on another.
    VerdictsCutShort,
    /// Engine: a turn that asks nobody waits for when somebody was to be asked before.
    PastAwaited,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::AllHostsAtOnce,
        Self::NothingIsBlocked,
        Self::NobodyJudges,
        Self::NothingIsRepaired,
        Self::NeverDone,
        Self::RowsLie,
        Self::HostsUnclaimed,
        Self::TriesForEver,
        Self::OthersGoOn,
        Self::BrakeUnasked,
        Self::RepairsUncounted,
        Self::TouchForgotten,
        Self::HostsUnasked,
        Self::StepsUnapproved,
        Self::DataPurged,
        Self::NonsenseRemoves,
        Self::OldOrdersTaken,
        Self::LastAloneKept,
        Self::OwnedForgotten,
        Self::ListsAddOnly,
        Self::VerdictForgotten,
        Self::StatusTells,
        Self::EndUnsaid,
        Self::SequenceReused,
        Self::HashesUnread,
        Self::RecallUnheard,
        Self::VerdictsCutShort,
        Self::PastAwaited,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in everything that this thread does from now on.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    CHOSEN.with(|chosen| chosen.set(bug));
}

/// Whether this bug is planted.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    CHOSEN.with(|chosen| chosen.get() == Some(bug))
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}
