//! What a connection to a host costs while nobody uses it, and what a login costs that is made instead.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures::future::join_all;
use windlass_crds::host::Target;
use windlass_crds::id::ServiceKey;
use windlass_hosts::SshFleet;
use windlass_hosts::fleet::{Fleet as _, Look, Scrutiny};
use windlass_testbed::{Host, Testbed};

use crate::footprint;
use crate::machine::{self, Machine, processor_time};
use crate::report::{aligned, piped};

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct ConnectionsArguments {
    /// How many connections
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// To how many throwaway hosts they lead
    #[arg(long, default_value_t = 10)]
    hosts: u8,
    /// For how many seconds they are left alone
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// Logins that are measured: all of them are over before the first of their connections ends by itself.
const LOGINS: usize = 50;

/// What something took of processors: this side's, and all others', which are the hosts.
#[derive(Debug, Clone, Copy)]
struct Spent {
    here: Duration,
    there: Duration,
}

/// Runs it, and tells a table.
///
/// # Errors
/// When something cannot be measured.
pub(crate) fn run(arguments: &ConnectionsArguments, doc: Option<&Path>) -> Result<String> {
    let began = Instant::now();
    let testbed = Testbed::new().context("a testbed")?;
    let hosts = testbed.hosts(arguments.hosts).context("hosts")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("making a runtime")?;
    let ways = ways(&hosts, arguments.connections)?;
    let rows = runtime.block_on(measure(&ways, Duration::from_secs(arguments.rest)))?;
    let machine = Machine::here(&[(Path::new("ssh"), "-V")])?.told();
    let count = (arguments.connections, arguments.hosts);
    let told =
        format!("{machine}; {} connections to {} hosts; {} s in all.\n", count.0, count.1, began.elapsed().as_secs());
    if let Some(file) = doc {
        let text = format!("{}\n## The last run\n\n{told}\n{}", include_str!("connections.md"), piped(&rows));
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(format!("{told}\n{}", aligned(&rows)))
}

/// So many ways that are connections of their own: each with a folder of its own on its host.
fn ways(hosts: &[Host], count: usize) -> Result<Vec<Target>> {
    let way = |number: usize| {
        let host = &hosts[number % hosts.len()];
        let mut target = Target::inline(&format!("root@{}", host.address()).parse()?).context("a way to a host")?;
        target.key_file = Some(host.key_file().to_string_lossy().into_owned());
        target.host_keys = vec![host.host_key_line()?.parse()?];
        target.remote_dir = Some(format!("/opt/windlass-{number}"));
        Ok(target)
    };
    (0..count).map(way).collect()
}

/// Looks by each of these ways.
async fn look(fleet: &SshFleet, ways: &[Target]) -> Result<()> {
    let service: ServiceKey = "default/web".parse().context("a service")?;
    let look = Look { service, stamp: None, scrutiny: Scrutiny::Quick };
    let looks = join_all(ways.iter().map(|way| fleet.observe(way, &look))).await;
    looks.into_iter().try_for_each(|seen| seen.map(drop)).context("a look")
}

#[expect(clippy::print_stderr, reason = "it takes minutes, and says how far it is")]
async fn measure(ways: &[Target], rest: Duration) -> Result<Vec<[String; 2]>> {
    let count = ways.len();
    let mut rows = vec![["what", "found"].map(str::to_owned)];
    let mut tell = |what: String, found: String| {
        eprintln!("{what}: {found}");
        rows.push([what, found]);
    };

    let free = available()?;
    let kept = SshFleet::keeping(count).context("a fleet")?;
    let began = Instant::now();
    look(&kept, ways).await?;
    let took = began.elapsed();
    ensure!(kept.traffic().connections == count as u64, "{:?}", kept.traffic());
    tell(format!("opening {count} connections, with a look by each"), format!("{:.1} s", took.as_secs_f64()));

    let memory = footprint::of_controller(std::process::id(), &std::env::temp_dir())?;
    let all = free.saturating_sub(available()?);
    tell("memory of a kept connection here, resident".to_owned(), each(memory.resident, memory.processes));
    tell(
        "the same, with what processes share divided among them".to_owned(),
        each(memory.proportional, memory.processes),
    );
    tell("memory of a kept connection on its host".to_owned(), each(all.saturating_sub(memory.proportional), count));

    let spent = spend(async {
        tokio::time::sleep(rest).await;
        Ok(())
    })
    .await?;
    let share = |time: Duration| format!("{:.2} % of a processor", time.as_secs_f64() / rest.as_secs_f64() * 100.0);
    tell(format!("{count} connections that nobody uses, here"), share(spent.here));
    tell("the same, on all their hosts together".to_owned(), share(spent.there));

    let warm = spend(look(&kept, ways)).await?;
    tell("a look by a connection that is open, here".to_owned(), a_time(warm.here, count));
    tell("the same, on the host".to_owned(), a_time(warm.there, count));
    kept.close().await;

    let few = &ways[..LOGINS.min(count)];
    let fresh = SshFleet::keeping(0).context("a fleet")?;
    let cold = spend(look(&fresh, few)).await?;
    ensure!(fresh.traffic().connections == few.len() as u64, "some have ended: {:?}", fresh.traffic());
    tell("a login and a look, here".to_owned(), a_time(cold.here, few.len()));
    tell("the same, on the host".to_owned(), a_time(cold.there, few.len()));
    fresh.close().await;

    let minute = Duration::from_secs(60);
    let kept = spent.here.mul_f64(minute.as_secs_f64() / rest.as_secs_f64()) + warm.here;
    let anew = cold.here.mul_f64(count as f64 / few.len() as f64);
    let share = |time: Duration| format!("{:.1} % of a processor", time.as_secs_f64() / minute.as_secs_f64() * 100.0);
    tell(format!("so {count} hosts that are looked at once a minute, connections kept, here"), share(kept));
    tell("the same, a login for each look, here".to_owned(), share(anew));
    Ok(rows)
}

/// What a future takes of processors.
async fn spend(work: impl Future<Output = Result<()>>) -> Result<Spent> {
    let (ours, all) = (ours()?, machine::busy()?);
    work.await?;
    let here = self::ours()?.saturating_sub(ours);
    Ok(Spent { here, there: (machine::busy()? - all).saturating_sub(here) })
}

fn each(kilobytes: u64, count: usize) -> String {
    format!("{:.2} MB", kilobytes as f64 / 1000.0 / count as f64)
}

fn a_time(time: Duration, count: usize) -> String {
    format!("{:.1} ms of a processor", time.as_secs_f64() * 1000.0 / count as f64)
}

/// What this process, all that it has waited for, and the ssh processes that hold its connections have taken.
fn ours() -> Result<Duration> {
    let own = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let mut time = processor_time(&own, 4)?;
    for id in footprint::connections(&std::env::temp_dir())? {
        // One that has just ended is among those that were waited for, or is told by nobody any more.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) {
            time += processor_time(&stat, 2)?;
        }
    }
    Ok(time)
}

/// Memory that is left on this machine, in kB.
fn available() -> Result<u64> {
    // What was freed a moment ago is given back late.
    ensure!(Command::new("sync").status().context("sync")?.success(), "sync");
    let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    footprint::field(&text, "MemAvailable:")
}
