//! The audit trail on a real etcd: what is told, by whom, and that it is whole whatever happens to the controller.

use std::collections::BTreeSet;
use std::time::Duration;

use windlass_crds::actor::Actor;
use windlass_crds::audit::verify::{Against, Finding, Place, Report, Verifier};
use windlass_crds::audit::{Chain, DeclaredState, Outcome, Record, Sealed, What};
use windlass_crds::condition::Reason;
use windlass_crds::id::RevisionNumber;
use windlass_crds::record::{Purpose, RolloutState};
use windlass_crds::request::Request;
use windlass_engine::audit::holds;
use windlass_hosts::memory::Behaviour;
use windlass_store::{Entry, Key, Scope, Section};

use crate::world::{World, resource};

const WEB: &str = "services/default/web";

/// Everything in the trail, by its key.
async fn stored(world: &World) -> anyhow::Result<Vec<Entry>> {
    Ok(world.store.list(&Scope::section(Section::Audit)).await?.entries)
}

/// What a chain tells, in its order.
async fn told(world: &World, path: &str) -> anyhow::Result<Vec<Record>> {
    let chain = Chain::from_path(path)?;
    let entries = world.store.list(&Scope::chain(&chain)).await?.entries;
    let records = entries.iter().filter(|entry| entry.value != STRAY);
    records.map(|entry| Ok(Sealed::of(&entry.value)?.record()?)).collect()
}

/// What somebody else puts into the trail.
const STRAY: &[u8] = b"stray";

/// Puts a stray key into a chain.
fn put_stray(world: &World, path: &str, name: &str) -> anyhow::Result<()> {
    world.etcd.etcdctl(&["put", &format!("/windlass/audit/{path}/{name}"), "stray"])?;
    Ok(())
}

/// What is found, in words.
async fn findings(world: &World) -> anyhow::Result<Vec<String>> {
    Ok(verify(world).await?.findings.iter().map(ToString::to_string).collect())
}

/// The same without what links it.
async fn whats(world: &World, path: &str) -> anyhow::Result<Vec<(Actor, What)>> {
    let records = told(world, path).await?;
    Ok(records.into_iter().flat_map(|record| record.entries).map(|entry| (entry.who, entry.what)).collect())
}

async fn verify(world: &World) -> anyhow::Result<Report> {
    let mut verifier = Verifier::new(holds, Against::default());
    for entry in stored(world).await? {
        let place = match entry.key {
            Key::Audit(chain, number) => Place::Key(chain, number),
            other => Place::Stray(other.to_string()),
        };
        verifier.take(place, &entry.value);
    }
    Ok(verifier.end())
}

