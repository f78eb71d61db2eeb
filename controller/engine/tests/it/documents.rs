//! What people put by hand and cannot be meant: told with its own reason, and what runs goes on.

use windlass_crds::condition::{ConditionType, Reason};
use windlass_crds::id::ResourceKey;
use windlass_crds::status::condition;

use crate::world::World;

const HEAD: &str = "apiVersion: windlass/v1\nkind: Service\nmetadata: {name: web}\n";

/// Each value that is put at the key of the Service `web`, and the reason that its status must show.
fn rows() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let variables: Vec<String> = (0..12_000).map(|number| format!("\"{number} \": a")).collect();
    let many = format!(
        "{HEAD}spec:\n  placement: {{hosts: [web1]}}\n  source: {{path: /srv}}\n  runtime: {{target: python, entryPoint: a.py, env: {{{}}}}}\n",
        variables.join(", ")
    );
    vec![
        ("no YAML", b"spec: [1, {".to_vec(), Reason::InvalidDeclaration),
        ("nothing", Vec::new(), Reason::InvalidDeclaration),
        ("a NUL", b"apiVersion: windlass/v1\0".to_vec(), Reason::InvalidDeclaration),
        ("binary", b"\x7fELF\xff\xfe\x00\x01".to_vec(), Reason::InvalidDeclaration),
        ("an unknown field", format!("{HEAD}specs: {{}}\n").into_bytes(), Reason::UnknownField),
        ("an unknown kind", HEAD.replace("Service", "Servise").into_bytes(), Reason::UnknownKind),
        (
            "another name",
            many.replace("name: web}", "name: api}").replace(&variables.join(", "), "").into_bytes(),
            Reason::NameMismatch,
        ),
        ("two documents", format!("{HEAD}---\n{HEAD}").into_bytes(), Reason::InvalidDeclaration),
        ("deep nesting", format!("{HEAD}spec: {}", "[".repeat(100_000)).into_bytes(), Reason::InvalidDeclaration),
        ("more problems than a status holds", many.into_bytes(), Reason::InvalidDeclaration),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_told_and_changes_nothing() -> anyhow::Result<()> {
    let world = World::start(&["web1"]).await?;
    world.write("server.py", "print(1)");
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    let key = ResourceKey::from_path("services/default/web").expect("a key");
    for (what, value, reason) in rows() {
        let generation = world.store.declare(&key, value).await?;
        let told = async || {
            let Ok(Some(status)) = world.status("web").await else { return false };
            let ready = condition(&status.conditions, ConditionType::Ready);
            status.observed_generation.0 >= generation.0 && ready.is_some_and(|ready| ready.reason == reason)
        };
        world.until(&format!("{what} to be {reason}"), told).await?;
        assert_eq!(world.revisions("web"), [1], "{what}");
    }
    world.apply("web", "").await?;
    world.settles("web", Reason::Converged).await?;
    assert_eq!(world.revisions("web"), [1]);
    world.stop().await
}
