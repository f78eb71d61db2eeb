//! What a controller would tell, written by the tests in its place.

use std::collections::BTreeMap;

use windlass_crds::condition::{Condition, ConditionStatus, ConditionType, Reason};
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{Generation, RevisionNumber, Sequence};
use windlass_crds::observation::HealthAnswer;
use windlass_crds::record::{Evidence, Purpose, RolloutState};
use windlass_crds::status::{CanaryStatus, Failure, HostRow, HostState, RolloutStatus, ServiceStatus};

use crate::world::World;

/// A status of a Service, from how its hosts stand: `web1=3+ web2=2. web3`.
///
/// Behind the revision, `+` is ready, `?` starting, `.` pending, `!` unhealthy, `~` unreachable, `-` being removed.
pub(crate) fn hosts(text: &str) -> BTreeMap<windlass_crds::id::HostId, HostRow> {
    let rows = text.split_whitespace().map(|word| {
        let (host, row) = word.split_once('=').expect(word);
        let (revision, state) = row.split_at(row.len() - 1);
        let (state, message) = match state {
            "+" => (HostState::Ready, ""),
            "?" => (HostState::Starting, ""),
            "." => (HostState::Pending, ""),
            "!" => (HostState::Unhealthy, "the health endpoint answers 500"),
            "~" => (HostState::Unreachable, "no answer within 10 s"),
            "-" => (HostState::Removing, ""),
            other => panic!("{other:?} is no state"),
        };
        let revision = revision.parse().ok().map(RevisionNumber);
        (host.parse().expect(host), HostRow { revision, state, message: message.to_owned(), since: None })
    });
    rows.collect()
}

/// A condition that became so four days ago.
pub(crate) fn condition(kind: ConditionType, status: ConditionStatus, reason: Reason, message: &str) -> Condition {
    Condition {
        kind,
        status,
        reason,
        message: message.to_owned(),
        observed_generation: Generation::default(),
        last_transition_time: jiff::Timestamp::now() - jiff::SignedDuration::from_hours(100),
    }
}

/// A status that speaks of `generation`, about a rollout of revision 3.
pub(crate) fn status(generation: u64, ready: u32, rows: &str, conditions: Vec<Condition>) -> ServiceStatus {
    let hosts = hosts(rows);
    ServiceStatus {
        approval: None,
        observed_generation: Generation(generation),
        conditions,
        revision: Some(RevisionNumber(3)),
        target: Some(RevisionNumber(3)),
        release: Some(ReleaseDigest::of(b"three")),
        rollout: Some(RolloutStatus {
            sequence: Sequence(12),
            purpose: Purpose::Deploy,
            state: RolloutState::Active,
            started: jiff::Timestamp::UNIX_EPOCH,
            canary: None,
        }),
        ready,
        desired: u32::try_from(hosts.len()).expect("few hosts"),
        hosts,
        failure: None,
    }
}

/// Revision 3 runs everywhere.
pub(crate) fn converged(generation: u64) -> ServiceStatus {
    use ConditionStatus::{False, True};
    let conditions = vec![
        condition(ConditionType::Ready, True, Reason::Converged, "revision 3 runs on 3 of 3 hosts"),
        condition(ConditionType::Reconciling, False, Reason::AsExpected, ""),
        condition(ConditionType::Stalled, False, Reason::AsExpected, ""),
    ];
    status(generation, 3, "web1=3+ web2=3+ web3=3+", conditions)
}

/// Revision 3 is on its way.
pub(crate) fn rolling(generation: u64, ready: u32, rows: &str) -> ServiceStatus {
    use ConditionStatus::{False, True};
    let message = format!("revision 3 runs on {ready} of 3 hosts");
    let conditions = vec![
        condition(ConditionType::Ready, False, Reason::RollingOut, &message),
        condition(ConditionType::Reconciling, True, Reason::RollingOut, &message),
        condition(ConditionType::Stalled, False, Reason::AsExpected, ""),
    ];
    status(generation, ready, rows, conditions)
}

/// Revision 3 is on its way, and a person holds it.
pub(crate) fn paused(generation: u64, ready: u32, rows: &str) -> ServiceStatus {
    use ConditionStatus::{False, True};
    let message = "paused since 2026-01-01T00:00:00Z: nothing is begun on any host until `windlass rollout resume`";
    let conditions = vec![
        condition(ConditionType::Ready, False, Reason::Paused, message),
        condition(ConditionType::Reconciling, True, Reason::Paused, message),
        condition(ConditionType::Stalled, False, Reason::AsExpected, ""),
    ];
    status(generation, ready, rows, conditions)
}

/// The first of three steps of revision 3 is watched, or waits for a person.
pub(crate) fn canary(generation: u64, reason: Reason, rows: &str) -> ServiceStatus {
    use ConditionStatus::{False, True};
    let message = match reason {
        Reason::Baking => "revision 3 runs on 1 of 3 hosts; step 1 of 3 has to stay healthy until 2026-01-01T00:01:00Z",
        _ => "revision 3 runs on 1 of 3 hosts; step 1 of 3 is well, and has been waiting since 2026-01-01T00:01:00Z",
    };
    let conditions = vec![
        condition(ConditionType::Ready, False, reason, message),
        condition(ConditionType::Reconciling, True, reason, message),
        condition(ConditionType::Stalled, False, Reason::AsExpected, ""),
    ];
    let mut told = status(generation, 1, rows, conditions);
    let at = Some("2026-01-01T00:01:00Z".parse().expect("a time"));
    let (baking_until, waiting_since) = if reason == Reason::Baking { (at, None) } else { (None, at) };
    let rollout = told.rollout.as_mut().expect("a rollout");
    rollout.canary = Some(CanaryStatus { step: 1, steps: 3, baking_until, waiting_since });
    told
}

/// Nothing is at work any more, and this is why it is not well.
pub(crate) fn stalled(generation: u64, rows: &str, reason: Reason, message: &str) -> ServiceStatus {
    use ConditionStatus::{False, True};
    let conditions = vec![
        condition(ConditionType::Ready, False, reason, message),
        condition(ConditionType::Reconciling, False, Reason::AsExpected, ""),
        condition(ConditionType::Stalled, True, reason, message),
    ];
    status(generation, 0, rows, conditions)
}

/// Revision 3 was unhealthy, and revision 2 runs again.
pub(crate) fn rolled_back(generation: u64) -> ServiceStatus {
    let message = "revision 3 was unhealthy on web1: the health endpoint answers 500; went back to revision 2";
    let mut told = stalled(generation, "web1=2+ web2=2+ web3=2+", Reason::RolledBack, message);
    told.target = Some(RevisionNumber(2));
    told.ready = 3;
    told.failure = Some(Failure {
        revision: RevisionNumber(3),
        host: "web1".parse().expect("a host"),
        evidence: Evidence {
            summary: "the health endpoint answers 500 (3 looks in a row)".to_owned(),
            answer: Some(HealthAnswer::Http { status: 500, body: "no database\n".to_owned() }),
            logs: vec!["Traceback (most recent call last):".to_owned(), "ConnectionRefusedError".to_owned()],
        },
    });
    told
}

impl World {
    /// Puts the status of a Service.
    pub(crate) fn tell(&self, service: &str, told: &ServiceStatus) {
        let text = serde_json::to_string(told).expect("JSON");
        self.put(&format!("status/services/default/{service}"), &text);
    }
}
