//! What the engine may rely on, whichever fleet it talks to. Every fleet is held to all of it.
//!
//! A case gets a service of its own, so all of them may run on one host at once. What needs a fault that only a real
//! machine can have is not here.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use windlass_crds::host::Target;
use windlass_crds::id::{ClusterId, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{
    ActiveState, Drift, HostObservation, ServiceObservation, StepRecord, StepState, UnitFile,
};
use windlass_crds::service::ServiceSpec;
use windlass_crds::step::{DataFate, Step, StepError, Verb};
use windlass_hosts::fleet::{Adoption, Fleet, Look, Material, Order, Scrutiny, Seen, Stamp};

use crate::release::{Releases, spec};

/// What somebody else does on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hand {
    /// Writes other text to `version.txt` of the release that runs.
    EditsFile,
    /// Adds a line to the installed unit file.
    EditsUnit,
    /// Stops the unit.
    StopsUnit,
    /// Adds a drop-in.
    AddsDropIn,
    /// Takes the unit out of what starts at boot.
    Disables,
}

/// A fleet with one host, and a hand on that host.
pub(crate) trait Stand: Sync {
    /// What is held to the contract.
    type Fleet: Fleet;
    /// The fleet.
    fn fleet(&self) -> &Self::Fleet;
    /// Its host.
    fn target(&self) -> Target;
    /// What case names are put behind, so that stands may share a host.
    fn namespace(&self) -> &str;
    /// Another port each time, that nobody else uses there.
    fn port(&self) -> NonZeroU16;
    /// Does what Windlass knows nothing of.
    fn lay(&self, hand: Hand, service: &ServiceKey);
    /// Whether the service's own data is there.
    fn has_data(&self, service: &ServiceKey) -> bool;
}

/// The store that the cases speak for.
pub(crate) fn cluster() -> ClusterId {
    "0000000000000001".to_owned().try_into().expect("an id")
}

/// One service on a stand, and the releases for it.
pub(crate) struct Case<'a, S: Stand> {
    pub(crate) stand: &'a S,
    pub(crate) service: ServiceKey,
    pub(crate) spec: ServiceSpec,
    pub(crate) releases: Releases,
    /// How long a switch may go unconfirmed.
    pub(crate) confirm_within: Duration,
}

/// A step's outcome.
pub(crate) type Outcome = Result<(), StepError>;

pub(crate) fn revision(number: u64) -> RevisionNumber {
    RevisionNumber(number)
}

impl<'a, S: Stand> Case<'a, S> {
    pub(crate) fn new(stand: &'a S, name: &str) -> Self {
        let service = format!("{}/{name}", stand.namespace()).parse().expect("a service");
        let confirm_within = Duration::from_secs(600);
        Self { stand, service, spec: spec(stand.port()), releases: Releases::new(), confirm_within }
    }

    pub(crate) fn order(&self, sequence: u64, step: Step) -> Order {
        let stamp = Stamp { sequence: Sequence(sequence), cluster: cluster() };
        let (force_after, confirm_within) = (Duration::from_secs(10), self.confirm_within);
        Order { service: self.service.clone(), stamp, step, force_after, confirm_within }
    }

    pub(crate) async fn stamp(&self, sequence: u64) -> Result<HostObservation, StepError> {
        let stamp = Some(Stamp { sequence: Sequence(sequence), cluster: cluster() });
        let look = Look { service: self.service.clone(), stamp, scrutiny: Scrutiny::Quick };
        self.stand.fleet().observe(&self.stand.target(), &look).await
    }

    /// A stamp that looks at nothing.
    pub(crate) async fn stamp_alone(&self, sequence: u64) -> Result<BTreeMap<Verb, StepRecord>, StepError> {
        let stamp = Stamp { sequence: Sequence(sequence), cluster: cluster() };
        self.stand.fleet().stamp(&self.stand.target(), &self.service, &stamp).await
    }

    pub(crate) async fn look(&self, scrutiny: Scrutiny) -> ServiceObservation {
        let look = Look { service: self.service.clone(), stamp: None, scrutiny };
        self.stand.fleet().observe(&self.stand.target(), &look).await.expect("a look").service
    }

