//! How a change lies in the file, under a checksum of its own.
//!
//! ```text
//! created, version, lease (8 bytes each), length of the author (2), author, key
//! created, version, lease (8 bytes each), length of the author | 0x8000 (2), length of the key (4), author, key, value
//! ```

use bytes::Bytes;

use crate::mvcc::backend::{BackendError, Meta};
use crate::mvcc::model::{LeaseNumber, Revision};

/// A revision as a key: in order.
pub(super) fn place(at: Revision) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8..].copy_from_slice(&at.sub.to_be_bytes());
    key
}

pub(super) fn revision(key: [u8; 16]) -> Revision {
    let (main, sub) = key.split_at(8);
    let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    Revision { main: number(main), sub: number(sub) }
}

/// The checksum of a record, its place included.
fn checksum(at: Revision, record: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place(at));
    hasher.update(record);
    hasher.finalize().to_le_bytes()
}

pub(super) fn seal(at: Revision, record: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(record.len() + 4);
    sealed.extend_from_slice(&checksum(at, record));
    sealed.extend_from_slice(record);
    sealed
}

pub(super) fn unseal(at: Revision, sealed: &[u8]) -> Result<&[u8], BackendError> {
    match sealed.split_first_chunk::<4>() {
        Some((sum, record)) if *sum == checksum(at, record) => Ok(record),
        _ => Err(damaged(at, "has another checksum than was written")),
    }
}

/// Bytes of a value that lies with its change at most; a larger one lies apart. A table of its own costs a put three
/// pages more, each at another place of the disk; and what lies with the changes is read by every start.
const TOGETHER: usize = 1024;

/// Set in the length of the author where the value lies with its change.
const HAS_VALUE: u16 = 0x8000;

/// Whether a change's value lies apart from it.
pub(super) fn is_apart(meta: &Meta, value: &[u8]) -> bool {
    meta.version > 0 && value.len() > TOGETHER
}

pub(super) fn encode(at: Revision, meta: &Meta, value: &[u8]) -> Vec<u8> {
    let author = meta.author.as_deref().unwrap_or_default().as_bytes();
    let together = meta.version > 0 && !is_apart(meta, value);
    let mut record = Vec::with_capacity(30 + author.len() + meta.key.len() + if together { value.len() } else { 0 });
    for number in [meta.created, meta.version, meta.lease.0] {
        record.extend_from_slice(&number.to_le_bytes());
    }
    // A certificate's name has 64 characters at most (RFC 5280, ub-common-name).
    let length = u16::try_from(author.len()).ok().filter(|length| length & HAS_VALUE == 0).unwrap_or(0);
    record.extend_from_slice(&(length | if together { HAS_VALUE } else { 0 }).to_le_bytes());
    if together {
        let length = u32::try_from(meta.key.len()).expect("a request has some megabytes at most");
        record.extend_from_slice(&length.to_le_bytes());
    }
    record.extend_from_slice(&author[..usize::from(length)]);
    record.extend_from_slice(&meta.key);
    if together {
        record.extend_from_slice(value);
    }
    seal(at, &record)
}

/// A change as it lies in the file.
pub(super) struct Record<'a> {
    at: Revision,
    numbers: &'a [u8; 24],
    author: &'a [u8],
    key: &'a [u8],
    /// Its value, where that does not lie apart, and it is no deletion.
    pub(super) value: Option<&'a [u8]>,
}

pub(super) fn decode(at: Revision, sealed: &[u8]) -> Result<Record<'_>, BackendError> {
    let record = unseal(at, sealed)?;
    let short = || damaged(at, "is too short");
    let (numbers, rest) = record.split_first_chunk::<24>().ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let length = u16::from_le_bytes(*length);
    let (key_length, rest) = match length & HAS_VALUE {
        0 => (None, rest),
        _ => rest.split_first_chunk::<4>().map(|(length, rest)| (Some(*length), rest)).ok_or_else(short)?,
    };
    let (author, rest) = rest.split_at_checked(usize::from(length & !HAS_VALUE)).ok_or_else(short)?;
    let (key, value) = match key_length {
        None => (rest, None),
        Some(length) => {
            let (key, value) = rest.split_at_checked(u32::from_le_bytes(length) as usize).ok_or_else(short)?;
            (key, Some(value))
        }
    };
    Ok(Record { at, numbers, author, key, value })
}

impl Record<'_> {
    pub(super) fn meta(&self) -> Result<Meta, BackendError> {
        let number = |at: usize| i64::from_le_bytes(self.numbers[at..at + 8].try_into().expect("eight bytes"));
        let author = std::str::from_utf8(self.author).map_err(|_| damaged(self.at, "names nobody"))?;
        Ok(Meta {
            key: Bytes::copy_from_slice(self.key),
            created: number(0),
            version: number(8),
            lease: LeaseNumber(number(16)),
            author: (!author.is_empty()).then(|| author.into()),
        })
    }
}

fn damaged(at: Revision, how: &str) -> BackendError {
    BackendError::Damaged(format!("revision {}.{} {how}", at.main, at.sub))
}
