//! The ways of one controller to the store and to its hosts: they can be slow, cut, silent or frozen, and a controller
//! can die at any point of them.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use windlass_store::{Cut, Gate, Passage};

use crate::chance::Chance;
use crate::history::History;

/// As late as this arrives what was sent, in milliseconds: long after somebody else leads.
const LATE: u64 = 90_000;

/// Before or after something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It never happens.
    Before,
    /// A step of a host arrives there long after, when somebody else may lead; of anything else it is the same as before.
    Late,
    /// It has happened, and the controller never hears of it.
    After,
}

/// Where a controller dies: at the so-manieth thing that it changes outside of itself, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    /// Which.
    pub deed: u64,
    /// On which side of it.
    pub side: Side,
}

/// How a way stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Standing {
    dead: bool,
    /// Nothing passes, in either direction, until it does.
    frozen: bool,
    /// The store cannot be reached.
    cut: bool,
    /// Of streams nothing is heard, and nobody is told that they broke.
    silent: bool,
    /// Counts how often streams broke.
    breaks: u64,
    /// Counts what it has changed.
    deeds: u64,
}

#[derive(Debug)]
struct State {
    death: Option<Death>,
    /// It dies when this is answered next.
    dies_on: Option<String>,
    /// Which deeds were steps of hosts.
    sent: Vec<u64>,
    /// Answers that are still to be lost.
    losing: u32,
    /// And messages of its watches.
    untold: u32,
    /// Since when its clock stands still, and how long it has stood before.
    clock: Clock,
}

#[derive(Debug, Default)]
struct Clock {
    stopped: Option<Instant>,
    behind: Duration,
    /// How far its time of day is off, in milliseconds.
    off: i64,
}

/// The ways of one life of a controller. Clones are the same.
#[derive(Clone)]
pub struct Way {
    name: Arc<str>,
    chance: Chance,
    history: History,
    began: Instant,
    standing: watch::Sender<Standing>,
    state: Arc<Mutex<State>>,
    at_once: bool,
}

impl Way {
    /// Ways that work, of a controller with this name.
    pub fn new(name: &str, chance: &Chance, history: &History, began: Instant) -> Self {
        let state =
            State { death: None, dies_on: None, sent: Vec::new(), losing: 0, untold: 0, clock: Clock::default() };
        Self {
            name: name.into(),
            chance: chance.fork(name),
            history: history.clone(),
            began,
            standing: watch::Sender::new(Standing::default()),
            state: Arc::new(Mutex::new(state)),
            at_once: false,
        }
    }

