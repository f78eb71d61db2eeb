//! What is read, and what is known without reading.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use windlass_crds::digest::FileDigest;
use windlass_crds::manifest::Entry;
use windlass_sources::{Clock, ScanMode, ScanStats, SourceError, Sweep};

use crate::fixture::{Fixture, later};

/// How often files were opened, and how much was read.
fn cost(stats: ScanStats) -> (usize, u64) {
    (stats.hashed, stats.bytes_hashed)
}

#[tokio::test]
async fn an_unchanged_tree_opens_no_file() {
    let fixture = Fixture::new("a=12 b/c=345 b/d=");
    let first = fixture.ask().await;
    assert_eq!(cost(first.stats), (3, 5));
    // A read would show in the access time too, as long as that is older than the last change (relatime).
    let accessed = |path: &str| {
        fs::metadata(fixture.path(path)).map(|metadata| (metadata.atime(), metadata.atime_nsec())).expect("a file")
    };
    let before = accessed("b/c");
    for mode in [ScanMode::Ask, ScanMode::Interval] {
        let again = fixture.look(mode, Some(&first.digest)).await.expect("a release");
        assert_eq!(again.digest, first.digest);
        assert_eq!(again.stats, ScanStats { files: 3, hashed: 0, bytes_hashed: 0 }, "{mode:?}");
    }
    assert_eq!(accessed("b/c"), before);
}

#[tokio::test]
async fn only_what_changed_is_read() {
    async fn check(what: &str, edit: impl Fn(&Fixture), expected: (usize, u64)) {
        let fixture = Fixture::new("a=12 b/c=345");
        fixture.ask().await;
        edit(&fixture);
        assert_eq!(cost(fixture.ask().await.stats), expected, "{what}");
        assert_eq!(cost(fixture.ask().await.stats), (0, 0), "{what}, once more");
    }
    check("nothing", |_| (), (0, 0)).await;
    check("longer", |fixture| fixture.write("a", "1234"), (1, 4)).await;
    check("touched", |fixture| fixture.set_modified("a", SystemTime::UNIX_EPOCH + Duration::from_secs(9)), (1, 2))
        .await;
    check(
        "replaced by one with the same size and times",
        |fixture| {
            let times = fs::metadata(fixture.path("a")).and_then(|metadata| metadata.modified()).expect("a time");
            fixture.write("twin", "21");
            fixture.set_modified("twin", times);
            fs::rename(fixture.path("twin"), fixture.path("a")).expect("renamed");
        },
        (2, 4),
    )
    .await;
    check(
        "written with the time put back",
        |fixture| {
            let before = fs::metadata(fixture.path("a")).expect("a file");
            loop {
                fixture.write("a", "21");
                fixture.set_modified("a", before.modified().expect("a time"));
                let after = fs::metadata(fixture.path("a")).expect("a file");
                // The kernel's clock ticks every few milliseconds; a file of this age is never trusted outside of tests.
                if (after.ctime(), after.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
                    return;
                }
            }
        },
        (2, 4),
    )
    .await;
    check("a new file", |fixture| fixture.write("new", "1"), (1, 1)).await;
    check("a file less", |fixture| fs::remove_file(fixture.path("a")).expect("removed"), (0, 0)).await;
}

#[tokio::test]
async fn a_young_file_is_read_again_next_time() {
    let fixture = Fixture::with_clock("a=12", SystemTime::now);
    for _ in 0..2 {
        assert_eq!(cost(fixture.ask().await.stats), (2, 4));
    }
}

/// Every file of a fresh checkout is another one, of another time: it is read, and only what is new is written.
#[tokio::test]
async fn a_fresh_checkout_writes_only_what_changed() {
    for (young, clock) in [(false, later as Clock), (true, SystemTime::now)] {
        let fixture = Fixture::with_clock("a=12 b/c=345 d=6", clock);
        let stored = |text: &str| {
            let path = fixture.contents().path(&FileDigest::of(text.as_bytes()));
            fs::metadata(path).map(|metadata| metadata.ino()).ok()
        };
        fixture.ask().await;
        let before = [stored("12"), stored("345"), stored("6")];
        for (path, text) in [("a", "12"), ("b/c", "543"), ("d", "67")] {
            fixture.write("checked-out", text);
            fs::rename(fixture.path("checked-out"), fixture.path(path)).expect("renamed");
        }
        let release = fixture.ask().await;
        assert_eq!([stored("12"), stored("345"), stored("6")], before, "young: {young}");
        assert!(stored("543").is_some() && stored("67").is_some(), "young: {young}");
        let digest = |path: &str| match &release.manifest.entries[&path.parse().expect("a path")] {
            Entry::File { digest, .. } => *digest,
            Entry::Link { .. } => panic!("{path} is a file"),
        };
        for (path, text) in [("a", "12"), ("b/c", "543"), ("d", "67")] {
            assert_eq!(digest(path), FileDigest::of(text.as_bytes()), "young: {young}, {path}");
        }
    }
}

