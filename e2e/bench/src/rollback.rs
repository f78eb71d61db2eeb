//! How long the old version is away once a bad one is known to be bad.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use windlass_e2e::Controller;

use crate::contestant::Job;
use crate::ground::Ground;
use crate::windlass::Windlass;

/// Between two questions to one host.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a bad version may take to be found out and taken back.
const LIMIT: Duration = Duration::from_secs(60);

/// How long from the first verdict until the last host answered with the old version for good.
///
/// The verdict is the controller's own, by the time in its log; the answers are seen from outside.
///
/// # Errors
/// When the bad version is not taken back.
pub(crate) fn measure(ground: &Ground, windlass: &Windlass, job: &Job<'_>, good: &str) -> Result<Duration> {
    let seen_before = ground.controller(Controller::log)?.len();
    job.tree.say("1-bad")?;
    let stop = AtomicBool::new(false);
    let back = scope(|scope| {
        let stop = &stop;
        let watch = |host| scope.spawn(move || last_return(|| ground.answer(host, job.port), good, stop));
        let watchers: Vec<_> = job.hosts.iter().map(watch).collect();
        let service = format!("service/{}", job.name);
        let ran = windlass.command(&["reconcile", &service, "--wait"]).output().context("starting windlass");
        // The command ends when the controller has said so, which is after the last host is back.
        let waited = job.hosts.iter().try_for_each(|host| ground.await_answer(host, job.port, good, LIMIT));
        stop.store(true, Ordering::Relaxed);
        let returns: Vec<_> = watchers.into_iter().map(|one| one.join().expect("asking does not panic")).collect();
        waited?;
        let code = ran?.status.code();
        ensure!(code == Some(1), "a deploy of a bad version ended with {code:?} and not with 1");
        returns.into_iter().flatten().max().context("the bad version never ran")
    })?;
    let log = ground.controller(Controller::log)?;
    let verdict = first_verdict(log.get(seen_before..).unwrap_or_default())?;
    Ok(back.duration_since(verdict).unsigned_abs())
}

/// Asks until it is told to stop; when the old version was back for the last time, if it ever was away.
fn last_return(ask: impl Fn() -> Option<String>, good: &str, stop: &AtomicBool) -> Option<Timestamp> {
    let (mut away, mut back) = (false, None);
    while !stop.load(Ordering::Relaxed) {
        let answer = ask();
        if answer.as_deref() != Some(good) {
            away = true;
        } else if std::mem::take(&mut away) {
            back = Some(Timestamp::now());
        }
        sleep(PAUSE);
    }
    back
}

/// When the controller first said that something is unhealthy.
fn first_verdict(log: &str) -> Result<Timestamp> {
    let Some(line) = log.lines().find(|line| line.contains(" unhealthy ")) else {
        bail!("the controller's log has no verdict");
    };
    let time = line.split_whitespace().next().unwrap_or_default();
    time.parse().with_context(|| format!("no time in front of {line}"))
}
