//! Trails that are whole, and every way of tampering with one: planted, and found.

use super::*;
use crate::audit::{Anchor, Record};
use crate::id::ClusterId;

/// A controller's key, as far as a test needs one: only who knows the seed can sign.
#[derive(Debug, Clone, Copy)]
struct Key(u8);

impl Key {
    fn public(self) -> PublicKey {
        PublicKey::new(*RecordDigest::of(&[self.0]).bytes())
    }

    fn sign(self, text: &str) -> Signature {
        let digest = RecordDigest::of(&[&[self.0][..], &Sealed::signed(text)].concat());
        Signature::new(std::array::from_fn(|index| digest.bytes()[index % 32]))
    }
}

const OURS: Key = Key(1);
const THEIRS: Key = Key(2);

fn check(key: &PublicKey, signed: &[u8], signature: &Signature) -> bool {
    let text = std::str::from_utf8(&signed[crate::audit::DOMAIN.len()..]).expect("UTF-8");
    [OURS, THEIRS].into_iter().any(|known| known.public() == *key && known.sign(text) == *signature)
}

/// A trail as it is stored, in the order of its keys.
#[derive(Debug, Clone, Default)]
struct Trail(BTreeMap<(Chain, u64), Vec<u8>>);

fn chain(path: &str) -> Chain {
    Chain::from_path(path).expect(path)
}

const STORE: &str = "0123456789abcdef";
const WEB: &str = "services/default/web";
const API: &str = "services/default/api";

impl Trail {
    fn last(&self, chain: &Chain) -> Option<Head> {
        let ((_, number), stored) = self.0.iter().rfind(|((of, _), _)| of == chain)?;
        Some(Head { number: RecordNumber(*number), digest: RecordDigest::of(stored) })
    }

    fn put(&mut self, key: Key, chain: Chain, anchor: Option<Anchor>, pruned: Option<Head>) {
        let last = self.last(&chain);
        let number = last.map_or(RecordNumber(1), |last| last.number.next());
        let previous = last.map(|last| last.digest);
        let link = Link { chain, number, previous, pruned, at: Timestamp::UNIX_EPOCH, anchor };
        self.seal(key, link);
    }

    /// A record of another time than those that were there.
    fn grow(&mut self, path: &str) {
        let last = self.last(&chain(path)).expect(path);
        let (number, previous, at) = (last.number.next(), Some(last.digest), Timestamp::MAX);
        self.seal(OURS, Link { chain: chain(path), number, previous, pruned: None, at, anchor: None });
    }

    fn seal(&mut self, key: Key, link: Link) {
        let place = (link.chain.clone(), link.number.0);
        let record = Record { link, term: 1, entries: Vec::new(), left_out: 0, declared: None };
        let text = serde_json::to_string(&record).expect("JSON");
        let stored = Sealed { text: &text, key: key.public(), signature: key.sign(&text) }.stored();
        self.0.insert(place, stored);
    }

    fn record(&mut self, path: &str) {
        self.put(OURS, chain(path), None, None);
    }

    fn anchor(&mut self, paths: &[&str]) {
        self.anchor_of(STORE, paths);
    }

    fn anchor_of(&mut self, store: &str, paths: &[&str]) {
        let heads = paths.iter().map(|path| (chain(path), self.last(&chain(path)).expect(path))).collect();
        let cluster: ClusterId = store.parse().expect("an id");
        self.put(OURS, Chain::Anchors, Some(Anchor { cluster, heads }), None);
    }

    /// Two chains, of which one goes a record further than its anchor.
    fn whole() -> Self {
        let mut trail = Self::default();
        for _ in 0..3 {
            trail.record(WEB);
        }
        trail.record(API);
        trail.anchor(&[WEB, API]);
        trail.record(API);
        trail.anchor(&[API]);
        trail.record(WEB);
        trail
    }

    fn remove(&mut self, path: &str, number: u64) {
        self.0.remove(&(chain(path), number)).expect("it is there");
    }

