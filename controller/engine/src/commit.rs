//! What a plan has to record, as one commit: all of it, or nothing.

use jiff::Timestamp;
use serde::Serialize;
use windlass_crds::id::{Generation, ResourceKey, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::record::{Owned, Rollout, RolloutState, Verdict};
use windlass_crds::status::{Finding, RolloutStatus, ServiceStatus, conditions, rows};
use windlass_planner::plan::{Plan, RolloutChange};
use windlass_planner::planted::{Bug, planted};
use windlass_store::{Expectation, Key, StoreRevision, Write};

use crate::cache::ServiceView;
use crate::requests;

/// So many rollouts are kept: as many as revisions by default.
const ROLLOUTS: usize = 10;

/// So many old records are deleted in one commit, which holds 126 writes; the rest with the next ones.
const HOUSEKEEPING: usize = 40;

/// So many records of a Service that is gone are deleted in one commit, beside its requests and their answers.
pub(crate) const ERASED: usize = 50;

/// A value as JSON bytes.
pub fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are always JSON")
}

fn expected(at: Option<StoreRevision>) -> Expectation {
    at.map_or(Expectation::Absent, Expectation::At)
}

/// The write that turns what is stored into what shall be; nothing where it is the same. Records have nothing that is
/// not written.
fn update<T: Serialize + PartialEq>(key: Key, stored: Option<(&T, StoreRevision)>, value: &T) -> Option<Write> {
    if stored.is_some_and(|(before, _)| before == value) {
        return None;
    }
    Some(Write::put(key, json(value)).expecting(expected(stored.map(|(_, at)| at))))
}

/// What is about to be recorded of a rollout.
#[derive(Debug, Clone)]
pub struct RolloutRecords {
    /// The last one, as it shall be.
    pub last: Option<Rollout>,
    /// The one that begins.
    pub opened: Option<Rollout>,
}

/// Takes a plan's decision about rollouts into the records. `drawn` is the sequence of the one that begins.
pub fn rollouts(
    last: Option<Rollout>,
    plan: &Plan,
    drawn: Option<Sequence>,
    term: u64,
    now: Timestamp,
) -> RolloutRecords {
    let mut last = last;
    let mut opened = None;
    match &plan.rollout {
        RolloutChange::Keep => {
            if let Some(last) = last.as_mut().filter(|_| !plan.touch.is_empty() || plan.canary.is_some()) {
                last.touched.extend(plan.touch.iter().cloned());
                last.canary = plan.canary.clone().or(last.canary.take());
                last.progressed = now;
            }
        }
        RolloutChange::Close(state) => {
            if let Some(last) = &mut last {
                last.state = *state;
                last.progressed = now;
                if let Some((host, evidence)) = &plan.fallen {
                    last.verdicts.insert(host.clone(), Verdict::Unhealthy { evidence: evidence.clone() });
                }
            }
        }
        RolloutChange::Open { purpose, revision, above: _ } => {
            if let Some(last) = last.as_mut().filter(|last| last.state == RolloutState::Active) {
                last.state = RolloutState::Superseded;
                last.progressed = now;
            }
            // Whatever was left in doubt by the one before is in doubt in this one.
            let touched = plan.touch.clone();
            let same = last.as_ref().filter(|last| last.revision == *revision);
            let restage = same.map(windlass_planner::record::damaged).unwrap_or_default();
            opened = drawn.map(|sequence| Rollout {
                touched,
                restage,
                canary: plan.canary.clone(),
                ..Rollout::begin(sequence, *purpose, *revision, term, now)
            });
        }
    }
    RolloutRecords { last, opened }
}

