//! What an errand has done to a host, added to what was seen there before: it need not be looked at again at once.

use std::collections::BTreeSet;

use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::observation::{Drift, RunState, ServiceObservation, StepRecord, StepState, UnitFile};
use windlass_crds::step::Step;
use windlass_planner::plan::Act;

/// Adds what these acts, all of them done, have changed. Whether that is all there is to know: of a switch that nobody
/// watched it is not, nor of a removal.
pub(super) fn add(service: &mut ServiceObservation, sequence: Sequence, acts: &[Act], run: Option<RunState>) -> bool {
    let (mut switched, mut watched) = (false, false);
    for act in acts {
        let Act::Step(step) = act else {
            watched = true;
            continue;
        };
        match step {
            Step::Stage { revision, release } => {
                service.present = true;
                service.releases.insert(*release);
                service.revisions.insert(*revision, *release);
            }
            Step::Activate { revision } | Step::Revert { revision } => {
                switched = true;
                service.unit = UnitFile::Revision(*revision);
                // What was found of the one before says nothing of this one, but for what changes every unit.
                service.drift.retain(|drift| matches!(drift, Drift::DropIn { .. }));
            }
            Step::Confirm { revision, keep } => {
                service.good = Some(*revision);
                clear_away(service, *revision, keep);
            }
            Step::Stop | Step::Remove { .. } => return false,
        }
        let revision = step.revision().unwrap_or_default();
        service.steps.insert(step.verb(), StepRecord { sequence, revision, state: StepState::Ok });
    }
    match run {
        Some(run) if watched => service.run = run,
        _ => return !switched && !watched,
    }
    true
}

/// What a confirmation leaves there.
fn clear_away(service: &mut ServiceObservation, good: RevisionNumber, keep: &[RevisionNumber]) {
    service.revisions.retain(|number, _| *number == good || keep.contains(number));
    let used: BTreeSet<ReleaseDigest> = service.revisions.values().copied().collect();
    service.releases.retain(|release| used.contains(release));
}

#[cfg(test)]
mod tests {
    use windlass_crds::observation::ActiveState;
    use windlass_crds::step::Verb;

    use super::*;

    const SEQUENCE: Sequence = Sequence(7);

    fn release(number: u8) -> ReleaseDigest {
        ReleaseDigest::of(&[number])
    }

    fn before() -> ServiceObservation {
        let drift = [Drift::UnitChanged, Drift::DropIn { paths: vec!["/etc/x".to_owned()] }];
        ServiceObservation {
            unit: UnitFile::Changed(RevisionNumber(1)),
            good: Some(RevisionNumber(1)),
            revisions: [(RevisionNumber(1), release(1)), (RevisionNumber(2), release(2))].into(),
            releases: [release(1), release(2)].into(),
            drift: drift.into(),
            ..ServiceObservation::default()
        }
    }

    fn running() -> RunState {
        RunState { active: ActiveState::Active, pid: Some(9), ..RunState::default() }
    }

    #[test]
    fn a_stage_adds_a_revision_and_nothing_else() {
        let mut seen = before();
        let stage = Act::Step(Step::Stage { revision: RevisionNumber(3), release: release(3) });
        assert!(add(&mut seen, SEQUENCE, &[stage], None));
        assert_eq!(seen.revisions.get(&RevisionNumber(3)), Some(&release(3)));
        assert_eq!(seen.steps[&Verb::Stage].sequence, SEQUENCE);
        assert_eq!((seen.unit, seen.drift), (before().unit, before().drift));
    }

    #[test]
    fn a_switch_that_was_watched_to_its_end_is_known() {
        let mut seen = before();
        let revision = RevisionNumber(2);
        let acts = [
            Act::Step(Step::Activate { revision }),
            Act::Judge { revision },
            Act::Step(Step::Confirm { revision, keep: Vec::new() }),
        ];
        assert!(add(&mut seen, SEQUENCE, &acts, Some(running())));
        assert_eq!((seen.unit, seen.good), (UnitFile::Revision(revision), Some(revision)));
        assert_eq!(seen.run, running());
        assert_eq!(seen.revisions.keys().copied().collect::<Vec<_>>(), [revision]);
        assert_eq!(seen.releases, [release(2)].into());
        assert!(matches!(seen.drift.iter().collect::<Vec<_>>()[..], [Drift::DropIn { .. }]), "drop-ins outlive it");
    }

    #[test]
    fn what_nobody_watched_has_to_be_looked_at() {
        let revision = RevisionNumber(2);
        let switch = Act::Step(Step::Activate { revision });
        for acts in [vec![switch.clone()], vec![switch, Act::Judge { revision }], vec![Act::Step(Step::Stop)]] {
            assert!(!add(&mut before(), SEQUENCE, &acts, None), "{acts:?}");
        }
        assert!(!add(&mut before(), SEQUENCE, &[Act::Step(Step::Stop)], Some(running())));
    }
}
