//! What is measured once, and is no race: sessions and bytes, rollback, memory, how soon things are seen.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_testbed::Host;

use crate::contestant::{Contestant, Job};
use crate::counted::Counters;
use crate::footprint;
use crate::ground::Ground;
use crate::report::{Figure, Report};
use crate::rollback;
use crate::rsync::Style;
use crate::samples::{Samples, milliseconds};
use crate::windlass::Windlass;

/// Where the service of these measurements listens; that of rsync listens one above.
const PORT: u16 = 8070;

/// How often a command is started.
const STARTS: usize = 20;

/// How often a declaration is put.
const PUTS: u32 = 10;

/// How often the program is stopped and started by hand, and a bad version is deployed.
const TIMES: u32 = 3;

/// How long anything may take that takes a moment.
const LIMIT: Duration = Duration::from_secs(30);

/// Measures all of them.
///
/// # Errors
/// When something cannot be measured.
#[expect(clippy::print_stderr, reason = "it takes a minute, and says how far it is")]
pub(crate) fn measure(ground: &Ground, hosts: u8, report: &mut Report) -> Result<()> {
    let windlass = ground.windlass()?;
    let tree = ground.tree("figures", 7, "0")?;
    eprintln!("figures: one changed file on one host");
    wire(ground, &windlass, report)?;
    let job = Job { name: "figures", port: PORT, tree: &tree, hosts: ground.hosts(hosts) };
    windlass.first(&job)?;
    eprintln!("figures: memory, start times, puts");
    memory(ground, hosts, report)?;
    starts(&windlass, report)?;
    observed(ground, &job, report)?;
    eprintln!("figures: rollback of a bad version");
    back(ground, &windlass, &job, report)?;
    windlass.remove(&job)
}

/// One changed file on one host, by a connection that has to be opened.
fn wire(ground: &Ground, windlass: &Windlass, report: &mut Report) -> Result<()> {
    let rsync = ground.rsync(Style::Steps);
    let trees = [ground.tree("wire-w", 8, "0")?, ground.tree("wire-r", 8, "0")?];
    let names = ["wire-w", "wire-r"];
    let job = |index: usize, hosts| Job { name: names[index], port: PORT + index as u16, tree: &trees[index], hosts };
    windlass.first(&job(0, ground.hosts(1)))?;
    rsync.first(&job(1, ground.hosts(1)))?;
    for tree in &trees {
        tree.say("1")?;
    }
    rsync.close(ground.hosts(1));
    ground.stop_controller()?;

    let before = Counters::read(&ground.hosts(1)[0])?;
    rsync.again(&job(1, ground.hosts(1)))?;
    rsync.close(ground.hosts(1));
    let by_rsync = Counters::read(&ground.hosts(1)[0])?.since(&before);

    let before = Counters::read(&ground.hosts(1)[0])?;
    ground.start_controller()?;
    windlass.again(&job(0, ground.hosts(1)))?;
    let by_windlass = Counters::read(&ground.hosts(1)[0])?.since(&before);
    for (index, _) in names.iter().enumerate() {
        ground.expect(ground.hosts(1), PORT + index as u16, "1")?;
    }
    windlass.remove(&job(0, ground.hosts(1)))?;
    rsync.remove(&job(1, ground.hosts(1)))?;
    rsync.close(ground.hosts(1));

    let told = |counters: &Counters| {
        let Counters { logins, sessions, received, sent } = counters;
        let kilobytes = |bytes: u64| bytes as f64 / 1000.0;
        format!(
            "{logins} logins, {sessions} sessions, {:.1} kB to the host, {:.1} kB back",
            kilobytes(*received),
            kilobytes(*sent)
        )
    };
    report.figures.push(Figure {
        what: "one changed file on one host, connecting included".to_owned(),
        found: told(&by_windlass),
        target: "1 login, 3 sessions, 15 kB; and a login with a session, 6 kB, that confirms".to_owned(),
        met: Some(by_windlass.logins <= 2 && by_windlass.sessions <= 4 && by_windlass.received <= 21_000),
    });
    report.figures.push(Figure::told("the same by rsync", told(&by_rsync)));
    Ok(())
}