    /// Writes a record anew that says something else, and all after it, so that their links hold.
    fn rewrite(&mut self, path: &str, from: u64, key: Option<Key>) {
        let mut previous = None;
        let places: Vec<(Chain, u64)> = self.0.keys().filter(|(of, _)| *of == chain(path)).cloned().collect();
        for place in places {
            let stored = self.0[&place].clone();
            let sealed = Sealed::of(&stored).expect("a record");
            if place.1 >= from {
                let mut record = sealed.record().expect("a record");
                record.term = 99;
                record.link.previous = previous;
                let text = serde_json::to_string(&record).expect("JSON");
                let (key, signature) = match key {
                    Some(key) => (key.public(), key.sign(&text)),
                    None => (sealed.key, sealed.signature),
                };
                self.0.insert(place.clone(), Sealed { text: &text, key, signature }.stored());
            }
            previous = Some(RecordDigest::of(&self.0[&place]));
        }
    }

    fn head(&self) -> ExportedHead {
        ExportedHead::of(self.0.iter().rfind(|((of, _), _)| *of == Chain::Anchors).expect("an anchor").1).expect("one")
    }

    fn verify(&self, against: Against) -> Report {
        let mut verifier = Verifier::new(check, against);
        for ((chain, number), stored) in &self.0 {
            verifier.take(Place::Key(chain.clone(), RecordNumber(*number)), stored);
        }
        verifier.end()
    }
}

fn trusting_us() -> Against {
    Against { trusted: BTreeSet::from([OURS.public()]), ..Against::default() }
}

