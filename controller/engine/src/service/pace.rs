//! Pace: how soon a Service is looked at again, and how often it is asked how it is.

use std::time::Duration;

use jiff::Timestamp;
use windlass_crds::condition::Reason;
use windlass_crds::service::ServiceSpec;
use windlass_crds::status::Finding;
use windlass_planner::plan::Plan;
use windlass_planner::status::Work;

use super::TRY_AGAIN;

/// Hosts are looked at so often where nothing happens (design: every 60 s).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What waits for hosts that are down is looked at again after this.
const WAITING: Duration = Duration::from_secs(3);

/// While a canary bakes it is asked so often: `unhealthyThreshold` is 3 by default, which has to fit in several times.
const BAKING_LOOKS: u32 = 10;

/// And never more often than this because of it: a look takes a host tens of milliseconds.
const BAKING_PAUSE: Duration = Duration::from_secs(1);

/// What decides on how soon a Service is looked at again.
pub(super) struct Pace<'a> {
    pub(super) plan: &'a Plan,
    /// The declaration that is in force.
    pub(super) spec: &'a ServiceSpec,
    /// Whether it is still declared.
    pub(super) declared: bool,
    /// Whether a host is out of reach.
    pub(super) lost: bool,
    pub(super) now: Timestamp,
}

impl Pace<'_> {
    /// How long to wait, should nothing happen before.
    pub(super) fn pause(&self) -> Duration {
        let Self { plan, spec, declared, lost, now } = self;
        let mut waits = vec![LOOK_EVERY];
        if *declared {
            waits.push(spec.source.change_detection.interval.duration());
            waits.extend(pulse_interval(spec, plan));
        }
        if let Some(again) = plan.again {
            waits.push(again.duration_since(*now).try_into().unwrap_or_default());
        }
        if *lost {
            waits.push(TRY_AGAIN);
        }
        if plan.report.work == Work::UnderWay {
            waits.push(WAITING);
        }
        let held = |finding: &Finding| finding.reason == Reason::RemovalNeedsConfirmation;
        if plan.report.findings.iter().any(held) {
            // Whether it is held depends on what becomes of other Services.
            waits.push(TRY_AGAIN);
        }
        waits.into_iter().min().unwrap_or(LOOK_EVERY)
    }
}

/// How often a Service is asked how it is: while its canary is watched often enough to know before that is over.
pub(super) fn pulse_interval(spec: &ServiceSpec, plan: &Plan) -> Option<Duration> {
    let interval = spec.health.as_ref()?.interval.duration();
    let watched = plan.report.canary.as_ref().filter(|canary| canary.waiting_since.is_none());
    let bake = spec.rollout.canary.as_ref().filter(|_| watched.is_some() && plan.report.work == Work::Waiting);
    Some(bake.map_or(interval, |bake| interval.min((bake.bakes_for() / BAKING_LOOKS).max(BAKING_PAUSE))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use windlass_crds::record::Owned;
    use windlass_crds::status::CanaryStatus;
    use windlass_planner::input::{Goal, Inputs, RemovalGate};
    use windlass_planner::plan::plan;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// The plan of a canary that bakes until second 100, or waits for a person since then.
    fn watched(waiting_since: Option<Timestamp>) -> Plan {
        let service = "default/web".parse().expect("two labels");
        let mut plan = plan(&Inputs {
            proposal: None,
            gated: false,
            service: &service,
            now: second(0),
            term: 1,
            fresh_term: false,
            goal: Goal::Remove,
            complaint: None,
            owned: &Owned::default(),
            revisions: &BTreeMap::new(),
            rollout: None,
            hosts: &BTreeMap::new(),
            removals: RemovalGate::Open,
        });
        let baking_until = Some(second(100)).filter(|_| waiting_since.is_none());
        (plan.again, plan.report.work) = (baking_until, Work::Waiting);
        plan.report.canary = Some(CanaryStatus { step: 1, steps: 2, baking_until, waiting_since });
        plan
    }

    fn spec(health: &str, bake: &str) -> ServiceSpec {
        let spec = serde_json::json!({
            "placement": {"hosts": ["web1"]},
            "source": {"path": "/srv", "changeDetection": {"interval": "1h"}},
            "runtime": {"target": "python", "entryPoint": "main"},
            "network": {"port": 80},
            "health": serde_json::from_str::<serde_json::Value>(health).expect(health),
            "rollout": {"strategy": "canary", "canary": {"steps": [1], "bake": bake}},
        });
        serde_json::from_value(spec).expect("a spec")
    }

    #[test]
    fn a_bake_is_watched_and_ends_at_its_time() {
        for (health, bake, at, expected) in [
            // Nobody is asked: it is only the time that counts, and the minute in which hosts are looked at.
            ("null", "100s", 30, 60_000),
            ("null", "100s", 99, 1_000),
            ("null", "100s", 100, 0),
            ("null", "100s", 101, 0),
            // Ten times in the bake, at its own interval where that is shorter, and never all the time.
            (r#"{"interval": "30s"}"#, "100s", 0, 10_000),
            (r#"{"interval": "30s"}"#, "100s", 95, 5_000),
            (r#"{"interval": "2s"}"#, "100s", 0, 2_000),
            (r#"{"interval": "30s"}"#, "5s", 0, 1_000),
        ] {
            let (plan, spec) = (watched(None), spec(health, bake));
            let pace = Pace { plan: &plan, spec: &spec, declared: true, lost: false, now: second(at) };
            assert_eq!(pace.pause().as_millis(), expected, "{health} {bake} at {at}");
        }
    }

    #[test]
    fn who_waits_for_a_person_does_not_come_back_all_the_time() {
        let (plan, spec) = (watched(Some(second(100))), spec(r#"{"interval": "30s"}"#, "100s"));
        let pause = |lost| Pace { plan: &plan, spec: &spec, declared: true, lost, now: second(500) }.pause();
        assert_eq!((pause(false).as_secs(), pause(true).as_secs()), (30, 10));
    }
}
