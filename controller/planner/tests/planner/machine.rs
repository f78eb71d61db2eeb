//! A host in a test: what it holds, and what it answers to a step under its fence.

use std::collections::BTreeSet;

use jiff::Timestamp;
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::observation::{ActiveState, Drift, ServiceObservation, StepRecord, StepState, UnitFile};
use windlass_crds::step::{Step, StepError, Verb};
use windlass_planner::input::{Activity, Health, Placement};
use windlass_planner::plan::Act;

/// Whether a host can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    Cut,
    /// It answers, and belongs to another store.
    Foreign,
    /// Nobody has looked.
    Dark,
}

/// What a host is about to do, one act after the other.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) acts: Vec<Act>,
    pub(crate) sequence: Sequence,
    pub(crate) activity: Activity,
}

/// A host.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) boot: String,
    pub(crate) placement: Placement,
    pub(crate) link: Link,
    pub(crate) seen: ServiceObservation,
    pub(crate) health: Health,
    /// What is confirmed there has been seen well.
    pub(crate) was_well: bool,
    /// Since when it is not any more.
    pub(crate) ill_since: Option<Timestamp>,
    pub(crate) errand: Option<Errand>,
    /// What was confirmed there last has not been switched away from since.
    pub(crate) confirmed: bool,
    /// We took down something there that was confirmed and ran, and nothing is confirmed since.
    pub(crate) taken_down: bool,
    /// Its data went with it.
    pub(crate) data_purged: bool,
}

impl Machine {
    pub(crate) fn new(name: &str) -> Self {
        let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        Self {
            id: format!("{digits:0>32}"),
            boot: format!("{digits:f>32}"),
            placement: Placement::Placed,
            link: Link::Up,
            seen: ServiceObservation::default(),
            health: Health::Unknown,
            was_well: false,
            ill_since: None,
            errand: None,
            confirmed: false,
            taken_down: false,
            data_purged: false,
        }
    }

    pub(crate) fn start(&mut self) {
        let run = &mut self.seen.run;
        (run.active, run.sub, run.pid) = (ActiveState::Active, "running".to_owned(), Some(run.pid.unwrap_or(100) + 1));
        (run.restarts, run.result, run.exit_status) = (0, "success".to_owned(), 0);
    }

    pub(crate) fn crash(&mut self) {
        let run = &mut self.seen.run;
        (run.active, run.sub, run.pid) = (ActiveState::Failed, "failed".to_owned(), None);
        (run.result, run.exit_status) = ("exit-code".to_owned(), 1);
    }

    pub(crate) fn stop(&mut self) {
        let run = &mut self.seen.run;
        (run.active, run.sub, run.pid) = (ActiveState::Inactive, "dead".to_owned(), None);
    }

    /// What a look finds: a unit that neither runs nor was stopped by us was stopped by somebody.
    pub(crate) fn observed(&self) -> ServiceObservation {
        let mut seen = self.seen.clone();
        let at = |verb: Verb| seen.steps.get(&verb).map(|record| record.sequence);
        // A host that goes back switches to what is good there, and stops the unit where nothing is.
        let stopped_itself = self.went_back() && seen.good.is_none();
        let by_us = at(Verb::Stop) > at(Verb::Activate).max(at(Verb::Revert)) || stopped_itself;
        let at_rest = matches!(seen.run.active, ActiveState::Inactive | ActiveState::Failed);
        if seen.unit.revision().is_some() && at_rest && !by_us {
            seen.drift.insert(Drift::Stopped);
        }
        seen
    }

    /// Between two crashes: systemd waits before it starts the unit again.
    pub(crate) fn crash_again_and_again(&mut self) {
        let run = &mut self.seen.run;
        (run.active, run.sub, run.pid) = (ActiveState::Activating, "auto-restart".to_owned(), None);
        (run.restarts, run.result, run.exit_status) = (3, "exit-code".to_owned(), 1);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.seen.run.active == ActiveState::Active
    }

    /// Its time is over: the host takes back what nobody has confirmed. Says whether there was anything.
    pub(crate) fn go_back(&mut self) -> bool {
        let open = self.seen.unit.revision().is_some() && self.seen.unit.revision() != self.seen.good;
        let switches = [Verb::Activate, Verb::Revert];
        let last = switches.into_iter().max_by_key(|verb| self.seen.steps.get(verb).map(|record| record.sequence));
        let Some(record) = last.and_then(|verb| self.seen.steps.get_mut(&verb)).filter(|record| {
            open && self.seen.unit.revision() == Some(record.revision) && record.state == StepState::Ok
        }) else {
            return false;
        };
        record.state = StepState::Voided;
        match self.seen.good {
            Some(good) => {
                self.seen.unit = UnitFile::Revision(good);
                self.start();
                (self.confirmed, self.taken_down) = (true, false);
            }
            None => {
                self.stop();
                self.seen.run.enabled = false;
            }
        }
        true
    }