fn told(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_trail_is_found_whole() {
    let trail = Trail::whole();
    let report = trail.verify(Against { head: Some(trail.head()), ..trusting_us() });
    assert_eq!(told(&report), Vec::<String>::new());
    assert_eq!((report.records, report.chains, report.unanchored), (8, 3, 1));
    assert_eq!(report.last.map(|(number, _)| number), Some(RecordNumber(2)));
    assert_eq!(report.keys, BTreeMap::from([(OURS.public(), 8)]));
    let empty = Trail::default().verify(trusting_us());
    assert!(empty.is_whole() && empty.records == 0);
}

/// What is done to a whole trail, and what is found of it, each in this order.
#[test]
fn every_kind_of_tampering_is_found() {
    type Tamper = fn(&mut Trail);
    let rows: &[(&str, Tamper, &[&str])] = &[
        (
            "a byte is changed",
            |trail| {
                let stored = trail.0.get_mut(&(chain(WEB), 2)).expect("it is there");
                let text = String::from_utf8(stored.clone()).expect("UTF-8").replace("\"term\":1", "\"term\":2");
                *stored = text.into_bytes();
            },
            &["service/web: record 2 was changed", "service/web: record 3 was written after another one"],
        ),
        ("one is removed", |trail| trail.remove(WEB, 2), &["service/web: record 2 is missing"]),
        ("the first is removed", |trail| trail.remove(WEB, 1), &["service/web: it begins with record 2"]),
        (
            "the end is removed",
            |trail| [3, 4].iter().for_each(|number| trail.remove(WEB, *number)),
            &["service/web: it ends with record 2, and an anchor knows record 3"],
        ),
        (
            "the end is removed, and the chain grows again, anchors and all",
            |trail| {
                [3, 4].iter().for_each(|number| trail.remove(WEB, *number));
                (0..3).for_each(|_| trail.grow(WEB));
                trail.anchor(&[WEB]);
            },
            &["service/web: record 3 is another one than an anchor knows"],
        ),
        (
            "a chain is removed",
            |trail| trail.0.retain(|(of, _), _| *of != chain(API)),
            &["service/api: all of it is gone, and an anchor knows record 2"],
        ),
        ("an anchor is removed", |trail| trail.remove("anchors", 1), &["anchors: it begins with record 2"]),
        (
            "every anchor is removed",
            |trail| trail.0.retain(|(of, _), _| *of != Chain::Anchors),
            &["anchors: all of them are gone"],
        ),
        (
            "a record is recomputed without the key",
            |trail| trail.rewrite(WEB, 2, None),
            &[
                "service/web: record 2 was changed",
                "service/web: record 3 was changed",
                "service/web: record 4 was changed",
                "service/web: record 3 is another one than an anchor knows",
            ],
        ),
        (
            "a record is recomputed with another key",
            |trail| trail.rewrite(WEB, 4, Some(THEIRS)),
            &["service/web: record 4 is signed by the key"],
        ),
        (
            "the whole trail is recomputed with another key",
            |trail| {
                [WEB, API].iter().for_each(|path| trail.rewrite(path, 1, Some(THEIRS)));
                trail.0.retain(|(of, _), _| *of != Chain::Anchors);
                let heads = [WEB, API].map(|path| (chain(path), trail.last(&chain(path)).expect(path))).into();
                let cluster = "0123456789abcdef".parse().expect("an id");
                trail.put(THEIRS, Chain::Anchors, Some(Anchor { cluster, heads }), None);
            },
            &["anchors: record 1 is signed by the key"],
        ),
        (
            "two are swapped",
            |trail| {
                let (two, three) = (trail.0[&(chain(WEB), 2)].clone(), trail.0[&(chain(WEB), 3)].clone());
                trail.0.insert((chain(WEB), 2), three);
                trail.0.insert((chain(WEB), 3), two);
            },
            &[
                "service/web, record 2: what lies there is record 3 of service/web",
                "service/web, record 3: what lies there is record 2 of service/web",
                "service/web: records 2 to 3 are missing",
            ],
        ),
        (
            "one of another chain is put in its place",
            |trail| {
                let other = trail.0[&(chain(API), 2)].clone();
                trail.0.insert((chain(WEB), 2), other);
            },
            &["service/web, record 2: what lies there is record 2 of service/api", "service/web: record 2 is missing"],
        ),
        (
            "something is put there that is no record",
            |trail| drop(trail.0.insert((chain(WEB), 5), b"{}".to_vec())),
            &["service/web, record 5: it is not a record"],
        ),
    ];
    for (what, tamper, expected) in rows {
        let mut trail = Trail::whole();
        tamper(&mut trail);
        let found = told(&trail.verify(trusting_us()));
        let fits =
            found.len() == expected.len() && found.iter().zip(*expected).all(|(one, other)| one.starts_with(other));
        assert!(fits, "{what}: {found:#?}");
    }
}

#[test]
fn a_trail_that_was_cut_back_ends_before_its_exported_head() {
    let mut trail = Trail::whole();
    let older = trail.clone();
    trail.record(WEB);
    trail.anchor(&[WEB]);
    let head = trail.head();
    assert!(older.verify(trusting_us()).is_whole(), "by itself, an older copy is whole");
    let against = Against { head: Some(head.clone()), ..trusting_us() };
    let found = told(&older.verify(against.clone()));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("anchors: the trail ends with anchor 2, before the exported head, which is anchor 3"));
    assert!(trail.verify(against.clone()).is_whole());
    // It went on since, and its first half is another one.
    let mut other = Trail::whole();
    other.rewrite(WEB, 4, Some(OURS));
    other.record(WEB);
    other.anchor(&[WEB]);
    let found = told(&other.verify(against));
    let expected = [
        "anchors: record 3 is another one than an anchor knows",
        "service/web: record 5 is another one than an anchor knows",
    ];
    assert_eq!(found, expected);
    // A head that somebody changed is no head.
    let mut changed = head.stored.clone();
    let at = changed.len() - 10;
    changed[at] ^= 1;
    let forged = ExportedHead { stored: changed, ..head };
    let found = told(&trail.verify(Against { head: Some(forged), ..trusting_us() }));
    assert_eq!(found, ["the exported head was changed: its signature does not hold"]);
}

#[test]
fn a_chain_may_begin_later_where_a_record_says_so() {
    let prune = |statement: bool| {
        let mut trail = Trail::whole();
        trail.record(WEB);
        let gone = Head { number: RecordNumber(2), digest: RecordDigest::of(&trail.0[&(chain(WEB), 2)]) };
        trail.put(OURS, chain(WEB), None, statement.then_some(gone));
        [1, 2].iter().for_each(|number| trail.remove(WEB, *number));
        trail.anchor(&[WEB]);
        trail
    };
    let trail = prune(true);
    assert_eq!(told(&trail.verify(trusting_us())), Vec::<String>::new());
    let found = told(&prune(false).verify(trusting_us()));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("service/web: it begins with record 3, and no record says"));
    // What was not among those is found as ever.
    let mut more = prune(true);
    more.remove(WEB, 3);
    let found = told(&more.verify(trusting_us()));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("service/web: it begins with record 4"));
    // Another beginning than the one that was left.
    let mut other = trail.clone();
    let stored = other.0[&(chain(WEB), 3)].clone();
    let mut link = Sealed::of(&stored).expect("a record").link().expect("a link");
    link.previous = Some(RecordDigest::of(b"another"));
    other.seal(OURS, link);
    let found = told(&other.verify(trusting_us()));
    assert!(
        found.iter().any(|one| one.starts_with("service/web: record 3 was written after another one")),
        "{found:#?}"
    );
}

