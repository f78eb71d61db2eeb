//! A file that is read as redb needs it, and not written: what redb changes of it stays in memory, unless it is let
//! through.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::file::Medium;

/// Bytes that are kept together.
const PAGE: u64 = 4096;

/// redb repairs a file while it opens it, and refuses to read one that it cannot repair. With this a file can be read
/// whose disk takes no writes, and a damaged one be told without being touched. A repair writes some pages only.
///
/// Once the file is known to be whole it can be let through: what redb has done is done to the file, in its order, and
/// from then on this is the file. So a file is read once to be opened, and not once to be looked at and once more. A
/// clone is the same one.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    file: Arc<dyn Medium>,
    held: Arc<Mutex<Held>>,
    through: Arc<AtomicBool>,
}

/// What redb does to a file.
#[derive(Debug)]
enum Act {
    Write(u64, Vec<u8>),
    Length(u64),
    Flush,
}

#[derive(Debug)]
struct Held {
    length: u64,
    /// Up to where it is still as the file has it; what was cut off and came again is zeros.
    of_file: u64,
    /// Pages that were written, by their number.
    pages: BTreeMap<u64, Vec<u8>>,
    /// All that was done, in its order: a cut of the power in the middle of it leaves what redb can repair.
    acts: Vec<Act>,
}

impl Overlay {
    pub(super) fn new(file: Arc<dyn Medium>) -> io::Result<Self> {
        let length = file.len()?;
        let held = Held { length, of_file: length, pages: BTreeMap::new(), acts: Vec::new() };
        Ok(Self { file, held: Arc::new(Mutex::new(held)), through: Arc::default() })
    }

    /// Does to the file what was done to this, and is the file from then on.
    ///
    /// # Errors
    /// When the file cannot be written; what redb has done first is done first.
    pub(super) fn let_through(&self) -> io::Result<()> {
        let mut held = self.held();
        for act in std::mem::take(&mut held.acts) {
            match act {
                Act::Write(offset, data) => self.file.write(offset, &data)?,
                Act::Length(length) => self.file.set_len(length)?,
                Act::Flush => self.file.sync_data()?,
            }
        }
        held.pages.clear();
        held.of_file = held.length;
        self.through.store(true, Ordering::Release);
        Ok(())
    }

