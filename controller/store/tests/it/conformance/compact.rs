//! Compact: what can still be read, and what it answers.

use super::check;

#[test]
fn compaction_ends_history() {
    check([
        (
            "what is older is gone, what was there then is not",
            "
            put a 1       => +1
            put b 1       => +2
            put a 2       => +3
            delete b      => +4 deleted 1
            put a 3       => +5
            compact +3    => +5
            get .. rev +2 => OutOfRange: etcdserver: mvcc: required revision has been compacted
            get .. rev +3 => +5 count 2 a=2(c+1 m+3 v2) b=1(c+2 m+2 v1)
            get .. rev +4 => +5 count 1 a=2(c+1 m+3 v2)
            get ..        => +5 count 1 a=3(c+1 m+5 v3)
            ",
        ),
        (
            "each once, none to come",
            "
            put a 1             => +1
            put a 2             => +2
            compact +1          => +2
            compact +1          => OutOfRange: etcdserver: mvcc: required revision has been compacted
            compact -1          => OutOfRange: etcdserver: mvcc: required revision has been compacted
            compact +9          => OutOfRange: etcdserver: mvcc: required revision is a future revision
            compact +2 physical => +2
            compact 0           => OutOfRange: etcdserver: mvcc: required revision has been compacted
            ",
        ),
        (
            "a deleted key at the compacted revision",
            "
            put a 1             => +1
            delete a            => +2 deleted 1
            put b 1             => +3
            compact +2          => +3
            get .. rev +2       => +3 count 0
            put a 2             => +4
            compact +3 physical => +4
            get a               => +4 count 1 a=2(c+4 m+4 v1)
            ",
        ),
        (
            "in a transaction",
            "
            put a 1                             => +1
            put a 2                             => +2
            put a 3                             => +3
            compact +2                          => +3
            txn then { get a rev +1 }           => OutOfRange: etcdserver: mvcc: required revision has been compacted
            txn then { put b 1 ; get a rev +1 } => OutOfRange: etcdserver: mvcc: required revision has been compacted
            txn then { get a rev +2 }           => +3 then { +3 count 1 a=2(c+1 m+2 v2) }
            get b                               => +3 count 0
            ",
        ),
    ]);
}
