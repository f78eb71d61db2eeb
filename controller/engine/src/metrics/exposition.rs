//! The answer of `/metrics`: what was counted, beside how things stand at that moment, as OpenMetrics text.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use windlass_hosts::traffic::{Login, Traffic};

use super::{Counters, Label, Metrics};
use crate::census::Census;
use crate::health::Health;
use crate::queue::Backlog;

/// What the text is: <https://github.com/prometheus/OpenMetrics>, which Prometheus reads from 2.5 on.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How things stand.
#[derive(Debug)]
pub struct Now<'a> {
    /// The controller itself.
    pub health: &'a Health,
    /// What waits.
    pub backlog: Backlog,
    /// What is declared, and how it is.
    pub census: Census,
    /// Connections to hosts.
    pub traffic: Traffic,
}

/// Everything that is told.
pub fn exposition(metrics: &Metrics, now: &Now<'_>) -> String {
    let mut registry = Registry::default();
    let ours = registry.sub_registry_with_prefix("windlass");
    work(ours, metrics, now);
    hosts(ours, now);
    store(ours, metrics, now);
    audit(ours, metrics);
    ours.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    process(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes every text");
    text
}

/// The queue, reconciles, rollouts and steps.
fn work(registry: &mut Registry, metrics: &Metrics, now: &Now<'_>) {
    let Now { health, backlog, census, .. } = now;
    registry.register("leader", "1 where this controller leads, 0 where it stands by", gauge(health.leads().into()));
    let depth = (backlog.due + backlog.running) as u64;
    registry.register("queue_depth", "Keys that are due or being reconciled", gauge(depth));
    let waits = metrics.queue_waits.clone();
    let help = "Time from when a key was due to when a worker took it";
    registry.register_with_unit("queue_wait", help, Unit::Seconds, waits);
    let help = "Time that one reconcile took; that of a Service lasts as long as its rollout";
    registry.register_with_unit("reconcile_duration", help, Unit::Seconds, metrics.reconciles.clone());
    registry.register("rollouts", "Rollouts that ended, by purpose and outcome", metrics.rollouts.clone());
    registry.register("rollouts_active", "Rollouts that go on", gauge(census.active));
    registry.register("steps", "Steps on hosts that ended, by verb and outcome", metrics.steps.clone());
    let help = "Time that one step took, waiting for its host's turn included";
    registry.register_with_unit("step_duration", help, Unit::Seconds, metrics.step_durations.clone());
    registry.register("verdicts", "Verdicts on what was switched, by what was found", metrics.verdicts.clone());
    let help = "Time from the switch to the verdict";
    registry.register_with_unit("verdict_duration", help, Unit::Seconds, metrics.verdict_durations.clone());
    registry.register("services", "Services that are declared, by how they are", gauges("state", &census.services));
}

/// Hosts and the connections to them.
fn hosts(registry: &mut Registry, now: &Now<'_>) {
    let Traffic { connections, sessions, logins } = &now.traffic;
    registry.register("hosts", "Hosts that are declared, by how they are", gauges("state", &now.census.hosts));
    registry.register(
        "ssh_connections",
        "Connections to hosts that are open, an ssh process each",
        gauge(*connections),
    );
    registry.register("ssh_sessions", "Sessions that are open on those connections", gauge(*sessions));
    let tried: Counters<1> = Family::default();
    for login in Login::ALL {
        let count = logins.get(&login).copied().unwrap_or(0);
        tried.get_or_create(&[("outcome", login.as_str())]).inc_by(count);
    }
    registry.register("ssh_logins", "Attempts to connect to a host, by outcome", tried);
}

/// The store.
fn store(registry: &mut Registry, metrics: &Metrics, now: &Now<'_>) {
    let help = "Time that one request to etcd took";
    registry.register_with_unit("store_request_duration", help, Unit::Seconds, metrics.store_requests.clone());
    registry.register("store_errors", "Requests to etcd that failed, by problem", metrics.store_errors.clone());
    if let Some(silence) = now.health.silence() {
        let help = "Time since etcd was last heard; about 10 s at most where all is well";
        registry.register_with_unit("store_silence", help, Unit::Seconds, seconds(silence.as_secs_f64()));
    }
    let up = !now.health.store_is_away() && now.health.silence().is_some();
    registry.register("store_up", "1 where etcd is heard, 0 where it is away", gauge(up.into()));
}

/// The audit trail.
fn audit(registry: &mut Registry, metrics: &Metrics) {
    let help = "1 where the audit trail is signed with the key in the data directory, 0 where that cannot be used";
    registry.register("audit_key", help, metrics.audit_key.clone());
    let help = "Records and anchors that could not be added to the audit trail, by part; what they tell of was done";
    registry.register("audit_untold", help, metrics.audit_untold.clone());
}

/// The process, under the names that every exporter uses.
fn process(registry: &mut Registry) {
    // proc_pid_status(5): "VmRSS:	    5123 kB".
    let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    });
    if let Some(bytes) = resident {
        let help = "Memory that the controller itself holds, its ssh processes not included";
        registry.register_with_unit("process_resident_memory", help, Unit::Bytes, gauge(bytes));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        registry.register("process_open_fds", "Files, sockets and pipes that are open", gauge(files.count() as u64));
    }
}

