//! The store against real etcd servers, 3.4 and 3.5: every test runs on both.

mod commit;
mod conformance;
mod connect;
mod embedded;
mod follow;
mod fuzz;
mod idle;
mod leadership;
mod mirror;
mod mvcc;
mod protocol;
mod proxy;
mod read;
mod serve;
mod subject;
mod write;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_crds::id::ResourceKey;
use windlass_store::{ConnectOptions, Key, Leadership, Store};
use windlass_testbed::{Etcd, EtcdOptions, EtcdVersion, Transport};

/// Long enough for a busy machine; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on both versions at once, each with an empty etcd and a runtime of its own.
#[track_caller]
pub(crate) fn check<Test, Running>(test: Test)
where
    Test: Fn(Arc<Etcd>) -> Running + Sync,
    Running: Future<Output = Result<()>>,
{
    check_with(Transport::Plain, test);
}

/// As [`check`], with one thread for everything: while the test asks etcd by another way, no task of ours runs.
#[track_caller]
pub(crate) fn check_on_one_thread<Test, Running>(test: Test)
where
    Test: Fn(Arc<Etcd>) -> Running + Sync,
    Running: Future<Output = Result<()>>,
{
    run_on_both(Transport::Plain, &tokio::runtime::Builder::new_current_thread, &test);
}

/// As [`check`], with a transport.
#[track_caller]
pub(crate) fn check_with<Test, Running>(transport: Transport, test: Test)
where
    Test: Fn(Arc<Etcd>) -> Running + Sync,
    Running: Future<Output = Result<()>>,
{
    let threads = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    };
    run_on_both(transport, &threads, &test);
}

#[track_caller]
fn run_on_both<Test, Running>(
    transport: Transport,
    builder: &(impl Fn() -> tokio::runtime::Builder + Sync),
    test: &Test,
) where
    Test: Fn(Arc<Etcd>) -> Running + Sync,
    Running: Future<Output = Result<()>>,
{
    let run = |version: EtcdVersion| -> Result<()> {
        let etcd = Arc::new(Etcd::start(EtcdOptions { version, transport })?);
        let runtime = builder().enable_all().build()?;
        runtime.block_on(test(etcd)).with_context(|| format!("etcd {version:?}"))
    };
    let outcomes: Vec<Result<()>> = thread::scope(|scope| {
        let threads = EtcdVersion::ALL.map(|version| scope.spawn(move || run(version)));
        threads.map(|thread| thread.join().expect("a test panicked")).into()
    });
    for outcome in outcomes {
        if let Err(error) = outcome {
            panic!("{error:?}");
        }
    }
}

pub(crate) async fn connect(etcd: &Etcd) -> Result<Store> {
    Ok(Store::connect(&ConnectOptions::new(etcd.endpoints())).await?)
}

/// A store and somebody who leads in it.
pub(crate) async fn lead(etcd: &Etcd) -> Result<(Store, Leadership)> {
    let store = connect(etcd).await?;
    let leadership = store.campaign("tester", Duration::from_secs(15)).await?;
    Ok((store, leadership))
}

pub(crate) fn host(name: &str) -> ResourceKey {
    ResourceKey::Host(name.parse().expect("a host's name"))
}

pub(crate) fn status(name: &str) -> Key {
    Key::Status(host(name))
}

/// Asks until the answer is yes, and fails after [`PATIENCE`].
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so().await? {
        ensure!(begun.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Freezes etcd, and waits until it is: threads that run when the signal comes stop a little later.
pub(crate) async fn freeze(etcd: &Etcd) -> Result<()> {
    etcd.freeze()?;
    let ask = ["--command-timeout=300ms", "--dial-timeout=300ms", "get", "x"];
    until("it is frozen", async || Ok(!etcd.try_etcdctl(&ask, None)?.success())).await
}

/// What an error says, down its chain.
pub(crate) fn report(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