/// The trail is whole, and every record of it is anchored.
pub(crate) async fn is_whole(world: &World) -> anyhow::Result<()> {
    world
        .until("everything to be anchored", async || verify(world).await.is_ok_and(|report| report.unanchored == 0))
        .await?;
    let report = verify(world).await?;
    assert_eq!(report.findings, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_asked_and_done_is_told() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let entries = whats(&world, WEB).await?;
    let lines: Vec<String> = entries.iter().map(|(who, what)| format!("{who}: {what}")).collect();
    assert!(lines[0].starts_with("somebody (unverified): declared it, "), "{lines:#?}");
    assert!(lines[1].starts_with("the controller: accepted revision 1, files "), "{lines:#?}");
    assert!(lines[2].starts_with("the controller: began rollout 1 (deploy) to revision 1, plan "), "{lines:#?}");
    assert_eq!(lines[3], "the controller: ended rollout 1: succeeded; web1 healthy, web2 healthy");
    assert_eq!(lines.len(), 4, "{lines:#?}");

    // A bad version goes back, and each host is told of.
    world.fleet.choose_behaviours(|program| match program.revision {
        RevisionNumber(2) => Behaviour::unhealthy(500),
        _ => Behaviour::default(),
    });
    world.write("server.py", "print('bad')");
    world.settles("web", Reason::RolledBack).await?;
    let entries = whats(&world, WEB).await?;
    let ended = entries.iter().find_map(|(_, what)| match what {
        What::Ended { state: RolloutState::Unhealthy, hosts, .. } => Some(hosts.clone()),
        _ => None,
    });
    let ended = ended.expect("it ended");
    assert_eq!(ended[&"web1".parse()?].outcome, Outcome::Unhealthy, "{ended:?}");
    assert_eq!(ended[&"web2".parse()?].outcome, Outcome::Untouched, "{ended:?}");
    assert!(entries.iter().any(|(_, what)| matches!(what, What::Blocked { revision: RevisionNumber(2), .. })));
    let back = |what: &What| matches!(what, What::Opened { purpose: Purpose::Rollback, .. });
    assert!(entries.iter().any(|(who, what)| *who == Actor::Controller && back(what)));
    is_whole(&world).await?;
    let led = whats(&world, "leader").await?;
    assert!(matches!(&led[..], [(Actor::Controller, What::Led { name, .. })] if name == "test"), "{led:?}");
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_by_its_fields_and_a_bad_one_by_where_it_is_bad() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let text = world.declared("web").await?;
    let put = async |text: String| world.store.declare(&resource(WEB), text.into()).await;
    let count = async || told(&world, WEB).await.map_or(0, |records| records.len());

    // The values of the environment and of arguments are nobody's business.
    let more = "  deletionPolicy: keep\n";
    let expected =
        r#"declared spec.deletionPolicy: "remove" -> "keep", spec.runtime.args: set, spec.runtime.env.TOKEN: set"#;
    let changed = text
        .replace("target: python,", "target: python, env: {TOKEN: s3cr3t-sentinel}, args: [--token=s3cr3t-sentinel],");
    put(format!("{changed}{more}")).await?;
    world.settles_at("web", Reason::Converged, 2).await?;
    let entries = whats(&world, WEB).await?;
    let lines: Vec<String> = entries.iter().map(|(_, what)| what.to_string()).collect();
    assert!(lines.contains(&expected.to_owned()), "{lines:#?}");
    for entry in stored(&world).await? {
        assert!(!String::from_utf8_lossy(&entry.value).contains("s3cr3t-sentinel"), "{}", entry.key);
    }

    let before = count().await;
    put(changed.replace("entryPoint: server.py", "entryPoint: server.py, entrypoint: s3cr3t-sentinel")).await?;
    world.until("it to be refused", async || count().await > before).await?;
    let records = told(&world, WEB).await?;
    let last = records.last().expect("a record");
    assert_eq!(last.declared.map(|standing| standing.state), Some(DeclaredState::Refused));
    let What::Refused { problems, .. } = &last.entries[0].what else { panic!("{last:?}") };
    assert_eq!(problems[0].reason, Reason::UnknownField, "{problems:?}");
    assert!(problems[0].field.starts_with("line 7 column "), "{problems:?}");
    for entry in stored(&world).await? {
        assert!(!String::from_utf8_lossy(&entry.value).contains("s3cr3t-sentinel"), "{}", entry.key);
    }

    // The same once more, and what was in force before: told by who puts it, with nothing that differs.
    put(format!("{changed}{more}")).await?;
    let again = async || {
        let entries = whats(&world, WEB).await.unwrap_or_default();
        entries.last().is_some_and(|(_, what)| what.to_string() == "declared the same again")
    };
    world.until("it to be told", again).await?;
    is_whole(&world).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_told_by_what_changes_and_so_are_deletions() -> anyhow::Result<()> {
    let world = World::start(&["web1", "web2"]).await?;
    let told = async || whats(&world, "hosts/web1").await.is_ok_and(|entries| !entries.is_empty());
    world.until("web1 to be told", told).await?;
    let text = "{apiVersion: windlass/v1, kind: Host, metadata: {name: web1, labels: {role: db}}, spec: {address: 198.18.0.1, port: 2222}}";
    // Another controller knows it by the record.
    let world = world.restart().await?;
    let last = async || {
        let entries = whats(&world, "hosts/web1").await.unwrap_or_default();
        entries.last().map(|(_, what)| what.to_string()).unwrap_or_default()
    };
    world.store.declare(&resource("hosts/web1"), text.into()).await?;
    let expected = r#"declared metadata.labels.role: "web" -> "db", spec.port: "#;
    world.until("the change to be told", async || last().await.starts_with(expected)).await?;
    world.store.delete_declaration(&resource("hosts/web1")).await?;
    world.until("the deletion to be told", async || last().await == "deleted the declaration").await?;
    is_whole(&world).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_whether_they_were_done_or_refused() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    world.ask(WEB, &Request::Pause).await?;
    world.ask(WEB, &Request::Undo { revision: Some(RevisionNumber(9)), from: None }).await?;
    world.ask("hosts/web1", &Request::Pause).await?;
    world.ask("hosts/nobody", &Request::Reconcile).await?;
    let lines: Vec<String> = whats(&world, WEB).await?.iter().map(|(who, what)| format!("{who}: {what}")).collect();
    assert!(lines.contains(&"somebody (unverified): asked: pause".to_owned()), "{lines:#?}");
    let refused = "somebody (unverified): asked: undo revision=9; refused: undo: there is no revision 9 any more";
    assert!(lines.contains(&refused.to_owned()), "{lines:#?}");
    let lines: Vec<String> = whats(&world, "hosts/web1").await?.iter().map(|(_, what)| what.to_string()).collect();
    assert!(lines.contains(&"asked: pause; refused: pause: only a Service can be asked this".to_owned()), "{lines:#?}");
    let lines: Vec<String> = whats(&world, "hosts/nobody").await?.iter().map(|(_, what)| what.to_string()).collect();
    assert_eq!(lines, ["asked: reconcile; refused: reconcile: host/nobody is not declared"]);
    is_whole(&world).await?;
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_taken_down_is_told_to_its_end_and_comes_again_in_its_chain() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    world.delete("web").await?;
    world.vanishes("web").await?;
    let lines: Vec<String> = whats(&world, WEB).await?.iter().map(|(_, what)| what.to_string()).collect();
    assert!(lines.contains(&"deleted the declaration".to_owned()), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("removed the last of it"), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| *line == "deleted the declaration").count(), 1, "{lines:#?}");
    // Another term, and another life of the same name.
    let world = world.restart().await?;
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let records = told(&world, WEB).await?;
    let numbers: Vec<u64> = records.iter().map(|record| record.link.number.0).collect();
    assert_eq!(numbers, (1..=records.len() as u64).collect::<Vec<_>>());
    assert_eq!(records.iter().map(|record| record.term).collect::<BTreeSet<_>>().len(), 2);
    is_whole(&world).await?;
    world.stop().await
}

/// What stands behind a change that is told while a stream of others goes by: anchors come seldom there, and the rest is
/// anchored once it is quiet.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_anchored_once_it_is_over_and_then_nothing_is_written() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    for number in 0..60 {
        let text = format!(
            "{{apiVersion: windlass/v1, kind: NetworkZone, metadata: {{name: z{number}}}, spec: {{location: vpn, cidrs: [10.{number}.0.0/16]}}}}"
        );
        world.store.declare(&resource(&format!("networkzones/z{number}")), text.into()).await?;
    }
    let all = async || {
        let stored = stored(&world).await.unwrap_or_default();
        (0..60).all(|number| {
            let chain = Chain::Resource(resource(&format!("networkzones/z{number}")));
            stored.iter().any(|entry| matches!(&entry.key, Key::Audit(of, _) if *of == chain))
        })
    };
    world.until("every zone to be told", all).await?;
    is_whole(&world).await?;
    let report = verify(&world).await?;
    let anchors = report.last.map_or(0, |(number, _)| number.0);
    assert!(anchors < 60, "{anchors} anchors");
    let before = world.etcd.revision()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.etcd.revision()?, before, "what is anchored is not anchored again");
    world.stop().await
}

