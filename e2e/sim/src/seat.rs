//! A seat for a controller: it is started there, dies, and is started again, as systemd would do it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use windlass_crds::id::MachineId;
use windlass_engine::audit::{AuditOptions, RETENTION, SigningKey};
use windlass_engine::{Tenant, serve_within};
use windlass_hosts::memory::{Caller, MemoryFleet};
use windlass_sources::{MemoryTrees, Sources};
use windlass_store::{InProcess, Machine};

use crate::chance::Chance;
use crate::history::History;
use crate::oracle::Oracle;
use crate::sight::Sight;
use crate::way::{Death, Way};

/// Where the time of day begins in a simulation: any time will do.
const BEGINNING: i64 = 1_800_000_000;

/// What every controller is started with.
#[derive(Clone)]
pub struct Ground {
    /// The store.
    pub store: Arc<InProcess>,
    /// The hosts.
    pub fleet: MemoryFleet,
    /// The sources.
    pub trees: MemoryTrees,
    /// Who watches.
    pub oracle: Arc<Oracle>,
    /// What happens.
    pub history: History,
    /// By chance.
    pub chance: Chance,
    /// When all began.
    pub began: Instant,
}

/// One controller, life after life.
pub struct Seat {
    way: Arc<Mutex<Way>>,
    stop: CancellationToken,
    running: AbortOnDropHandle<()>,
}

impl Seat {
    /// Starts a controller; `death` is how its first life ends.
    pub fn start(ground: &Ground, number: u32, death: Option<Death>) -> Self {
        let first = Way::new(&format!("c{number}"), &ground.chance, &ground.history, ground.began);
        if let Some(death) = death {
            first.dies_at(death);
        }
        let way = Arc::new(Mutex::new(first));
        let stop = CancellationToken::new();
        let lives = lives(ground.clone(), number, Arc::clone(&way), stop.clone());
        Self { way, stop, running: AbortOnDropHandle::new(tokio::spawn(lives)) }
    }

    /// The ways of its present life.
    pub fn way(&self) -> Way {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as an operator does.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.running.await;
    }
}

async fn lives(ground: Ground, number: u32, seat: Arc<Mutex<Way>>, stop: CancellationToken) {
    let chance = ground.chance.fork(&format!("seat {number}"));
    let mut life = 0;
    loop {
        let way = seat.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let dead = way.dead();
        tokio::select! {
            biased;
            () = dead => {}
            () = live(&ground, number, &way, &stop) => {}
        }
        if stop.is_cancelled() {
            return;
        }
        life += 1;
        let pause = chance.time(100..8000);
        ground.history.tell(format_args!("{} has ended; another starts in {} ms", way.name(), pause.as_millis()));
        way.kill();
        sleep(pause).await;
        let next = Way::new(&format!("c{number}.{life}"), &ground.chance, &ground.history, ground.began);
        *seat.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

/// Whoever asks what time it is so often at one moment does not wait for anything: a turn asks once.
const ROUND_AND_ROUND: u32 = 10_000;

/// One life.
async fn live(ground: &Ground, number: u32, way: &Way, stop: &CancellationToken) {
    let (ours, chance) = (way.clone(), ground.chance.fork(way.name()));
    let machine = Machine::simulated(move || ours.since_boot(), move || chance.number());
    let store = match ground.store.client(machine, Arc::new(way.clone())).await {
        Ok(store) => store,
        Err(error) => return ground.history.tell(format_args!("{}: {error}", way.name())),
    };
    let (clock, began) = (way.clone(), ground.began);
    let (history, moment) = (ground.history.clone(), Mutex::new((ground.began, 0_u32)));
    let now = move || {
        let mut moment = moment.lock().unwrap_or_else(PoisonError::into_inner);
        *moment = if moment.0 == Instant::now() { (moment.0, moment.1 + 1) } else { (Instant::now(), 0) };
        if moment.1 == ROUND_AND_ROUND {
            // No time passes for it, and so the run would never end either.
            history.violated(format_args!("{} goes round and round", clock.name()));
            clock.kill();
        }
        let passed = SignedDuration::try_from(began.elapsed()).unwrap_or_default();
        let off = SignedDuration::from_millis(clock.off());
        let beginning = Timestamp::from_second(BEGINNING).expect("it is a time");
        beginning.saturating_add(passed + off).unwrap_or(beginning)
    };
    let machine: MachineId = "00000000000000000000000000000001".parse().expect("it is an id");
    let fleet =
        Sight { fleet: ground.fleet.seen_by(Caller(number)), way: way.clone(), oracle: Arc::clone(&ground.oracle) };
    let tenant = Tenant {
        store,
        fleet: Arc::new(fleet),
        sources: Sources::in_memory(ground.trees.clone()),
        machine,
        name: way.name().to_owned(),
        // Each has a key of its own, as controllers on two machines have.
        audit: AuditOptions { key: SigningKey::from_seed([number.to_le_bytes()[0]; 32]), retention: RETENTION },
        clock: Arc::new(now),
    };
    ground.history.tell(format_args!("{} starts", way.name()));
    if let Err(error) = serve_within(tenant, stop.clone()).await {
        ground.history.tell(format_args!("{}: {error}", way.name()));
        // systemd waits too.
        sleep(Duration::from_secs(1)).await;
    }
}