    pub(crate) async fn stage(&self, sequence: u64, number: u64, manifest: &Manifest, bases: &[&Manifest]) -> Outcome {
        let step = Step::Stage { revision: revision(number), release: manifest.digest() };
        let material = self.releases.material(&self.spec, manifest, bases);
        self.stand.fleet().stage(&self.stand.target(), &self.order(sequence, step), &material).await
    }

    /// A stage by whoever has seen this of the host, rightly or not.
    pub(crate) async fn stage_on(
        &self,
        (sequence, number): (u64, u64),
        manifest: &Manifest,
        bases: &[&Manifest],
        seen: Seen,
    ) -> Outcome {
        let step = Step::Stage { revision: revision(number), release: manifest.digest() };
        let material = Material { seen: Some(seen), ..self.releases.material(&self.spec, manifest, bases) };
        self.stand.fleet().stage(&self.stand.target(), &self.order(sequence, step), &material).await
    }

    pub(crate) async fn act(&self, sequence: u64, step: Step) -> Outcome {
        self.stand.fleet().act(&self.stand.target(), &self.order(sequence, step)).await
    }

    pub(crate) async fn activate(&self, sequence: u64, number: u64) -> Outcome {
        self.act(sequence, Step::Activate { revision: revision(number) }).await
    }

    pub(crate) async fn confirm(&self, sequence: u64, number: u64, keep: &[u64]) -> Outcome {
        let keep = keep.iter().map(|number| revision(*number)).collect();
        self.act(sequence, Step::Confirm { revision: revision(number), keep }).await
    }

    pub(crate) async fn revert(&self, sequence: u64, number: u64) -> Outcome {
        self.act(sequence, Step::Revert { revision: revision(number) }).await
    }

    pub(crate) async fn remove(&self, sequence: u64, data: DataFate) -> Outcome {
        self.act(sequence, Step::Remove { data }).await
    }

    /// Everything from a stamp to a confirmation.
    pub(crate) async fn deploy(&self, sequence: u64, number: u64, manifest: &Manifest) {
        self.stamp(sequence).await.expect("stamp");
        self.stage(sequence, number, manifest, &[]).await.expect("stage");
        self.activate(sequence, number).await.expect("activate");
        self.confirm(sequence, number, &[]).await.expect("confirm");
    }

    pub(crate) async fn pid(&self) -> Option<u32> {
        let sample = self.stand.fleet().sample(&self.stand.target(), &self.service, None).await.expect("a sample");
        sample.run.pid
    }
}

/// The table of cases, by name.
macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// Runs every case, one after the other, and names the one that fails.
        pub(crate) async fn hold<S: Stand>(stand: &S) {
            $(
                eprintln!("{}: {}", stand.namespace(), stringify!($name));
                // A label has hyphens where a function has underscores.
                $name(Case::new(stand, &stringify!($name).replace('_', "-"))).await;
            )*
        }
    };
}

cases! {
    a_deploy_is_seen_as_it_is
    a_step_that_is_done_is_answered_from_its_record
    a_lower_sequence_is_refused_by_every_verb
    a_confirmation_demands_an_activation
    another_store_is_refused
    what_is_not_staged_is_not_activated
    a_hand_is_seen_and_undone
    our_own_stop_is_no_drift
    a_revert_goes_back
    what_nobody_confirms_goes_back
    what_is_confirmed_in_time_stays
    a_first_activation_that_nobody_confirms_is_stopped
    a_revert_is_no_longer_waited_for
    what_was_gone_back_to_once_confirms_nothing_later
    a_confirmation_clears_away
    a_removal_keeps_fence_and_data
    a_purge_takes_the_data_too
    nothing_is_seen_where_nothing_is
    a_manifest_is_told_as_it_came
    a_stamp_alone_is_seen
    a_stage_builds_on_what_was_seen
    a_stage_gets_over_what_was_seen_wrongly
}

