//! Waiting for a verdict: looks at what was switched until it is known whether it is healthy.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_crds::host::Target;
use windlass_crds::id::ServiceKey;
use windlass_crds::observation::{ActiveState, HealthAnswer, RunState, Sample};
use windlass_crds::record::Evidence;
use windlass_crds::service::{HealthTls, ServiceSpec, Transport};
use windlass_crds::step::ContactError;
use windlass_hosts::fleet::{Fleet, Issued, Probe, Question};
use windlass_planner::verdict::{Criteria, EAGER_FOR, Judge, Judgement, PATIENT_PAUSE, verdict_within};

use crate::metrics::Judged;
use crate::starts::Starts;

/// A host that cannot be talked to for so long is out of reach; what it runs is unknown.
const PATIENCE: Duration = Duration::from_secs(15);

/// A health endpoint that cannot be asked for so long, while the host itself answers, will not be by waiting longer:
/// sshd's settings forbid it.
const UNASKED: Duration = Duration::from_secs(15);

/// Between two questions to a program that does not answer yet: short beside the start of any interpreter.
const KNOCK: Duration = Duration::from_millis(20);

/// The longest pause between two of them (design: 20 to 50 ms for the first second).
const SLOW_KNOCK: Duration = Duration::from_millis(50);

/// A pause is so many times as long as the question took: where that takes long, processors are short, and the program
/// that is starting needs them more than we do.
const COURTESY: u32 = 8;

/// And it is at least this part of the time that the program has been starting: what takes two seconds may be noticed an
/// eighth of one late, and each question costs the host a millisecond, and a line in sshd's log.
const PATIENCE_SHARE: u32 = 16;

/// And at most this part, however long the question took.
const LATENESS_SHARE: u32 = 10;

/// So long it is only asked, and the host not looked at: a program that ends meanwhile is noticed that much later.
const KNOCKING: Duration = Duration::from_millis(400);

/// After a look that did not get through.
const PAUSE: Duration = Duration::from_millis(500);

/// So many lines of the unit's log are kept with a verdict.
pub const LOG_LINES: u32 = 20;

/// How waiting for a verdict ended.
#[derive(Debug)]
pub enum Found {
    /// It is healthy, and this is what systemd says of it.
    Healthy(RunState),
    /// It is not.
    Unhealthy(Evidence),
    /// Nothing is known: the host cannot be talked to.
    OutOfReach(ContactError),
    /// Nothing is known, and too much time has gone by.
    Undecided(String),
    /// The host has taken it back by itself.
    TakenBack,
    /// Something else is wanted now.
    Cancelled,
}

impl Found {
    /// In one word.
    pub fn judged(&self) -> Judged {
        match self {
            Self::Healthy(_) => Judged::Healthy,
            Self::Unhealthy(_) => Judged::Unhealthy,
            Self::OutOfReach(_) => Judged::OutOfReach,
            Self::Undecided(_) | Self::TakenBack => Judged::Undecided,
            Self::Cancelled => Judged::Cancelled,
        }
    }
}

/// What is judged.
pub struct Case<'a> {
    /// Where.
    pub target: &'a Target,
    /// What.
    pub service: &'a ServiceKey,
    /// By which rules.
    pub rules: &'a Rules,
    /// How long it took lately until it answered, where it was started just now.
    pub starts: Option<&'a Starts>,
}

/// By what a Service is judged on one host.
#[derive(Debug, Clone)]
pub struct Rules {
    /// As it was declared.
    pub spec: ServiceSpec,
    /// What is spoken to that host where the declaration does not say.
    pub default_transport: Transport,
}

/// What a Service is asked on a host, by the transport that it speaks there.
pub fn question(rules: &Rules, target: &Target) -> Option<Question> {
    let Rules { spec, default_transport } = rules;
    let health = spec.health.as_ref()?;
    let network = spec.network.as_ref()?;
    let path = health.endpoint.clone();
    let probe = match (network.transport.unwrap_or(*default_transport), path) {
        (Transport::Https, path) => Probe::Tls { path, issued: issued(health.tls.as_ref(), target) },
        (Transport::Http, Some(path)) => Probe::Http(path),
        (Transport::Http, None) | (Transport::Tcp, _) => Probe::Connect,
    };
    Some(Question { port: network.port, probe, timeout: health.timeout.duration() })
}