/// The controller and its connections.
fn memory(ground: &Ground, hosts: u8, report: &mut Report) -> Result<()> {
    let found = footprint::of_controller(ground.controller(windlass_e2e::Controller::id)?, ground.world.dir())?;
    let megabytes = |kilobytes: u64| kilobytes as f64 / 1024.0;
    report.figures.push(Figure {
        what: format!("memory of the controller and its ssh processes ({}, {hosts} hosts)", found.processes),
        found: format!("{:.1} MiB RSS, {:.1} MiB PSS", megabytes(found.resident), megabytes(found.proportional)),
        target: "60 MB RSS".to_owned(),
        met: Some(found.resident * 1024 < 60_000_000),
    });
    Ok(())
}

/// How soon a command has ended that does next to nothing.
fn starts(windlass: &Windlass, report: &mut Report) -> Result<()> {
    for arguments in [&["--version"][..], &["--help"], &["get", "services"], &["get", "service/figures", "-o", "yaml"]]
    {
        let mut samples = Samples::default();
        for _ in 0..STARTS {
            let mut command = windlass.command(arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let began = Instant::now();
            let status = command.status().context("starting windlass")?;
            samples.push(began.elapsed());
            ensure!(status.success(), "windlass {} ended with {status}", arguments.join(" "));
        }
        report.figures.push(Figure {
            what: format!("windlass {}, from start to end", arguments.join(" ")),
            found: samples.to_string(),
            target: "20 ms".to_owned(),
            met: Some(samples.median() <= Duration::from_millis(20)),
        });
    }
    Ok(())
}

/// From a put by `etcdctl` to a status that speaks of it: every second one changes what runs.
fn observed(ground: &Ground, job: &Job<'_>, report: &mut Report) -> Result<()> {
    let mut samples = Samples::default();
    for number in 0..PUTS {
        let declared = Windlass::declaration(job)
            .with("/spec/rollout/revisionHistoryLimit", 10 + number)
            .with("/spec/runtime/env", serde_json::json!({"PUT": format!("{}", number / 2)}));
        let began = Instant::now();
        let generation = ground.world.put(&declared)?;
        while ground.world.service(job.name)?.generation() < generation {
            ensure!(began.elapsed() < LIMIT, "the controller does not see generation {generation}");
        }
        samples.push(began.elapsed());
        ground.world.wait_ready(job.name, generation)?;
    }
    report.figures.push(Figure {
        what: "etcdctl put to observedGeneration, both processes included".to_owned(),
        found: samples.to_string(),
        target: "1 s at most".to_owned(),
        met: Some(samples.most() < Duration::from_secs(1)),
    });
    Ok(())
}

/// From the verdict to the old version.
fn back(ground: &Ground, windlass: &Windlass, job: &Job<'_>, report: &mut Report) -> Result<()> {
    let host = &job.hosts[0];
    let mut restarts = Samples::default();
    for _ in 0..TIMES {
        restarts.push(restart(ground, host, job)?);
    }
    let mut returns = Samples::default();
    for _ in 0..TIMES {
        returns.push(rollback::measure(ground, windlass, job, "0")?);
        // What is blocked was that revision; the good files again are the old revision again.
        job.tree.say("0")?;
        windlass.again(job)?;
    }
    report.figures.push(Figure {
        what: format!("the verdict to the old version on all of {} hosts", job.hosts.len()),
        found: returns.to_string(),
        target: format!("2 s and a restart of the program, {}", milliseconds(restarts.median())),
        met: Some(returns.most() < Duration::from_secs(2) + restarts.median()),
    });
    Ok(())
}

/// Stop and start of the program alone, from outside.
fn restart(ground: &Ground, host: &Host, job: &Job<'_>) -> Result<Duration> {
    let unit = format!("windlass-default.{}.service", job.name);
    let began = Instant::now();
    host.run(&["systemctl", "restart", &unit])?;
    ground.await_answer(host, job.port, "0", LIMIT)?;
    Ok(began.elapsed())
}
