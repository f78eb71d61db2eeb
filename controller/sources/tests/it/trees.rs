//! What of a tree is in a release, and what makes it another release.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use windlass_crds::digest::FileDigest;

use crate::fixture::Fixture;

#[tokio::test]
async fn globs_choose_what_is_released() {
    async fn check(words: &str, include: &[&str], exclude: &[&str], expected: &str) {
        let fixture = Fixture::new(words).globs(include, exclude);
        assert_eq!(fixture.words().await, expected, "{words} with include {include:?}, exclude {exclude:?}");
    }
    let project = "src/a.py src/b/c/d.py src/b/notes.txt models/m.pkl models/old/m.pkl requirements.txt app.log src/b/app.log \
                   .git/config src/__pycache__/a.pyc src/b.pyc empty/ .env";
    check(
        project,
        &["src/**/*.py", "models/*.pkl", "requirements.txt"],
        &["*.log"],
        "models/m.pkl requirements.txt src/a.py src/b/c/d.py",
    )
    .await;
    check(
        project,
        &[],
        &["*.log"],
        ".env models/m.pkl models/old/m.pkl requirements.txt src/a.py src/b/c/d.py src/b/notes.txt",
    )
    .await;
    check(project, &["src"], &["src/b"], "src/a.py").await;
    check(project, &["src/"], &["notes.txt"], "src/a.py src/b/app.log src/b/c/d.py").await;
    check(project, &["**/m.pkl", "src/**/c/**/*.py"], &[], "models/m.pkl models/old/m.pkl src/b/c/d.py").await;
    check(project, &["models"], &["old/"], "models/m.pkl").await;
    check("sub/.git a/b/.git/x a/b/c", &[], &[], "a/b/c").await;
    check("a/b/c/ d", &[], &[], "d").await;
    check("a b>a", &["b", "a"], &[], "a b>a").await;
    check("d/a d/b>. e>d", &[], &[], "d/a d/b>. e>d").await;
}

#[tokio::test]
async fn what_is_excluded_is_never_looked_at() {
    let fixture = Fixture::new("a data/x").globs(&[], &["run/", "out.fifo", "data/**", "bad*"]);
    fs::create_dir(fixture.path("run")).expect("a directory");
    let _socket = UnixListener::bind(fixture.path("run/socket")).expect("a socket");
    let _other = UnixListener::bind(fixture.path("out.fifo")).expect("a socket");
    symlink("/etc/passwd", fixture.path("data/outside")).expect("a link");
    fs::write(fixture.path("bad\nname"), "").expect("a file");
    assert_eq!(fixture.words().await, "a");
}

#[tokio::test]
async fn the_root_may_be_a_link() {
    let mut fixture = Fixture::new("a b/c");
    let direct = fixture.ask().await;
    let link = fixture.beside("link");
    symlink("tree", &link).expect("a link");
    fixture.tree.root = link;
    assert_eq!(fixture.ask().await.digest, direct.digest);
}

#[tokio::test]
async fn contents_and_the_executable_bit_name_a_release_and_times_do_not() {
    async fn check(what: &str, edit: impl Fn(&Fixture), changes: bool) {
        let fixture = Fixture::new("run a/data l>run");
        let before = fixture.ask().await;
        edit(&fixture);
        let after = fixture.ask().await;
        assert_eq!(before.digest != after.digest, changes, "{what}");
        assert_eq!(before.digest, before.manifest.digest());
        assert_eq!(after.digest, after.manifest.digest());
    }
    check("nothing", |_| (), false).await;
    check("executable", |fixture| fixture.set_mode("run", 0o755), true).await;
    check("other bits", |fixture| fixture.set_mode("run", 0o4640), false).await;
    check("mtime", |fixture| fixture.set_modified("run", SystemTime::UNIX_EPOCH + Duration::from_secs(1)), false).await;
    check(
        "contents of the same size",
        |fixture| {
            fixture.write("run", "nur");
            fixture.set_modified("run", SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        },
        true,
    )
    .await;
    check("a new file", |fixture| fixture.write("new", ""), true).await;
    check("a new empty directory", |fixture| fs::create_dir(fixture.path("new")).expect("a directory"), false).await;
    check("a file less", |fixture| fs::remove_file(fixture.path("a/data")).expect("removed"), true).await;
    check("another name", |fixture| fs::rename(fixture.path("a"), fixture.path("b")).expect("renamed"), true).await;
    check(
        "another target",
        |fixture| {
            fs::remove_file(fixture.path("l")).and_then(|()| symlink("a/data", fixture.path("l"))).expect("a link");
        },
        true,
    )
    .await;
    check(
        "the same file anew",
        |fixture| {
            fs::remove_file(fixture.path("run")).expect("removed");
            fixture.write("run", "run");
        },
        false,
    )
    .await;
}

#[tokio::test]
async fn all_that_a_release_names_is_stored() {
    let fixture = Fixture::new("a b/c=text d=");
    let release = fixture.ask().await;
    let contents = fixture.contents();
    assert_eq!(contents.verify(&release.manifest).expect("verified"), []);
    assert_eq!(contents.manifest(&release.digest).expect("readable").as_ref(), Some(&*release.manifest));
    assert_eq!(fs::read(contents.path(&FileDigest::of(b"text"))).expect("readable"), b"text");
    assert_eq!(release.stats.files, 3);
}
