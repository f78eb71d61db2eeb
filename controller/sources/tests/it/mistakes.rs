//! What cannot become a release, and what is said about it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;

use windlass_sources::{ScanMode, SourceError};

use crate::fixture::Fixture;

/// The message about a tree, with its causes, and the tree's own path replaced by `ROOT`.
async fn message(fixture: &Fixture) -> String {
    let error: SourceError = fixture.look(ScanMode::Ask, None).await.expect_err("a mistake");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace(fixture.tree.root.to_str().expect("UTF-8"), "ROOT")
}

#[tokio::test]
async fn links_must_lead_to_something_in_the_release() {
    async fn check(words: &str, include: &[&str], exclude: &[&str], expected: &str) {
        let fixture = Fixture::new(words).globs(include, exclude);
        assert_eq!(message(&fixture).await, expected, "{words}");
    }
    let leaves = |path: &str, target: &str| {
        format!(
            "the link {path} points to {target:?}, outside the source; hint: make it relative, copy the file, or exclude the link"
        )
    };
    let dangles = |path: &str, target: &str| {
        format!(
            "the link {path} points to {target:?}, which is missing or left out of the release; \
             hint: include the target, or exclude the link"
        )
    };
    check("a l>/etc/passwd", &[], &[], &leaves("l", "/etc/passwd")).await;
    check("a l>../x", &[], &[], &leaves("l", "../x")).await;
    check("a d/l>../../tree/a", &[], &[], &leaves("d/l", "../../tree/a")).await;
    check("a l>missing", &[], &[], &dangles("l", "missing")).await;
    check("a l>l", &[], &[], &dangles("l", "l")).await;
    check("a b l>b", &[], &["b"], &dangles("l", "b")).await;
    check("a b l>b", &["a", "l"], &[], &dangles("l", "b")).await;
    check("a d/b l>d", &[], &["d"], &dangles("l", "d")).await;
    check("a empty/ l>empty", &[], &[], &dangles("l", "empty")).await;
    check("a .git/x l>.git/x", &[], &[], &dangles("l", ".git/x")).await;
}

#[tokio::test]
async fn special_files_are_named() {
    let fixture = Fixture::new("a d/");
    let _socket = UnixListener::bind(fixture.path("d/run.sock")).expect("a socket");
    assert_eq!(message(&fixture).await, "ROOT/d/run.sock is a socket, which no release can hold; hint: exclude it");
    let fixture = Fixture::new("a");
    let made = std::process::Command::new("mkfifo").arg(fixture.path("pipe")).status().expect("mkfifo");
    assert!(made.success());
    assert_eq!(message(&fixture).await, "ROOT/pipe is a pipe, which no release can hold; hint: exclude it");
}

#[tokio::test]
async fn files_that_lie_about_their_length_are_named() {
    // Every file there says that it is empty.
    let mut fixture = Fixture::new("").globs(&["ostype"], &[]);
    fixture.tree.root = "/proc/sys/kernel".into();
    let said = message(&fixture).await;
    assert!(said.starts_with("ostype in ROOT changed while it was looked at"), "{said}");
}

#[tokio::test]
async fn names_must_fit_a_manifest() {
    for (name, shown) in [(&b"a\nb"[..], r#""a\nb""#), (b"a\\b", r#""a\\b""#), (b"a\xff", "\"a\u{fffd}\"")] {
        let fixture = Fixture::new("x");
        fs::write(fixture.tree.root.join(OsStr::from_bytes(name)), "").expect("a file");
        let expected = format!(
            "a name below ROOT cannot be part of a release; hint: rename or exclude it: \
             {shown} holds a control character, a backslash or bytes that are not UTF-8"
        );
        assert_eq!(message(&fixture).await, expected);
    }
}

#[tokio::test]
async fn a_source_that_is_away_is_told_from_one_that_is_empty() {
    let away = "the source ROOT is not available on the controller's machine";
    let mut fixture = Fixture::new("a");
    fixture.tree.root = fixture.beside("missing");
    assert_eq!(message(&fixture).await, format!("{away}: No such file or directory (os error 2)"));
    let mut fixture = Fixture::new("a");
    fixture.tree.root = fixture.path("a");
    assert_eq!(message(&fixture).await, format!("{away}: Not a directory (os error 20)"));

    let empty = "nothing in ROOT is left to release; hint: look at the include and exclude globs";
    for (words, include, exclude) in
        [("", &[][..], &[][..]), ("d/e/", &[], &[]), ("a", &["b"], &[]), ("a", &[], &["*"])]
    {
        let fixture = Fixture::new(words).globs(include, exclude);
        assert_eq!(message(&fixture).await, empty, "{words}");
    }
}

#[tokio::test]
async fn a_bad_glob_is_named() {
    let fixture = Fixture::new("a").globs(&["src/[a"], &[]);
    assert_eq!(message(&fixture).await, r#"the glob "src/[a" cannot be used: unclosed character class; missing ']'"#);
    let fixture = Fixture::new("a").globs(&[], &["../x"]);
    let expected = r#"the glob "../x" cannot be used: it must be a path from the root of the source, without empty components, `.` or `..`"#;
    assert_eq!(message(&fixture).await, expected);
}

/// Permissions do not stop root, so this shows something only when it runs as another user.
#[tokio::test]
async fn an_unreadable_file_is_named() {
    let fixture = Fixture::new("a d/b");
    fixture.set_mode("d/b", 0);
    if fs::read(fixture.path("d/b")).is_ok() {
        return;
    }
    let expected =
        "cannot read ROOT/d/b; hint: let the controller's user read it, or exclude it: Permission denied (os error 13)";
    assert_eq!(message(&fixture).await, expected);
    fixture.set_mode("d/b", 0o600);
    fixture.set_mode("d", 0);
    let expected =
        "cannot read ROOT/d; hint: let the controller's user read it, or exclude it: Permission denied (os error 13)";
    assert_eq!(message(&fixture).await, expected);
    fixture.set_mode("d", 0o700);
}