async fn a_stamp_alone_is_seen<S: Stand>(case: Case<'_, S>) {
    case.stamp_alone(3).await.expect("a stamp");
    assert_eq!(case.look(Scrutiny::Quick).await.sequence, Sequence(3));
    case.stamp_alone(3).await.expect("the same once more");
    let nothing = case.stamp_alone(4).await.expect("a higher one");
    assert_eq!((nothing.len(), case.look(Scrutiny::Quick).await.sequence), (0, Sequence(4)));
    // Whoever has looked knows by the records whether anything was done since.
    case.deploy(5, 1, &case.releases.server("1", 0)).await;
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!(case.stamp_alone(6).await.expect("a higher one"), seen.steps);
    case.act(6, Step::Stop).await.expect("stop");
    assert_ne!(case.stamp_alone(7).await.expect("a higher one"), seen.steps);
}

async fn a_stage_builds_on_what_was_seen<S: Stand>(case: Case<'_, S>) {
    let first = case.releases.server("1", 20);
    case.deploy(1, 1, &first).await;
    let mut last = first;
    // The second knows everything, what runs the program too: that, the first has had to ask.
    for (sequence, change) in [(2, "a"), (3, "b")] {
        let mut next = last.clone();
        case.releases.add(&mut next, "changed/file", change.as_bytes(), false);
        let seen = Seen::from(&case.look(Scrutiny::Quick).await);
        case.stage_on((sequence, sequence), &next, &[&last], seen).await.expect("stage");
        case.activate(sequence, sequence).await.expect("activate");
        case.confirm(sequence, sequence, &[]).await.expect("confirm");
        let found = case.look(Scrutiny::Full).await;
        assert!(found.drift.is_empty() && found.releases == [next.digest()].into(), "{found:?}");
        last = next;
    }
}

async fn a_stage_gets_over_what_was_seen_wrongly<S: Stand>(case: Case<'_, S>) {
    let (first, gone) = (case.releases.server("1", 3), case.releases.server("0", 3));
    case.deploy(1, 1, &first).await;
    let truth = Seen::from(&case.look(Scrutiny::Quick).await);
    // As if a look had been answered before somebody cleared away by hand.
    let lies = [
        Seen { releases: [gone.digest()].into(), ..truth.clone() },
        Seen { releases: Default::default(), ..truth.clone() },
        Seen { uploads: true, ..truth.clone() },
    ];
    for (number, seen) in (2..).zip(lies) {
        let next = case.releases.server(&number.to_string(), 3);
        case.stage_on((number, number), &next, &[&first, &gone], seen).await.expect("stage");
        case.activate(number, number).await.expect("activate");
        let found = case.look(Scrutiny::Full).await;
        assert!(found.drift.is_empty() && found.unit == UnitFile::Revision(revision(number)), "{found:?}");
    }
    // All of it is gone meanwhile, the unit too that need not have travelled.
    case.remove(8, DataFate::Keep).await.expect("remove");
    let next = case.releases.server("9", 3);
    case.stage_on((9, 9), &next, &[&first], truth).await.expect("stage");
    case.activate(9, 9).await.expect("activate");
    assert_eq!(case.look(Scrutiny::Full).await.unit, UnitFile::Revision(revision(9)));
}

async fn a_deploy_is_seen_as_it_is<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 5);
    let first = case.stamp(1).await.expect("stamp");
    assert_eq!(first.facts.cluster, Some(cluster()));
    assert_eq!(first.service.sequence, Sequence(1));
    assert!(!first.service.present);
    case.stage(1, 1, &release, &[]).await.expect("stage");
    let staged = case.look(Scrutiny::Quick).await;
    assert_eq!((staged.unit, staged.run.active), (UnitFile::Absent, ActiveState::Inactive), "a stage changes nothing");
    assert_eq!(staged.revisions.get(&revision(1)), Some(&release.digest()));
    case.activate(1, 1).await.expect("activate");
    let active = case.look(Scrutiny::Quick).await;
    assert_eq!(active.good, None, "nobody has confirmed it");
    case.confirm(1, 1, &[]).await.expect("confirm");
    let seen = case.look(Scrutiny::Full).await;
    assert_eq!(seen.unit, UnitFile::Revision(revision(1)));
    assert_eq!(seen.good, Some(revision(1)));
    assert_eq!(seen.releases.iter().collect::<Vec<_>>(), [&release.digest()]);
    assert_eq!(seen.run.active, ActiveState::Active);
    assert!(seen.run.enabled && seen.run.pid.is_some() && !seen.run.needs_reload, "{:?}", seen.run);
    assert!(seen.drift.is_empty() && seen.incoming.is_none() && seen.present, "{seen:?}");
    for verb in [Verb::Stage, Verb::Activate, Verb::Confirm] {
        let record = &seen.steps[&verb];
        assert_eq!(
            (record.sequence, record.revision, record.state),
            (Sequence(1), revision(1), StepState::Ok),
            "{verb}"
        );
    }
    assert_eq!(seen.steps.len(), 3);
}