    /// The same where nothing takes any time.
    #[must_use]
    pub fn without_delays(self) -> Self {
        Self { at_once: true, ..self }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(change);
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Nothing of it gets anywhere any more.
    pub fn kill(&self) {
        self.set(|standing| standing.dead = true);
    }

    /// It dies at that point.
    pub fn dies_at(&self, death: Death) {
        self.state().death = Some(death);
    }

    /// So many things it has changed.
    pub fn deeds(&self) -> u64 {
        self.standing.borrow().deeds
    }

    /// Ends when it is about to change the so-manieth thing, or dies.
    pub async fn comes_to(&self, deed: u64) {
        let mut standing = self.standing.subscribe();
        let _ = standing.wait_for(|standing| standing.deeds > deed || standing.dead).await;
    }

    /// Ends when it dies.
    pub async fn dead(&self) {
        let mut standing = self.standing.subscribe();
        // The sender is ours.
        let _ = standing.wait_for(|standing| standing.dead).await;
    }

    /// Stops it as SIGSTOP would, its clock too where the whole machine stands still.
    pub fn freeze(&self, with_clock: bool) {
        if with_clock {
            self.state().clock.stopped = Some(Instant::now());
        }
        self.set(|standing| standing.frozen = true);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        let mut state = self.state();
        if let Some(since) = state.clock.stopped.take() {
            state.clock.behind += since.elapsed();
        }
        drop(state);
        self.set(|standing| standing.frozen = false);
    }

    /// Cuts the way to the store.
    pub fn cut(&self) {
        self.set(|standing| {
            standing.cut = true;
            standing.breaks += 1;
        });
    }

    /// Mends it.
    pub fn mend(&self) {
        self.set(|standing| {
            standing.cut = false;
            standing.silent = false;
        });
    }

    /// Breaks the streams that are open; new ones can be made at once.
    pub fn break_streams(&self) {
        self.set(|standing| standing.breaks += 1);
    }

    /// Lets streams say nothing any more.
    pub fn hush(&self) {
        self.set(|standing| standing.silent = true);
    }

    /// Loses the answers to the next things that it changes in the store.
    pub fn lose_answers(&self, count: u32) {
        self.state().losing = count;
    }

    /// Loses the next messages of its watches, which live on.
    pub fn loses_told(&self, count: u32) {
        self.state().untold = count;
    }

    /// Sets its time of day off.
    pub fn set_off(&self, milliseconds: i64) {
        self.state().clock.off = milliseconds;
    }

    /// How far its time of day is off.
    pub fn off(&self) -> i64 {
        self.state().clock.off
    }

    /// What its clock says that counts the time since boot.
    pub fn since_boot(&self) -> Duration {
        let state = self.state();
        let stopped = state.clock.stopped.map(|since| since.elapsed()).unwrap_or_default();
        // Everybody has been up for a while.
        (self.began.elapsed() + Duration::from_secs(1000)).saturating_sub(state.clock.behind + stopped)
    }

    /// Waits while nothing passes.
    async fn hold(&self, streams: bool) {
        let stands = |standing: &Standing| standing.dead || standing.frozen || (streams && standing.silent);
        let mut standing = self.standing.subscribe();
        let _ = standing.wait_for(|standing| !stands(standing)).await;
    }

    /// Something that changes something is about to be done. Says which it is.
    fn count(&self) -> u64 {
        let deed = self.deeds();
        self.set(|standing| standing.deeds += 1);
        deed
    }

    fn dies(&self, deed: u64, side: Side) -> bool {
        self.state().death == Some(Death { deed, side })
    }

    async fn die(&self, what: &str, side: Side) {
        self.history.tell(format_args!("{} dies {side:?} {what}", self.name));
        self.kill();
        self.hold(false).await;
    }

    /// Does something to a host, over this way.
    pub async fn reach<T>(&self, what: &str, changes: bool, doing: impl Future<Output = T>) -> T {
        self.pass_by(what, changes, doing, None::<fn()>).await
    }

    /// Does a step there; where it dies, and that is on its way, `left` is what it leaves behind.
    pub async fn send<T>(&self, what: &str, doing: impl Future<Output = T>, left: impl FnOnce()) -> T {
        self.pass_by(what, true, doing, Some(left)).await
    }

    async fn pass_by<T>(
        &self,
        what: &str,
        changes: bool,
        doing: impl Future<Output = T>,
        left: Option<impl FnOnce()>,
    ) -> T {
        self.hold(false).await;
        let deed = changes.then(|| self.count());
        if left.is_some() {
            self.state().sent.extend(deed);
        }
        if deed.is_some_and(|deed| self.dies(deed, Side::Late)) {
            if let Some(left) = left {
                left();
            }
            self.die(what, Side::Late).await;
        } else if deed.is_some_and(|deed| self.dies(deed, Side::Before)) {
            self.die(what, Side::Before).await;
        }
        let done = doing.await;
        if deed.is_some_and(|deed| self.dies(deed, Side::After)) {
            self.die(what, Side::After).await;
        }
        self.hold(false).await;
        done
    }

    /// Which of the things that it has changed were steps that can be on their way.
    pub fn sent(&self) -> Vec<u64> {
        self.state().sent.clone()
    }

    /// How late it arrives what it has sent last, before it died.
    pub fn late(&self) -> Duration {
        self.chance.time(0..LATE)
    }

    /// How long a message to the store is on its way: mostly not worth speaking of, now and then long.
    fn delay(&self) -> Duration {
        match self.chance.within(0..100) {
            0 => self.chance.time(100..3000),
            1..10 => self.chance.time(5..100),
            _ => self.chance.time(0..4),
        }
    }

    async fn question(self, call: String) -> Result<(), Cut> {
        if self.at_once {
            return Ok(());
        }
        sleep(self.delay()).await;
        self.hold(false).await;
        if self.standing.borrow().cut {
            return Err(Cut::Way);
        }
        if writes(&call) {
            let deed = self.count();
            if self.dies(deed, Side::Before) || self.dies(deed, Side::Late) {
                self.die(&call, Side::Before).await;
            }
            if self.dies(deed, Side::After) {
                self.state().dies_on = Some(call);
            }
        }
        Ok(())
    }

    async fn answer(self, call: String) -> Result<(), Cut> {
        if self.at_once {
            return Ok(());
        }
        if writes(&call) {
            if self.state().dies_on.as_ref() == Some(&call) {
                self.die(&call, Side::After).await;
            }
            let lost = {
                let mut state = self.state();
                let lost = state.losing > 0;
                state.losing = state.losing.saturating_sub(1);
                lost
            };
            if lost {
                self.history.tell(format_args!("{}: the answer to {call} is lost", self.name));
                return Err(Cut::Way);
            }
        }
        sleep(self.delay()).await;
        self.hold(false).await;
        if self.standing.borrow().cut { Err(Cut::Way) } else { Ok(()) }
    }

    async fn message(self, told: bool) -> Result<(), Cut> {
        self.hold(true).await;
        if self.standing.borrow().cut {
            return Err(Cut::Way);
        }
        let mut state = self.state();
        if told && state.untold > 0 {
            state.untold -= 1;
            return Err(Cut::Message);
        }
        Ok(())
    }
}

/// Whether a call may change something in the store.
fn writes(call: &str) -> bool {
    matches!(call, "KV/Txn" | "KV/Put" | "KV/DeleteRange" | "Lease/LeaseGrant" | "Lease/LeaseRevoke")
}

impl Gate for Way {
    fn pass(&self, call: &str, passage: Passage) -> BoxFuture<'static, Result<(), Cut>> {
        let (way, call) = (self.clone(), call.to_owned());
        match passage {
            Passage::Question => way.question(call).boxed(),
            Passage::Answer => way.answer(call).boxed(),
            Passage::Sent => way.message(false).boxed(),
            Passage::Told => way.message(call == "Watch/Watch").boxed(),
        }
    }

    fn broken(&self) -> BoxFuture<'static, ()> {
        let mut standing = self.standing.subscribe();
        let before = standing.borrow().breaks;
        let this = self.clone();
        async move {
            let _ = standing.wait_for(|standing| standing.breaks > before).await;
            // Who is frozen hears of it later.
            this.hold(false).await;
        }
        .boxed()
    }
}
