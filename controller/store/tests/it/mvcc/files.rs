//! Files: made whole or not at all, one opener, for the owner only; what is damaged is named and left alone.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;
use redb::ReadableDatabase as _;
use windlass_store::mvcc::{Change, Disk, Engine, KeyRange, KeyValue, OpenError, Range, Refusal, Request};

use super::{NOW, everything, on_disk, one, put};

/// Which store another process is to open.
const OPEN: &str = "WINDLASS_TEST_OPEN_STORE";

#[test]
fn a_store_has_one_opener() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    let second = Disk::open(&path).expect_err("it is in use");
    let OpenError::InUse { process, .. } = &second else { panic!("{second}") };
    assert_eq!(*process, Some(std::process::id()));
    one(&engine, Request::Put(put("a", "1"))).expect("the first is not disturbed");
    drop(engine);
    on_disk(&path);
}

#[test]
fn who_closes_a_store_tells_when_it_can_be_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    for _ in 0..20 {
        let (disk, closed) = Disk::open_and_tell(&path).expect("nobody has it");
        let engine = Engine::open(Box::new(disk), NOW).expect("a whole store");
        one(&engine, Request::Put(put("a", "1"))).expect("put");
        let copy = engine.snapshot().expect("readable");
        let last = std::thread::spawn(move || drop(engine));
        drop(copy);
        assert!(closed.wait(crate::PATIENCE), "nobody is left");
        on_disk(&path);
        last.join().expect("no panic");
    }
    let (disk, closed) = Disk::open_and_tell(&path).expect("nobody has it");
    assert!(!closed.wait(Duration::from_millis(1)), "it is open");
    drop(disk);
}

#[test]
#[ignore = "the other process of `another_process_is_named`"]
fn a_process_that_holds_a_store() {
    let Some(path) = std::env::var_os(OPEN) else { return };
    let _engine = on_disk(Path::new(&path));
    fs::write(Path::new(&path).with_extension("held"), "").expect("written");
    // Until nobody is there any more who could want it.
    std::io::stdin().read_to_end(&mut Vec::new()).expect("readable");
}

#[test]
fn another_process_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let mut holder = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "mvcc::files::a_process_that_holds_a_store", "--ignored"])
        .env(OPEN, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    while !path.with_extension("held").exists() {
        assert!(holder.try_wait().expect("a child").is_none(), "it holds no store");
        std::thread::yield_now();
    }
    let told = Disk::open(&path).expect_err("it is in use").to_string();
    assert!(told.contains(&format!("in use by process {}; hint: stop it", holder.id())), "{told}");
    // Without the lock's file there is still one opener only.
    fs::remove_file(path.with_extension("redb.lock")).expect("removed");
    assert!(matches!(Disk::open(&path), Err(OpenError::InUse { .. })));
    drop(holder.stdin.take());
    assert!(holder.wait().expect("a child").success());
    on_disk(&path);
}

#[test]
#[ignore = "the process whose files `a_file_that_may_not_grow_is_read` bounds"]
fn a_process_that_fills_its_disk() {
    let Some(path) = std::env::var_os(OPEN) else { return };
    let engine = on_disk(Path::new(&path));
    let value = "v".repeat(50_000);
    let mut written = 0;
    let told = loop {
        match one(&engine, Request::Put(put(&format!("k{written:03}"), &value))) {
            Ok(_) => written += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(&told, Refusal::NoSpace(what) if what.contains("store.redb: File too large")), "{told:?}");
    assert!(written > 10, "{written}");
    for _ in 0..3 {
        let (_, found) = engine.range(&Range::of(everything())).expect("reads go on");
        assert_eq!(found.pairs.len(), written);
        assert!(found.pairs.iter().all(|pair| pair.value == value));
        one(&engine, Request::Put(put("one more", &value))).expect_err("there is no room");
    }
    fs::write(Path::new(&path).with_extension("written"), written.to_string()).expect("written");
}

#[test]
fn a_file_that_may_not_grow_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    // 4 MiB, in blocks of 512 bytes; a write behind them is to fail, not to end the process.
    let filled = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "mvcc::files::a_process_that_fills_its_disk", "--ignored"])
        .env(OPEN, &path)
        .output()
        .expect("started");
    assert!(filled.status.success(), "{filled:?}");
    let written: usize = fs::read_to_string(path.with_extension("written")).expect("it ran").parse().expect("a number");
    let engine = on_disk(&path);
    let (_, found) = engine.range(&Range::of(everything())).expect("found");
    assert!((written..=written + 1).contains(&found.pairs.len()), "{} of {written}", found.pairs.len());
    one(&engine, Request::Put(put("one more", "1"))).expect("there is room");
}

