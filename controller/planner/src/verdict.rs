//! The verdict: whether what was switched is healthy, from what was seen so far.

use std::num::NonZeroU16;
use std::time::Duration;

use windlass_crds::id::BootId;
use windlass_crds::observation::{ActiveState, HealthAnswer, Listener, Sample};
use windlass_crds::service::{Health, ServiceSpec};

/// How long a unit without a `health` section must have run without a restart.
const STEADY: Duration = Duration::from_secs(10);

/// `startPeriod` of a Service without a `health` section.
const START_PERIOD: Duration = Duration::from_secs(30);

/// While a rollout waits for its verdict, health is looked at so often for [`EAGER_FOR`].
const EAGER_PAUSE: Duration = Duration::from_millis(25);

/// How long the eager looks go on: most programs listen within a second.
pub const EAGER_FOR: Duration = Duration::from_secs(1);

/// Afterwards, unless `interval` is shorter.
pub const PATIENT_PAUSE: Duration = Duration::from_millis(250);

/// What makes a revision healthy.
#[derive(Debug, Clone)]
pub struct Criteria {
    /// The port that has to be the unit's own.
    port: Option<NonZeroU16>,
    /// So many good answers in a row; none where nothing can be asked.
    healthy_threshold: Option<u32>,
    /// So many bad ones.
    unhealthy_threshold: u32,
    /// Bad ones do not count for so long after the start.
    start_period: Duration,
    /// How long it must have been well.
    min_healthy_time: Duration,
    /// How often it is looked at in the long run.
    interval: Duration,
}

impl Criteria {
    /// What `spec` says about it.
    pub fn of(spec: &ServiceSpec) -> Self {
        let asked = spec.health.as_ref();
        let health = asked.cloned().unwrap_or_default();
        let Health {
            endpoint: _,
            via: _,
            interval,
            timeout: _,
            unhealthy_threshold,
            healthy_threshold,
            start_period,
            tls: _,
        } = health;
        Self {
            port: spec.port(),
            healthy_threshold: asked.map(|_| healthy_threshold.get()),
            unhealthy_threshold: unhealthy_threshold.get(),
            start_period: if asked.is_some() { start_period.duration() } else { START_PERIOD },
            min_healthy_time: spec.rollout.min_healthy_time.duration(),
            interval: interval.duration(),
        }
    }

    /// Whether the Service's endpoint is asked at all.
    pub fn asks(&self) -> bool {
        self.healthy_threshold.is_some()
    }
}

/// How long a takeover lasts at most, until the new leader has confirmed what its predecessor had switched: the lease
/// (15 s), what is left of the 20 s in which another one leads, a connection (10 s) and a login (10 s).
const TAKEOVER: Duration = Duration::from_secs(45);

/// How long each look at a starting program takes beside the answer that is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// How long it may take until it is known whether a program is healthy, from its start: longer than that, it is neither.
pub fn verdict_within(spec: &ServiceSpec) -> Duration {
    let Criteria { start_period, unhealthy_threshold, healthy_threshold, min_healthy_time, interval, .. } =
        Criteria::of(spec);
    let timeout = spec.health.as_ref().map_or(Duration::ZERO, |health| health.timeout.duration());
    let looks = unhealthy_threshold.saturating_add(healthy_threshold.unwrap_or_default());
    let look = timeout + PATIENT_PAUSE.min(interval) + LOOK;
    start_period + look.saturating_mul(looks) + min_healthy_time.max(STEADY)
}

/// How long a host waits for the confirmation of a switch before it takes it back by itself: until the program has
/// stopped, the new one is judged, and another controller has taken over from one that died meanwhile.
pub fn confirm_within(spec: &ServiceSpec) -> Duration {
    spec.lifecycle.force_after.duration() + verdict_within(spec) + TAKEOVER
}

/// A verdict on a revision on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is healthy.
    Healthy,
    /// It is not: one sentence says how that showed.
    Unhealthy(String),
    /// Not yet known: look again after this pause.
    Pending(Duration),
    /// Nobody will know: the host has taken it back by itself.
    TakenBack,
}

/// What was seen of a revision on one host since it was switched.
#[derive(Debug, Clone)]
pub struct Judge {
    criteria: Criteria,
    boot: Option<BootId>,
    pid: Option<u32>,
    /// When it was first looked at, in microseconds of the host's monotonic clock.
    first: Option<u64>,
    good: u32,
    bad: u32,
    well_since: Option<u64>,
    last_complaint: String,
}

impl Judge {
    /// A judge who has seen nothing yet.
    pub fn new(criteria: Criteria) -> Self {
        let last_complaint = String::new();
        Self { criteria, boot: None, pid: None, first: None, good: 0, bad: 0, well_since: None, last_complaint }
    }

    /// Begins anew where the host was started anew: that its program was, too, is not the program's doing.
    fn notice_boot(&mut self, sample: &Sample) {
        if self.boot.as_ref() != Some(&sample.boot) {
            *self = Self { boot: Some(sample.boot.clone()), ..Self::new(self.criteria.clone()) };
        }
    }