/// The status that a plan's report amounts to.
pub fn status(
    plan: &Plan,
    rollout: Option<&Rollout>,
    generation: Generation,
    before: &ServiceStatus,
    now: Timestamp,
) -> ServiceStatus {
    let report = &plan.report;
    let release = plan.aim.revision().and_then(|target| {
        let new = plan.new_revision.as_ref().filter(|new| new.number == target);
        new.map(|new| new.release)
    });
    let summary = rollout.map(|rollout| RolloutStatus {
        sequence: rollout.sequence,
        purpose: rollout.purpose,
        state: rollout.state,
        started: rollout.started,
        canary: report.canary.clone().filter(|_| rollout.state == RolloutState::Active),
    });
    let findings: Vec<Finding> = report.findings.clone();
    ServiceStatus {
        observed_generation: generation,
        conditions: conditions(findings, generation, &before.conditions, now),
        revision: plan.declared,
        target: plan.aim.revision(),
        release,
        rollout: summary,
        ready: report.ready,
        desired: report.desired,
        hosts: if planted(Bug::StatusTells) {
            rows(&report.hosts, &Default::default(), now)
        } else {
            rows(&report.hosts, &before.hosts, now)
        },
        failure: report.failure.clone(),
        approval: report.approval.clone(),
    }
}

/// Everything that a commit writes.
pub struct Records<'a> {
    /// Which Service.
    pub key: &'a ServiceKey,
    /// What is stored.
    pub view: &'a ServiceView,
    /// The plan.
    pub plan: &'a Plan,
    /// What is owned, as it shall be.
    pub owned: &'a Owned,
    /// The rollouts.
    pub rollouts: &'a RolloutRecords,
    /// What is said.
    pub status: &'a ServiceStatus,
    /// How many revisions are kept.
    pub history_limit: usize,
}