fn gauge(value: u64) -> Gauge<i64> {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

fn seconds(value: f64) -> Gauge<f64, std::sync::atomic::AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

fn gauges(label: &'static str, counts: &BTreeMap<&'static str, u64>) -> Family<[Label; 1], Gauge<i64>> {
    let family: Family<[Label; 1], Gauge<i64>> = Family::default();
    for (value, count) in counts {
        family.get_or_create(&[(label, *value)]).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    family
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use windlass_crds::id::Kind;
    use windlass_crds::record::{Purpose, RolloutState};
    use windlass_crds::step::{StepError, Verb};
    use windlass_store::{Call, CallReport, Problem};

    use super::*;
    use crate::metrics::Judged;
    use crate::queue::Next;

    /// Everything that there is, with something in it.
    fn everything() -> String {
        let metrics = Metrics::default();
        let (short, long) = (Duration::from_millis(3), Duration::from_secs(900));
        metrics.reconciled(Kind::Service, Next::Never, long);
        metrics.reconciled(Kind::Host, Next::Retry, short);
        metrics.taken(short);
        metrics.stepped(Verb::Stage, Ok(()), short);
        metrics.stepped(Verb::Stage, Ok(()), long);
        metrics.stepped(Verb::Activate, Err(&StepError::Locked), long);
        metrics.judged(Judged::Unhealthy, long);
        metrics.rolled_out(Purpose::Rollback, RolloutState::Succeeded);
        metrics.untold(crate::metrics::Untold::Record);
        metrics.signs_for_now();
        metrics.called(&CallReport { call: Call::Txn, took: short, problem: Some(Problem::NoLeader) });
        let health = Health::default();
        health.heard();
        let traffic = Traffic { connections: 2, sessions: 5, logins: BTreeMap::from([(Login::Denied, 4)]) };
        let backlog = Backlog { due: 3, running: 2, oldest: None };
        let census = Census::of(vec![(Kind::Host, None)], 1);
        exposition(&metrics, &Now { health: &health, backlog, census, traffic })
    }

    /// One line with a value, taken apart.
    #[derive(Debug)]
    struct Sample {
        name: String,
        labels: BTreeMap<String, String>,
        value: f64,
    }

    /// Reads one line by the grammar of OpenMetrics; no label here holds a quote or a backslash.
    fn sample(line: &str) -> Sample {
        let (subject, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = match subject.split_once('{') {
            None => (subject, ""),
            Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
        };
        assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{line}");
        let label = |pair: &str| {
            let (name, value) = pair.split_once('=').expect(line);
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(line);
            assert!(!value.contains(['"', '\\', '\n']), "{line}");
            (name.to_owned(), value.to_owned())
        };
        let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(label).collect();
        Sample { name: name.to_owned(), labels, value: value.parse().expect(line) }
    }

    /// A family of metrics, as `# TYPE` names it.
    #[derive(Debug, Default)]
    struct Told {
        help: bool,
        kind: String,
        samples: Vec<Sample>,
    }

    /// Takes a whole answer apart.
    fn families(text: &str) -> BTreeMap<String, Told> {
        let mut families: BTreeMap<String, Told> = BTreeMap::new();
        let mut current = String::new();
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        for line in body.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(!families.contains_key(name), "{name} is told twice");
                    assert!(help.len() > 10, "{line}");
                    current = name.to_owned();
                    families.entry(current.clone()).or_default().help = true;
                }
                ["#", "TYPE", name, kind] => {
                    assert_eq!(name, current);
                    families.entry(current.clone()).or_default().kind = kind.to_owned();
                }
                ["#", "UNIT", name, unit] => assert!(name.ends_with(&format!("_{unit}")), "{line}"),
                ["#", ..] => panic!("{line}"),
                _ => {
                    let sample = sample(line);
                    assert!(sample.name.starts_with(&current), "{line} stands below {current}");
                    families.entry(current.clone()).or_default().samples.push(sample);
                }
            }
        }
        families
    }

    fn value(families: &BTreeMap<String, Told>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |sample: &&Sample| {
            sample.name == name
                && sample.labels.len() == labels.len()
                && labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|found| found == value))
        };
        families.values().flat_map(|told| &told.samples).find(matches).map(|sample| sample.value)
    }

    #[test]
    fn every_line_is_valid_and_histograms_are_cumulative() {
        let families = families(&everything());
        for (name, told) in &families {
            assert!(told.help && !told.samples.is_empty(), "{name}");
            match told.kind.as_str() {
                "counter" => assert!(told.samples.iter().all(|sample| sample.name == format!("{name}_total"))),
                "gauge" => assert!(told.samples.iter().all(|sample| sample.name == *name)),
                "info" => assert!(told.samples.iter().all(|sample| sample.name == format!("{name}_info"))),
                "histogram" => check_histogram(name, told),
                other => panic!("{name} is a {other}"),
            }
        }
        for (name, labels, expected) in [
            ("windlass_queue_depth", &[][..], 5.0),
            ("windlass_steps_total", &[("verb", "stage"), ("outcome", "done")], 2.0),
            ("windlass_steps_total", &[("verb", "activate"), ("outcome", "locked")], 1.0),
            ("windlass_steps_total", &[("verb", "remove"), ("outcome", "done")], 0.0),
            ("windlass_step_duration_seconds_sum", &[("verb", "stage")], 900.003),
            ("windlass_reconcile_duration_seconds_count", &[("kind", "host"), ("outcome", "failed")], 1.0),
            ("windlass_ssh_logins_total", &[("outcome", "denied")], 4.0),
            ("windlass_ssh_logins_total", &[("outcome", "ok")], 0.0),
            ("windlass_ssh_sessions", &[], 5.0),
            ("windlass_store_errors_total", &[("call", "txn"), ("problem", "no_leader")], 1.0),
            ("windlass_audit_key", &[], 0.0),
            ("windlass_audit_untold_total", &[("part", "record")], 1.0),
            ("windlass_audit_untold_total", &[("part", "anchor")], 0.0),
            ("windlass_hosts", &[("state", "unknown")], 1.0),
            ("windlass_hosts", &[("state", "ready")], 0.0),
            ("windlass_rollouts_active", &[], 1.0),
            ("windlass_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
        ] {
            assert_eq!(value(&families, name, labels), Some(expected), "{name} {labels:?}");
        }
        let resident = value(&families, "process_resident_memory_bytes", &[]).expect("Linux tells");
        assert!(resident > 1e6, "{resident}");
    }

    #[track_caller]
    fn check_histogram(name: &str, told: &Told) {
        let mut rows: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for Sample { name: found, labels, value } in &told.samples {
            let mut labels = labels.clone();
            match found.strip_prefix(name).expect(name) {
                "_bucket" => {
                    let bound: f64 = labels.remove("le").expect("a bound").parse().expect("a number");
                    rows.entry(labels).or_default().push((bound, *value));
                }
                "_count" => {
                    counts.insert(labels, *value);
                }
                "_sum" => {}
                other => panic!("{name}{other}"),
            }
        }
        assert_eq!(rows.keys().collect::<Vec<_>>(), counts.keys().collect::<Vec<_>>(), "{name}");
        for (labels, buckets) in rows {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?} {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&labels])), "{name} {labels:?}");
        }
    }

    /// Labels come from this program: no host, no Service.
    #[test]
    fn labels_have_few_values() {
        let known =
            ["kind", "outcome", "verb", "verdict", "purpose", "call", "problem", "state", "part", "version", "le"];
        for (name, told) in families(&everything()) {
            let labels: BTreeSet<&String> = told.samples.iter().flat_map(|sample| sample.labels.keys()).collect();
            assert!(labels.iter().all(|label| known.contains(&label.as_str())), "{name} {labels:?}");
        }
    }

    #[test]
    fn what_is_documented_is_what_there_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let text = std::fs::read_to_string(path).expect("docs/operations.md");
        let row = |line: &str| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned());
        let names = text.lines().filter_map(row);
        let documented: BTreeSet<String> =
            names.filter(|name| name.starts_with("windlass_") || name.starts_with("process_")).collect();
        let suffix = |kind: &str| match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let told: BTreeSet<String> =
            families(&everything()).into_iter().map(|(name, told)| name + suffix(&told.kind)).collect();
        assert_eq!(documented, told);
    }
}
