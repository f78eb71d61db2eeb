//! Whether a trail is whole: every record's place, text, signature and link, and that no chain ends before its anchor.
//!
//! Records come in the order of their keys, so that anchors are known before what they hold, and no more is kept than
//! one head for each chain. Signatures are checked by whoever calls: nothing here knows how.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use super::keys::{PublicKey, Signature};
use super::{Chain, ExportedHead, Head, Link, Sealed};
use crate::digest::RecordDigest;
use crate::id::{ClusterId, RecordNumber};

/// So many findings are kept: who has read those knows that the trail was tampered with. The others are counted.
const MOST: usize = 100;

/// Whether a signature holds over a text.
pub type Check<'a> = dyn Fn(&PublicKey, &[u8], &Signature) -> bool + Send + Sync + 'a;

/// Where a record was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Under its key in the store.
    Key(Chain, RecordNumber),
    /// Under a key below `audit/` that is no record's.
    Stray(String),
    /// In a line of an exported file, from 1.
    Line(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(chain, number) => write!(out, "{chain}, record {number}"),
            Self::Stray(key) => write!(out, "the key audit/{key}"),
            Self::Line(line) => write!(out, "line {line}"),
        }
    }
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// What is there is no record.
    Unreadable {
        /// Where.
        place: Place,
        /// Why.
        why: String,
    },
    /// A record lies where it does not belong.
    Misplaced {
        /// Where.
        place: Place,
        /// Where it says that it belongs.
        chain: Chain,
        /// As which record of it.
        number: RecordNumber,
    },
    /// The key that a record names has not signed what it says.
    Changed {
        /// In which chain.
        chain: Chain,
        /// Which record.
        number: RecordNumber,
    },
    /// Records are signed by a key that is not trusted.
    Untrusted {
        /// By which.
        key: PublicKey,
        /// The first of them.
        chain: Chain,
        /// Which of that chain.
        number: RecordNumber,
        /// How many they are.
        count: usize,
    },
    /// Records are missing between two that are there.
    Missing {
        /// In which chain.
        chain: Chain,
        /// From this one on.
        from: RecordNumber,
        /// To this one.
        to: RecordNumber,
    },
    /// The first records of a chain are gone, and no later one says that they were deleted for their age.
    BeginningMissing {
        /// In which chain.
        chain: Chain,
        /// The first that is there.
        begins: RecordNumber,
    },
    /// A record does not follow the one before it: one of the two is not what was written.
    Unlinked {
        /// In which chain.
        chain: Chain,
        /// Which record names another one before it.
        number: RecordNumber,
    },
    /// Records do not stand in their order.
    OutOfOrder {
        /// In which chain.
        chain: Chain,
        /// Which of them.
        number: RecordNumber,
    },
    /// The end of a chain was cut off: an anchor knows a later record.
    EndMissing {
        /// In which chain.
        chain: Chain,
        /// The last that is there.
        last: RecordNumber,
        /// The one that an anchor knows.
        anchored: RecordNumber,
    },
    /// A whole chain is gone that an anchor knows.
    ChainMissing {
        /// Which.
        chain: Chain,
        /// Its last record that an anchor knows.
        anchored: RecordNumber,
    },
    /// A record is another one than an anchor, or the exported head, knows.
    NotAsAnchored {
        /// In which chain.
        chain: Chain,
        /// Which.
        number: RecordNumber,
    },
    /// There are records and no anchors, so nobody knows how far chains went.
    NoAnchors,
    /// The trail ends before the exported head.
    BehindHead {
        /// The last anchor that is there; none where there is none.
        last: Option<RecordNumber>,
        /// The exported one.
        exported: RecordNumber,
    },
    /// Anchors are of another store than the trail.
    Foreign {
        /// Of which.
        cluster: ClusterId,
        /// Of which they should be.
        expected: ClusterId,
        /// The first of them.
        number: RecordNumber,
        /// How many they are.
        count: usize,
    },
    /// The exported head is of another store than the trail.
    HeadForeign {
        /// Of which.
        cluster: ClusterId,
        /// Of which it should be.
        expected: ClusterId,
    },
    /// The exported head's signature does not hold.
    HeadChanged,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { place, why } => write!(out, "{place}: {why}"),
            Self::Misplaced { place, chain, number } => {
                write!(out, "{place}: what lies there is record {number} of {chain}")
            }
            Self::Changed { chain, number } => {
                write!(out, "{chain}: record {number} was changed: the key that it names has not signed what it says")
            }
            Self::Untrusted { key, chain, number, count } => write!(
                out,
                "{chain}: record {number} is signed by the key {} ({key}), which is not trusted; so are {} more",
                key.short(),
                count.saturating_sub(1)
            ),
            Self::Missing { chain, from, to } if from == to => write!(out, "{chain}: record {from} is missing"),
            Self::Missing { chain, from, to } => write!(out, "{chain}: records {from} to {to} are missing"),
            Self::BeginningMissing { chain, begins } => write!(
                out,
                "{chain}: it begins with record {begins}, and no record says that those before it were deleted for their age"
            ),
            Self::Unlinked { chain, number } => {
                write!(out, "{chain}: record {number} was written after another one than what stands before it")
            }
            Self::OutOfOrder { chain, number } => write!(out, "{chain}: record {number} does not stand in its order"),
            Self::EndMissing { chain, last, anchored } => {
                write!(out, "{chain}: it ends with record {last}, and an anchor knows record {anchored}")
            }
            Self::ChainMissing { chain, anchored } => {
                write!(out, "{chain}: all of it is gone, and an anchor knows record {anchored}")
            }
            Self::NotAsAnchored { chain, number } => {
                write!(out, "{chain}: record {number} is another one than an anchor knows")
            }
            Self::NoAnchors => out.write_str("anchors: all of them are gone, so that nobody knows how far chains went"),
            Self::BehindHead { last, exported } => {
                let last = last.map_or_else(|| "no anchor".to_owned(), |last| format!("anchor {last}"));
                write!(
                    out,
                    "anchors: the trail ends with {last}, before the exported head, which is anchor {exported}: it was cut back, or an older copy of the store was put in its place"
                )
            }
            Self::Foreign { cluster, expected, number, count } => write!(
                out,
                "anchors: record {number} is of the store {cluster}, and this is {expected}; so are {} more",
                count.saturating_sub(1)
            ),
            Self::HeadForeign { cluster, expected } => {
                write!(out, "the exported head is of the store {cluster}, and this is {expected}")
            }
            Self::HeadChanged => out.write_str("the exported head was changed: its signature does not hold"),
        }
    }
}

