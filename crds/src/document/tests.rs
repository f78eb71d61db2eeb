//! Documents that are right, and what is told of those that are not.

use super::*;

const MINIMAL: &str = "apiVersion: windlass/v1\nkind: Service\nmetadata:\n  name: hello\nspec:\n  placement:\n    hosts: [web1]\n  source:\n    path: /srv/src/hello\n  runtime:\n    target: python\n    entryPoint: server.py\n";

#[test]
fn documents_are_told_apart() {
    for (text, expected) in [
        ("a: 1\n", vec![(1, "a: 1\n")]),
        ("---\na: 1\n---\nb: 2", vec![(2, "a: 1\n"), (4, "b: 2")]),
        ("# c\n---\na: 1\n...\n", vec![(3, "a: 1\n")]),
        ("--- # x\na: 1\n", vec![(2, "a: 1\n")]),
        ("--- {a: 1}\n", vec![(1, " {a: 1}\n")]),
        ("----\n", vec![(1, "----\n")]),
        ("\n# only a comment\n", vec![]),
        ("", vec![]),
    ] {
        let found: Vec<_> = split(text).into_iter().map(|document| (document.line, document.text)).collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

#[test]
fn the_least_service_gets_its_defaults() {
    let declaration = parse_bytes(MINIMAL.as_bytes()).expect("minimal");
    insta::assert_snapshot!(serde_json::to_string_pretty(&declaration.to_json()).expect("JSON"));
    let again = serde_json::to_vec(&declaration.to_json()).expect("JSON");
    assert_eq!(parse_bytes(&again), Ok(declaration));
}

/// The messages of everything that is wrong with the minimal Service after `from` became `to`.
fn complaint(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from:?} is not in the minimal service");
    let text = format!("# one\n---\n{}", MINIMAL.replace(from, to));
    let documents = split(&text);
    let problems = parse(documents.last().expect("one document")).expect_err(to);
    let lines: Vec<String> = problems.iter().map(|problem| format!("[{}] {problem}", problem.reason)).collect();
    lines.join("\n")
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let rows = [
        ("hosts: [web1]", "hosts: [web1"),
        ("hosts: [web1]", "host: [web1]"),
        ("target: python", "target: cobol"),
        ("entryPoint: server.py", "entryPoint: ../server.py"),
        ("kind: Service", "kind: Servise"),
        ("windlass/v1", "windlass/v9"),
        ("name: hello", "name: Hello"),
        ("    hosts: [web1]\n", "    hosts: []\n"),
        ("path: /srv/src/hello", "path: src"),
        ("kind: Service", "kind: Service\nkind: Host"),
        (
            "    entryPoint: server.py\n",
            "    entryPoint: server.py\n    args: [1, \"a\\nb\"]\n    env: {PORT: 1, 1X: b}\n  rollout: {strategy: canary, maxUnavailable: 50%}\n  hooks: {preDeploy: [{saveState: {}}]}\n",
        ),
        ("    entryPoint: server.py\n", "    entryPoint: server.py\n  rollout: {maxUnavailable: 0}\n"),
        ("    entryPoint: server.py\n", "    entryPoint: server.py\n  lifecycle: {forceAfter: soon}\n"),
    ];
    let told: Vec<String> = rows.iter().map(|(from, to)| format!("== {to}\n{}", complaint(from, to))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn values_that_are_no_text_are_told() {
    for (bytes, reason) in [
        (&b"\xff\xfe"[..], Reason::InvalidDeclaration),
        (b"a\0b", Reason::InvalidDeclaration),
        (b"", Reason::InvalidDeclaration),
        (b"a: 1\n---\nb: 2\n", Reason::InvalidDeclaration),
        (b"[1, 2", Reason::InvalidDeclaration),
        (b"hello", Reason::InvalidDeclaration),
        (&[b' '; MAX_BYTES + 1], Reason::TooLarge),
    ] {
        let problems = parse_bytes(bytes).expect_err("wrong");
        assert_eq!(problems[0].reason, reason, "{problems:?}");
    }
}

#[test]
fn a_key_and_its_document_agree() {
    let key = |name: &str| ResourceKey::from_path(name).expect(name);
    assert!(parse_at(&key("services/default/hello"), MINIMAL.as_bytes()).is_ok());
    for other in ["services/default/other", "services/prod/hello", "hosts/hello"] {
        let problems = parse_at(&key(other), MINIMAL.as_bytes()).expect_err(other);
        assert_eq!(problems[0].reason, Reason::NameMismatch);
    }
}