async fn a_step_that_is_done_is_answered_from_its_record<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 0);
    case.deploy(1, 1, &release).await;
    let before = case.pid().await;
    case.stage(1, 1, &release, &[]).await.expect("stage again");
    case.activate(1, 1).await.expect("activate again");
    case.confirm(1, 1, &[]).await.expect("confirm again");
    assert_eq!(case.pid().await, before, "it was not started again");
    case.act(2, Step::Stop).await.expect("stop");
    case.act(2, Step::Stop).await.expect("stop again");
    case.activate(2, 1).await.expect("activate under another sequence");
    assert_ne!(case.pid().await, before, "another sequence is another step");
}

async fn a_lower_sequence_is_refused_by_every_verb<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 0);
    case.deploy(5, 1, &release).await;
    let before = case.pid().await;
    let refused = |what: &str, outcome: Outcome| {
        let expected = StepError::Superseded { ours: Sequence(4), theirs: Sequence(5) };
        assert_eq!(outcome, Err(expected), "{what}");
    };
    refused("stamp", case.stamp(4).await.map(drop));
    refused("stamp of a host that was seen", case.stamp_alone(4).await.map(drop));
    refused("stage", case.stage(4, 2, &case.releases.server("2", 0), &[]).await);
    refused("stop", case.act(4, Step::Stop).await);
    refused("activate", case.activate(4, 1).await);
    refused("confirm", case.confirm(4, 1, &[]).await);
    refused("revert", case.revert(4, 1).await);
    refused("remove", case.remove(4, DataFate::Purge).await);
    assert_eq!(case.pid().await, before);
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.sequence, seen.unit), (Sequence(5), UnitFile::Revision(revision(1))));
    // A step raises it as a stamp does.
    case.act(9, Step::Stop).await.expect("stop");
    assert_eq!(case.look(Scrutiny::Quick).await.sequence, Sequence(9));
}

async fn a_confirmation_demands_an_activation<S: Stand>(case: Case<'_, S>) {
    let (one, two) = (case.releases.server("1", 0), case.releases.server("2", 0));
    let refused = |outcome: Outcome, number: u64| {
        assert!(
            matches!(outcome, Err(StepError::NotActivated { revision, .. }) if revision.0 == number),
            "{outcome:?}"
        );
    };
    case.stage(1, 1, &one, &[]).await.expect("stage");
    refused(case.confirm(1, 1, &[]).await, 1);
    case.activate(1, 1).await.expect("activate");
    case.confirm(1, 1, &[]).await.expect("confirm");
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    refused(case.confirm(2, 2, &[]).await, 2);
    case.activate(2, 2).await.expect("activate");
    case.revert(3, 1).await.expect("revert");
    refused(case.confirm(3, 2, &[]).await, 2);
    // A takeover confirms what the one before has activated.
    case.confirm(4, 1, &[]).await.expect("confirm what a revert has brought");
    assert_eq!(case.look(Scrutiny::Quick).await.good, Some(revision(1)));
}

/// How long a host may take to go back after its time, on a busy machine.
const GOES_BACK: Duration = Duration::from_secs(60);