    fn is_through(&self) -> bool {
        self.through.load(Ordering::Acquire)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// What the file has from an offset on; zeros behind its end.
    fn read_file(&self, file: &dyn Medium, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.of_file.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (of_file, behind) = out.split_at_mut(there);
        behind.fill(0);
        if of_file.is_empty() { Ok(()) } else { file.read(offset, of_file) }
    }
}

/// The parts of a span of bytes that lie in one page each: page, where in the page, where in the span.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let end = offset + length as u64;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let (from, until) = (offset.max(page * PAGE), end.min((page + 1) * PAGE));
        let within = |base: u64| (from - base) as usize..(until - base) as usize;
        (page, within(page * PAGE), within(offset))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        if self.is_through() {
            return self.file.len();
        }
        Ok(self.held().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_through() {
            return self.file.read(offset, out);
        }
        let held = self.held();
        if offset + out.len() as u64 > held.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        held.read_file(&*self.file, offset, out)?;
        for (page, in_page, in_span) in parts(offset, out.len()) {
            if let Some(written) = held.pages.get(&page) {
                out[in_span].copy_from_slice(&written[in_page]);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.is_through() {
            return self.file.set_len(length);
        }
        let mut held = self.held();
        held.acts.push(Act::Length(length));
        held.length = length;
        held.of_file = held.of_file.min(length);
        let _cut_off = held.pages.split_off(&length.div_ceil(PAGE));
        if let Some(last) = held.pages.get_mut(&(length / PAGE)) {
            last[(length % PAGE) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_through() {
            return self.file.sync_data();
        }
        self.held().acts.push(Act::Flush);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is_through() {
            return self.file.write(offset, data);
        }
        let mut held = self.held();
        held.acts.push(Act::Write(offset, data.to_vec()));
        for (page, in_page, in_span) in parts(offset, data.len()) {
            if !held.pages.contains_key(&page) {
                let mut whole = vec![0; PAGE as usize];
                held.read_file(&*self.file, page * PAGE, &mut whole)?;
                held.pages.insert(page, whole);
            }
            let whole = held.pages.get_mut(&page).expect("it was put there");
            whole[in_page].copy_from_slice(&data[in_span]);
        }
        Ok(())
    }
}

/// The file itself, which stays open and locked while redb's handles of it come and go.
#[derive(Debug)]
pub(super) struct Through(pub(super) Arc<dyn Medium>);

impl StorageBackend for Through {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A file that must not be written.
    #[derive(Debug)]
    struct Sealed(Vec<u8>);

    impl Medium for Sealed {
        fn free(&self) -> io::Result<Option<u64>> {
            Ok(None)
        }
    }

    impl StorageBackend for Sealed {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let from = offset as usize;
            out.copy_from_slice(self.0.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            panic!("its length was changed")
        }

        fn sync_data(&self) -> io::Result<()> {
            panic!("it was flushed")
        }

        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            panic!("it was written")
        }
    }

    /// A file that is written.
    #[derive(Debug)]
    struct Written(Mutex<Vec<u8>>);

    impl Written {
        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().expect("no panic happens under this lock")
        }
    }

    impl Medium for Written {
        fn free(&self) -> io::Result<Option<u64>> {
            Ok(None)
        }
    }

    impl StorageBackend for Written {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes().len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
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

    #[derive(Debug, Clone)]
    enum Change {
        /// From a place of so many thousandths on, so many bytes.
        Write(usize, usize, u8),
        Length(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0..1000_usize, 0..9000_usize, any::<u8>()).prop_map(|(at, length, byte)| Change::Write(at, length, byte)),
            1 => (0..30_000_usize).prop_map(Change::Length),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_reads_as_a_file_that_was_written(length in 0..20_000_usize, changes in vec(change(), 0..12)) {
            let mut expected: Vec<u8> = (0..length).map(|at| at as u8 | 1).collect();
            let overlay = Overlay::new(Arc::new(Sealed(expected.clone()))).expect("readable");
            for change in changes {
                match change {
                    Change::Write(at, length, byte) => {
                        let from = expected.len() * at / 1000;
                        let until = expected.len().min(from + length);
                        expected[from..until].fill(byte);
                        overlay.write(from as u64, &vec![byte; until - from]).expect("written");
                    }
                    Change::Length(length) => {
                        expected.resize(length, 0);
                        overlay.set_len(length as u64).expect("changed");
                    }
                }
                prop_assert_eq!(overlay.len().expect("known"), expected.len() as u64);
                let mut found = vec![7; expected.len()];
                overlay.read(0, &mut found).expect("readable");
                prop_assert!(found == expected);
                let middle = expected.len() / 3..expected.len() / 2;
                let mut found = vec![7; middle.len()];
                overlay.read(middle.start as u64, &mut found).expect("readable");
                prop_assert!(found == expected[middle]);
            }
            prop_assert!(overlay.read(expected.len() as u64, &mut [0]).is_err(), "behind its end");
        }

        #[test]
        fn what_is_let_through_is_in_the_file(
            length in 0..20_000_usize,
            (before, after) in (vec(change(), 0..12), vec(change(), 0..12)),
        ) {
            let mut expected: Vec<u8> = (0..length).map(|at| at as u8 | 1).collect();
            let file = Arc::new(Written(Mutex::new(expected.clone())));
            let overlay = Overlay::new(file.clone()).expect("readable");
            for changes in [before, after] {
                for change in changes {
                    match change {
                        Change::Write(at, length, byte) => {
                            let from = expected.len() * at / 1000;
                            let until = expected.len().min(from + length);
                            expected[from..until].fill(byte);
                            overlay.clone().write(from as u64, &vec![byte; until - from]).expect("written");
                        }
                        Change::Length(length) => {
                            expected.resize(length, 0);
                            overlay.set_len(length as u64).expect("changed");
                        }
                    }
                }
                overlay.let_through().expect("written");
                prop_assert!(*file.bytes() == expected);
                let mut found = vec![7; expected.len()];
                overlay.read(0, &mut found).expect("readable");
                prop_assert!(found == expected && overlay.len().expect("known") == expected.len() as u64);
            }
        }
    }
}
