//! A tree that was found changed must settle; a person who asks need not wait.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use windlass_crds::digest::{FileDigest, ReleaseDigest};
use windlass_sources::{Release, ScanMode, SourceError};

use crate::fixture::{Fixture, later};

/// Looks by interval while `edit` is called every `period`, with a number that grows; returns the seconds it took too.
async fn look_while(
    fixture: &Fixture,
    last: Option<&ReleaseDigest>,
    period: Duration,
    edit: impl Fn(&Fixture, usize),
) -> (Result<Release, SourceError>, u64) {
    let started = Instant::now();
    let editing = async {
        let mut number = 0;
        loop {
            tokio::time::sleep(period).await;
            number += 1;
            edit(fixture, number);
        }
    };
    let result = tokio::select! {
        result = fixture.look(ScanMode::Interval, last) => result,
        () = editing => unreachable!("it edits for ever"),
    };
    (result, started.elapsed().as_secs())
}

const HALF: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn an_unchanged_tree_needs_no_settling() {
    let fixture = Fixture::new("a b/c");
    let last = fixture.ask().await.digest;
    let (result, seconds) = look_while(&fixture, Some(&last), HALF, |_, _| ()).await;
    assert_eq!((result.expect("a release").digest, seconds), (last, 0));
}

#[tokio::test(start_paused = true)]
async fn a_changed_tree_settles_for_a_second() {
    let fixture = Fixture::new("a b/c");
    let last = fixture.ask().await.digest;
    fixture.write("a", "changed");
    let (result, seconds) = look_while(&fixture, Some(&last), HALF, |_, _| ()).await;
    let release = result.expect("a release");
    assert_ne!(release.digest, last);
    assert_eq!((release.stats.hashed, seconds), (1, 1));

    // Known already, but not accepted: it may be half of something all the same.
    let (result, seconds) = look_while(&fixture, Some(&last), HALF, |_, _| ()).await;
    assert_eq!((result.expect("a release").stats.hashed, seconds), (0, 1));
    let (result, seconds) = look_while(&fixture, None, HALF, |_, _| ()).await;
    assert_eq!((result.expect("a release").digest, seconds), (release.digest, 1));
}

#[tokio::test(start_paused = true)]
async fn asking_does_not_wait() {
    let fixture = Fixture::new("a b/c");
    let started = Instant::now();
    fixture.ask().await;
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_checkout_in_progress_is_waited_for() {
    let fixture = Fixture::new("a b/c");
    let last = fixture.ask().await.digest;
    fixture.write("new-0", "");
    let (result, seconds) = look_while(&fixture, Some(&last), HALF, |fixture, number| match number {
        1 => fixture.write("a", "changed"),
        3 => fixture.write("b/c", "changed too"),
        _ => {}
    })
    .await;
    let release = result.expect("a release");
    assert_eq!((release.manifest.entries.len(), seconds), (3, 3));
    assert_eq!(fixture.contents().missing(&release.manifest), []);
    assert!(fixture.contents().has(&FileDigest::of(b"changed too")));
}

#[tokio::test(start_paused = true)]
async fn a_link_may_dangle_while_its_tree_settles() {
    let fixture = Fixture::new("a l>later");
    let (result, seconds) = look_while(&fixture, None, HALF, |fixture, number| {
        if number == 1 {
            fixture.write("later", "");
        }
    })
    .await;
    assert_eq!((result.expect("a release").manifest.entries.len(), seconds), (3, 2));

    let fixture = Fixture::new("a l>never");
    let (result, _) = look_while(&fixture, None, HALF, |_, _| ()).await;
    assert!(matches!(result, Err(SourceError::Dangling { .. })), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_grows_for_ever_is_named_and_never_read() {
    let fixture = Fixture::new("a logs/app.log z");
    let last = fixture.ask().await.digest;
    fixture.write("a", "changed");
    let (result, seconds) = look_while(&fixture, Some(&last), HALF, |fixture, number| {
        fixture.write("logs/app.log", &"line ".repeat(number));
    })
    .await;
    let error = result.expect_err("unsettled");
    let expected = format!(
        "logs/app.log in {} changed while it was looked at; hint: exclude it when it is written all the time, such as a log",
        fixture.tree.root.display()
    );
    assert_eq!((error.to_string(), seconds), (expected, 3));
    let stored = fs::read_dir(fixture.data().join("contents/files")).expect("a directory").count();
    assert_eq!(stored, 3, "only what was there before");

    // Left alone, it settles.
    let (result, seconds) = look_while(&fixture, Some(&last), HALF, |_, _| ()).await;
    assert_eq!((result.expect("a release").stats.hashed, seconds), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn files_that_come_and_go_are_named() {
    let fixture = Fixture::new("a");
    let (result, _) = look_while(&fixture, None, HALF, |fixture, number| {
        fixture.write(&format!("tmp/{number}"), "");
        let _ = fs::remove_file(fixture.path(&format!("tmp/{}", number.saturating_sub(1))));
    })
    .await;
    assert!(matches!(&result, Err(SourceError::Unsettled { path, .. }) if path.starts_with("tmp/")), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_another_file_is_read_is_named() {
    static GROWING: OnceLock<PathBuf> = OnceLock::new();
    /// Asked for the time whenever a file is about to be read.
    fn clock() -> SystemTime {
        let growing = GROWING.get().expect("set before the first look");
        let mut file = fs::OpenOptions::new().append(true).open(growing).expect("writable");
        file.write_all(b"more").expect("written");
        later()
    }
    let fixture = Fixture::with_clock("a b c", clock);
    GROWING.set(fixture.path("a")).expect("set once");
    let result = fixture.look(ScanMode::Interval, None).await;
    assert!(matches!(&result, Err(SourceError::Unsettled { path, .. }) if path == "a"), "{result:?}");
    fixture.look(ScanMode::Ask, None).await.expect("each file by itself stayed the same while it was read");
}
