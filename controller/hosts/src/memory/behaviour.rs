//! What programs do once a unit starts them: chosen by a test, and a pure function of their age from then on.

use std::sync::Arc;
use std::time::Duration;

use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{RevisionNumber, ServiceKey};
use windlass_crds::observation::{ActiveState, RunState};
use windlass_crds::service::ServiceSpec;

/// Time since the fleet began.
pub type Moment = Duration;

/// What a unit is about to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The host's address.
    pub address: String,
    /// Which service.
    pub service: ServiceKey,
    /// Which revision of it.
    pub revision: RevisionNumber,
    /// With which files.
    pub release: ReleaseDigest,
    /// And which settings.
    pub spec: Arc<ServiceSpec>,
}

/// What a program does, counted from the start of its process; after a restart it does the same again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// Whether systemd can start it at all.
    pub start: Start,
    /// When it begins to listen on its port; `None`: it never does.
    pub listens: Option<Duration>,
    /// What it answers while it listens.
    pub answer: Answer,
    /// Whom its certificate is for; without one it speaks plaintext.
    pub certificate: Option<String>,
    /// When its process ends by itself; `None`: it runs until it is stopped.
    pub lives: Option<Duration>,
    /// What it exits with then.
    pub exit_status: i32,
    /// How long it takes to stop after SIGTERM; longer than the step's `force_after` and it is killed.
    pub stops: Duration,
    /// What each of its processes logs first.
    pub says: Vec<String>,
    /// Whether nothing gets through to the host while it runs, as where it breaks the network.
    pub severs: bool,
}

/// Whether systemd can start a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It can.
    Runs,
    /// It cannot, as where the interpreter is not there: the step fails with `StartFailed`.
    Fails,
}

/// What a program answers to a health question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP response with this status; it accepts connections, too.
    Status(u16),
    /// 200 for `good`, then `status` for `bad`, and again from the start.
    Flapping {
        /// How long it answers 200.
        good: Duration,
        /// How long it answers something else.
        bad: Duration,
        /// What it answers then.
        status: u16,
    },
    /// It accepts connections and says nothing.
    Hangs,
}

/// systemd's exit status for "the executable could not be run" (systemd.exec(5), `EXIT_EXEC`).
const EXIT_EXEC: i32 = 203;
/// How long a program takes to listen where nobody says: about what a small interpreter needs.
const LISTENS: Duration = Duration::from_millis(50);
/// How long a program that exits at once takes to do so.
const EXITS: Duration = Duration::from_millis(20);

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            start: Start::Runs,
            listens: Some(LISTENS),
            answer: Answer::Status(200),
            certificate: None,
            lives: None,
            exit_status: 0,
            stops: Duration::from_millis(5),
            says: Vec::new(),
            severs: false,
        }
    }
}

impl Behaviour {
    /// It answers 200 from `delay` after its start.
    pub fn healthy_after(delay: Duration) -> Self {
        Self { listens: Some(delay), ..Self::default() }
    }

    /// It listens and answers this status.
    pub fn unhealthy(status: u16) -> Self {
        Self { answer: Answer::Status(status), ..Self::default() }
    }

    /// It answers 200 and 503 by turns.
    pub fn flapping(good: Duration, bad: Duration) -> Self {
        Self { answer: Answer::Flapping { good, bad, status: 503 }, ..Self::default() }
    }

    /// It answers 200 until it exits with 1, `age` after its start.
    pub fn crashes_after(age: Duration) -> Self {
        Self { lives: Some(age), exit_status: 1, ..Self::default() }
    }

    /// It exits with 1 before it ever listens.
    pub fn exits_at_once() -> Self {
        Self { listens: None, lives: Some(EXITS), exit_status: 1, ..Self::default() }
    }

    /// It runs and never listens.
    pub fn never_listens() -> Self {
        Self { listens: None, ..Self::default() }
    }

