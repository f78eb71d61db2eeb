//! Documents that nobody means well with, and the mistakes that people make: each row is refused for its own reason.

use super::*;

const SERVICE: &str = "apiVersion: windlass/v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  placement: {hosts: [web1]}\n  source: {path: /srv/web}\n  runtime: {target: python, entryPoint: a.py}\n";

/// The most that may be told of a document: its status has to fit into the store many times over.
const LONGEST: usize = 64 * 1024;

/// Puts `text` at the key of the Service `web`, and gives what is told, as one text.
fn told(bytes: &[u8]) -> String {
    let key = ResourceKey::from_path("services/default/web").expect("a key");
    let Err(problems) = parse_at(&key, bytes) else { return "accepted".to_owned() };
    let lines: Vec<String> = problems.iter().map(|problem| format!("[{}] {problem}", problem.reason)).collect();
    let told = lines.join("\n");
    assert!(told.len() < LONGEST, "{} bytes are told: {}", told.len(), &told[..200]);
    told
}

/// A Service with `from` become `to`.
fn with(from: &str, to: &str) -> Vec<u8> {
    assert!(SERVICE.contains(from), "{from:?} is not in the service");
    SERVICE.replacen(from, to, 1).into_bytes()
}

/// Something more below `spec`.
fn more(text: &str) -> Vec<u8> {
    format!("{SERVICE}  {text}\n").into_bytes()
}

/// Each row with its own reason, or its own words.
#[test]
fn what_is_bad_is_refused_for_its_own_reason() {
    for (what, bytes, expected) in rows() {
        let told = told(&bytes);
        assert!(told.contains(expected), "{what}: {expected:?} is not in {told}");
    }
}

/// What looks odd and is right all the same.
#[test]
fn what_is_odd_is_accepted() {
    let json = serde_json::to_string_pretty(&parse_bytes(SERVICE.as_bytes()).expect("good").to_json()).expect("JSON");
    for (what, bytes) in [
        ("a byte order mark", format!("\u{feff}{SERVICE}").into_bytes()),
        ("a byte order mark before a marker", format!("\u{feff}---\n{SERVICE}").into_bytes()),
        ("CRLF", SERVICE.replace('\n', "\r\n").into_bytes()),
        ("JSON with tabs", json.replace("  ", "\t").into_bytes()),
        ("an anchor", with("entryPoint: a.py", "entryPoint: &e a.py, args: [*e]")),
        ("a merge key", with("entryPoint: a.py", "<<: {entryPoint: a.py}")),
        ("a known tag", with("name: web", "name: !!str web")),
        ("an explicit null", more("network: null")),
        ("words that YAML 1.1 had for booleans", with("a.py", "a.py, env: {A: yes, B: off}")),
    ] {
        assert_eq!(told(&bytes), "accepted", "{what}");
    }
}

