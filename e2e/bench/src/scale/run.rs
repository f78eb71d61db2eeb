//! One run over one store: everything is deployed, rests, is changed, is rolled out everywhere, and begins anew.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, Txn, TxnOp};

use super::crowd::{self, Crowd, WIDE, service_name};
use super::ground::{Ground, Kind};
use super::statuses::{Known, Statuses};
use crate::samples::Samples;

/// Puts of one transaction: what one may have.
const PAGE: usize = 100;

/// How long the first deploy of everything may take, and any rollout.
const DEPLOYED: Duration = Duration::from_secs(1200);

/// So long nothing is written by a controller that has come to rest.
const QUIET: Duration = Duration::from_secs(5);

/// How long it may take to come to rest, and to look at everything once.
const SETTLES: Duration = Duration::from_secs(120);

/// Between two questions how far it is.
const POLL: Duration = Duration::from_millis(100);

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// Changes a second.
    pub(crate) rate: u32,
    /// For so long.
    pub(crate) changing: Duration,
    /// How long it is watched at rest.
    pub(crate) resting: Duration,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) crowd: Crowd,
    pub(crate) course: Course,
    /// From the first declaration until everything was ready.
    pub(crate) deployed: Duration,
    /// Transactions while it rested.
    pub(crate) resting_transactions: u64,
    /// The part of one core that it used at rest.
    pub(crate) resting_load: f64,
    /// From each put to a status that speaks of it.
    pub(crate) observed: Samples,
    /// From each put until it was ready.
    pub(crate) ready: Samples,
    /// Transactions while it was changed, puts included.
    pub(crate) transactions: u64,
    /// Changes.
    pub(crate) changes: u32,
    /// The part of one core that it used meanwhile.
    pub(crate) changing_load: f64,
    /// Reconciles of which each came to nothing, a second.
    pub(crate) reconciles: f64,
    /// What they wrote.
    pub(crate) reconciles_wrote: u64,
    /// From a put to the last host.
    pub(crate) rollout: Duration,
    /// From the start until it led, its cache full.
    pub(crate) cached: Duration,
    /// From there until everything had been looked at.
    pub(crate) looked: Duration,
    /// Megabytes, at rest and at most.
    pub(crate) memory: [f64; 2],
}

/// Runs all of it.
///
/// # Errors
/// When something cannot be measured.
#[expect(clippy::print_stderr, reason = "it takes minutes, and says how far it is")]
pub(crate) async fn run(kind: Kind, crowd: Crowd, course: Course) -> Result<Found> {
    let mut ground = Ground::new(kind, crowd)?;
    ground.start()?;
    let mut client = ground.client().await?;
    let mut statuses = Statuses::hear(&mut client).await?;
    eprintln!("{kind}: {} Services on {} hosts are deployed", crowd.services, crowd.hosts);
    let deployed = deploy(&ground, &mut client, &mut statuses).await?;
    eprintln!("{kind}: {:.1} s; at rest for {:?}", deployed.as_secs_f64(), course.resting);
    quiet(&ground).await?;
    let resting = Measure::begin(&ground).await?;
    tokio::time::sleep(course.resting).await;
    let (resting_transactions, resting_load) = resting.end(&ground).await?;
    let resident = ground.memory("VmRSS")?;
    eprintln!("{kind}: {resident:.0} MB; {} changes a second for {:?}", course.rate, course.changing);
    let measure = Measure::begin(&ground).await?;
    let changed = change(&ground, course, &mut client, &mut statuses).await?;
    quiet(&ground).await?;
    let (transactions, changing_load) = measure.end(&ground).await?;
    eprintln!("{kind}: everything is looked at once more");
    let (reconciles, reconciles_wrote) = reconcile(&ground, &mut client).await?;
    eprintln!("{kind}: {reconciles:.0} a second; a rollout over {} hosts", crowd.hosts);
    let rollout = roll_out(&ground, &mut client, &mut statuses).await?;
    let peak = ground.memory("VmHWM")?;
    eprintln!("{kind}: {:.1} s; another start", rollout.as_secs_f64());
    quiet(&ground).await?;
    ground.stop()?;
    let cached = ground.start()?;
    let begun = Instant::now();
    while ground.reconciles()? < crowd.services as u64 {
        ensure!(begun.elapsed() < SETTLES, "after {SETTLES:?} not everything has been looked at");
        tokio::time::sleep(POLL).await;
    }
    let looked = begun.elapsed();
    let peak = peak.max(ground.memory("VmHWM")?);
    let Changed { observed, ready, changes } = changed;
    Ok(Found {
        kind,
        crowd,
        course,
        deployed,
        resting_transactions,
        resting_load,
        observed,
        ready,
        transactions,
        changes,
        changing_load,
        reconciles,
        reconciles_wrote,
        rollout,
        cached,
        looked,
        memory: [resident, peak],
    })
}

