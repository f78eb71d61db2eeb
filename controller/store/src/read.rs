//! Reads: one key, or everything in a scope at one revision.

use etcd_client::{GetOptions, GetResponse, ResponseHeader, SortOrder, SortTarget};

use crate::call::{CallError, Problem, Repeat};
use crate::connect::Store;
use crate::entry::{Entry, Listing, StoreRevision};
use crate::key::Key;
use crate::report::Call;
use crate::scope::{KeyRange, Scope};

/// Keys to a page: large enough that a thousand hosts take a few pages, small enough to keep etcd responsive.
const PAGE: i64 = 500;

/// The largest answer that we take. A page of larger values is asked for again in smaller pages.
pub(crate) const ANSWER_BYTES: usize = 64 << 20;

/// How often a list begins again because its revision was compacted while it was being read. Compaction comes
/// minutes apart, so that a second time is already a sign of something else.
const RESTARTS: usize = 5;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer, or refused.
    #[error("cannot read from the store")]
    Call(#[source] CallError),
    /// History is compacted faster than a list can be read.
    #[error("the store compacts its history faster than a list of it can be read")]
    CompactsTooOften,
}

impl ReadError {
    /// Whether the same read may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(error) => error.is_transient(),
            Self::CompactsTooOften => true,
        }
    }
}

/// Where the store stood when it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) revision: StoreRevision,
    /// Of Raft, only grows in the life of a cluster.
    pub(crate) term: u64,
    /// etcd's own cluster id, another one after most restores.
    pub(crate) cluster: u64,
}

impl Position {
    pub(crate) fn of(header: Option<&ResponseHeader>) -> Self {
        Self {
            revision: StoreRevision::from_etcd(header.map_or(0, ResponseHeader::revision)),
            term: header.map_or(0, ResponseHeader::raft_term),
            cluster: header.map_or(0, ResponseHeader::cluster_id),
        }
    }

    /// Whether a store that stands here has the history of one that stood at `earlier`, so far as one can see.
    pub(crate) fn continues(&self, earlier: &Self) -> bool {
        self.revision >= earlier.revision && self.term >= earlier.term && self.cluster == earlier.cluster
    }
}

/// What is still to be read of a range, and how many keys at a time.
#[derive(Debug, Clone)]
struct Rest {
    range: KeyRange,
    page: i64,
}

impl Rest {
    fn of(range: KeyRange) -> Self {
        Self { range, page: PAGE }
    }
}

