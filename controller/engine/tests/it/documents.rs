//! What people put by hand and cannot be meant: told with its own reason, and what runs goes on.

use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::id::ResourceKey;
use windlass_crds::status::condition;

use crate::world::World;

const HEAD: &str = "apiVersion: windlass/v1\nkind: Service\nmetadata: {name: web}\n";

/// A value that is put at the key of the Service `web`, the reason that its status must show, and what it says: what is
/// wrong, and where.
struct Row {
    what: &'static str,
    value: Vec<u8>,
    reason: Reason,
    words: &'static [&'static str],
}

fn row(what: &'static str, value: impl Into<Vec<u8>>, reason: Reason, words: &'static [&'static str]) -> Row {
    Row { what, value: value.into(), reason, words }
}

/// The Service with more in its `spec`, which begins at line 5.
fn with(more: &str) -> String {
    format!(
        "{HEAD}spec:\n{more}  placement: {{hosts: [web1]}}\n  source: {{path: /srv}}\n  runtime: {{target: python, entryPoint: a.py}}\n"
    )
}

fn rows() -> Vec<Row> {
    use Reason::{InvalidDeclaration, NameMismatch, NotSupported, UnknownField, UnknownKind};
    let variables: Vec<String> = (0..12_000).map(|number| format!("\"{number} \": a")).collect();
    let many = with("").replace("a.py", &format!("a.py, env: {{{}}}", variables.join(", ")));
    let renamed = with("").replace("name: web}", "name: api}");
    vec![
        row("no YAML", "spec: [1, {", InvalidDeclaration, &["line 1 column 11", "spec: [1, {", "unclosed bracket"]),
        row("nothing", "", InvalidDeclaration, &["there is no declaration in it"]),
        row("a NUL", b"apiVersion: windlass/v1\0", InvalidDeclaration, &["a NUL at byte 23"]),
        row("binary", b"\x7fELF\xff\xfe\x00\x01", InvalidDeclaration, &["not UTF-8 from byte 4 on"]),
        row(
            "an unknown field",
            with("  netwrok: {port: 80}\n"),
            UnknownField,
            &["line 5 column 3", "unknown field `netwrok`", "hint: did you mean `network`?"],
        ),
        row(
            "an unknown kind",
            HEAD.replace("Service", "Servise"),
            UnknownKind,
            &["kind: \"Servise\" is unknown", "did you mean Service?"],
        ),
        row("a wrong type", with("  network: {port: web}\n"), InvalidDeclaration, &["line 5 column 19", "port: web"]),
        row(
            "a bad duration",
            with("  health: {interval: soon}\n"),
            InvalidDeclaration,
            &["line 5 column 22", "\"soon\" is not a duration; write 250ms, 30s, 5m or 1h"],
        ),
        row(
            "a field of a later version",
            with("  rollout: {strategy: blueGreen}\n"),
            NotSupported,
            &["spec.rollout.strategy", "does not support it yet; leave it out"],
        ),
        row(
            "another name",
            renamed,
            NameMismatch,
            &["metadata.name", "declares service/api, and its key is that of service/web"],
        ),
        row(
            "two documents",
            format!("{HEAD}---\n{HEAD}"),
            InvalidDeclaration,
            &["line 5: a second document", "a key holds exactly one"],
        ),
        row("deep nesting", format!("{HEAD}spec: {}", "[".repeat(100_000)), InvalidDeclaration, &["line 4"]),
        row(
            "more problems than a status holds",
            many,
            InvalidDeclaration,
            &["spec.runtime.env.0 : is not a name for a variable"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_told_and_changes_nothing() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let key = ResourceKey::from_path("services/default/web").expect("a key");
    for Row { what, value, reason, words } in rows() {
        let generation = world.store.declare(&key, value).await?;
        let told = async || {
            let Ok(Some(status)) = world.status("web").await else { return false };
            let ready = condition(&status.conditions, ConditionType::Ready);
            status.observed_generation.0 >= generation.0 && ready.is_some_and(|ready| ready.reason == reason)
        };
        world.until(&format!("{what} to be {reason}"), told).await?;
        let status = world.status("web").await?.expect("a status");
        let ready = condition(&status.conditions, ConditionType::Ready).expect("it is told whether it is ready");
        for words in words {
            assert!(ready.message.contains(words), "{what}: no {words:?} in {}", ready.message);
        }
        assert_eq!(world.revisions("web"), [1], "{what}");
    }
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    assert_eq!(world.revisions("web"), [1]);
    world.stop().await
}