fn rows() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let big = "x".repeat(240 << 10);
    let bomb = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
        }
        text
    };
    vec![
        ("no YAML", b"spec: [1, {".to_vec(), "line 1 column 11: unclosed bracket"),
        (
            "unknown kind",
            with("kind: Service", "kind: Servise"),
            "[UnknownKind] kind: \"Servise\" is unknown; did you mean Service?",
        ),
        ("no kind", with("kind: Service\n", ""), "kind: is missing; one of"),
        ("unknown field", with("spec:", "specs:"), "hint: did you mean `spec`?"),
        (
            "unknown field below",
            with("entryPoint:", "entrypoint:"),
            "[UnknownField] error: line 8 column 29: unknown field `entrypoint`",
        ),
        ("unknown field deep", more("rollout: {canary: {step: [1]}}"), "hint: did you mean `steps`?"),
        ("wrong type text", more("purgeData: yes"), "line 9 column 14: invalid boolean (true or false expected)"),
        ("wrong type number", more("network: {port: http}"), "line 9 column 19: expected a whole number"),
        ("wrong type list", with("{hosts: [web1]}", "{hosts: web1}"), "line 6 column 22: expected a list"),
        ("wrong type fields", with("{hosts: [web1]}", "web1"), "line 6 column 14: expected fields"),
        ("wrong type for text", with("path: /srv/web", "path: [a]"), "line 7 column 18: expected a text"),
        ("null for required", with("/srv/web", "null"), "spec.source.path: say which directory"),
        ("null for a section", with("{target: python, entryPoint: a.py}", "null"), "line 8 column 12: expected fields"),
        ("no name", with("  name: web", "  labels: {}"), "missing field `name`"),
        ("null name", with("name: web", "name: null"), "line 4 column 9: null is not allowed here"),
        (
            "number name",
            with("name: web", "name: 123"),
            "[NameMismatch] metadata.name: the document declares service/123",
        ),
        ("empty name", with("name: web", "name: \"\""), "line 4 column 9: is empty"),
        (
            "bad duration",
            more("lifecycle: {forceAfter: 5 minutes}"),
            "\"5 minutes\" is not a duration; write 250ms, 30s, 5m or 1h",
        ),
        ("number duration", more("lifecycle: {forceAfter: 5}"), "\"5\" is not a duration"),
        (
            "another name",
            with("name: web", "name: other"),
            "[NameMismatch] metadata.name: the document declares service/other",
        ),
        (
            "another kind",
            b"apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web}\nspec: {address: a}\n".to_vec(),
            "[NameMismatch] metadata.name: the document declares host/web",
        ),
        ("300 KiB", more(&format!("# {}", "x".repeat(300 << 10))), "[TooLarge] 307373 bytes"),
        ("NUL", with("a.py", "a\0.py"), "a NUL at byte 163"),
        ("binary", b"\x7fELF\x02\x01\x01\xff\xfe\x00".to_vec(), "not UTF-8 from byte 7 on"),
        ("UTF-16", SERVICE.encode_utf16().flat_map(u16::to_le_bytes).collect(), "a NUL at byte 1"),
        ("tabs", with("  name: web", "\tname: web"), "line 4 column 2: tabs disallowed"),
        ("duplicate key", with("spec:", "kind: Service\nspec:"), "line 5 column 1: `kind` is there twice"),
        (
            "duplicate key below",
            with("target: python", "target: python, target: node"),
            "line 8 column 29: `target` is there twice",
        ),
        (
            "two documents",
            format!("{SERVICE}---\n{SERVICE}").into_bytes(),
            "line 10: a second document; a key holds exactly one",
        ),
        ("empty", Vec::new(), "empty: there is no declaration in it"),
        ("only a comment", b"# nothing\n".to_vec(), "empty: there is no declaration in it"),
        ("only a marker", b"---\n...\n".to_vec(), "empty: there is no declaration in it"),
        ("a text", b"hello\n".to_vec(), "line 1 column 1: expected fields"),
        ("a list", b"- a\n- b\n".to_vec(), "line 1 column 1: expected fields"),
        ("alias bomb", format!("{bomb}{SERVICE}").into_bytes(), "anchors and aliases make too much of it"),
        (
            "alias bomb in args",
            with(
                "a.py",
                &format!("a.py, env: {{A: &a {}}}, args: [{}]", "x".repeat(64 << 10), vec!["*a"; 2000].join(", ")),
            ),
            "anchors and aliases make too much of it",
        ),
        ("unknown anchor", with("a.py", "*nobody"), "reference to unknown value"),
        ("itself", with("a.py}", "a.py, args: &a [*a]}"), "Recursive reference not allowed"),
        ("deep lists", more(&format!("hooks: {{preDeploy: {}}}", "[".repeat(100_000))), "nested too deeply"),
        (
            "deep lists closed",
            more(&format!("hooks: {{preDeploy: {}{}}}", "[".repeat(60_000), "]".repeat(60_000))),
            "nested too deeply",
        ),
        ("deep maps", more(&format!("a: {}", "{a: ".repeat(50_000))), "nested too deeply"),
        (
            "deep blocks",
            {
                let mut text = SERVICE.to_owned();
                for depth in 0..600 {
                    text += &format!("{}a:\n", " ".repeat(depth));
                }
                text.into_bytes()
            },
            "nested too deeply",
        ),
        ("deep in front", format!("{}\n{SERVICE}", "[".repeat(100_000)).into_bytes(), "nested too deeply"),
        (
            "a long name",
            with("name: web", &format!("name: {big}")),
            "has 245760 characters, and at most 63 are allowed",
        ),
        ("a long unknown field", more(&format!("{big}: 1")), "simple key expected ':'"),
        (
            "a long line",
            format!("{{\"apiVersion\": \"windlass/v1\", \"kind\": \"Service\", \"a\": \"{big}\"}}").into_bytes(),
            "[UnknownField] error: line 1 column 50: unknown field `a`",
        ),
        ("a long kind", with("kind: Service", &format!("kind: {big}")), "bytes more)"),
        ("a long key", with("a.py", &format!("a.py, env: {{\"{big} \": a}}")), "did not find expected ','"),
        (
            "many bad variables",
            {
                let names: Vec<String> = (0..12_000).map(|number| format!("\"{number} \": a")).collect();
                with("a.py", &format!("a.py, env: {{{}}}", names.join(", ")))
            },
            "and 11980 more problems",
        ),
        ("many markers", "---\na: 1\n".repeat(20_000).into_bytes(), "a second document"),
        (
            "many merge keys",
            with("a.py", &format!("a.py, env: {{{}}}", vec!["<<: {A: a}"; 20_000].join(", "))),
            "anchors and aliases make too much of it",
        ),
        ("quotes without end", with("web1", "\"web1"), "line 6 column 23: unclosed quote"),
        ("a tag", with("name: web", "name: !secret web"), "tag"),
        ("control characters", with("a.py", "\"a\\u0007.py\""), "holds a control character"),
    ]
}