/// What its certificate must be: for the host's own address where nobody says another name.
fn issued(tls: Option<&HealthTls>, target: &Target) -> Issued {
    let name = tls.and_then(|tls| tls.server_name.clone());
    Issued {
        to: name.unwrap_or_else(|| target.address.clone()),
        by: tls.and_then(|tls| tls.ca_file.as_ref()).map(PathBuf::from),
    }
}

/// What is known of the start of a program that is asked.
#[derive(Debug)]
struct Start {
    /// Since when it is waited for.
    since: Instant,
    /// How long it may take.
    period: Duration,
    /// Whether it has answered anybody yet.
    answered: bool,
}

/// What a look may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A program that has not answered anybody yet, and still has time.
    Silence,
    /// Anything.
    Anything,
}

impl Start {
    fn now(spec: &ServiceSpec) -> Self {
        let period = spec.health.as_ref().map_or(Duration::ZERO, |health| health.start_period.duration());
        Self { since: Instant::now(), period, answered: false }
    }

    /// Takes in an answer, and says what a look may find beside it.
    fn hear(&mut self, answer: Option<&HealthAnswer>) -> Expected {
        match answer {
            Some(HealthAnswer::Silent { .. }) if !self.answered && self.since.elapsed() < self.period => {
                Expected::Silence
            }
            Some(HealthAnswer::Http { .. } | HealthAnswer::Open) => {
                self.answered = true;
                Expected::Anything
            }
            _ => Expected::Anything,
        }
    }

    /// How long to wait with the next question, where the last one took so long.
    fn pause(&self, took: Duration) -> Duration {
        let starting = self.since.elapsed();
        let longest = if starting < EAGER_FOR { SLOW_KNOCK } else { PATIENT_PAUSE.min(starting / LATENESS_SHARE) };
        (took * COURTESY).max(starting / PATIENCE_SHARE).clamp(KNOCK, longest)
    }
}

/// Asks a program until it answers at all, for a moment.
async fn first_answer<F: Fleet>(fleet: &F, target: &Target, question: &Question, start: &Start) -> HealthAnswer {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = fleet.ask(target, question).await;
        if !matches!(answer, HealthAnswer::Silent { .. }) || began.elapsed() >= KNOCKING {
            return answer;
        }
        tokio::time::sleep(start.pause(asked.elapsed())).await;
    }
}

/// Looks at a program that was asked. While it has never answered, who holds its port says nothing more, and takes the
/// kernel of the host ten milliseconds to find out: so that is asked only of one that has ended, or is late.
async fn look<F: Fleet>(fleet: &F, case: &Case<'_>, expected: Expected) -> Result<Sample, ContactError> {
    let Case { target, service, rules, .. } = case;
    if expected == Expected::Silence {
        let sample = fleet.sample(target, service, None).await?;
        if sample.run.active == ActiveState::Active && sample.run.restarts == 0 {
            return Ok(sample);
        }
    }
    fleet.sample(target, service, rules.spec.port()).await
}

