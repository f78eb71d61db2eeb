//! The watches of a script, on one stream, and how it knows that they have been sent everything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, WatchResponse, WatchStream};

use super::answer::{Answer, End, Event, Watched};
use super::operation::{At, Watch, WatchName};
use super::told::Origin;

/// How often the marks are written for a watch that begins in the future, before it is taken for broken.
const MOST_MARKS: usize = 20;

pub(super) struct Watching {
    client: Client,
    origin: Origin,
    stream: Option<WatchStream>,
    watches: BTreeMap<WatchName, OneWatch>,
    /// The revisions of marks, on the wire: what they send is no part of any answer.
    marks: BTreeSet<i64>,
    /// Before this revision, on the wire, there is no history.
    compacted: i64,
}

/// A watch that the server has accepted.
struct OneWatch {
    asked: Watch,
    id: i64,
    /// What came since the last time that it was taken.
    events: Vec<Event>,
    /// The newest revision that ever came, and on the wire.
    newest: i64,
    /// A revision of which only a part has come, and more is announced.
    unfinished: bool,
    end: Option<End>,
    /// The end has been told.
    told: bool,
    broken: Vec<String>,
}

impl Watching {
    pub(super) fn new(client: Client, origin: Origin) -> Self {
        let Origin(compacted) = origin;
        Self { client, origin, stream: None, watches: BTreeMap::new(), marks: BTreeSet::new(), compacted }
    }

    /// Opens a watch; one of the same name is forgotten, though the server goes on with it.
    pub(super) async fn create(&mut self, watch: &Watch) -> Result<Answer> {
        let options = self.origin.watch_options(watch);
        match &mut self.stream {
            None => self.stream = Some(self.client.watch(watch.range.key.clone(), Some(options)).await?),
            Some(stream) => stream.watch(watch.range.key.clone(), Some(options)).await?,
        }
        let told = loop {
            let told = self.next().await?;
            if told.created() {
                break told;
            }
            self.take_in(&told)?;
        };
        let revision = self.origin.header(told.header());
        let end = told.canceled().then(|| self.end(&told));
        if end.is_none() {
            let fresh = OneWatch {
                asked: watch.clone(),
                id: told.watch_id(),
                events: Vec::new(),
                newest: 0,
                unfinished: false,
                end: None,
                told: false,
                broken: Vec::new(),
            };
            self.watches.insert(watch.name, fresh);
            // The end of one that has no history comes at any time, and until then marks would be written for it.
            while (1..self.compacted).contains(&self.start(watch.name)) && self.goes_on(watch.name) {
                let told = self.next().await?;
                self.take_in(&told)?;
            }
        }
        Ok(Answer::Watch { revision, id: told.watch_id(), end })
    }

    pub(super) async fn cancel(&mut self, name: WatchName) -> Result<Answer> {
        let Some(id) = self.watches.get(&name).filter(|watch| watch.end.is_none()).map(|watch| watch.id) else {
            return Ok(Answer::Cancel { end: None });
        };
        // Otherwise it would depend on the server's speed what it is still sent.
        self.settle().await?;
        if self.watches.get(&name).is_none_or(|watch| watch.end.is_some()) {
            return Ok(Answer::Cancel { end: None });
        }
        self.stream.as_mut().context("a watch without a stream")?.cancel(id).await?;
        while self.goes_on(name) {
            let told = self.next().await?;
            self.take_in(&told)?;
        }
        let watch = self.watches.get_mut(&name).context("it was there")?;
        watch.told = true;
        Ok(Answer::Cancel { end: watch.end.clone() })
    }

    /// Asks the stream how far it is.
    pub(super) async fn progress(&mut self) -> Result<Answer> {
        self.settle().await?;
        let Some(stream) = self.stream.as_mut() else {
            return Ok(Answer::Cancel { end: None });
        };
        stream.request_progress().await?;
        loop {
            let told = self.next().await?;
            if told.watch_id() == -1 && !told.created() {
                return Ok(Answer::Progress { revision: self.origin.header(told.header()) });
            }
            self.take_in(&told)?;
        }
    }

