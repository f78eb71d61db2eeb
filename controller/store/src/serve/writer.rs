//! The one who writes: takes what has come together meanwhile, and flushes the disk once for all of it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::since_boot;
use crate::mvcc::{Done, Engine, Order, Refusal};

/// Requests that may wait to be written. Whoever comes then waits before he is taken in: 1024 of the largest would be
/// 1.5 GB, but so many large ones at once come from nobody.
const WAITING: usize = 1024;

/// Requests that are written at once. A flush of 256 small ones takes hardly longer than one.
const AT_ONCE: usize = 256;

/// What is to be written, and who waits for it.
enum Job {
    Order(Order, oneshot::Sender<Result<Done, Refusal>>),
    Compact(i64, oneshot::Sender<Result<Done, Refusal>>),
}

/// A way to the one who writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    revisions: watch::Sender<i64>,
}

impl Writer {
    /// Begins to write, on a thread of its own, until everybody who may ask is gone.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(super) fn begin(engine: Arc<Engine>) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let revisions = watch::Sender::new(engine.revision());
        let told = revisions.clone();
        std::thread::Builder::new().name("store".to_owned()).spawn(move || work(&engine, waiting, &told))?;
        Ok(Self { jobs, revisions })
    }

    /// Writes something, and answers once it would outlive a power cut.
    pub(super) async fn write(&self, order: Order) -> Result<Done, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Order(order, answer), answered).await
    }

    /// Forgets what nobody can see from a revision on.
    pub(super) async fn compact(&self, revision: i64) -> Result<Done, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Compact(revision, answer), answered).await
    }

    async fn ask(&self, job: Job, answered: oneshot::Receiver<Result<Done, Refusal>>) -> Result<Done, Refusal> {
        let stopped = || Refusal::Broken("the store has stopped".to_owned());
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Tells each revision once it is written; what comes quickly is told together.
    pub(super) fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.subscribe()
    }
}

fn work(engine: &Engine, mut waiting: mpsc::Receiver<Job>, told: &watch::Sender<i64>) {
    let mut jobs = Vec::with_capacity(AT_ONCE);
    while waiting.blocking_recv_many(&mut jobs, AT_ONCE) > 0 {
        let mut orders = Vec::with_capacity(jobs.len());
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            match job {
                Job::Order(order, answer) => {
                    orders.push(order);
                    answers.push(answer);
                }
                Job::Compact(revision, answer) => {
                    // What came before it is written before it.
                    write(engine, &mut orders, &mut answers, told);
                    // Nobody may wait for it any more.
                    let _ = answer.send(engine.compact(revision));
                }
            }
        }
        write(engine, &mut orders, &mut answers, told);
        if waiting.is_empty()
            && let Err(error) = engine.forget_some()
        {
            tracing::warn!(%error, "what was compacted stays on the disk for now");
        }
    }
}

fn write(
    engine: &Engine,
    orders: &mut Vec<Order>,
    answers: &mut Vec<oneshot::Sender<Result<Done, Refusal>>>,
    told: &watch::Sender<i64>,
) {
    if orders.is_empty() {
        return;
    }
    let done = engine.write(orders, since_boot());
    let now = engine.revision();
    told.send_if_modified(|revision| std::mem::replace(revision, now) != now);
    for (answer, done) in answers.drain(..).zip(done) {
        let _ = answer.send(done);
    }
    orders.clear();
}
