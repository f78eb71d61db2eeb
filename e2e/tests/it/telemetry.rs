//! What an operator sees of a deploy: spans at a collector, lines in the log, numbers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Collector, Serve, Span, World, service, within};
use windlass_testbed::{Authority, Validity};

use crate::PORT;

/// A rollout can be followed from its reconcile to each step, in traces, in the log and in numbers.
#[test]
fn a_deploy_is_told_in_traces_logs_and_metrics() -> Result<()> {
    let world = World::new(1)?;
    let collector = Collector::start()?;
    let program = world.program("web", "v1")?;
    world.declare_hosts()?;
    let generation = world.put(&service("web", PORT, program.dir(), &world.host_names()))?;
    let variable = |(name, value): (&str, String)| (name.to_owned(), value);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=sesame".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test".to_owned()),
    ];
    let mut controller = world.start(&Serve {
        name: "serve",
        arguments: vec!["--log-format".to_owned(), "json".to_owned()],
        environment: environment.into_iter().map(variable).collect(),
        ..Serve::default()
    })?;
    controller.wait_until_leading(Duration::from_secs(30))?;
    world.wait_ready("web", generation)?;

    // Session and logins are of the one host: one is kept, the other confirms. They are known by the time that the deploy is.
    let metrics = controller.get("/metrics")?.body;
    for line in ["windlass_ssh_connections 1", "windlass_ssh_logins_total{outcome=\"ok\"} 2"] {
        ensure!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    let sessions = metrics.lines().find_map(|line| line.strip_prefix("windlass_ssh_sessions "));
    let sessions: u32 = sessions.context("sessions are told")?.parse()?;
    ensure!((1..=4).contains(&sessions), "{sessions} sessions");

    // What is under way when it stops has no end to tell of: the service is asked how it is right after its deploy.
    within(Duration::from_secs(30), "every reconcile has ended", || {
        let metrics = controller.get("/metrics")?.body;
        ensure!(metrics.lines().any(|line| line == "windlass_queue_depth 0"), "{metrics}");
        Ok(())
    })?;
    let log = controller.log();
    controller.stop(Duration::from_secs(30))?;
    check_spans(&collector.spans()?)?;
    let tokens = collector.tokens();
    ensure!(!tokens.is_empty() && tokens.iter().all(|token| token == "sesame"), "{tokens:?}");
    check_log(&log)?;
    world.passed()
}

/// How a collector is spoken to, and where what comes must have gone.
const WAYS: [(&str, &str); 2] =
    [("http/protobuf", "/v1/traces"), ("grpc", "/opentelemetry.proto.collector.trace.v1.TraceService/Export")];

/// Spans reach a collector by HTTP and by gRPC, in the open and inside TLS; one whose certificate nobody vouches for
/// gets nothing, and that is told.
#[test]
fn spans_reach_a_collector_in_every_way() -> Result<()> {
    let world = World::new(0)?;
    let authority = Authority::create(&world.dir().join("tls"), "authority")?;
    let keys = authority.issue("collector", "collector", "IP:127.0.0.1", Validity::AMonth)?;
    let stranger = Authority::create(&world.dir().join("stranger"), "stranger")?;
    let trusted = authority.certificate.display().to_string();
    for (protocol, path) in WAYS {
        for collector in [Collector::start()?, Collector::start_with_tls(&keys)?] {
            let what = format!("{protocol} to {}", collector.endpoint());
            let log = send_to(&world, &collector, protocol, &trusted)?;
            let spans = collector.spans().context(what.clone())?;
            ensure!(spans.iter().any(|span| span.name == "reconcile"), "{what}: {spans:?}\n{log}");
            ensure!(spans.iter().all(|span| span.resource["service.name"] == "windlass"), "{what}: {spans:?}");
            ensure!(collector.paths().iter().all(|found| found == path), "{what}: {:?}", collector.paths());
            ensure!(collector.tokens().iter().any(|token| token == "sesame"), "{what}: {:?}", collector.tokens());
            ensure!(!log.contains("cannot be delivered"), "{what}: {log}");
        }
        let collector = Collector::start_with_tls(&keys)?;
        let log = send_to(&world, &collector, protocol, &stranger.certificate.display().to_string())?;
        ensure!(collector.spans()?.is_empty(), "{protocol}: a stranger's collector got {:?}", collector.spans()?);
        ensure!(log.contains("traces cannot be delivered"), "{protocol}: nothing was told:\n{log}");
    }
    world.passed()
}