/// What a trail is checked against.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// Keys that are trusted; where there is none, any that has signed.
    pub trusted: BTreeSet<PublicKey>,
    /// The store that the trail is of; where that is not known, that of the exported head, or of the first anchor.
    pub cluster: Option<ClusterId>,
    /// A head that was exported before.
    pub head: Option<ExportedHead>,
    /// Only a part of the trail is there, picked from it: what is before and after it, and anchors, may be missing.
    pub part: bool,
}

/// What was found of a trail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What is not as it was written, as far as that is told one by one.
    pub findings: Vec<Finding>,
    /// So many more findings.
    pub more: usize,
    /// Records, anchors among them.
    pub records: usize,
    /// Chains, that of the anchors among them.
    pub chains: usize,
    /// How many records each key has signed.
    pub keys: BTreeMap<PublicKey, usize>,
    /// The last anchor, and when it was written.
    pub last: Option<(RecordNumber, Timestamp)>,
    /// Records behind the last of their chain that an anchor knows: they could be cut off and nobody would know.
    pub unanchored: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Goes through a trail, record by record.
pub struct Verifier<'a> {
    check: Box<Check<'a>>,
    against: Against,
    report: Report,
    untrusted: BTreeMap<PublicKey, (Chain, RecordNumber, usize)>,
    /// Every head of each chain that an anchor knows: a chain that was cut off and has grown since is told by the earlier
    /// ones.
    anchored: BTreeMap<Chain, BTreeMap<RecordNumber, RecordDigest>>,
    /// Anchors of other stores: the first, and how many.
    foreign: BTreeMap<ClusterId, (RecordNumber, usize)>,
    seen: BTreeSet<Chain>,
    following: Option<Following>,
}

/// The chain that is gone through.
struct Following {
    chain: Chain,
    first: RecordNumber,
    first_previous: Option<RecordDigest>,
    last: Head,
    pruned: Option<Head>,
    /// Digests of the records that anchors and the exported head know, as they are found.
    known: Vec<Head>,
}

impl<'a> Verifier<'a> {
    /// One that checks signatures so.
    pub fn new(check: impl Fn(&PublicKey, &[u8], &Signature) -> bool + Send + Sync + 'a, against: Against) -> Self {
        let mut verifier = Self {
            check: Box::new(check),
            against,
            report: Report::default(),
            untrusted: BTreeMap::new(),
            anchored: BTreeMap::new(),
            foreign: BTreeMap::new(),
            seen: BTreeSet::new(),
            following: None,
        };
        verifier.look_at_head();
        verifier
    }