impl Store {
    /// Reads one key. One round trip.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses.
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        let answer = self.get_raw(&self.path(key), &GetOptions::new()).await.map_err(ReadError::Call)?;
        Ok(answer.kvs().first().and_then(|pair| Entry::new(self.prefix(), pair)))
    }

    /// The revision that the store has reached. One round trip.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses.
    pub async fn revision(&self) -> Result<StoreRevision, ReadError> {
        self.position(&Scope::everything()).await.map(|position| position.revision).map_err(ReadError::Call)
    }

    /// Everything in a scope, all of it at one revision, sorted by key. A round trip for each range of the scope
    /// and for each further 500 keys.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses, or compacts its history all the time.
    pub async fn list(&self, scope: &Scope) -> Result<Listing, ReadError> {
        let (entries, position) = self.list_at(scope).await?;
        Ok(Listing { entries, revision: position.revision })
    }

    /// The last few keys of a scope's first range, the very last first. One round trip; keys alone, since a store looks
    /// at the whole range for it.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses.
    pub async fn last(&self, scope: &Scope, count: u32) -> Result<Vec<Key>, ReadError> {
        let Some(range) = scope.ranges(self.prefix()).into_iter().next() else { return Ok(Vec::new()) };
        let options = GetOptions::new()
            .with_range(range.end)
            .with_limit(i64::from(count))
            .with_sort(SortTarget::Key, SortOrder::Descend)
            .with_keys_only();
        let answer = self.get_raw(&range.start, &options).await.map_err(ReadError::Call)?;
        Ok(answer.kvs().iter().filter_map(|pair| Key::parse(self.prefix(), pair.key())).collect())
    }

    /// The first few keys of a scope's first range. One round trip.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses.
    pub async fn first(&self, scope: &Scope, count: u32) -> Result<Vec<Entry>, ReadError> {
        let Some(range) = scope.ranges(self.prefix()).into_iter().next() else { return Ok(Vec::new()) };
        let options = GetOptions::new().with_range(range.end).with_limit(i64::from(count));
        let answer = self.get_raw(&range.start, &options).await.map_err(ReadError::Call)?;
        Ok(answer.kvs().iter().filter_map(|pair| Entry::new(self.prefix(), pair)).collect())
    }

    /// As [`Store::list`], with all that is known of where the store stood.
    pub(crate) async fn list_at(&self, scope: &Scope) -> Result<(Vec<Entry>, Position), ReadError> {
        for _ in 0..RESTARTS {
            match self.list_once(scope).await {
                Err(error) if error.problem == Problem::Compacted => {}
                outcome => return outcome.map_err(ReadError::Call),
            }
        }
        Err(ReadError::CompactsTooOften)
    }

    async fn list_once(&self, scope: &Scope) -> Result<(Vec<Entry>, Position), CallError> {
        let mut entries = Vec::new();
        let mut at = None;
        for range in scope.ranges(self.prefix()) {
            self.list_range(range, &mut at, &mut entries).await?;
        }
        match at {
            Some(position) => Ok((entries, position)),
            // A scope of no sections: nothing, now.
            None => Ok((entries, self.position(scope).await?)),
        }
    }

    /// Hands out everything in a scope, sorted by key, a page at a time, so that no more than that is held: all of it at
    /// one revision, or, where that is compacted while it is being read, the rest as it is by then.
    ///
    /// # Errors
    /// When the store does not answer within about 5 s, or refuses; or the error of `take`.
    pub async fn each_page<E: From<ReadError>>(
        &self,
        scope: &Scope,
        mut take: impl FnMut(Vec<Entry>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = None;
        for range in scope.ranges(self.prefix()) {
            let mut rest = Some(Rest::of(range));
            while let Some(some) = rest.take() {
                match self.page(some.clone(), &mut at).await {
                    Ok((entries, after)) => {
                        take(entries)?;
                        rest = after;
                    }
                    Err(error) if error.problem == Problem::Compacted && at.is_some() => {
                        at = None;
                        rest = Some(some);
                    }
                    Err(error) => return Err(ReadError::Call(error).into()),
                }
            }
        }
        Ok(())
    }

    /// Reads one range page by page. The first page of all decides at which revision.
    async fn list_range(
        &self,
        range: KeyRange,
        at: &mut Option<Position>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), CallError> {
        let mut rest = Some(Rest::of(range));
        while let Some(some) = rest {
            let (page, after) = self.page(some, at).await?;
            entries.extend(page);
            rest = after;
        }
        Ok(())
    }

    /// Reads a page of a range, and says what is left of it. The first page of all decides at which revision.
    async fn page(&self, rest: Rest, at: &mut Option<Position>) -> Result<(Vec<Entry>, Option<Rest>), CallError> {
        let Rest { range, page } = rest;
        let mut page = page;
        let answer = loop {
            let mut options = GetOptions::new().with_range(range.end.clone()).with_limit(page);
            if let Some(position) = at {
                options = options.with_revision(position.revision.as_etcd());
            }
            match self.get_raw(&range.start, &options).await {
                Err(error) if error.problem == Problem::AnswerTooLarge && page > 1 => page = (page / 8).max(1),
                outcome => break outcome?,
            }
        };
        at.get_or_insert_with(|| Position::of(answer.header()));
        let entries = answer.kvs().iter().filter_map(|pair| Entry::new(self.prefix(), pair)).collect();
        let rest = answer.kvs().last().filter(|_| answer.more()).map(|last| {
            let start = [last.key(), b"\0"].concat();
            Rest { range: KeyRange { start, end: range.end.clone() }, page }
        });
        Ok((entries, rest))
    }

    /// Where the store stands now, as its quorum knows it. Reads no value, and nothing outside the scope, which
    /// access control might forbid.
    pub(crate) async fn position(&self, scope: &Scope) -> Result<Position, CallError> {
        self.position_at(scope, None).await
    }

    /// The same, and that what was there at a revision can still be read.
    pub(crate) async fn position_at(&self, scope: &Scope, at: Option<StoreRevision>) -> Result<Position, CallError> {
        let hull = scope.ranges(self.prefix()).into_iter().next().unwrap_or_else(|| scope.hull(self.prefix()));
        let options = GetOptions::new().with_range(hull.end).with_limit(1).with_keys_only();
        let options = match at {
            Some(revision) => options.with_revision(revision.as_etcd()),
            None => options,
        };
        let answer = self.get_raw(&hull.start, &options).await?;
        Ok(Position::of(answer.header()))
    }

    pub(crate) async fn get_raw(&self, start: &[u8], options: &GetOptions) -> Result<GetResponse, CallError> {
        self.call(Call::Range, Repeat::Freely, |client| async move {
            let mut client = client.kv_client().max_decoding_message_size(ANSWER_BYTES);
            client.get(start, Some(options.clone())).await
        })
        .await
    }
}