/// Lets a controller do something while it sends to a collector, and hands out what it logged.
fn send_to(world: &World, collector: &Collector, protocol: &str, authorities: &str) -> Result<String> {
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", authorities.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=sesame".to_owned()),
    ];
    let name = "sender";
    let _ = std::fs::remove_file(world.dir().join("sender.log"));
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
    let mut controller = world.start(&Serve { name, environment, ..Serve::default() })?;
    controller.wait_until_leading(Duration::from_secs(30))?;
    let generation = world.put(&windlass_e2e::zone("198.18.0.0/15"))?;
    within(Duration::from_secs(30), "the zone is in force", || {
        ensure!(world.status("networkzones/internal")?.generation() == generation, "not yet");
        Ok(())
    })?;
    let log = world.dir().join("sender.log");
    controller.stop(Duration::from_secs(30))?;
    std::fs::read_to_string(log).context("its log")
}

fn check_spans(spans: &[Span]) -> Result<()> {
    let of = |name: &str, attributes: &[(&str, &str)]| {
        let has = |span: &&Span| {
            let is = |(name, value): &(&str, &str)| span.attributes.get(*name).is_some_and(|found| found == value);
            span.name == name && attributes.iter().all(is)
        };
        spans.iter().find(has).with_context(|| format!("no {name} {attributes:?} in {spans:#?}"))
    };
    let web = ("service", "default/web");
    let reconcile = of("reconcile", &[web, ("kind", "service"), ("purpose", "deploy"), ("outcome", "done")])?;
    ensure!(reconcile.parent.is_empty() && reconcile.attributes.contains_key("generation"), "{reconcile:?}");
    ensure!(reconcile.resource["service.name"] == "windlass", "{reconcile:?}");
    ensure!(reconcile.resource["deployment.environment"] == "test", "{reconcile:?}");
    let sequence = ("sequence", reconcile.attributes.get("sequence").context("a sequence")?.as_str());
    for verb in ["stage", "activate", "confirm"] {
        let step = of("step", &[web, ("host", "web1"), ("verb", verb), ("outcome", "done"), sequence])?;
        ensure!(step.parent == reconcile.id, "{verb} is part of another span than {reconcile:?}");
    }
    let verdict = of("verdict", &[web, ("host", "web1"), ("revision", "1"), ("outcome", "healthy"), sequence])?;
    ensure!(verdict.parent == reconcile.id, "{verdict:?}");
    of("reconcile", &[("kind", "host"), ("host", "web1")])?;
    let foreign = spans.iter().find(|span| !["reconcile", "step", "verdict"].contains(&span.name.as_str()));
    ensure!(foreign.is_none(), "{foreign:?}");
    Ok(())
}

fn check_log(log: &str) -> Result<()> {
    let mut lines = Vec::new();
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        lines.push(object);
    }
    let begun = lines.iter().find(|line| line["message"] == "rollout began").context("the rollout's begin")?;
    // What `jq 'select(.sequence == …)'` shows of the rollout.
    let of_rollout =
        lines.iter().filter(|line| line["sequence"] == begun["sequence"] && line["service"] == "default/web");
    let told: Vec<&str> = of_rollout.filter_map(|line| line["message"].as_str()).collect();
    for message in ["rollout began", "step done", "healthy", "rollout ended"] {
        ensure!(told.contains(&message), "no {message:?} in {told:?}");
    }
    ensure!(told.iter().filter(|message| **message == "step done").count() == 3, "{told:?}");
    ensure!(!log.contains("sesame"), "the collector's token is in the log");
    Ok(())
}

/// A host that stays away is told when it goes and when it is back, not each time that somebody looks.
#[test]
fn a_lost_host_is_told_once() -> Result<()> {
    let running = crate::Running::on(2)?;
    let lost = &running.world.hosts[1];
    let before = running.controller.log().lines().count();
    lost.partition()?;
    let name = lost.name();
    // How a try fails is the network's affair: nobody answers, or the machine next to us says that there is no way.
    let tries = || -> Result<u32> {
        let metrics = running.controller.get("/metrics")?.body;
        let counted = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("windlass_ssh_logins_total{outcome=")?.split_once("} "));
        let failed = counted.filter(|(outcome, _)| *outcome != "\"ok\"");
        Ok(failed.map(|(_, count)| count.parse::<u32>()).sum::<Result<u32, _>>()?)
    };
    within(Duration::from_secs(120), "the host was tried several times", || {
        let tried = tries()?;
        ensure!(tried >= 4, "{tried} tries");
        Ok(())
    })?;
    let log = running.controller.log();
    let about: Vec<&str> = log.lines().skip(before).filter(|line| line.contains(name)).collect();
    // Once for the Host and once for the Service on it, one no later than the other.
    let told = about.iter().filter(|line| line.contains("HostUnreachable")).count();
    ensure!(about.len() == 2 && told == 2, "{about:#?}");
    lost.mend()?;
    running.world.passed()
}