/// Looks until the host has taken back its last switch by itself.
async fn until_voided<S: Stand>(case: &Case<'_, S>) -> ServiceObservation {
    let looks = async {
        loop {
            let seen = case.look(Scrutiny::Quick).await;
            let record = seen.steps.get(&Verb::Activate);
            // It is voided first, then switched, then started: a look waits for none of them.
            let voided = record.is_some_and(|record| record.state == StepState::Voided);
            let started = seen.run.active == ActiveState::Active && !seen.run.needs_reload;
            if voided && seen.unit.revision() == seen.good && started {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(GOES_BACK, looks).await.expect("it goes back by itself")
}

async fn what_nobody_confirms_goes_back<S: Stand>(mut case: Case<'_, S>) {
    let (one, two) = (case.releases.server("1", 0), case.releases.server("2", 0));
    case.deploy(1, 1, &one).await;
    case.confirm_within = Duration::from_secs(2);
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    let seen = until_voided(&case).await;
    assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision(1)), Some(revision(1))));
    assert_eq!(seen.sequence, Sequence(2), "it stays at what it has seen");
    assert!(seen.revisions.contains_key(&revision(2)), "and keeps what it was brought");
    assert!(seen.drift.is_empty() && !seen.run.needs_reload, "{seen:?}");
    let sample = case.stand.fleet().sample(&case.stand.target(), &case.service, None).await.expect("a sample");
    assert!(sample.voided, "{sample:?}");
    // Too late, under whichever number, and done again only under another one.
    for sequence in [2, 3] {
        let late = case.confirm(sequence, 2, &[]).await;
        assert!(matches!(late, Err(StepError::NotActivated { .. })), "{late:?}");
    }
    case.confirm_within = Duration::from_secs(600);
    case.activate(4, 2).await.expect("activate anew");
    case.confirm(4, 2, &[]).await.expect("confirm");
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision(2)), Some(revision(2))));
    let sample = case.stand.fleet().sample(&case.stand.target(), &case.service, None).await.expect("a sample");
    assert!(!sample.voided, "{sample:?}");
}

async fn what_is_confirmed_in_time_stays<S: Stand>(mut case: Case<'_, S>) {
    let (one, two) = (case.releases.server("1", 0), case.releases.server("2", 0));
    case.confirm_within = Duration::from_secs(2);
    let began = tokio::time::Instant::now();
    case.stage(1, 1, &one, &[]).await.expect("stage");
    case.activate(1, 1).await.expect("activate");
    if case.confirm(1, 1, &[]).await.is_err() {
        // A machine that takes two seconds for a login has shown the other half.
        assert!(began.elapsed() > Duration::from_secs(2), "it was refused in time");
        return;
    }
    case.confirm_within = Duration::from_secs(600);
    case.deploy(2, 2, &two).await;
    // The first one's time is over for long when the second one has come and gone.
    case.confirm_within = Duration::from_secs(2);
    case.activate(3, 1).await.expect_err("it is not there any more");
    case.stage(3, 1, &one, &[&two]).await.expect("stage");
    case.activate(3, 1).await.expect("activate");
    let seen = until_voided(&case).await;
    assert_eq!(seen.unit, UnitFile::Revision(revision(2)));
    let again = case.activate(3, 1).await;
    assert_eq!(again, Err(StepError::Voided { revision: revision(1) }));
}

/// Looks until the host has taken back its last switch by itself, where there was nothing to go back to.
async fn until_voided_and_stopped<S: Stand>(case: &Case<'_, S>) -> ServiceObservation {
    let stopped = async {
        loop {
            let seen = case.look(Scrutiny::Quick).await;
            let voided = seen.steps.get(&Verb::Activate).is_some_and(|record| record.state == StepState::Voided);
            if voided && seen.run.active == ActiveState::Inactive && !seen.run.enabled {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(GOES_BACK, stopped).await.expect("it is stopped by the host itself")
}

async fn a_first_activation_that_nobody_confirms_is_stopped<S: Stand>(mut case: Case<'_, S>) {
    let one = case.releases.server("1", 0);
    case.confirm_within = Duration::from_secs(1);
    case.stage(1, 1, &one, &[]).await.expect("stage");
    case.activate(1, 1).await.expect("activate");
    let seen = until_voided_and_stopped(&case).await;
    assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision(1)), None));
    assert!(!seen.run.enabled, "and does not come back at the next boot");
    assert!(!seen.drift.contains(&Drift::Stopped), "nobody else did that: {seen:?}");
    case.confirm_within = Duration::from_secs(600);
    case.activate(2, 1).await.expect("activate anew");
    case.confirm(2, 1, &[]).await.expect("confirm");
}

