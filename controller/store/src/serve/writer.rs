//! The one who writes: takes what has come together meanwhile, and flushes the disk once for all of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::machine::Machine;
use crate::mvcc::{Done, Engine, LeaseNumber, Order, Refusal, Request};

/// Requests that may wait to be written. Whoever comes then waits before he is taken in.
const WAITING: usize = 1024;

/// Bytes that those may have together, and so what is written at once too: forty of the largest, and far more than 1024
/// of what is usual.
const WAITING_BYTES: usize = 64 << 20;

/// Requests that are written at once. A flush of 256 small ones takes hardly longer than one.
const AT_ONCE: usize = 256;

/// What is to be written, and who waits for it.
enum Job {
    Order(Order, Waiting),
    Compact(i64, oneshot::Sender<Result<Done, Refusal>>),
    /// Ends leases that nobody has kept, all in one flush.
    Expire(Vec<LeaseNumber>, oneshot::Sender<Result<(), Refusal>>),
}

/// Who waits for an order, and its part of [`WAITING_BYTES`].
struct Waiting {
    answer: oneshot::Sender<Result<Done, Refusal>>,
    room: OwnedSemaphorePermit,
}

/// Who does the jobs.
#[derive(Debug, Clone)]
enum Jobs {
    /// A thread, which takes all that has come together.
    Thread(mpsc::Sender<Job>),
    /// Whoever asks, one after the other.
    Here(Arc<Engine>, Machine),
}

/// A way to the one who writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: Jobs,
    room: Arc<Semaphore>,
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
        Ok(Self { jobs: Jobs::Thread(jobs), room: Arc::new(Semaphore::new(WAITING_BYTES)), revisions })
    }

    /// Writes whatever is asked at once, where it is asked.
    pub(super) fn here(engine: Arc<Engine>, machine: Machine) -> Self {
        let revisions = watch::Sender::new(engine.revision());
        Self { jobs: Jobs::Here(engine, machine), room: Arc::new(Semaphore::new(WAITING_BYTES)), revisions }
    }

    /// Writes something, and answers once it would outlive a power cut.
    pub(super) async fn write(&self, order: Order) -> Result<Done, Refusal> {
        // One that is larger than all of it waits until nobody else does.
        let bytes = u32::try_from(order.bytes().min(WAITING_BYTES)).expect("some megabytes");
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.expect("it is never closed");
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Order(order, Waiting { answer, room }), answered).await
    }

    /// Forgets what nobody can see from a revision on.
    pub(super) async fn compact(&self, revision: i64) -> Result<Done, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Compact(revision, answer), answered).await
    }

    /// Takes away leases that nobody has kept. Those that somebody has revoked meanwhile, or granted anew, are left alone.
    pub(super) async fn expire(&self, leases: Vec<LeaseNumber>) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Job::Expire(leases, answer), answered).await
    }

    async fn ask<T>(&self, job: Job, answered: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
        let stopped = || Refusal::Broken("the store has stopped".to_owned());
        match &self.jobs {
            Jobs::Thread(jobs) => jobs.send(job).await.map_err(|_| stopped())?,
            Jobs::Here(engine, machine) => do_jobs(engine, &mut vec![job], &self.revisions, machine),
        }
        answered.await.map_err(|_| stopped())?
    }

    /// Tells each revision once it is written; what comes quickly is told together.
    pub(super) fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.subscribe()
    }
}

fn work(engine: &Engine, mut waiting: mpsc::Receiver<Job>, told: &watch::Sender<i64>) {
    let machine = Machine::default();
    let mut jobs = Vec::with_capacity(AT_ONCE);
    while waiting.blocking_recv_many(&mut jobs, AT_ONCE) > 0 {
        do_jobs(engine, &mut jobs, told, &machine);
    }
}

fn do_jobs(engine: &Engine, jobs: &mut Vec<Job>, told: &watch::Sender<i64>, machine: &Machine) {
    let mut orders = Vec::with_capacity(jobs.len());
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs.drain(..) {
        match job {
            Job::Order(order, waiting) => {
                orders.push(order);
                answers.push(waiting);
            }
            Job::Compact(revision, answer) => {
                // What came before it is written before it.
                write(engine, &mut orders, &mut answers, (told, machine));
                // Nobody may wait for it any more.
                let _ = answer.send(engine.compact(revision));
            }
            Job::Expire(leases, answer) => {
                write(engine, &mut orders, &mut answers, (told, machine));
                let _ = answer.send(expire(engine, &leases, (told, machine)));
            }
        }
    }
    write(engine, &mut orders, &mut answers, (told, machine));
}

fn write(
    engine: &Engine,
    orders: &mut Vec<Order>,
    answers: &mut Vec<Waiting>,
    (told, machine): (&watch::Sender<i64>, &Machine),
) {
    if orders.is_empty() {
        return;
    }
    let done = engine.write(orders, machine.since_boot());
    tell(engine, told);
    orders.clear();
    for (Waiting { answer, room }, done) in answers.drain(..).zip(done) {
        drop(room);
        let _ = answer.send(done);
    }
}

fn expire(
    engine: &Engine,
    leases: &[LeaseNumber],
    (told, machine): (&watch::Sender<i64>, &Machine),
) -> Result<(), Refusal> {
    let order = |lease: &LeaseNumber| Order { request: Request::Expire(*lease), author: None };
    let done = engine.write(&leases.iter().map(order).collect::<Vec<_>>(), machine.since_boot());
    tell(engine, told);
    let failed = |refusal: &Refusal| *refusal != Refusal::LeaseNotFound;
    done.into_iter().find_map(|done| done.err().filter(failed)).map_or(Ok(()), Err)
}

/// Says how far the store is, where that is further than was said.
fn tell(engine: &Engine, told: &watch::Sender<i64>) {
    let now = engine.revision();
    told.send_if_modified(|revision| std::mem::replace(revision, now) != now);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;
    use crate::mvcc::{Field, MOST_BYTES, Memory, Put};

    fn large(number: usize) -> Order {
        let (value, lease) = (Field::New(vec![0; MOST_BYTES].into()), Field::New(LeaseNumber::NONE));
        let put = Put { key: number.to_string().into(), value, lease, tell_previous: false };
        Order { request: Request::Put(put), author: None }
    }

    #[tokio::test]
    async fn what_waits_has_a_bound() {
        let (jobs, mut waiting) = mpsc::channel(WAITING);
        let writer = Writer {
            jobs: Jobs::Thread(jobs),
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            revisions: watch::Sender::new(1),
        };
        let writes = || join_all((0..100).map(|number| writer.write(large(number))));
        // Polled once, each goes as far as it can while nobody writes.
        assert!(tokio::time::timeout(Duration::ZERO, writes()).await.is_err());
        let taken_in = std::iter::from_fn(|| waiting.try_recv().ok()).count();
        assert_eq!(taken_in, WAITING_BYTES / large(0).bytes());
        let engine = Engine::open(Box::new(Memory::default()), Duration::ZERO).expect("an empty store");
        let writer = Writer::begin(Arc::new(engine)).expect("a thread");
        let done = join_all((0..100).map(|number| writer.write(large(number)))).await;
        assert!(done.iter().all(Result::is_ok), "who waits comes in once there is room");
        assert_eq!(writer.room.available_permits(), WAITING_BYTES);
    }
}
