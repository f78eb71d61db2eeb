//! Makes operations out of a seed, and of how far the store is.

use etcd_client::{SortOrder, SortTarget};

use crate::protocol::{
    At, Compare, CompareTarget, Delete, Get, KeyRange, Lease, Operation, Put, Relation, Txn, Watch, WatchName,
};

/// Few enough to meet again, with prefixes of one another among them. No more than twelve: see the exemptions.
const KEYS: [&[u8]; 9] = [b"a", b"aa", b"ab", b"a\0", b"a\xff", b"b", b"c", b"c/d", b"\xff\xff"];

/// How deep transactions stand in one another.
const DEEPEST: u32 = 2;

/// Seconds that leases last: so long that none ends by itself.
const TTL: i64 = 600;

/// Numbers that look random, the same for the same seed: splitmix64.
struct Random(u64);

/// Makes one operation after the other.
pub(super) struct Generator {
    random: Random,
    /// The store's revision, from the beginning on.
    revision: i64,
    /// Whether the first lease was granted, as it always is at first: little is done with those that are not there.
    granted: bool,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is small and more than 0.
    fn below(&mut self, end: i64) -> i64 {
        i64::try_from(self.next() % end.unsigned_abs()).expect("less than an i64")
    }

    /// Yes, once in so many times.
    fn once_in(&mut self, times: i64) -> bool {
        self.below(times) == 0
    }