#[tokio::test]
async fn what_was_read_before_a_failure_is_not_read_again() {
    static LAST: OnceLock<PathBuf> = OnceLock::new();
    static READS: AtomicUsize = AtomicUsize::new(0);
    /// Asked for the time whenever a file is about to be read; takes the third away.
    fn clock() -> SystemTime {
        if READS.fetch_add(1, Ordering::Relaxed) == 2 {
            fs::remove_file(LAST.get().expect("set before the first look")).expect("removed");
        }
        later()
    }
    let fixture = Fixture::with_clock("a=1 b=2 c=3", clock);
    LAST.set(fixture.path("c")).expect("set once");
    let result = fixture.look(ScanMode::Ask, None).await;
    assert!(matches!(&result, Err(SourceError::Unsettled { path, .. }) if path == "c"), "{result:?}");
    fixture.write("c", "3");
    assert_eq!(cost(fixture.ask().await.stats), (1, 1));
}

#[tokio::test]
async fn a_restart_reads_nothing_again() {
    let mut fixture = Fixture::new("a=12 b/c=345");
    let before = fixture.ask().await;
    fixture.restart();
    let after = fixture.ask().await;
    assert_eq!((after.digest, cost(after.stats)), (before.digest, (0, 0)));

    for entry in fs::read_dir(fixture.data().join("contents/hashes")).expect("a directory") {
        let path = entry.expect("an entry").path();
        let damaged = fs::read_to_string(&path).expect("readable").replacen(' ', " 1", 1);
        fs::remove_file(&path).and_then(|()| fs::write(&path, damaged)).expect("written");
    }
    fixture.restart();
    let after = fixture.ask().await;
    assert_eq!((after.digest, cost(after.stats)), (before.digest, (2, 5)), "a damaged cache is ignored");
    fixture.restart();
    assert_eq!(cost(fixture.ask().await.stats), (0, 0), "and replaced");
}

#[tokio::test]
async fn what_the_store_lost_is_read_again() {
    async fn check(what: &str, damage: impl Fn(&Fixture), expected: (usize, u64)) {
        let mut fixture = Fixture::new("a=12 b/c=345");
        let before = fixture.ask().await;
        damage(&fixture);
        for restart in [false, true] {
            if restart {
                fixture.restart();
            }
            let after = fixture.ask().await;
            assert_eq!(after.digest, before.digest, "{what}");
            assert_eq!(cost(after.stats), if restart { (0, 0) } else { expected }, "{what}");
            let contents = fixture.contents();
            assert_eq!(contents.verify(&after.manifest).expect("verified"), [], "{what}");
            assert!(contents.manifest(&after.digest).expect("readable").is_some(), "{what}");
        }
    }
    let stored = |fixture: &Fixture, text: &str| fixture.contents().path(&FileDigest::of(text.as_bytes()));
    check("a file", |fixture| fs::remove_file(stored(fixture, "12")).expect("removed"), (1, 2)).await;
    check(
        "half a file",
        |fixture| {
            fs::remove_file(stored(fixture, "345"))
                .and_then(|()| fs::write(stored(fixture, "345"), "3"))
                .expect("written");
        },
        (1, 3),
    )
    .await;
    check(
        "a byte, found by verify",
        |fixture| {
            fs::remove_file(stored(fixture, "345"))
                .and_then(|()| fs::write(stored(fixture, "345"), "344"))
                .expect("written");
            let digest = FileDigest::of(b"345");
            let entry = windlass_crds::manifest::Entry::File { digest, size: 3, executable: false };
            let manifest =
                windlass_crds::manifest::Manifest { entries: [("x".parse().expect("a path"), entry)].into() };
            assert_eq!(fixture.contents().verify(&manifest).expect("verified"), [digest]);
        },
        (1, 3),
    )
    .await;
    check(
        "the manifests",
        |fixture| {
            let manifests = fixture.data().join("contents/manifests");
            fs::remove_dir_all(&manifests).and_then(|()| fs::create_dir(&manifests)).expect("emptied");
        },
        (0, 0),
    )
    .await;
}

#[tokio::test]
async fn a_sweep_keeps_what_is_asked_for() {
    let fixture = Fixture::new("a=12 b=345");
    let old = fixture.ask().await;
    fixture.write("a", "other");
    let new = fixture.ask().await;
    let contents = fixture.contents();
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
    let swept = contents.retain(&BTreeSet::from([old.digest, new.digest]), tomorrow).expect("swept");
    assert_eq!(swept, Sweep::Done { removed: 0, bytes: 0 });
    contents.retain(&BTreeSet::from([new.digest]), tomorrow).expect("swept");
    assert_eq!(contents.missing(&old.manifest), [FileDigest::of(b"12")]);
    assert_eq!(contents.missing(&new.manifest), []);
}