/// However many change at once: what the last of them tells is anchored by the same commit.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_rollout_of_many_anchors_them_all() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    let names: Vec<String> = (0..12).map(|number| format!("web{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        world.apply_speaking(&format!("{{port: {}, transport: http}}", 9000 + number), name, "").await?;
    }
    for name in &names {
        world.settles(name, Reason::Converged).await?;
    }
    let before = world.etcd.revision()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.etcd.revision()?, before, "it took a commit more");
    is_whole(&world).await?;
    world.stop().await
}

/// Who has put something into the trail keeps nobody from writing on, and it is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_record_is_found_and_holds_nobody_up() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    is_whole(&world).await?;
    let next = told(&world, WEB).await?.len() + 1;
    let forged = format!("/windlass/audit/{WEB}/{next:012}");
    world.etcd.etcdctl(&["put", &forged, "forged"])?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    let findings: Vec<String> = verify(&world).await?.findings.iter().map(ToString::to_string).collect();
    assert!(findings[0].starts_with(&format!("service/web, record {next}: it is not a record")), "{findings:#?}");
    world.stop().await
}

/// The end of a chain is found behind what lies there, by whoever leads next too.
#[tokio::test(flavor = "multi_thread")]
async fn stray_keys_at_the_end_of_a_chain_hold_nobody_up() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    is_whole(&world).await?;
    let before = told(&world, WEB).await?.len();
    for number in 0..150 {
        put_stray(&world, WEB, &format!("0stray{number:03}"))?;
    }
    // The last number that a record may have, too.
    put_stray(&world, WEB, "099999999999")?;
    let world = world.restart().await?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    let records = told(&world, WEB).await?;
    assert!(records.len() > before, "{before} and {}", records.len());
    assert_eq!(records[before].link.number.0, before as u64 + 1);
    assert_eq!(world.metric(r#"windlass_audit_untold_total{part="record"}"#).await?, 0.0);
    world.stop().await
}

/// Where nobody can tell any more where a chain ends, what is done is done all the same, and said elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_cannot_be_written_holds_nobody_up() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    is_whole(&world).await?;
    for number in 0..100 {
        put_stray(&world, WEB, &format!("0777777777{number:02}"))?;
    }
    let world = world.restart().await?;
    let before = told(&world, WEB).await?.len();
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(told(&world, WEB).await?.len(), before);
    assert!(world.metric(r#"windlass_audit_untold_total{part="record"}"#).await? > 0.0);
    // Once that was put away, it is told again.
    world.etcd.etcdctl(&["del", "--prefix", &format!("/windlass/audit/{WEB}/07")])?;
    // For a second it is not looked for.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.write("server.py", "print(3)");
    world.settles_at("web", Reason::Converged, 3).await?;
    assert!(told(&world, WEB).await?.len() > before);
    is_whole(&world).await?;
    world.stop().await
}

/// Somebody who writes where the next anchor comes is no reason to reconcile a Service once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_anchor_is_no_conflict_of_a_service() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    is_whole(&world).await?;
    let next = told(&world, "anchors").await?.len() + 1;
    put_stray(&world, "anchors", &format!("{next:012}"))?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    let failed = r#"windlass_reconcile_duration_seconds_count{kind="service",outcome="failed"}"#;
    assert_eq!(world.metric(failed).await?, 0.0);
    world
        .until("everything to be anchored", async || verify(&world).await.is_ok_and(|report| report.unanchored == 0))
        .await?;
    let found = findings(&world).await?;
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with(&format!("anchors, record {next}: it is not a record")), "{found:#?}");
    assert_eq!(found[1], format!("anchors: record {next} is missing"));
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_key_is_left_as_it_is_and_the_controller_goes_on() -> anyhow::Result<()> {
    let mut world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    is_whole(&world).await?;
    assert_eq!(world.metric("windlass_audit_key").await?, 1.0);
    let key = Sealed::of(&stored(&world).await?[0].value)?.key;
    world.halt().await?;
    let file = world.data().join("audit.key");
    std::fs::write(&file, "damaged")?;
    world.go_on()?;
    world.write("server.py", "print(2)");
    world.settles_at("web", Reason::Converged, 2).await?;
    assert_eq!(world.metric("windlass_audit_key").await?, 0.0);
    assert_eq!(std::fs::read_to_string(&file)?, "damaged");
    is_whole(&world).await?;
    // Who knows the key that was is told of another one.
    let mut verifier = Verifier::new(holds, Against { trusted: [key].into(), ..Against::default() });
    for entry in stored(&world).await? {
        let Key::Audit(chain, number) = entry.key else { panic!("{}", entry.key) };
        verifier.take(Place::Key(chain, number), &entry.value);
    }
    let report = verifier.end();
    assert!(matches!(&report.findings[..], [Finding::Untrusted { .. }]), "{:?}", report.findings);
    world.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_go_and_the_rest_is_whole() -> anyhow::Result<()> {
    let world = World::keeping(&["web1"], Duration::from_millis(1500)).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    // What somebody puts before all of it stays, and keeps nothing from going: also where but one record is left in what
    // is read at once.
    for number in 0..63 {
        put_stray(&world, WEB, &format!("00000000000-{number}"))?;
    }
    for round in 0..80_u32 {
        let request = if round % 2 == 0 { Request::Pause } else { Request::Resume };
        world.ask(WEB, &request).await?;
        if round % 20 == 0 {
            // Until what was told before is old.
            tokio::time::sleep(Duration::from_millis(1600)).await;
        }
    }
    let records = told(&world, WEB).await?;
    let (first, last) = (&records[0].link, &records[records.len() - 1].link);
    assert!(first.number.0 > 32 && last.number.0 > 80, "{first:?}, {last:?}");
    // What the next change of a Host is told by is kept.
    let hosts = told(&world, "hosts/web1").await?;
    assert!(matches!(hosts[0].entries[0].what, What::Declared { whole: Some(_), .. }), "{hosts:?}");
    let stray = findings(&world).await?;
    assert_eq!(stray.len(), 63, "{stray:#?}");
    world.etcd.etcdctl(&["del", "--prefix", &format!("/windlass/audit/{WEB}/00000000000-")])?;
    is_whole(&world).await?;
    // Anchors are old too, and what they knew is handed on.
    let anchors = told(&world, "anchors").await?;
    assert!(anchors[0].link.number.0 > 1, "{:?}", anchors[0].link);
    // Who takes away one that was not said to be gone is found.
    let key = Key::Audit(Chain::Anchors, anchors[0].link.number);
    world.etcd.etcdctl(&["del", &format!("/windlass/{key}")])?;
    assert!(!verify(&world).await?.is_whole());
    world.stop().await
}
