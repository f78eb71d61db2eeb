//! How a change lies in the file, under a checksum of its own.

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

pub(super) fn encode(at: Revision, meta: &Meta) -> Vec<u8> {
    let author = meta.author.as_deref().unwrap_or_default().as_bytes();
    let mut record = Vec::with_capacity(26 + author.len() + meta.key.len());
    for number in [meta.created, meta.version, meta.lease.0] {
        record.extend_from_slice(&number.to_le_bytes());
    }
    // A certificate's name has 64 characters at most (RFC 5280, ub-common-name).
    let length = u16::try_from(author.len()).unwrap_or(0);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&author[..usize::from(length)]);
    record.extend_from_slice(&meta.key);
    seal(at, &record)
}

pub(super) fn decode(at: Revision, sealed: &[u8]) -> Result<Meta, BackendError> {
    let record = unseal(at, sealed)?;
    let short = || damaged(at, "is too short");
    let (numbers, rest) = record.split_first_chunk::<24>().ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (author, key) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or_else(short)?;
    let number = |at: usize| i64::from_le_bytes(numbers[at..at + 8].try_into().expect("eight bytes"));
    let author = std::str::from_utf8(author).map_err(|_| damaged(at, "names nobody"))?;
    Ok(Meta {
        key: Bytes::copy_from_slice(key),
        created: number(0),
        version: number(8),
        lease: LeaseNumber(number(16)),
        author: (!author.is_empty()).then(|| author.into()),
    })
}

fn damaged(at: Revision, how: &str) -> BackendError {
    BackendError::Damaged(format!("revision {}.{} {how}", at.main, at.sub))
}
