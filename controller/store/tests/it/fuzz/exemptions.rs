//! What is not compared, and why.

/// Something that may differ between two servers that are both right.
#[derive(Debug)]
pub(super) struct Exemption {
    pub(super) what: &'static str,
    pub(super) how: How,
    pub(super) why: &'static str,
}

/// How it is kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// An [`Answer`](crate::protocol::Answer) has no place for it.
    NotTold,
    /// It is brought into an order before it is told.
    Ordered,
    /// Nobody asks for it.
    NotAsked,
}

pub(super) const EXEMPTIONS: [Exemption; 13] = [
    Exemption { what: "cluster and member ids", how: How::NotTold, why: "each store has its own" },
    Exemption {
        what: "the raft term",
        how: How::NotTold,
        why: "it counts elections, and a store of one member has none",
    },
    Exemption {
        what: "how much is left of a lease",
        how: How::NotTold,
        why: "it depends on how fast a server was; that it is no more than was granted is checked",
    },
    Exemption {
        what: "the order of a lease's keys, and of leases",
        how: How::Ordered,
        why: "etcd keeps the keys in a Go map, and leases by the time at which they end",
    },
    Exemption {
        what: "how a watch's events are spread over answers, and those answers' header",
        how: How::NotTold,
        why: "it depends on when a server looks; that no revision is torn, and no header behind its events, is checked",
    },
    Exemption {
        what: "leases that end by themselves, or are shorter than a minute",
        how: How::NotAsked,
        why: "when they end depends on clocks, and the shortest one on etcd's election timeout; conformance has rows",
    },
    Exemption { what: "numbers of leases that the server chooses", how: How::NotAsked, why: "they are random" },
    Exemption {
        what: "compaction that is not physical",
        how: How::NotAsked,
        why: "etcd removes a deletion at the compacted revision some time later, and a watch sees it until then",
    },
    Exemption {
        what: "the order of equals in a sorted range of more than twelve keys",
        how: How::NotAsked,
        why: "Go's sort keeps it up to twelve only",
    },
    Exemption {
        what: "watches of the empty key",
        how: How::NotAsked,
        why: "nobody can put it, so nobody can say when such a watch was sent everything; conformance has a row",
    },
    Exemption {
        what: "a deletion of all keys from one on, in a transaction",
        how: How::NotAsked,
        why: "etcd overlooks that such a one deletes what the same transaction puts; the embedded store refuses that",
    },
    Exemption {
        what: "watches that hide puts and deletions",
        how: How::NotAsked,
        why: "nothing says when such a watch is past a compaction; conformance has a row",
    },
    Exemption {
        what: "hashes, sizes and copies of the store",
        how: How::NotAsked,
        why: "they are of how a store keeps its keys, which is its own affair",
    },
];

#[test]
fn each_exemption_says_why() {
    let mut seen = std::collections::BTreeSet::new();
    for Exemption { what, how, why } in &EXEMPTIONS {
        assert!(why.len() > 10 && seen.insert(what), "{what} ({how:?})");
    }
}