    fn one_of<Item: Copy>(&mut self, items: &[Item]) -> Item {
        items[usize::try_from(self.next() % items.len() as u64).expect("an index")]
    }
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random(seed), revision: 0, granted: false }
    }

    /// The next operation, where the store's revision is so many after the beginning.
    pub(super) fn next(&mut self, revision: i64) -> Operation {
        self.revision = revision;
        if !std::mem::replace(&mut self.granted, true) {
            return Operation::Grant { lease: Lease(1), ttl: TTL };
        }
        match self.random.below(100) {
            0..24 => self.put_operation(),
            24..42 => Operation::Get(self.get()),
            42..50 => Operation::Delete(self.delete()),
            50..66 => Operation::Txn(self.txn(0)),
            // Only a physical one says when it is done: see the exemptions.
            66..69 => Operation::Compact { revision: self.at(), physical: true },
            69..74 => Operation::Grant { lease: self.lease(), ttl: TTL + self.random.below(3) },
            74..75 => Operation::Revoke(self.lease()),
            75..77 => Operation::KeepAlive(self.lease()),
            77..81 => Operation::TimeToLive { lease: self.lease(), keys: !self.random.once_in(3) },
            81..82 => Operation::Leases,
            82..88 => Operation::Watch(self.watch()),
            88..90 => Operation::Cancel(self.watch_name()),
            90..98 => Operation::Events,
            _ => Operation::Progress,
        }
    }

    fn put_operation(&mut self) -> Operation {
        Operation::Put(self.put())
    }

    fn key(&mut self) -> Vec<u8> {
        if self.random.once_in(60) { Vec::new() } else { self.random.one_of(&KEYS).to_vec() }
    }

    fn range(&mut self) -> KeyRange {
        match self.random.below(10) {
            0..5 => KeyRange::one(self.key()),
            5 | 6 => KeyRange::new(self.key(), self.key()),
            7 => KeyRange::new(self.key(), "\0"),
            8 => KeyRange::new("a", "b"),
            _ => KeyRange::all(),
        }
    }

    /// A revision: now, lately, or one that nobody has.
    fn at(&mut self) -> At {
        match self.random.below(8) {
            0 => At::Unset,
            1 => At::Relative(self.revision + self.random.below(3)),
            2 => At::Relative(self.random.below(self.revision + 2)),
            _ => At::Relative(self.revision - self.random.below(8)),
        }
    }

    /// The first of them mostly, so that it is there and has keys.
    fn lease(&mut self) -> Lease {
        Lease(if self.random.once_in(2) { 1 } else { 1 + self.random.below(4) })
    }

    fn watch_name(&mut self) -> WatchName {
        WatchName(1 + self.random.below(4))
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(12) {
            0 => Vec::new(),
            1 => vec![b'x'; 50_000],
            digit => digit.to_string().into_bytes(),
        }
    }

    fn put(&mut self) -> Put {
        let (key, value) = (self.key(), self.value());
        let mut put = Put::of(key, value);
        if self.random.once_in(3) {
            put.lease = Some(self.lease());
        }
        put.previous = self.random.once_in(3);
        match self.random.below(20) {
            0 => put.ignore_value = true,
            1 => (put.ignore_value, put.value) = (true, Vec::new()),
            2 => put.ignore_lease = true,
            3 => (put.ignore_lease, put.lease) = (true, None),
            _ => {}
        }
        put
    }

    fn get(&mut self) -> Get {
        let mut get = Get::of(self.range());
        if self.random.once_in(2) {
            get.revision = self.at();
        }
        if self.random.once_in(3) {
            get.limit = self.random.below(5) - 1;
        }
        if self.random.once_in(3) {
            let targets =
                [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
            let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
            get.sort = Some((self.random.one_of(&targets), self.random.one_of(&orders)));
        }
        get.keys_only = self.random.once_in(6);
        get.count_only = self.random.once_in(8);
        get.serializable = self.random.once_in(4);
        for bound in [&mut get.min_mod, &mut get.max_mod, &mut get.min_create, &mut get.max_create] {
            if self.random.once_in(8) {
                *bound = At::Relative(self.random.below(self.revision + 2));
            }
        }
        get
    }

    fn delete(&mut self) -> Delete {
        Delete { range: self.range(), previous: self.random.once_in(2) }
    }

    /// One that has an end, or is of one key: see the exemptions.
    fn bounded_delete(&mut self) -> Delete {
        let mut delete = self.delete();
        if delete.range.end == b"\0" {
            delete.range.end = b"\xff\xff\xff".to_vec();
        }
        delete
    }

    fn txn(&mut self, depth: u32) -> Txn {
        let compares = (0..self.random.below(3)).map(|_| self.compare()).collect();
        Txn { compares, success: self.branch(depth), failure: self.branch(depth) }
    }

    fn branch(&mut self, depth: u32) -> Vec<Operation> {
        let length = self.random.below(4);
        let operation = |_| match self.random.below(10) {
            0..4 => self.put_operation(),
            4 | 5 => Operation::Get(self.get()),
            6 | 7 => Operation::Delete(self.bounded_delete()),
            _ if depth < DEEPEST => Operation::Txn(self.txn(depth + 1)),
            _ => self.put_operation(),
        };
        (0..length).map(operation).collect()
    }

    fn compare(&mut self) -> Compare {
        let range = self.range();
        let relations = [Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less];
        let relation = self.random.one_of(&relations);
        let target = match self.random.below(5) {
            0 => CompareTarget::Version(self.random.below(4)),
            1 => CompareTarget::Create(self.at()),
            2 => CompareTarget::Mod(self.at()),
            3 => CompareTarget::Value(self.value()),
            _ if self.random.once_in(2) => CompareTarget::Lease(None),
            _ => CompareTarget::Lease(Some(self.lease())),
        };
        Compare { range, relation, target }
    }

    fn watch(&mut self) -> Watch {
        let range = loop {
            let range = self.range();
            // Its marks could not be put: see `Watching::settle`.
            if !range.key.is_empty() {
                break range;
            }
        };
        let mut watch = Watch::of(self.watch_name(), range);
        watch.start = self.at();
        watch.previous = self.random.once_in(2);
        // Not both: see the exemptions.
        match self.random.below(8) {
            0 => watch.without_puts = true,
            1 => watch.without_deletes = true,
            _ => {}
        }
        watch.fragment = self.random.once_in(4);
        watch.id = if self.random.once_in(4) { self.random.below(6) } else { 0 };
        watch
    }
}