/// Declares everything, and waits until all is ready.
async fn deploy(ground: &Ground, client: &mut Client, statuses: &mut Statuses) -> Result<Duration> {
    let (crowd, sources) = (ground.crowd, ground.sources());
    let services = crowd.narrow().map(|number| crowd.service(number, 0, &sources)).chain([crowd.wide(0, &sources)]);
    let all: Vec<(String, String)> = crowd.surroundings().into_iter().chain(services).collect();
    let began = Instant::now();
    for page in all.chunks(PAGE) {
        let puts = page.iter().map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None));
        client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await.context("declaring")?;
    }
    let ready = |said: &Known| said.len() == crowd.services && said.values().all(|said| said.ready);
    statuses.until("the first deploy", DEPLOYED, ready).await?;
    Ok(began.elapsed())
}

/// Waits until nothing is written any more.
async fn quiet(ground: &Ground) -> Result<()> {
    let began = Instant::now();
    let mut last = ground.revision().await?;
    loop {
        tokio::time::sleep(QUIET).await;
        let now = ground.revision().await?;
        if now == last {
            return Ok(());
        }
        ensure!(began.elapsed() < SETTLES, "it still writes after {SETTLES:?}");
        last = now;
    }
}

/// What a stretch of time costs.
struct Measure {
    began: Instant,
    transactions: u64,
    processor: Duration,
}

impl Measure {
    async fn begin(ground: &Ground) -> Result<Self> {
        let (transactions, processor) = (ground.transactions().await?, ground.processor()?);
        Ok(Self { began: Instant::now(), transactions, processor })
    }

    /// Transactions, and the part of one core that was used.
    async fn end(self, ground: &Ground) -> Result<(u64, f64)> {
        let used = ground.processor()? - self.processor;
        let load = used.as_secs_f64() / self.began.elapsed().as_secs_f64();
        Ok((ground.transactions().await? - self.transactions, load))
    }
}

struct Changed {
    observed: Samples,
    ready: Samples,
    changes: u32,
}

/// Changes one Service after the other, each on another host than the one before, and waits until all are ready.
async fn change(ground: &Ground, course: Course, client: &mut Client, statuses: &mut Statuses) -> Result<Changed> {
    let (crowd, sources) = (ground.crowd, ground.sources());
    let changes = course.rate * course.changing.as_secs() as u32;
    ensure!((changes as usize) < crowd.services, "there are not so many Services");
    let pause = Duration::from_secs(1) / course.rate;
    let began = Instant::now();
    let mut sent = Vec::new();
    for number in 0..changes {
        // A prime apart, so that they are spread over all.
        let service = number as usize * 7919 % (crowd.services - 1);
        let (key, value) = crowd.service(service, 1, &sources);
        let put = Instant::now();
        let answer = client.put(key, value, None).await.context("declaring")?;
        let header = answer.header().context("an answer without a header")?;
        sent.push((service_name(service), header.revision() as u64, put));
        statuses.until_then(began + pause * (number + 1)).await?;
    }
    let done = |said: &Known| {
        sent.iter().all(|(name, generation, _)| {
            said.get(name).is_some_and(|said| said.generation >= *generation && said.ready)
        })
    };
    statuses.until("the changes", DEPLOYED, done).await?;
    let said = |name: &str| statuses.of(name).context("a Service of which nothing is said");
    let mut found = Changed { observed: Samples::default(), ready: Samples::default(), changes };
    for (name, _, put) in &sent {
        let said = said(name)?;
        found.observed.push(said.observed.saturating_duration_since(*put));
        found.ready.push(said.told.saturating_duration_since(*put));
    }
    Ok(found)
}

/// Has everything looked at though nothing has changed; how many a second, and what was written for it.
async fn reconcile(ground: &Ground, client: &mut Client) -> Result<(f64, u64)> {
    let (before, wrote) = (ground.reconciles()?, ground.revision().await?);
    let wanted = before + ground.crowd.services as u64;
    let began = Instant::now();
    client.put(crowd::zone_key(), crowd::zone(1), None).await.context("declaring")?;
    loop {
        let done = ground.reconciles()?;
        if done >= wanted {
            let rate = (done - before) as f64 / began.elapsed().as_secs_f64();
            // Ours, and what is said of the zone.
            return Ok((rate, (ground.revision().await? - wrote).saturating_sub(2)));
        }
        ensure!(began.elapsed() < SETTLES, "{} of {wanted} reconciles after {SETTLES:?}", done - before);
        tokio::time::sleep(POLL).await;
    }
}

/// Changes the Service that is on every host.
async fn roll_out(ground: &Ground, client: &mut Client, statuses: &mut Statuses) -> Result<Duration> {
    let (key, value) = ground.crowd.wide(1, &ground.sources());
    let began = Instant::now();
    let answer = client.put(key, value, None).await.context("declaring")?;
    let generation = answer.header().context("an answer without a header")?.revision() as u64;
    let done = |said: &Known| said.get(WIDE).is_some_and(|said| said.generation >= generation && said.ready);
    statuses.until("the rollout", DEPLOYED, done).await?;
    Ok(began.elapsed())
}