#[test]
fn without_keys_to_trust_any_that_has_signed_will_do() {
    let mut trail = Trail::whole();
    trail.rewrite(WEB, 4, Some(THEIRS));
    let report = trail.verify(Against::default());
    assert!(report.is_whole(), "{:#?}", told(&report));
    assert_eq!(report.keys, BTreeMap::from([(OURS.public(), 7), (THEIRS.public(), 1)]));
}

#[test]
fn a_part_is_checked_for_what_is_in_it() {
    let mut trail = Trail::whole();
    trail.0.retain(|(of, number), _| *of == chain(WEB) && *number != 1);
    let part = || Against { part: true, ..trusting_us() };
    assert!(trail.verify(part()).is_whole());
    assert!(!trail.verify(trusting_us()).is_whole());
    trail.rewrite(WEB, 3, None);
    assert!(!trail.verify(part()).is_whole());
}

#[test]
fn lines_of_a_file_have_to_stand_in_their_order() {
    let trail = Trail::whole();
    let lines = |order: &mut dyn FnMut(&mut Vec<Vec<u8>>)| {
        let mut lines: Vec<Vec<u8>> = trail.0.values().cloned().collect();
        order(&mut lines);
        let mut verifier = Verifier::new(check, trusting_us());
        lines.iter().enumerate().for_each(|(index, line)| verifier.take(Place::Line(index + 1), line));
        told(&verifier.end())
    };
    assert_eq!(lines(&mut |_| {}), Vec::<String>::new());
    let swapped = lines(&mut |lines| lines.swap(4, 5));
    assert!(swapped.iter().any(|one| one.contains("does not stand in its order")), "{swapped:#?}");
    let torn = lines(&mut |lines| lines[0].truncate(20));
    assert_eq!(torn[0], "line 1: it is not a record");
}

#[test]
fn findings_are_bounded() {
    let mut trail = Trail::default();
    for number in 0..300 {
        trail.0.insert((chain(WEB), number), b"x".to_vec());
    }
    let report = trail.verify(trusting_us());
    assert_eq!((report.findings.len(), report.more), (MOST, 201));
}

#[test]
fn anchors_and_heads_of_another_store_are_found() {
    const OTHER: &str = "fedcba9876543210";
    let of = |store: &str| Some(store.parse::<ClusterId>().expect("an id"));
    let ours = Trail::whole();
    for known in [None, of(STORE)] {
        let against = Against { cluster: known, head: Some(ours.head()), ..trusting_us() };
        assert_eq!(told(&ours.verify(against)), Vec::<String>::new());
    }
    // All of it is another's.
    let report = ours.verify(Against { cluster: of(OTHER), ..trusting_us() });
    let expected = format!("anchors: record 1 is of the store {STORE}, and this is {OTHER}; so are 1 more");
    assert_eq!(told(&report), [expected]);
    // One anchor is, whatever the store calls itself.
    let mut mixed = ours.clone();
    mixed.anchor_of(OTHER, &[WEB]);
    let expected = format!("anchors: record 3 is of the store {OTHER}, and this is {STORE}; so are 0 more");
    assert_eq!(told(&mixed.verify(trusting_us())), [expected]);
    // The head is, and what it knows is of other chains.
    let mut other = Trail::default();
    other.record(WEB);
    other.anchor_of(OTHER, &[WEB]);
    let report = ours.verify(Against { cluster: of(STORE), head: Some(other.head()), ..trusting_us() });
    assert_eq!(told(&report), [format!("the exported head is of the store {OTHER}, and this is {STORE}")]);
}