#[test]
fn a_store_is_for_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("not/there/yet/store.redb");
    on_disk(&path);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(path.parent().expect("a folder")), mode(&path)), (0o700, 0o600));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
    on_disk(&path);
    assert_eq!(mode(&path), 0o600, "a copy that was put there");
}

#[test]
fn a_store_that_was_never_finished_is_begun_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    fs::write(folder.path().join("store.redb.new"), "the first half").expect("written");
    one(&on_disk(&path), Request::Put(put("a", "1"))).expect("put");
    assert!(!folder.path().join("store.redb.new").exists());
    assert_eq!(on_disk(&path).revision(), 2);
}

#[test]
fn what_is_no_store_is_named_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let other = folder.path().join("other.redb");
    let table = redb::TableDefinition::<u64, u64>::new("other");
    let database = redb::Database::create(&other).expect("made");
    let write = database.begin_write().expect("begun");
    write.open_table(table).expect("opened");
    write.commit().expect("written");
    drop(database);
    let rows = [
        ("empty", Vec::new(), "it is empty, which a store never is"),
        ("a letter", b"this is not a store, but somebody's letter".to_vec(), "magic number"),
        ("somebody's database", fs::read(&other).expect("readable"), "'state' does not exist"),
    ];
    for (what, bytes, expected) in rows {
        fs::write(&path, &bytes).expect("written");
        let error = Disk::open(&path).expect_err("no store");
        assert!(matches!(&error, OpenError::Damaged { .. }), "{what}: {error:?}");
        let told = error.to_string();
        assert!(told.contains(expected) && told.contains(&*path.to_string_lossy()), "{what}: {told}");
        assert_eq!(fs::read(&path).expect("readable"), bytes, "{what}");
    }
}

/// What happens to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// It ends here: so many of 65,536 parts of it are left.
    Cut(u16),
    /// So many bytes from there on are overwritten with this one; a place as above, or one of the first bytes.
    Overwrite(u16, usize, u8),
    OverwriteHead(u16, usize, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let length = || prop_oneof![Just(1_usize), Just(64), Just(5000)];
    prop_oneof![
        any::<u16>().prop_map(Damage::Cut),
        (any::<u16>(), length(), any::<u8>()).prop_map(|(at, length, byte)| Damage::Overwrite(at, length, byte)),
        (0..400_u16, length(), any::<u8>()).prop_map(|(at, length, byte)| Damage::OverwriteHead(at, length, byte)),
    ]
}

fn hurt(bytes: &mut Vec<u8>, damage: &Damage) {
    let part = |at: u16| bytes.len() * usize::from(at) / 65_536;
    let (from, length, byte) = match *damage {
        Damage::Cut(at) => return bytes.truncate(part(at)),
        Damage::Overwrite(at, length, byte) => (part(at), length, byte),
        Damage::OverwriteHead(at, length, byte) => (usize::from(at), length, byte),
    };
    let until = bytes.len().min(from + length);
    bytes[from..until].fill(byte);
}

/// A store's file, and what is in it.
static WHOLE: LazyLock<(Vec<u8>, Vec<KeyValue>, Vec<Change>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    for number in 0..12 {
        one(&engine, Request::Put(put(&format!("k{}", number % 5), &"v".repeat(1000)))).expect("put");
    }
    let (_, found) = engine.range(&Range::of(everything())).expect("readable");
    let history = engine.history(1, 99, usize::MAX).expect("readable");
    drop(engine);
    (fs::read(&path).expect("readable"), found.pairs, history.changes)
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_named_and_left_alone(damage in damage()) {
        let (whole, pairs, history) = &*WHOLE;
        let mut bytes = whole.clone();
        hurt(&mut bytes, &damage);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.redb");
        fs::write(&path, &bytes).expect("written");
        match Disk::open(&path) {
            Ok(disk) => {
                let engine = Engine::open(Box::new(disk), NOW).expect("what opens is whole");
                let (_, found) = engine.range(&Range::of(everything())).expect("readable");
                prop_assert_eq!(&found.pairs, pairs, "nothing was lost");
                prop_assert_eq!(&engine.history(1, 99, usize::MAX).expect("readable").changes, history);
            }
            Err(error) => {
                prop_assert!(matches!(&error, OpenError::Damaged { .. }), "{:?}", error);
                prop_assert!(error.to_string().contains(&*path.to_string_lossy()));
                prop_assert!(fs::read(&path).expect("readable") == bytes, "it was changed");
            }
        }
    }
}