    /// Its last switch, as a host reads it: of two under one sequence, the one back.
    fn last_switch(&self) -> Option<&StepRecord> {
        let switches = [Verb::Activate, Verb::Revert].into_iter().filter_map(|verb| self.seen.steps.get(&verb));
        switches.max_by_key(|record| record.sequence)
    }

    /// Whether its last switch was taken back.
    pub(crate) fn went_back(&self) -> bool {
        self.last_switch().is_some_and(|record| record.state == StepState::Voided)
    }

    pub(crate) fn hold(&mut self, revision: u64, release: ReleaseDigest) {
        self.seen.revisions.insert(RevisionNumber(revision), release);
        self.seen.releases.insert(release);
        self.seen.present = true;
    }

    pub(crate) fn note(&mut self, verb: Verb, sequence: u64, revision: u64, state: StepState) {
        let record = StepRecord { sequence: Sequence(sequence), revision: RevisionNumber(revision), state };
        self.seen.steps.insert(verb, record);
    }

    /// Does a step as a host does it: refused below the fence, answered from the record where it was done before.
    pub(crate) fn step(&mut self, step: &Step, sequence: Sequence) -> Result<Done, StepError> {
        if sequence < self.seen.sequence {
            return Err(StepError::Superseded { ours: sequence, theirs: self.seen.sequence });
        }
        self.seen.sequence = sequence;
        let revision = step.revision().unwrap_or_default();
        if let Some(record) = self.seen.steps.get(&step.verb())
            && (record.sequence, record.revision) == (sequence, revision)
        {
            match record.state {
                StepState::Ok => return Ok(Done::Before),
                StepState::Voided => return Err(StepError::Voided { revision }),
                StepState::Begun | StepState::Failed(_) => {}
            }
        }
        self.check(step, revision)?;
        let verb = step.verb();
        self.note(verb, sequence.0, revision.0, StepState::Ok);
        match step {
            Step::Stage { revision, release } => {
                self.hold(revision.0, *release);
                let files = |drift: &Drift| matches!(drift, Drift::FilesChanged { .. } | Drift::RevisionChanged);
                self.seen.drift.retain(|drift| !files(drift));
            }
            Step::Stop => self.stop(),
            Step::Activate { .. } | Step::Revert { .. } => {
                self.taken_down |= self.confirmed && self.is_up();
                self.confirmed = false;
                self.seen.unit = UnitFile::Revision(revision);
                let kept = |drift: &Drift| matches!(drift, Drift::FilesChanged { .. } | Drift::RevisionChanged);
                self.seen.drift.retain(kept);
                (self.seen.run.enabled, self.seen.run.needs_reload) = (true, false);
                self.start();
            }
            Step::Confirm { revision, keep } => {
                self.seen.good = Some(*revision);
                self.seen.revisions.retain(|number, _| number == revision || keep.contains(number));
                let named: BTreeSet<ReleaseDigest> = self.seen.revisions.values().copied().collect();
                self.seen.releases.retain(|release| named.contains(release));
                (self.confirmed, self.taken_down) = (true, false);
            }
            Step::Remove { data } => {
                let (sequence, steps) = (self.seen.sequence, std::mem::take(&mut self.seen.steps));
                self.seen = ServiceObservation { sequence, steps, ..ServiceObservation::default() };
                (self.confirmed, self.taken_down) = (false, false);
                self.data_purged = *data == windlass_crds::step::DataFate::Purge;
            }
        }
        Ok(Done::Now)
    }

    fn check(&self, step: &Step, revision: RevisionNumber) -> Result<(), StepError> {
        let detail = || "the record says otherwise".to_owned();
        match step {
            Step::Activate { .. } | Step::Revert { .. } if !self.seen.revisions.contains_key(&revision) => {
                Err(StepError::NotStaged { revision, detail: "it is not there".to_owned() })
            }
            Step::Revert { .. } if !self.is_whole(revision) => {
                Err(StepError::NotStaged { revision, detail: "a file differs".to_owned() })
            }
            Step::Confirm { .. } => {
                let switched = self
                    .last_switch()
                    .is_some_and(|record| record.revision == revision && record.state == StepState::Ok);
                let runs = self.seen.unit.revision() == Some(revision);
                if switched && runs { Ok(()) } else { Err(StepError::NotActivated { revision, detail: detail() }) }
            }
            _ => Ok(()),
        }
    }

    fn is_whole(&self, revision: RevisionNumber) -> bool {
        let damaged = self.seen.drift.iter().any(|drift| matches!(drift, Drift::FilesChanged { .. }));
        !(damaged && self.seen.unit.revision() == Some(revision))
    }
}

/// How a step ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Now,
    /// It is answered from its record, and nothing was done.
    Before,
}