    /// Takes in one look, and the answer of the health endpoint where it was asked.
    pub fn look(&mut self, sample: &Sample, answer: Option<&HealthAnswer>) -> Judgement {
        self.notice_boot(sample);
        if sample.voided {
            return Judgement::TakenBack;
        }
        if let Some(complaint) = self.exited(sample) {
            // Most programs end when they do not get their port.
            return Judgement::Unhealthy(match self.taken(sample) {
                Some(why) => format!("{complaint}; {why}"),
                None => complaint,
            });
        }
        let run = &sample.run;
        // A unit that is not active yet has no start to count from: what bounds it is systemd's own start timeout.
        let up = if run.since > 0 {
            Duration::from_micros(sample.monotonic.saturating_sub(run.since))
        } else {
            Duration::ZERO
        };
        let first = *self.first.get_or_insert(sample.monotonic);
        let watched = Duration::from_micros(sample.monotonic.saturating_sub(first));
        if !matches!(run.active, ActiveState::Active | ActiveState::Reloading) {
            // It may take minutes to start, and is not worth forty looks a second all that time.
            return Judgement::Pending(self.pause(watched));
        }
        match self.opinion(sample, answer, up) {
            Opinion::Well => self.well(sample, up),
            Opinion::Ill(complaint) => self.ill(complaint, up),
            Opinion::None => Judgement::Pending(self.pause(up)),
        }
    }

    /// How the unit's exit shows, if it did exit.
    fn exited(&mut self, sample: &Sample) -> Option<String> {
        let run = &sample.run;
        let how =
            || format!("{}, status {}", if run.result.is_empty() { "no result" } else { &run.result }, run.exit_status);
        match run.active {
            ActiveState::Failed => return Some(format!("the unit failed ({})", how())),
            ActiveState::Inactive => return Some(format!("the program exited ({})", how())),
            ActiveState::Activating if run.sub == "auto-restart" => {
                return Some(format!("the program exited ({})", how()));
            }
            _ => {}
        }
        if run.restarts > 0 {
            return Some(format!(
                "the program exited, and systemd started it again {} times ({})",
                run.restarts,
                how()
            ));
        }
        if let (Some(before), Some(now)) = (self.pid, run.pid)
            && before != now
        {
            return Some(format!("the main process changed from {before} to {now}"));
        }
        self.pid = self.pid.or(run.pid);
        None
    }

    /// Whose the port is, where it is not the unit's.
    fn taken(&self, sample: &Sample) -> Option<String> {
        let port = self.criteria.port.filter(|_| sample.listener == Some(Listener::Another))?;
        Some(format!("another program listens on port {port}; stop it, or say another spec.network.port"))
    }

    fn opinion(&self, sample: &Sample, answer: Option<&HealthAnswer>, up: Duration) -> Opinion {
        let port = match sample.listener {
            _ if self.criteria.port.is_none() => Opinion::Well,
            Some(Listener::Ours | Listener::Hidden) => Opinion::Well,
            Some(Listener::Another) => Opinion::Ill(self.taken(sample).unwrap_or_default()),
            Some(Listener::Nobody) => Opinion::Ill("nothing listens on the port".to_owned()),
            None => Opinion::None,
        };
        if !matches!(port, Opinion::Well) {
            return port;
        }
        match answer {
            None if self.criteria.asks() => Opinion::None,
            None if up < STEADY => Opinion::None,
            None | Some(HealthAnswer::Open) => Opinion::Well,
            Some(HealthAnswer::Http { status: 200..=399, .. }) => Opinion::Well,
            Some(HealthAnswer::Http { status, .. }) => Opinion::Ill(format!("the health endpoint answers {status}")),
            Some(HealthAnswer::Silent { detail }) => {
                Opinion::Ill(format!("the health endpoint does not answer: {detail}"))
            }
            Some(HealthAnswer::Unknown { .. }) => Opinion::None,
        }
    }

    fn well(&mut self, sample: &Sample, up: Duration) -> Judgement {
        self.bad = 0;
        self.last_complaint.clear();
        self.good += 1;
        let since = *self.well_since.get_or_insert(sample.monotonic);
        let well_for = Duration::from_micros(sample.monotonic.saturating_sub(since));
        let enough = self.good >= self.criteria.healthy_threshold.unwrap_or(1);
        // A Service without a health section proves itself by running: those ten seconds are part of its time.
        let proven = if self.criteria.asks() { well_for } else { up };
        let rest = self.criteria.min_healthy_time.saturating_sub(proven);
        if enough && rest.is_zero() {
            return Judgement::Healthy;
        }
        let pause = self.pause(up);
        Judgement::Pending(if enough { rest.min(pause).max(Duration::from_millis(1)) } else { pause })
    }

    fn ill(&mut self, complaint: String, up: Duration) -> Judgement {
        self.good = 0;
        self.well_since = None;
        if up < self.criteria.start_period {
            self.last_complaint = complaint;
            return Judgement::Pending(self.pause(up));
        }
        self.bad += 1;
        if self.bad >= self.criteria.unhealthy_threshold {
            return Judgement::Unhealthy(format!("{complaint} ({} looks in a row)", self.bad));
        }
        self.last_complaint = complaint;
        Judgement::Pending(self.pause(up))
    }

    /// What was wrong when it was last looked at; empty where nothing was.
    pub fn last_complaint(&self) -> &str {
        &self.last_complaint
    }

    fn pause(&self, up: Duration) -> Duration {
        let pause = if up < EAGER_FOR { EAGER_PAUSE } else { PATIENT_PAUSE };
        pause.min(self.criteria.interval)
    }
}

/// What one look says.
enum Opinion {
    Well,
    Ill(String),
    None,
}