/// A revision that was gone back to before the service was removed, and whose number is another's now.
async fn what_was_gone_back_to_once_confirms_nothing_later<S: Stand>(mut case: Case<'_, S>) {
    let (one, two) = (case.releases.server("1", 0), case.releases.server("2", 0));
    case.deploy(1, 1, &one).await;
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    case.confirm(2, 2, &[1]).await.expect("confirm");
    case.revert(3, 1).await.expect("revert");
    case.confirm(3, 1, &[]).await.expect("confirm");
    case.remove(4, DataFate::Keep).await.expect("remove");
    case.confirm_within = Duration::from_secs(1);
    case.stage(5, 1, &two, &[]).await.expect("stage");
    case.activate(5, 1).await.expect("activate");
    let seen = until_voided_and_stopped(&case).await;
    assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision(1)), None));
    let late = case.confirm(6, 1, &[]).await;
    assert!(matches!(late, Err(StepError::NotActivated { .. })), "{late:?}");
    assert_eq!(case.look(Scrutiny::Quick).await.good, None);
}

async fn a_revert_is_no_longer_waited_for<S: Stand>(mut case: Case<'_, S>) {
    let (one, two) = (case.releases.server("1", 0), case.releases.server("2", 0));
    case.deploy(1, 1, &one).await;
    case.confirm_within = Duration::from_secs(3);
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    case.revert(3, 1).await.expect("revert");
    let before = case.pid().await;
    // Another switch of the same host that goes back is the sign that the first one's time is over.
    let mut other = Case::new(case.stand, "what-is-waited-for-beside-it");
    other.confirm_within = Duration::from_secs(4);
    let release = other.releases.server("1", 0);
    other.stage(1, 1, &release, &[]).await.expect("stage");
    other.activate(1, 1).await.expect("activate");
    let voided = async {
        while !other.look(Scrutiny::Quick).await.steps.values().any(|record| record.state == StepState::Voided) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(GOES_BACK, voided).await.expect("the other one goes off");
    let seen = case.look(Scrutiny::Quick).await;
    assert!(seen.steps.values().all(|record| record.state != StepState::Voided), "{seen:?}");
    assert_eq!(case.pid().await, before, "and nothing was started anew");
    case.confirm(4, 1, &[]).await.expect("confirm");
}

async fn another_store_is_refused<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 0);
    case.deploy(1, 1, &release).await;
    let stamp = || Stamp { sequence: Sequence(7), cluster: "00000000000000ff".to_owned().try_into().expect("an id") };
    let refused = |what: &str, outcome: Outcome| {
        assert_eq!(outcome, Err(StepError::OwnedByAnother { owner: cluster() }), "{what}");
    };
    let (fleet, target) = (case.stand.fleet(), case.stand.target());
    let look = Look { service: case.service.clone(), stamp: Some(stamp()), scrutiny: Scrutiny::Quick };
    refused("stamp", fleet.observe(&target, &look).await.map(drop));
    refused("stamp of a host that was seen", fleet.stamp(&target, &case.service, &stamp()).await.map(drop));
    let keep = Vec::new();
    for step in [
        Step::Stop,
        Step::Activate { revision: revision(1) },
        Step::Confirm { revision: revision(1), keep },
        Step::Revert { revision: revision(1) },
        Step::Remove { data: DataFate::Keep },
    ] {
        let name = step.to_string();
        let order = Order { stamp: stamp(), ..case.order(7, step) };
        refused(&name, fleet.act(&target, &order).await);
    }
    let step = Step::Stage { revision: revision(1), release: release.digest() };
    let order = Order { stamp: stamp(), ..case.order(7, step) };
    let material = case.releases.material(&case.spec, &release, &[]);
    refused("stage", fleet.stage(&target, &order, &material).await);
    assert_eq!(case.look(Scrutiny::Quick).await.sequence, Sequence(1), "and nothing was raised");
}