/// Looks until it is known whether what runs is healthy.
pub async fn judge<F: Fleet>(fleet: &F, case: Case<'_>, cancel: &CancellationToken) -> Found {
    let Case { target, service, rules, starts } = &case;
    let (target, service) = (*target, *service);
    let spec = &rules.spec;
    // Later the host would take it back by itself, before anybody could confirm it.
    let patience = spec.rollout.progress_deadline.duration().min(verdict_within(spec));
    let deadline = Instant::now() + patience;
    let question = question(rules, target);
    let mut start = Start::now(spec);
    let mut judge = Judge::new(Criteria::of(spec));
    let mut heard = Instant::now();
    let mut asked = Instant::now();
    let mut last_answer = None;
    if question.is_some() {
        let quiet = starts.map(Starts::quiet).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(quiet) => {}
            () = cancel.cancelled() => return Found::Cancelled,
        }
    }
    loop {
        if cancel.is_cancelled() {
            return Found::Cancelled;
        }
        // One after the other: a question costs a program that is just starting next to nothing, a look at the host as
        // much as a tenth of its start.
        let looked = async {
            let answer = match &question {
                Some(question) => Some(first_answer(fleet, target, question, &start).await),
                None => None,
            };
            let answered = start.answered;
            let expected = start.hear(answer.as_ref());
            if let Some(starts) = starts.filter(|_| start.answered && !answered) {
                starts.took(start.since.elapsed());
            }
            (look(fleet, &case, expected).await, answer, expected)
        };
        let (sample, answer, expected) = tokio::select! {
            looked = looked => looked,
            () = cancel.cancelled() => return Found::Cancelled,
        };
        if let Some(answer) = &answer
            && !matches!(answer, HealthAnswer::Unknown { .. })
        {
            last_answer = Some(answer.clone());
        }
        // Where the host itself does not answer, that nobody can be asked there says nothing more.
        if sample.is_err() || !matches!(answer, Some(HealthAnswer::Unknown { .. })) {
            asked = Instant::now();
        }
        let pause = match sample {
            Err(error) if heard.elapsed() > PATIENCE => return Found::OutOfReach(error),
            Err(_) => PAUSE,
            Ok(sample) => {
                heard = Instant::now();
                match judge.look(&sample, answer.as_ref()) {
                    Judgement::Healthy => return Found::Healthy(sample.run),
                    Judgement::Unhealthy(summary) => {
                        let logs = fleet.logs(target, service, LOG_LINES).await.unwrap_or_default();
                        return Found::Unhealthy(Evidence { summary, answer: last_answer, logs });
                    }
                    Judgement::TakenBack => return Found::TakenBack,
                    Judgement::Pending(_) if expected == Expected::Silence => start.pause(Duration::ZERO),
                    Judgement::Pending(pause) => {
                        if let Some(HealthAnswer::Unknown { detail }) = &answer
                            && asked.elapsed() > UNASKED
                        {
                            return Found::Undecided(format!("the health endpoint cannot be asked: {detail}"));
                        }
                        pause
                    }
                }
            }
        };
        if Instant::now() > deadline {
            let unknown = match answer {
                Some(HealthAnswer::Unknown { detail }) => format!("; the health endpoint cannot be asked: {detail}"),
                _ => String::new(),
            };
            return Found::Undecided(format!("no verdict within {} s{unknown}", patience.as_secs()));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return Found::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use windlass_crds::id::{RevisionNumber, Sequence};
    use windlass_crds::manifest::Manifest;
    use windlass_crds::step::Step;
    use windlass_hosts::fleet::{Material, Order, Stamp};
    use windlass_hosts::memory::{Behaviour, Call, HostSettings, MemoryFleet};

    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn start(period: Duration) -> Start {
        Start { since: Instant::now(), period, answered: false }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longer_a_start_takes_the_less_often_it_is_asked() {
        for (at, took, expected) in [
            // At first as often as the design says, whatever a question takes.
            (0, 0, 20),
            (0, 1, 20),
            (100, 4, 32),
            (100, 40, 50),
            (900, 1, 50),
            // Later a part of what it has taken so far.
            (1_200, 1, 75),
            (1_200, 40, 120),
            (1_600, 1, 100),
            (1_600, 20, 160),
            (10_000, 1, 250),
            (10_000, 400, 250),
        ] {
            let start = start(Duration::ZERO);
            tokio::time::advance(milliseconds(at)).await;
            assert_eq!(
                start.pause(milliseconds(took)),
                milliseconds(expected),
                "at {at} ms, a question took {took} ms"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_the_port_is_asked_of_all_but_who_still_starts() {
        let silent = HealthAnswer::Silent { detail: "connection refused".to_owned() };
        let unwell = HealthAnswer::Http { status: 503, body: String::new() };
        let unknown = HealthAnswer::Unknown { detail: "no forward".to_owned() };
        let mut start = start(milliseconds(1_000));
        assert_eq!(start.hear(None), Expected::Anything, "nobody is asked");
        assert_eq!(start.hear(Some(&silent)), Expected::Silence);
        assert_eq!(start.hear(Some(&unknown)), Expected::Anything);
        assert_eq!(start.hear(Some(&silent)), Expected::Silence, "nothing was heard of it yet");
        tokio::time::advance(milliseconds(1_000)).await;
        assert_eq!(start.hear(Some(&silent)), Expected::Anything, "it is late");
        let mut start = Start { since: Instant::now(), ..start };
        assert_eq!(start.hear(Some(&unwell)), Expected::Anything);
        assert_eq!(
            start.hear(Some(&silent)),
            Expected::Anything,
            "good answers are counted, and it has stopped answering"
        );
    }

    /// A fleet of one host, on which a program was just started that listens after so long.
    async fn started(listens: Duration) -> (MemoryFleet, ServiceKey, Rules) {
        let fleet = MemoryFleet::new();
        fleet.add("a", HostSettings::default());
        let spec: ServiceSpec = serde_json::from_value(serde_json::json!({
            "placement": { "hosts": ["a"] },
            "source": { "path": "/srv/web" },
            "runtime": { "target": "python", "entryPoint": "server.py" },
            "network": { "port": 8080 },
            "health": { "endpoint": "/health", "healthyThreshold": 1 },
            "rollout": { "minHealthyTime": "0s" },
        }))
        .expect("a spec");
        let manifest = Manifest::default();
        let (release, revision) = (manifest.digest(), RevisionNumber(1));
        fleet.set_behaviour(release, Behaviour::healthy_after(listens));
        let service: ServiceKey = "default/web".parse().expect("a service");
        let stamp = Stamp { sequence: Sequence(1), cluster: "11111111".parse().expect("a cluster") };
        let order = |step| Order {
            service: service.clone(),
            stamp: stamp.clone(),
            step,
            force_after: Duration::from_secs(2),
            confirm_within: Duration::from_secs(3600),
        };
        let material = Material {
            spec: spec.clone(),
            manifest: Arc::new(manifest),
            bases: BTreeMap::new(),
            contents: Arc::new(|_| PathBuf::new()),
            seen: None,
        };
        let target = fleet.target("a");
        fleet.stage(&target, &order(Step::Stage { revision, release }), &material).await.expect("a stage");
        fleet.act(&target, &order(Step::Activate { revision })).await.expect("a start");
        (fleet, service, Rules { spec, default_transport: Transport::Http })
    }

    #[tokio::test(start_paused = true)]
    async fn what_starts_slowly_is_noticed_within_a_tenth_of_its_time() {
        for listens in [300, 1_100, 1_450, 1_900, 2_300] {
            let (fleet, service, rules) = started(milliseconds(listens)).await;
            let began = Instant::now();
            let target = fleet.target("a");
            let starts = Starts::default();
            let case = Case { target: &target, service: &service, rules: &rules, starts: Some(&starts) };
            let found = judge(&fleet, case, &CancellationToken::new()).await;
            assert!(matches!(found, Found::Healthy(_)), "{found:?}");
            let late = began.elapsed().saturating_sub(milliseconds(listens));
            // Besides, one look and one question each way.
            let most = (milliseconds(listens) / LATENESS_SHARE).max(SLOW_KNOCK) + milliseconds(30);
            assert!(late <= most, "it listens after {listens} ms, and that was noticed {} ms late", late.as_millis());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_took_long_last_time_is_asked_later_and_less_often() {
        let mut asked = Vec::new();
        let starts = Starts::default();
        for _deploy in 0..2 {
            let (fleet, service, rules) = started(milliseconds(400)).await;
            fleet.clear_calls();
            let target = fleet.target("a");
            let case = Case { target: &target, service: &service, rules: &rules, starts: Some(&starts) };
            let found = judge(&fleet, case, &CancellationToken::new()).await;
            assert!(matches!(found, Found::Healthy(_)), "{found:?}");
            asked.push(fleet.calls().iter().filter(|called| called.call == Call::Ask).count());
        }
        assert!(asked[1] * 3 < asked[0] * 2, "it was asked {asked:?} times");
    }
}
