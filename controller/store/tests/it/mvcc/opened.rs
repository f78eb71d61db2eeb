//! What a store costs its disk: its file is read about once to be opened, however it was closed, and a put writes few
//! pages.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;
use windlass_store::mvcc::{Disk, Engine, Medium, Request};

use super::{NOW, one, order, put};

/// A file in memory that counts what is read of it, and how often it is written and flushed.
#[derive(Debug, Default)]
struct Counted {
    bytes: Mutex<Vec<u8>>,
    read: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
}

impl Counted {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().expect("no panic happens under this lock")
    }
}

impl Medium for Counted {
    fn free(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        let from = offset as usize;
        out.copy_from_slice(self.bytes().get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.bytes().resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let from = offset as usize;
        self.bytes()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn open(file: &Arc<Counted>) -> Engine {
    let disk = Disk::on(file.clone(), Path::new("counted")).expect("a whole store");
    Engine::open(Box::new(disk), NOW).expect("a whole store")
}

#[test]
fn a_file_is_read_about_once_to_be_opened() {
    let file = Arc::new(Counted::default());
    let engine = open(&file);
    let value = "v".repeat(100_000);
    // Far more than is kept in memory of a file.
    for key in 0..400 {
        one(&engine, Request::Put(put(&key.to_string(), &value))).expect("put");
    }
    // As the disk is when the process is killed.
    let killed = Arc::new(Counted { bytes: Mutex::new(file.bytes().clone()), ..Counted::default() });
    drop(engine);
    file.read.store(0, Ordering::Relaxed);
    for (how, file) in [("closed", file), ("killed", killed)] {
        let engine = open(&file);
        let (length, read) = (file.bytes().len() as u64, file.read.load(Ordering::Relaxed));
        assert_eq!(engine.size(), (400, 400));
        assert!(read < length * 3 / 2, "{how}: {read} bytes of {length} were read");
    }
}

#[test]
fn a_small_put_is_one_flush_of_few_pages() {
    let file = Arc::new(Counted::default());
    let engine = open(&file);
    let value = "v".repeat(256);
    let put = |key: u64| order(Request::Put(put(&key.to_string(), &value)));
    // A history of some thousand changes has a tree of the height that it keeps for long.
    for from in (0..10_000).step_by(100) {
        engine.write(&(from..from + 100).map(put).collect::<Vec<_>>(), NOW);
    }
    file.writes.store(0, Ordering::Relaxed);
    file.flushes.store(0, Ordering::Relaxed);
    let puts = 200;
    for key in 0..puts {
        engine.write(&[put(key)], NOW).remove(0).expect("put");
    }
    let flushes = file.flushes.load(Ordering::Relaxed);
    assert!((puts..=puts + 1).contains(&flushes), "{flushes} flushes; one more only where the file grows");
    // The header, redb's own four, and a path in the tree of changes; a little more where a page is full.
    let each = file.writes.load(Ordering::Relaxed) as f64 / puts as f64;
    assert!(each < 9.0, "{each} pages for a put");
}