impl Records<'_> {
    /// The writes; none where everything is as it was.
    pub fn writes(&self) -> Vec<Write> {
        let (key, view) = (self.key, self.view);
        if self.plan.gone {
            return self.erase();
        }
        let mut writes = Vec::new();
        let nothing = Owned::default();
        if (view.owned.is_some() || *self.owned != nothing) && !planted(Bug::OwnedForgotten) {
            let stored = view.owned.as_ref().map(|stored| (stored.value.as_ref(), stored.at));
            writes.extend(update(Key::Owned(key.clone()), stored, self.owned));
        }
        if let Some(new) = &self.plan.new_revision {
            writes.push(Write::put(Key::Revision(key.clone(), new.number), json(new)).expecting(Expectation::Absent));
        }
        for rollout in self.rollouts.last.iter().chain(&self.rollouts.opened) {
            let stored = view.rollouts.get(&rollout.sequence).map(|stored| (&stored.value, stored.at));
            writes.extend(update(Key::Rollout(key.clone(), rollout.sequence), stored, rollout));
        }
        writes.extend(self.outdated().into_iter().take(HOUSEKEEPING).map(Write::delete));
        let resource = ResourceKey::Service(key.clone());
        let bytes = json(self.status);
        let opens = matches!(self.plan.rollout, RolloutChange::Open { .. });
        let unsaid = planted(Bug::EndUnsaid) && !opens;
        if view.status.as_ref().is_none_or(|stored| stored.value != bytes) && !unsaid {
            writes.push(Write::put(Key::Status(resource.clone()), bytes));
        }
        writes.extend(requests::ended(&resource, &view.requests));
        writes
    }

    /// Records that are older than anybody needs: what runs, is good, is declared or is blocked is kept in any case.
    fn outdated(&self) -> Vec<Key> {
        let mut needed: std::collections::BTreeSet<RevisionNumber> = self.owned.good.iter().copied().collect();
        needed.extend(self.plan.declared);
        needed.extend(self.plan.aim.revision());
        needed.extend(self.owned.gate.as_ref().map(|gate| gate.revision));
        needed.extend(self.owned.blocked.iter().map(|blocked| blocked.revision));
        needed.extend(self.plan.report.hosts.values().filter_map(|row| row.revision));
        let count = self.view.revisions.len() + usize::from(self.plan.new_revision.is_some());
        let surplus = count.saturating_sub(self.history_limit);
        let old = self.view.revisions.keys().filter(|number| !needed.contains(number)).take(surplus);
        let old = old.map(|number| Key::Revision(self.key.clone(), *number));
        let count = self.view.rollouts.len() + usize::from(self.rollouts.opened.is_some());
        let last = self.rollouts.last.as_ref().map(|rollout| rollout.sequence);
        let past = self.view.rollouts.keys().filter(|sequence| Some(**sequence) != last);
        let past = past.take(count.saturating_sub(ROLLOUTS)).map(|sequence| Key::Rollout(self.key.clone(), *sequence));
        old.chain(past).collect()
    }

    /// Everything of a Service that is gone.
    fn erase(&self) -> Vec<Write> {
        let (key, view) = (self.key, self.view);
        let resource = ResourceKey::Service(key.clone());
        // Requests are answered in this commit.
        let ended = requests::ended(&resource, &view.requests);
        let mut keys: Vec<Key> = Vec::new();
        keys.extend(view.revisions.keys().map(|number| Key::Revision(key.clone(), *number)));
        keys.extend(view.rollouts.keys().map(|sequence| Key::Rollout(key.clone(), *sequence)));
        // What says that something is left goes last, where all does not fit into one commit.
        keys.extend(view.status.as_ref().map(|_| Key::Status(resource.clone())));
        keys.extend(view.owned.as_ref().map(|_| Key::Owned(key.clone())));
        ended.chain(keys.into_iter().take(ERASED).map(Write::delete)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;
    use windlass_crds::digest::{ReleaseDigest, SpecDigest, WorkloadDigest};
    use windlass_crds::id::HostId;
    use windlass_crds::record::{BlockCause, Blocked, Purpose, Revision};
    use windlass_crds::request::Request;
    use windlass_planner::input::{Goal, HostInput, Inputs, RemovalGate};
    use windlass_planner::plan::plan;
    use windlass_store::{MOST_WRITES, RequestId};

    use super::*;
    use crate::cache::Stored;

    /// A Service that was rolled out and asked more often than one commit can clear away.
    fn crowded() -> ServiceView {
        let rollout = |number| Rollout {
            state: RolloutState::Succeeded,
            ..Rollout::begin(Sequence(number), Purpose::Deploy, None, 1, Timestamp::UNIX_EPOCH)
        };
        let at = StoreRevision::default();
        let rollouts = (1..=500).map(|number| (Sequence(number), Arc::new(Stored { value: rollout(number), at })));
        let id = |number: u32| format!("{number:04}").parse::<RequestId>().expect("digits");
        let requests = (0..500).map(|number| (id(number), Ok(Request::Pause)));
        let mut view = ServiceView {
            owned: Some(Stored { value: Arc::new(Owned::default()), at }),
            status: Some(Stored { value: Bytes::from_static(b"{}"), at }),
            requests: requests.collect(),
            rollouts: Arc::new(rollouts.collect()),
            ..ServiceView::default()
        };
        requests::bound(&mut view.requests);
        view
    }

    fn nothing_declared<'a>(
        service: &'a ServiceKey,
        owned: &'a Owned,
        hosts: &'a BTreeMap<HostId, HostInput>,
        rollout: Option<&'a Rollout>,
    ) -> Inputs<'a> {
        static NONE: BTreeMap<RevisionNumber, Revision> = BTreeMap::new();
        Inputs {
            proposal: None,
            gated: false,
            service,
            now: Timestamp::UNIX_EPOCH,
            term: 1,
            fresh_term: false,
            goal: Goal::Remove,
            complaint: None,
            owned,
            revisions: &NONE,
            rollout,
            hosts,
            removals: RemovalGate::Open,
        }
    }

    fn revision(number: u64) -> (RevisionNumber, Revision) {
        let number = RevisionNumber(number);
        let revision = serde_json::json!({
            "number": number,
            "spec": {
                "placement": {"hosts": ["web1"]}, "source": {"path": "/srv"},
                "runtime": {"target": "generic", "entryPoint": "server"},
            },
            "release": ReleaseDigest::of(&number.0.to_be_bytes()),
            "workload": WorkloadDigest::of(b"unit"),
            "created": Timestamp::UNIX_EPOCH,
            "source": {"machine": "00000000000000000000000000000001", "path": "/srv"},
        });
        (number, serde_json::from_value(revision).expect("a revision"))
    }

    /// Of six revisions the fourth and the sixth are good, and the fifth is blocked.
    #[test]
    fn beyond_the_limit_the_oldest_go_that_nobody_needs() {
        let key = "default/web".parse().expect("two labels");
        let view = ServiceView { revisions: Arc::new((1..=6).map(revision).collect()), ..ServiceView::default() };
        let blocked = Blocked {
            spec: SpecDigest::of(b"spec"),
            release: ReleaseDigest::of(b"five"),
            revision: RevisionNumber(5),
            cause: BlockCause::Aborted { at: Timestamp::UNIX_EPOCH },
        };
        let good = vec![RevisionNumber(4), RevisionNumber(6)];
        let owned = Owned { good, blocked: vec![blocked], ..Owned::default() };
        let mut plan = plan(&nothing_declared(&key, &owned, &BTreeMap::new(), None));
        plan.gone = false;
        let rollouts = rollouts(None, &plan, None, 1, Timestamp::UNIX_EPOCH);
        let said = status(&plan, None, Generation(1), &ServiceStatus::default(), Timestamp::UNIX_EPOCH);
        for (limit, go) in [(7, 0), (6, 0), (5, 1), (4, 2), (3, 3), (2, 3), (1, 3)] {
            let (key, view, plan, owned) = (&key, &view, &plan, &owned);
            let records = Records { key, view, plan, owned, rollouts: &rollouts, status: &said, history_limit: limit };
            let expected: Vec<Key> =
                (1..=go).map(|number| Key::Revision(key.clone(), RevisionNumber(number))).collect();
            assert_eq!(records.outdated(), expected, "at most {limit}");
        }
    }

    /// Each request may be refused, and each refusal is a write; so may be what else is told.
    #[test]
    fn no_commit_is_larger_than_the_store_takes() {
        let (key, view) = ("default/web".parse().expect("two labels"), crowded());
        let (owned, hosts) = (Owned::default(), BTreeMap::new());
        let last = view.rollouts.values().next_back().map(|stored| stored.value.clone());
        let mut plan = plan(&nothing_declared(&key, &owned, &hosts, last.as_ref()));
        assert!(plan.gone);
        for gone in [true, false] {
            plan.gone = gone;
            let rollouts = rollouts(last.clone(), &plan, None, 1, Timestamp::UNIX_EPOCH);
            let said = status(&plan, None, Generation(1), &ServiceStatus::default(), Timestamp::UNIX_EPOCH);
            let (key, view, plan, owned) = (&key, &view, &plan, &owned);
            let records = Records { key, view, plan, owned, rollouts: &rollouts, status: &said, history_limit: 10 };
            let writes = records.writes();
            let ended = writes.iter().filter(|write| matches!(write.key, Key::Request { .. })).count();
            assert_eq!(ended, view.requests.len(), "what is answered is ended");
            let events = view.requests.len() + (if gone { 3 } else { 5 }) + crate::service::LEFT_BEHIND;
            // The number of a rollout, and of the trail a record, an anchor, and that this controller leads.
            let more = usize::from(!gone) + 3;
            assert!(writes.len() + events + more <= MOST_WRITES, "{} writes, {events} events", writes.len());
            // What says that something is left is the last to go.
            assert!(!gone || !writes.iter().any(|write| matches!(write.key, Key::Owned(_))));
        }
    }
}