    /// Takes the next record, in the order of the keys.
    pub fn take(&mut self, place: Place, stored: &[u8]) {
        self.report.records += 1;
        let sealed = Sealed::of(stored).and_then(|sealed| sealed.link().map(|link| (sealed, link)));
        let (sealed, link) = match sealed {
            Ok(read) => read,
            Err(error) => return self.find(Finding::Unreadable { place, why: error.to_string() }),
        };
        let belongs = match &place {
            Place::Key(chain, number) => (chain, number) == (&link.chain, &link.number),
            Place::Stray(_) => false,
            Place::Line(_) => true,
        };
        if !belongs {
            return self.find(Finding::Misplaced { place, chain: link.chain, number: link.number });
        }
        let holds = self.look_at_signature(&sealed, &link);
        let head = Head { number: link.number, digest: RecordDigest::of(stored) };
        self.follow(&link, head, holds);
        if let Some(anchor) = link.anchor.filter(|_| holds && link.chain == Chain::Anchors) {
            self.report.last = Some((link.number, link.at));
            if *self.against.cluster.get_or_insert_with(|| anchor.cluster.clone()) != anchor.cluster {
                // What it knows is of other chains.
                self.foreign.entry(anchor.cluster).or_insert((link.number, 0)).1 += 1;
                return;
            }
            for (chain, head) in anchor.heads {
                let known = self.anchored.entry(chain.clone()).or_default();
                if *known.entry(head.number).or_insert(head.digest) != head.digest {
                    self.find(Finding::NotAsAnchored { chain, number: head.number });
                }
            }
        }
    }

    /// Ends: no record follows.
    pub fn end(mut self) -> Report {
        self.end_chain();
        self.report.chains = self.seen.len();
        if !self.against.part {
            let gone: Vec<(Chain, Head)> = self
                .anchored
                .iter()
                .filter(|(chain, _)| !self.seen.contains(chain))
                .filter_map(|(chain, _)| Some((chain.clone(), self.last_anchored(chain)?)))
                .collect();
            for (chain, Head { number: anchored, .. }) in gone {
                self.find(Finding::ChainMissing { chain, anchored });
            }
            if self.report.records > 0 && !self.seen.contains(&Chain::Anchors) {
                self.find(Finding::NoAnchors);
            }
        }
        if let Some(ExportedHead { head, .. }) = self.against.head.as_ref().filter(|_| self.is_behind()) {
            let (last, exported) = (self.report.last.map(|(number, _)| number), head.number);
            self.find(Finding::BehindHead { last, exported });
        }
        for (cluster, (number, count)) in std::mem::take(&mut self.foreign) {
            let expected = self.against.cluster.clone().unwrap_or_else(|| cluster.clone());
            self.find(Finding::Foreign { cluster, expected, number, count });
        }
        for (key, (chain, number, count)) in std::mem::take(&mut self.untrusted) {
            self.find(Finding::Untrusted { key, chain, number, count });
        }
        self.report
    }

    fn find(&mut self, finding: Finding) {
        if self.report.findings.len() < MOST { self.report.findings.push(finding) } else { self.report.more += 1 }
    }

    /// Whether the trail ends before the exported head, so far as anchors were seen.
    fn is_behind(&self) -> bool {
        let last = self.report.last.map(|(number, _)| number);
        let head = self.against.head.as_ref().filter(|_| !self.against.part);
        head.is_some_and(|exported| last.is_none_or(|last| last < exported.head.number))
    }

    fn is_trusted(&self, key: &PublicKey) -> bool {
        self.against.trusted.is_empty() || self.against.trusted.contains(key)
    }

    /// What the exported head knows is taken for known as what anchors say, once it is known to be one.
    fn look_at_head(&mut self) {
        let Some(head) = &self.against.head else { return };
        let holds = Sealed::of(&head.stored)
            .is_ok_and(|sealed| (self.check)(&sealed.key, &Sealed::signed(sealed.text), &sealed.signature));
        if !holds {
            self.against.head = None;
            return self.find(Finding::HeadChanged);
        }
        if !self.is_trusted(&head.key) {
            self.untrusted.insert(head.key, (Chain::Anchors, head.head.number, 1));
        }
        let cluster = head.anchor.cluster.clone();
        let expected = self.against.cluster.get_or_insert_with(|| cluster.clone()).clone();
        if cluster != expected {
            self.against.head = None;
            self.find(Finding::HeadForeign { cluster, expected });
        }
    }

    fn look_at_signature(&mut self, sealed: &Sealed<'_>, link: &Link) -> bool {
        let holds = (self.check)(&sealed.key, &Sealed::signed(sealed.text), &sealed.signature);
        if !holds {
            self.find(Finding::Changed { chain: link.chain.clone(), number: link.number });
            return false;
        }
        *self.report.keys.entry(sealed.key).or_default() += 1;
        if !self.is_trusted(&sealed.key) {
            let first = || (link.chain.clone(), link.number, 0);
            self.untrusted.entry(sealed.key).or_insert_with(first).2 += 1;
        }
        true
    }

