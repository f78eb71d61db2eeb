//! What opening a store costs: its file is read about once, however it was closed.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;
use windlass_store::mvcc::{Disk, Engine, Medium, Request};

use super::{NOW, one, put};

/// A file in memory that counts what is read of it.
#[derive(Debug, Default)]
struct Counted {
    bytes: Mutex<Vec<u8>>,
    read: AtomicU64,
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
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
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
    let killed = Arc::new(Counted { bytes: Mutex::new(file.bytes().clone()), read: AtomicU64::default() });
    drop(engine);
    file.read.store(0, Ordering::Relaxed);
    for (how, file) in [("closed", file), ("killed", killed)] {
        let engine = open(&file);
        let (length, read) = (file.bytes().len() as u64, file.read.load(Ordering::Relaxed));
        assert_eq!(engine.size(), (400, 400));
        assert!(read < length * 3 / 2, "{how}: {read} bytes of {length} were read");
    }
}