/// A host changes its store and comes back. No other case may run on it meanwhile.
pub(crate) async fn an_adopted_host_changes_its_store<S: Stand>(stand: &S) {
    let case = Case::new(stand, "an-adopted-host");
    let release = case.releases.server("1", 0);
    case.deploy(5, 1, &release).await;
    let before = case.pid().await;
    let other = |last: &str| -> ClusterId { format!("00000000000000{last}").try_into().expect("an id") };
    let (fleet, target) = (case.stand.fleet(), case.stand.target());
    let adopt = async |from: &ClusterId, to: &ClusterId| {
        fleet.adopt(&target, &Adoption { from: from.clone(), to: to.clone() }).await
    };
    let owned_by = |owner: ClusterId| Err(StepError::OwnedByAnother { owner });
    // Somebody who saw it in other hands takes nothing.
    assert_eq!(adopt(&other("ee"), &other("ff")).await, owned_by(cluster()));
    assert_eq!(case.look(Scrutiny::Quick).await.sequence, Sequence(5));
    adopt(&cluster(), &other("ff")).await.expect("adopt");
    adopt(&cluster(), &other("ff")).await.expect("what is done already");
    assert_eq!(case.stamp(6).await.map(drop), owned_by(other("ff")), "the store before is refused");
    assert_eq!(adopt(&cluster(), &other("ee")).await, owned_by(other("ff")));
    // What runs there runs on, and the fence holds for the new store too.
    assert_eq!(case.pid().await, before);
    let stamp = |sequence| Some(Stamp { sequence: Sequence(sequence), cluster: other("ff") });
    let look = |sequence| Look { service: case.service.clone(), stamp: stamp(sequence), scrutiny: Scrutiny::Quick };
    let older = fleet.observe(&target, &look(4)).await.map(drop);
    assert_eq!(older, Err(StepError::Superseded { ours: Sequence(4), theirs: Sequence(5) }));
    let seen = fleet.observe(&target, &look(6)).await.expect("stamp");
    assert_eq!((seen.facts.cluster, seen.service.unit), (Some(other("ff")), UnitFile::Revision(revision(1))));
    adopt(&other("ff"), &cluster()).await.expect("back");
}

async fn what_is_not_staged_is_not_activated<S: Stand>(case: Case<'_, S>) {
    case.stamp(1).await.expect("stamp");
    for outcome in [case.activate(1, 3).await, case.revert(1, 3).await] {
        assert!(matches!(outcome, Err(StepError::NotStaged { revision, .. }) if revision.0 == 3), "{outcome:?}");
    }
    assert!(!case.look(Scrutiny::Quick).await.present);
}

pub(crate) async fn a_hand_is_seen_and_undone<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 3);
    case.deploy(1, 1, &release).await;
    for (sequence, hand) in
        [(2, Hand::EditsFile), (3, Hand::EditsUnit), (4, Hand::StopsUnit), (5, Hand::Disables), (6, Hand::AddsDropIn)]
    {
        case.stand.lay(hand, &case.service);
        let seen = case.look(Scrutiny::Quick).await;
        let told = match hand {
            Hand::EditsFile => seen.drift.contains(&Drift::FilesChanged { paths: vec!["version.txt".to_owned()] }),
            Hand::EditsUnit => seen.drift.contains(&Drift::UnitChanged) && seen.unit == UnitFile::Changed(revision(1)),
            Hand::StopsUnit => seen.drift.contains(&Drift::Stopped) && seen.run.active == ActiveState::Inactive,
            Hand::Disables => seen.drift.contains(&Drift::NotEnabled),
            Hand::AddsDropIn => {
                seen.drift.iter().any(|drift| matches!(drift, Drift::DropIn { paths } if paths.len() == 1))
            }
        };
        assert!(told, "{hand:?}: {seen:?}");
        if hand == Hand::AddsDropIn {
            // Not ours to take away: told, and left.
            break;
        }
        case.stage(sequence, 1, &release, &[]).await.expect("stage");
        case.activate(sequence, 1).await.expect("activate");
        case.confirm(sequence, 1, &[]).await.expect("confirm");
        let seen = case.look(Scrutiny::Full).await;
        assert!(seen.drift.is_empty() && seen.run.active == ActiveState::Active, "after {hand:?}: {seen:?}");
    }
}

async fn our_own_stop_is_no_drift<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 0);
    case.deploy(1, 1, &release).await;
    case.act(1, Step::Stop).await.expect("stop");
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!(seen.run.active, ActiveState::Inactive);
    assert!(seen.drift.is_empty(), "{seen:?}");
    case.activate(2, 1).await.expect("activate");
    assert_eq!(case.look(Scrutiny::Quick).await.run.active, ActiveState::Active);
}