/// What is in a file of the layout before, where each value lay apart from its change.
fn file_of_the_layout_before(path: &Path, key: &str, value: &str) {
    let (changes, values) = (
        redb::TableDefinition::<[u8; 16], &[u8]>::new("changes"),
        redb::TableDefinition::<[u8; 16], &[u8]>::new("values"),
    );
    let leases = redb::TableDefinition::<i64, i64>::new("leases");
    let state = redb::TableDefinition::<&str, i64>::new("state");
    let place: [u8; 16] = [2_i64.to_be_bytes(), 0_i64.to_be_bytes()].concat().try_into().expect("sixteen bytes");
    let sealed = |record: &[u8]| {
        let sum = crc32fast::hash(&[&place, record].concat());
        [&sum.to_le_bytes()[..], record].concat()
    };
    let numbers = [2_i64, 1, 0].map(i64::to_le_bytes).concat();
    let change = [&numbers[..], &3_u16.to_le_bytes(), b"ana", key.as_bytes()].concat();
    let database = redb::Database::create(path).expect("made");
    let write = database.begin_write().expect("begun");
    write.open_table(changes).expect("opened").insert(place, &sealed(&change)[..]).expect("written");
    write.open_table(values).expect("opened").insert(place, &sealed(value.as_bytes())[..]).expect("written");
    write.open_table(leases).expect("opened");
    write.open_table(state).expect("opened").insert("layout", 1).expect("written");
    write.commit().expect("written");
}

fn layout(path: &Path) -> i64 {
    let database = redb::Database::open(path).expect("a file");
    let read = database.begin_read().expect("begun");
    let state = read.open_table(redb::TableDefinition::<&str, i64>::new("state")).expect("opened");
    state.get("layout").expect("readable").expect("it is there").value()
}

#[test]
fn a_store_of_the_layout_before_is_read_and_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    file_of_the_layout_before(&path, "old", "1");
    let check = |engine: &Engine, expected: &[(&str, &str)]| {
        let (_, found) = engine.range(&Range::of(everything())).expect("readable");
        let found: Vec<_> = found.pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect();
        let expected: Vec<_> =
            expected.iter().map(|(key, value)| ((*key).to_owned().into(), (*value).to_owned().into())).collect();
        assert_eq!(found, expected);
        let first = engine.history(1, 1, usize::MAX).expect("readable").changes.remove(0);
        assert_eq!((&first.pair.value[..], first.author.as_deref()), (&b"1"[..], Some("ana")));
    };
    check(&on_disk(&path), &[("old", "1")]);
    assert_eq!(layout(&path), 1, "who only reads changes nothing");
    let engine = on_disk(&path);
    one(&engine, Request::Put(put("new", "2"))).expect("put");
    check(&engine, &[("new", "2"), ("old", "1")]);
    drop(engine);
    assert_eq!(layout(&path), 2, "the program before refuses it");
    check(&on_disk(&path), &[("new", "2"), ("old", "1")]);
}

#[test]
fn values_of_every_length_are_kept_and_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    // Small ones lie with their change, up to a kilobyte.
    let values: Vec<String> = [0, 1, 1023, 1024, 1025, 5000, 100_000].map(|length| "v".repeat(length)).into();
    let check = |engine: &Engine| {
        let (_, found) = engine.range(&Range::of(everything())).expect("readable");
        assert!(found.pairs.iter().map(|pair| &pair.value[..]).eq(values.iter().map(String::as_bytes)));
        let history = engine.history(1, 99, usize::MAX).expect("readable").changes;
        assert!(history.iter().map(|change| &change.pair.value[..]).eq(values.iter().map(String::as_bytes)));
    };
    for (key, value) in values.iter().enumerate() {
        one(&engine, Request::Put(put(&key.to_string(), value))).expect("put");
    }
    check(&engine);
    drop(engine);
    let engine = on_disk(&path);
    check(&engine);
    for key in 0..values.len() {
        one(&engine, Request::Put(put(&key.to_string(), ""))).expect("put");
    }
    engine.compact(engine.revision()).expect("compacted");
    while engine.forget_some().expect("forgotten") {}
    let room = engine.room().expect("readable");
    assert!(room.used < 100_000, "nothing is left of what was there before: {room:?}");
}

#[test]
fn a_changed_value_is_found_when_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let engine = on_disk(&path);
    one(&engine, Request::Put(put("whole", "nothing happens to this"))).expect("put");
    one(&engine, Request::Put(put("hurt", "spoil-this-value-please"))).expect("put");
    drop(engine);
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a file");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("readable");
    let places = bytes.windows(10).enumerate().filter(|(_, window)| window == b"spoil-this").map(|(at, _)| at);
    for at in places.collect::<Vec<_>>() {
        file.seek(SeekFrom::Start(at as u64)).expect("there");
        file.write_all(b"X").expect("written");
    }
    drop(file);
    // Whether it already shows on opening is redb's to say; what it never is, is answered.
    let Ok(disk) = Disk::open(&path) else { return };
    let Ok(engine) = Engine::open(Box::new(disk), NOW) else { return };
    let hurt = engine.range(&Range::of(KeyRange::One("hurt".into())));
    assert!(matches!(&hurt, Err(Refusal::Broken(why)) if why.contains("revision 3.0")), "{hurt:?}");
}