    /// It accepts connections and answers nothing.
    pub fn hangs() -> Self {
        Self { answer: Answer::Hangs, ..Self::default() }
    }

    /// systemd cannot start it.
    pub fn start_fails() -> Self {
        Self {
            start: Start::Fails,
            listens: None,
            lives: Some(Duration::from_millis(1)),
            exit_status: EXIT_EXEC,
            ..Self::default()
        }
    }

    /// It cuts its host off for as long as it runs.
    pub fn severs() -> Self {
        Self { severs: true, ..Self::default() }
    }

    /// It stops only when it is killed.
    pub fn ignores_sigterm() -> Self {
        Self { stops: Duration::MAX, ..Self::default() }
    }

    /// The same inside TLS, with a certificate for this name.
    #[must_use]
    pub fn over_tls(self, name: impl Into<String>) -> Self {
        Self { certificate: Some(name.into()), ..self }
    }

    /// The same, and each process logs these lines first.
    #[must_use]
    pub fn saying<S: Into<String>>(self, lines: impl IntoIterator<Item = S>) -> Self {
        Self { says: lines.into_iter().map(Into::into).collect(), ..self }
    }

    /// Whether a process of this age listens.
    pub(super) fn listens_at(&self, age: Duration) -> bool {
        self.listens.is_some_and(|delay| age >= delay)
    }

    /// What a process of this age answers; `None`: nothing at all.
    pub(super) fn status_at(&self, age: Duration) -> Option<u16> {
        match self.answer {
            Answer::Status(status) => Some(status),
            Answer::Flapping { good, bad, status } => {
                let turn = (good + bad).as_nanos().max(1);
                Some(if age.as_nanos() % turn < good.as_nanos() { 200 } else { status })
            }
            Answer::Hangs => None,
        }
    }
}

/// How systemd starts a program again that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// `RestartSec`.
    pub after: Duration,
    /// `StartLimitBurst`.
    pub burst: u32,
    /// `StartLimitIntervalSec`; 0 is no limit.
    pub interval: Duration,
}

impl Default for RestartPolicy {
    /// As our units say: a second between starts, and no limit to them.
    fn default() -> Self {
        Self { after: Duration::from_secs(1), burst: 5, interval: Duration::ZERO }
    }
}

/// A unit from one start by hand (or by boot) to the next.
#[derive(Debug, Clone)]
pub(super) struct Life {
    /// When its first process starts.
    pub(super) start: Moment,
    /// What runs.
    pub(super) program: Program,
    /// What it does.
    pub(super) behaviour: Behaviour,
    /// Of the first process.
    pub(super) pid: u32,
    /// How often systemd had started it again before.
    pub(super) restarts: u32,
    /// When it was active before the first process, and how that one ended; only while it waits.
    pub(super) before: Option<(Moment, End)>,
    /// How it is started again.
    pub(super) policy: RestartPolicy,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// systemd's `Result`.
    pub(super) result: &'static str,
    /// `ExecMainStatus`.
    pub(super) status: i32,
}

/// What a unit is at, at one moment of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A process runs.
    Running {
        /// Its number, from 0.
        index: u32,
        /// When it started.
        since: Moment,
    },
    /// One has ended and systemd will start the next.
    Waiting {
        /// The number of the one that ended.
        index: u32,
        /// When that one had started.
        since: Moment,
        /// How it ended.
        end: End,
    },
    /// systemd starts no more of them.
    GivenUp {
        /// How many there were.
        starts: u32,
        /// When the last one had started.
        since: Moment,
        /// How they ended.
        end: End,
    },
}

/// How far apart the process ids of two units are; a crashed program's next process counts up within it.
pub(super) const PID_STRIDE: u32 = 64;

impl Life {
    /// How a process that ends by itself ends.
    fn end(&self) -> End {
        let status = self.behaviour.exit_status;
        End { result: if status == 0 { "success" } else { "exit-code" }, status }
    }