async fn a_revert_goes_back<S: Stand>(case: Case<'_, S>) {
    let (one, two) = (case.releases.server("1", 2), case.releases.server("2", 2));
    case.deploy(1, 1, &one).await;
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    assert_eq!(case.look(Scrutiny::Quick).await.unit, UnitFile::Revision(revision(2)));
    case.revert(3, 1).await.expect("revert");
    let seen = case.look(Scrutiny::Full).await;
    assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision(1)), Some(revision(1))));
    assert_eq!(seen.run.active, ActiveState::Active);
    assert!(seen.drift.is_empty(), "{seen:?}");
}

async fn a_confirmation_clears_away<S: Stand>(case: Case<'_, S>) {
    let releases: Vec<Manifest> = (1..=4).map(|version| case.releases.server(&version.to_string(), 2)).collect();
    for (number, release) in (1..).zip(&releases) {
        case.stage(number, number, release, &releases.iter().collect::<Vec<_>>()).await.expect("stage");
        case.activate(number, number).await.expect("activate");
        let keep: &[u64] = if number == 4 { &[2] } else { &[1, 2, 3] };
        case.confirm(number, number, keep).await.expect("confirm");
    }
    let seen = case.look(Scrutiny::Full).await;
    assert_eq!(seen.revisions.keys().map(|number| number.0).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(seen.releases.len(), 2);
    assert!(seen.drift.is_empty(), "{seen:?}");
    case.revert(5, 2).await.expect("what was kept can be gone back to");
}

async fn a_removal_keeps_fence_and_data<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 2);
    case.deploy(3, 1, &release).await;
    wait_for_data(&case).await;
    case.remove(4, DataFate::Keep).await.expect("remove");
    case.remove(4, DataFate::Keep).await.expect("remove again");
    let seen = case.look(Scrutiny::Quick).await;
    assert_eq!((seen.unit, seen.present, seen.run.active), (UnitFile::Absent, false, ActiveState::Inactive));
    assert_eq!((seen.sequence, &seen.steps[&Verb::Remove].state), (Sequence(4), &StepState::Ok));
    assert!(seen.releases.is_empty() && seen.revisions.is_empty() && seen.drift.is_empty(), "{seen:?}");
    assert!(case.stand.has_data(&case.service));
    assert!(matches!(case.stamp(3).await, Err(StepError::Superseded { .. })));
    case.remove(5, DataFate::Keep).await.expect("what is not there is removed at once");
    case.deploy(6, 2, &release).await;
}

async fn a_purge_takes_the_data_too<S: Stand>(case: Case<'_, S>) {
    let release = case.releases.server("1", 0);
    case.deploy(1, 1, &release).await;
    wait_for_data(&case).await;
    case.remove(2, DataFate::Purge).await.expect("remove");
    assert!(!case.stand.has_data(&case.service));
}

/// The program writes its data when it starts, which is after systemd has started it.
async fn wait_for_data<S: Stand>(case: &Case<'_, S>) {
    for _ in 0..400 {
        if case.stand.has_data(&case.service) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the program wrote nothing");
}

async fn nothing_is_seen_where_nothing_is<S: Stand>(case: Case<'_, S>) {
    let seen = case.look(Scrutiny::Full).await;
    assert_eq!((seen.unit, seen.present, seen.good), (UnitFile::Absent, false, None));
    assert!(seen.steps.is_empty() && seen.drift.is_empty() && seen.run.pid.is_none(), "{seen:?}");
}

async fn a_manifest_is_told_as_it_came<S: Stand>(case: Case<'_, S>) {
    let (one, other) = (case.releases.server("1", 3), case.releases.server("2", 3));
    let ask = async |release: &Manifest| {
        let (fleet, target) = (case.stand.fleet(), case.stand.target());
        fleet.manifest(&target, &case.service, &release.digest()).await.expect("the host answers")
    };
    assert_eq!(ask(&one).await, None, "nothing of the service is there");
    case.deploy(1, 1, &one).await;
    assert_eq!(ask(&one).await, Some(one.clone()));
    assert_eq!(ask(&other).await, None, "another release is");
    case.stand.lay(Hand::EditsFile, &case.service);
    assert_eq!(ask(&one).await, Some(one), "what was changed since is drift");
}