    /// Goes one record further in its chain.
    fn follow(&mut self, link: &Link, head: Head, holds: bool) {
        if self.following.as_ref().is_none_or(|following| following.chain != link.chain) {
            self.end_chain();
            if !self.seen.insert(link.chain.clone()) {
                self.find(Finding::OutOfOrder { chain: link.chain.clone(), number: link.number });
            }
            self.following = Some(Following {
                chain: link.chain.clone(),
                first: head.number,
                first_previous: link.previous,
                last: head,
                pruned: None,
                known: Vec::new(),
            });
        } else {
            self.step(link, head);
        }
        let anchored = self.anchored.get(&link.chain).is_some_and(|known| known.contains_key(&head.number));
        let exported = self.exported(&link.chain).any(|known| known.number == head.number);
        let is_known = anchored || exported;
        let Some(following) = &mut self.following else { return };
        following.pruned = following.pruned.into_iter().chain(link.pruned.filter(|_| holds)).reduce(later);
        if is_known {
            following.known.push(head);
        }
    }

    fn step(&mut self, link: &Link, head: Head) {
        let Some(following) = &mut self.following else { return };
        let (before, chain) = (following.last, link.chain.clone());
        if head.number <= before.number {
            return self.find(Finding::OutOfOrder { chain, number: head.number });
        }
        following.last = head;
        if head.number != before.number.next() {
            let (from, to) = (before.number.next(), RecordNumber(head.number.0 - 1));
            if !self.against.part {
                self.find(Finding::Missing { chain, from, to });
            }
        } else if link.previous != Some(before.digest) {
            self.find(Finding::Unlinked { chain, number: head.number });
        }
    }

    /// What is known of a chain by anchors and by the exported head.
    fn known(&self, chain: &Chain) -> impl Iterator<Item = Head> {
        let anchored = self.anchored.get(chain).into_iter().flatten();
        let anchored = anchored.map(|(number, digest)| Head { number: *number, digest: *digest });
        anchored.chain(self.exported(chain))
    }

    /// What the exported head knows of a chain.
    fn exported(&self, chain: &Chain) -> impl Iterator<Item = Head> {
        self.against.head.iter().flat_map(|head| {
            let own = (*chain == Chain::Anchors).then_some(head.head);
            own.into_iter().chain(head.anchor.heads.get(chain).copied())
        })
    }

    /// The last record of a chain that an anchor knows.
    fn last_anchored(&self, chain: &Chain) -> Option<Head> {
        let (number, digest) = self.anchored.get(chain)?.last_key_value()?;
        Some(Head { number: *number, digest: *digest })
    }

    /// Looks at the beginning and the end of a chain, once all of it was seen.
    fn end_chain(&mut self) {
        let Some(Following { chain, first, first_previous, last, pruned, known }) = self.following.take() else {
            return;
        };
        let gone = pruned.map_or(RecordNumber(0), |pruned| pruned.number);
        if first.0 <= 1 {
            if first.0 == 0 || first_previous.is_some() {
                self.find(Finding::Unlinked { chain: chain.clone(), number: first });
            }
        } else if !self.against.part {
            let before = RecordNumber(first.0 - 1);
            if gone < before {
                self.find(Finding::BeginningMissing { chain: chain.clone(), begins: first });
            } else if pruned.is_some_and(|pruned| pruned.number == before && Some(pruned.digest) != first_previous) {
                self.find(Finding::Unlinked { chain: chain.clone(), number: first });
            }
        }
        let mut end = None;
        // A trail that ends before the exported head is told as that, and not once more for each chain.
        let behind = self.is_behind();
        for head in self.known(&chain).collect::<Vec<_>>() {
            if head.number > last.number {
                let told = !behind || self.last_anchored(&chain) == Some(head);
                end = end.into_iter().chain(told.then_some(head.number)).max();
            } else if known.iter().any(|found| found.number == head.number && found.digest != head.digest) {
                self.find(Finding::NotAsAnchored { chain: chain.clone(), number: head.number });
            }
        }
        // Of the anchors themselves, the exported head alone knows the end, and tells it by itself.
        if let Some(anchored) = end.filter(|_| !self.against.part && chain != Chain::Anchors) {
            self.find(Finding::EndMissing { chain: chain.clone(), last: last.number, anchored });
        }
        if chain != Chain::Anchors {
            let anchored = self.last_anchored(&chain).map_or(0, |head| head.number.0);
            self.report.unanchored += last.number.0.saturating_sub(anchored.max(gone.0));
        }
    }
}

fn later(one: Head, other: Head) -> Head {
    if other.number > one.number { other } else { one }
}

#[cfg(test)]
mod tests;