    /// What it is at.
    pub(super) fn phase(&self, now: Moment) -> Phase {
        let Some(age) = now.checked_sub(self.start) else {
            let (since, end) = self.before.unwrap_or((self.start, self.end()));
            return Phase::Waiting { index: 0, since, end };
        };
        let Some(lives) = self.behaviour.lives else {
            return Phase::Running { index: 0, since: self.start };
        };
        let RestartPolicy { after, burst, interval } = self.policy;
        let period = (lives + after).max(Duration::from_nanos(1));
        let index = u32::try_from(age.as_nanos() / period.as_nanos()).unwrap_or(u32::MAX);
        // The start number `burst` comes `burst` periods after the first: too early, and systemd refuses it.
        if index >= burst && period.saturating_mul(burst) < interval {
            let since = self.start + period * burst.saturating_sub(1);
            return Phase::GivenUp { starts: burst, since, end: self.end() };
        }
        let since = self.start + period.saturating_mul(index);
        if now - since < lives {
            Phase::Running { index, since }
        } else {
            Phase::Waiting { index, since, end: self.end() }
        }
    }

    /// The age of the process that runs.
    pub(super) fn age(&self, now: Moment) -> Option<Duration> {
        match self.phase(now) {
            Phase::Running { since, .. } => Some(now - since),
            Phase::Waiting { .. } | Phase::GivenUp { .. } => None,
        }
    }

    /// The id of a process.
    pub(super) fn pid_of(&self, index: u32) -> u32 {
        self.pid + index % PID_STRIDE
    }

    /// As systemd tells it; `monotonic` says what the host's clock showed at a moment.
    pub(super) fn run_state(&self, now: Moment, monotonic: impl Fn(Moment) -> u64) -> RunState {
        let (active, sub, pid, since, restarts, end) = match self.phase(now) {
            Phase::Running { index, since } => {
                let end = End { result: "success", status: 0 };
                (ActiveState::Active, "running", Some(self.pid_of(index)), since, index, end)
            }
            Phase::Waiting { index, since, end } => (ActiveState::Activating, "auto-restart", None, since, index, end),
            Phase::GivenUp { starts, since, end } => (ActiveState::Failed, "failed", None, since, starts, end),
        };
        RunState {
            active,
            sub: sub.to_owned(),
            pid,
            since: monotonic(since),
            // systemd counts a restart when it comes, not while it waits for it.
            restarts: (self.restarts + restarts).saturating_sub(u32::from(now < self.start && self.restarts > 0)),
            result: end.result.to_owned(),
            exit_status: end.status,
            needs_reload: false,
            enabled: false,
        }
    }

    /// What it has logged by now, oldest first, at most the last `lines` lines.
    pub(super) fn logs(&self, now: Moment, lines: usize) -> Vec<String> {
        let (last, running) = match self.phase(now) {
            Phase::Running { index, .. } => (index, true),
            Phase::Waiting { index, .. } if now >= self.start => (index, false),
            Phase::Waiting { .. } => return Vec::new(),
            Phase::GivenUp { starts, .. } => (starts.saturating_sub(1), false),
        };
        // Each process logs a line at least, so no more of them than lines are needed.
        let first = last.saturating_sub(u32::try_from(lines).unwrap_or(u32::MAX));
        let unit = self.program.service.unit();
        let mut logged = Vec::new();
        for index in first..=last {
            logged.push(format!("Started {unit}, revision {}, process {}.", self.program.revision, self.pid_of(index)));
            logged.extend(self.behaviour.says.iter().cloned());
            if index < last || !running {
                logged.push(format!("{unit}: Main process exited, code=exited, status={}", self.behaviour.exit_status));
            }
        }
        if matches!(self.phase(now), Phase::GivenUp { .. }) {
            logged.push(format!("{unit}: Start request repeated too quickly."));
        }
        let surplus = logged.len().saturating_sub(lines);
        logged.split_off(surplus)
    }
}