    /// Waits until every watch has been sent all there is, or has ended.
    ///
    /// Nothing on the wire says so. Therefore a mark is written within the keys of each watch: its first key is put
    /// and deleted, and what is sent in order is complete once the mark is there. Marks are told to nobody, but the
    /// revisions that they took, and the keys that they deleted, show.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let names: Vec<WatchName> = self.watches.keys().copied().collect();
        for name in names {
            let mut marks = 0;
            while let Some(mark) = self.mark(name).await? {
                marks += 1;
                ensure!(marks <= MOST_MARKS, "{name} begins too far in the future");
                if mark < self.start(name) {
                    continue;
                }
                while self.watches.get(&name).is_some_and(|watch| watch.end.is_none() && watch.newest < mark) {
                    let told = self.next().await?;
                    self.take_in(&told)?;
                }
                break;
            }
        }
        Ok(())
    }

    /// What came since the last time, by watch.
    pub(super) fn take(&mut self) -> Vec<Watched> {
        let mut all = Vec::new();
        for (name, watch) in &mut self.watches {
            if watch.told {
                continue;
            }
            watch.told = watch.end.is_some();
            all.push(Watched {
                name: *name,
                events: std::mem::take(&mut watch.events),
                end: watch.end.clone(),
                broken: std::mem::take(&mut watch.broken),
            });
        }
        all
    }

    /// The history before a revision of the script is gone.
    pub(super) fn compacted(&mut self, revision: At) {
        self.compacted = self.origin.absolute(revision);
    }

    fn goes_on(&self, name: WatchName) -> bool {
        self.watches.get(&name).is_some_and(|watch| watch.end.is_none())
    }

    fn start(&self, name: WatchName) -> i64 {
        self.watches.get(&name).map_or(0, |watch| self.origin.absolute(watch.asked.start))
    }

    /// Writes a mark that a watch will be sent, and gives its revision; none for one that is sent nothing.
    async fn mark(&mut self, name: WatchName) -> Result<Option<i64>> {
        let Some(OneWatch { asked, end: None, .. }) = self.watches.get(&name) else { return Ok(None) };
        let key = asked.range.key.clone();
        let (without_puts, without_deletes) = (asked.without_puts, asked.without_deletes);
        if without_puts && without_deletes {
            return Ok(None);
        }
        let put = self.client.put(key.clone(), "~", None).await?;
        let deleted = self.client.delete(key, None).await?;
        let put = put.header().context("an answer without a header")?.revision();
        let deleted = deleted.header().context("an answer without a header")?.revision();
        self.marks.extend([put, deleted]);
        Ok(Some(if without_deletes { put } else { deleted }))
    }

    async fn next(&mut self) -> Result<WatchResponse> {
        let stream = self.stream.as_mut().context("a watch without a stream")?;
        stream.message().await?.context("the server ended the stream of watches")
    }

    fn end(&self, told: &WatchResponse) -> End {
        End { reason: told.cancel_reason().to_owned(), compacted: self.origin.revision(told.compact_revision()) }
    }

    fn take_in(&mut self, told: &WatchResponse) -> Result<()> {
        let end = told.canceled().then(|| self.end(told));
        let origin = self.origin;
        let Some(watch) = self.watches.values_mut().find(|watch| watch.id == told.watch_id() && watch.end.is_none())
        else {
            // One that was replaced by another of its name.
            return Ok(());
        };
        watch.end = end;
        let header = told.header().context("an answer without a header")?.revision();
        for (position, event) in told.events().iter().enumerate() {
            let modified = event.kv().context("an event without a key")?.mod_revision();
            // All of a revision comes together, unless the client allowed fragments.
            let goes_on = modified == watch.newest && (position > 0 || watch.unfinished);
            if modified <= watch.newest && !goes_on {
                watch.broken.push(format!("{} after {}", origin.revision(modified), origin.revision(watch.newest)));
            }
            if modified > header {
                watch.broken.push(format!("{} under {}", origin.revision(modified), origin.revision(header)));
            }
            watch.newest = modified;
            if !self.marks.contains(&modified) {
                watch.events.push(origin.event(event).context("an event without a key")?);
            }
        }
        watch.unfinished = watch.asked.fragment;
        Ok(())
    }
}
