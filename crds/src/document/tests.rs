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
        ("--- {a: 1}\n", vec![(1, "--- {a: 1}\n")]),
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

/// Only a part of it is shown, and the place is that in the file all the same.
#[test]
fn a_mistake_in_a_long_line_has_one_place() {
    let args = (0..60).map(|number| format!("argument-{number}")).collect::<Vec<_>>().join(", ");
    let line = format!("  runtime: {{args: [{args}], targets: python, entryPoint: server.py}}");
    let text = MINIMAL[..MINIMAL.find("  runtime:").expect("a runtime")].to_owned() + &line + "\n";
    let column = line.find("targets").expect("it is there") + 1;
    let problems = parse_bytes(text.as_bytes()).expect_err("an unknown field");
    let message = &problems[0].message;
    assert!(message.starts_with(&format!("error: line 10 column {column}: unknown field")), "{message}");
    assert!(message.contains(&format!("--> <input>:10:{column}\n")), "{message}");
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
            "    entryPoint: server.py\n    args: [1, \"a\\nb\"]\n    env: {PORT: 1, 1X: b}\n  rollout: {strategy: blueGreen, maxUnavailable: 50%}\n  hooks: {preDeploy: [{saveState: {}}]}\n",
        ),
        ("    entryPoint: server.py\n", "    entryPoint: server.py\n  rollout: {maxUnavailable: 0}\n"),
        ("    entryPoint: server.py\n", "    entryPoint: server.py\n  lifecycle: {forceAfter: soon}\n"),
    ];
    let told: Vec<String> = rows.iter().map(|(from, to)| format!("== {to}\n{}", complaint(from, to))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn places_are_right_far_down_a_long_file() {
    const DOCUMENTS: usize = 20_000;
    const LINES: usize = 6;
    let good = "---\napiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec:\n  address: 198.18.0.11\n";
    let wrong = [(0, "addres"), (1, "port"), (9_999, "addres"), (DOCUMENTS - 1, "addres")];
    let text: String = (0..DOCUMENTS)
        .map(|number| match wrong.iter().find(|(at, _)| *at == number) {
            Some((_, field)) => good.replace("address", field),
            None => good.to_owned(),
        })
        .collect();
    let documents = split(&text);
    assert_eq!(documents.len(), DOCUMENTS);
    for (number, document) in documents.iter().enumerate() {
        assert_eq!(document.line, number * LINES + 2);
        match (parse(document), wrong.iter().any(|(at, _)| *at == number)) {
            (Ok(_), false) => {}
            (Err(problems), true) => {
                let line = number * LINES + LINES;
                let message = &problems[0].message;
                let column = if number == 1 { 9 } else { 3 };
                assert!(message.starts_with(&format!("error: line {line} column {column}: ")), "{number}: {message}");
                assert!(message.contains(&format!("--> <input>:{line}:{column}")), "{number}: {message}");
                assert!(message.contains(&format!("\n{line} |   ")), "{number}: {message}");
            }
            (parsed, _) => panic!("{number}: {parsed:?}"),
        }
    }
}

#[test]
fn columns_count_what_stands_before_a_document_on_its_line() {
    let text = format!("--- {{apiVersion: windlass/v1, kind: Host, spek: {{}}}}\n--- # next\n{MINIMAL}");
    let documents = split(&text);
    let problems = parse(&documents[0]).expect_err("an unknown field");
    assert!(problems[0].message.starts_with("error: line 1 column 43: "), "{problems:?}");
    assert!(parse(&documents[1]).is_ok());
    let inline = "--- {apiVersion: windlass/v1, kind: Host, metadata: {name: a}, spec: {address: b}}\n";
    assert!(parse_bytes(inline.as_bytes()).is_ok());
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

#[test]
fn rollouts_that_make_no_sense_are_told() {
    let rows = [
        "strategy: blueGreen",
        "strategy: canary",
        "strategy: canary, canary: {steps: []}",
        "strategy: canary, canary: {steps: [5, 3, 10%, 25%, 25%]}",
        "strategy: canary, canary: {steps: [1]}, maxFailures: 1",
        "maxFailures: 1, rollbackOnFailure: false",
        "order: rack",
        "strategy: canary, canary: {steps: [0]}",
        "strategy: canary, canary: {steps: [101%]}",
    ];
    let anchor = "    entryPoint: server.py\n";
    let told = |row: &&str| format!("== {row}\n{}", complaint(anchor, &format!("{anchor}  rollout: {{{row}}}\n")));
    insta::assert_snapshot!(rows.iter().map(told).collect::<Vec<_>>().join("\n"), @r#"
    == strategy: blueGreen
    [NotSupported] spec.rollout.strategy: this version of Windlass does not support it yet; leave it out
    == strategy: canary
    [InvalidDeclaration] spec.rollout.canary: say its steps, such as `canary: {steps: [1, 25%, 100%], bake: 60s}`
    == strategy: canary, canary: {steps: []}
    [InvalidDeclaration] spec.rollout.canary.steps: name at least one step, such as 1 or 25%
    == strategy: canary, canary: {steps: [5, 3, 10%, 25%, 25%]}
    [InvalidDeclaration] spec.rollout.canary.steps[1]: counts the hosts of the steps before it too, so 3 cannot follow 5
    [InvalidDeclaration] spec.rollout.canary.steps[4]: counts the hosts of the steps before it too, so 25% cannot follow 25%
    == strategy: canary, canary: {steps: [1]}, maxFailures: 1
    [InvalidDeclaration] spec.rollout.maxFailures: has no meaning with `strategy: canary`: one unhealthy host sends all of them back
    == maxFailures: 1, rollbackOnFailure: false
    [InvalidDeclaration] spec.rollout.maxFailures: needs `rollbackOnFailure: true`: a host that fails goes back by itself
    == order: rack
    [InvalidDeclaration] error: line 15 column 20: "rack" is no order; write name, zone, or label:<key>
      --> <input>:15:20
       |
    13 |     target: python
    14 |     entryPoint: server.py
    15 |   rollout: {order: rack}
       |                    ^ "rack" is no order; write name, zone, or label:<key>
    == strategy: canary, canary: {steps: [0]}
    [InvalidDeclaration] error: line 15 column 48: invalid value: integer `0`, expected a number of hosts from 1, or a percentage from 1% to 100%
      --> <input>:15:48
       |
    13 |     target: python
    14 |     entryPoint: server.py
    15 |   rollout: {strategy: canary, canary: {steps: [0]}}
       |                                                ^ invalid value: integer `0`, expected a number of hosts from 1, or a percentage from 1% to 100%
    == strategy: canary, canary: {steps: [101%]}
    [InvalidDeclaration] error: line 15 column 48: invalid value: string "101%", expected a number of hosts from 1, or a percentage from 1% to 100%
      --> <input>:15:48
       |
    13 |     target: python
    14 |     entryPoint: server.py
    15 |   rollout: {strategy: canary, canary: {steps: [101%]}}
       |                                                ^ invalid value: string "101%", expected a number of hosts from 1, or a percentage from 1% to 100%
    "#);
}
