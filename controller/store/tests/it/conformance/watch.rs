//! Watch: what is sent, from where on, in which order, and how it ends.

use super::check;

#[test]
fn a_watch_is_sent_everything_in_order() {
    check([
        (
            "from now on",
            "
            put a 1    => +1
            watch W1 a => +1 id 0
            put a 2    => +2
            put b 1    => +3
            delete a   => +4 deleted 1
            events     => W1: put a=2(c+1 m+2 v2) delete a=''(cnone m+4 v0)
            put a 3    => +7
            events     => W1: put a=3(c+7 m+7 v1)
            ",
        ),
        (
            "from an old revision, with what was there before",
            "
            put a 1                 => +1
            put a 2                 => +2
            delete a                => +3 deleted 1
            put a 3                 => +4
            watch W1 a from +1 prev => +4 id 0
            watch W2 a from +3      => +4 id 1
            watch W3 a              => +4 id 2
            events                  => W1: put a=1(c+1 m+1 v1) put a=2(c+1 m+2 v2) was a=1(c+1 m+1 v1) delete a=''(cnone m+3 v0) was a=2(c+1 m+2 v2) put a=3(c+4 m+4 v1) W2: delete a=''(cnone m+3 v0) put a=3(c+4 m+4 v1) W3:
            ",
        ),
        (
            "ranges, and several on one stream",
            "
            watch W1 a*  => +0 id 0
            watch W2 b.. => +0 id 1
            watch W3 ..  => +0 id 2
            put a 1      => +1
            put ab 1     => +2
            put b 1      => +3
            events       => W1: put a=1(c+1 m+1 v1) put ab=1(c+2 m+2 v1) W2: put b=1(c+3 m+3 v1) W3: put a=1(c+1 m+1 v1) put ab=1(c+2 m+2 v1) put b=1(c+3 m+3 v1)
            ",
        ),
        (
            "filters",
            "
            watch W1 a no-puts            => +0 id 0
            watch W2 a no-deletes         => +0 id 1
            watch W3 a no-puts no-deletes => +0 id 2
            put a 1                       => +1
            delete a                      => +2 deleted 1
            events                        => W1: delete a=''(cnone m+2 v0) W2: put a=1(c+1 m+1 v1) W3:
            ",
        ),
        (
            "all events of a revision together",
            "
            watch W1 .. prev                          => +0 id 0
            txn then { put a 1 ; put b 1 }            => +1 then { +1 } { +1 }
            txn then { put c 1 ; delete a ; put b 2 } => +2 then { +2 } { +2 deleted 1 } { +2 }
            delete b*                                 => +3 deleted 1
            events                                    => W1: put a=1(c+1 m+1 v1) put b=1(c+1 m+1 v1) put c=1(c+2 m+2 v1) delete a=''(cnone m+2 v0) was a=1(c+1 m+1 v1) put b=2(c+1 m+2 v2) was b=1(c+1 m+1 v1) delete b=''(cnone m+3 v0) was b=2(c+1 m+2 v2)
            ",
        ),
        (
            "from a revision to come",
            "
            put a 1            => +1
            watch W1 a from +4 => +1 id 0
            put a 2            => +2
            put a 3            => +3
            put a 4            => +4
            events             => W1: put a=4(c+1 m+4 v4)
            ",
        ),
        (
            "cancelled",
            "
            watch W1 a => +0 id 0
            put a 1    => +1
            cancel W1  => ended compacted none \"\"
            put a 2    => +4
            events     => no watch
            cancel W1  => no such watch
            ",
        ),
        (
            "from what is compacted",
            "
            put a 1                 => +1
            put a 2                 => +2
            put a 3                 => +3
            compact +2              => +3
            watch W1 a from +1      => +3 id 0
            events                  => W1: ended compacted +2 \"\"
            watch W2 a from +2 prev => +3 id 1
            watch W3 a from +3 prev => +3 id 2
            events                  => W2: put a=2(c+1 m+2 v2) put a=3(c+1 m+3 v3) was a=2(c+1 m+2 v2) W3: put a=3(c+1 m+3 v3) was a=2(c+1 m+2 v2)
            ",
        ),
        (
            "an id of one's own",
            "
            watch W1 a id 7 => +0 id 7
            watch W2 a id 7 => +0 id -1 ended compacted none \"mvcc: duplicate watch ID provided on the WatchStream\"
            watch W3 a      => +0 id 0
            put a 1         => +1
            events          => W1: put a=1(c+1 m+1 v1) W3: put a=1(c+1 m+1 v1)
            ",
        ),
        (
            "no keys to watch",
            "
            watch W1 b..a => +0 id -1 ended compacted none \"mvcc: watcher range is empty\"
            watch W2 ''   => +0 id 0
            watch W3 a..a => +0 id -1 ended compacted none \"mvcc: watcher range is empty\"
            ",
        ),
        (
            "how far the stream is",
            "
            put a 1            => +1
            watch W1 a from +1 => +1 id 0
            progress           => +3
            put b 1            => +4
            progress           => +6
            ",
        ),
        (
            "what a lease takes with it",
            "
            grant L1 60      => +0 L1 ttl 60
            put a 1 lease L1 => +1
            put b 1 lease L1 => +2
            watch W1 .. prev => +2 id 0
            revoke L1        => +3
            events           => W1: delete a=''(cnone m+3 v0) was a=1(c+1 m+1 v1 L1) delete b=''(cnone m+3 v0) was b=1(c+2 m+2 v1 L1)
            ",
        ),
        (
            "in fragments where that is allowed",
            "
            watch W1 .. prev fragment => +0 id 0
            put a #700000             => +1
            put b #700000             => +2
            put c #700000             => +3
            put d 1                   => +4
            delete a..d               => +5 deleted 3
            delete d                  => +6 deleted 1
            events                    => W1: put a=#700000(c+1 m+1 v1) put b=#700000(c+2 m+2 v1) put c=#700000(c+3 m+3 v1) put d=1(c+4 m+4 v1) delete a=''(cnone m+5 v0) was a=#700000(c+1 m+1 v1) delete b=''(cnone m+5 v0) was b=#700000(c+2 m+2 v1) delete c=''(cnone m+5 v0) was c=#700000(c+3 m+3 v1) delete d=''(cnone m+6 v0) was d=1(c+4 m+4 v1)
            ",
        ),
        (
            "the id of one that compaction has overtaken stays taken",
            "
            watch W1 a from -1 id 3 => +0 id 3
            events                  => W1: ended compacted +0 \"\"
            watch W2 a id 3         => +0 id -1 ended compacted none \"mvcc: duplicate watch ID provided on the WatchStream\"
            ",
        ),
        (
            "a deletion at the compacted revision",
            "
            put a 1             => +1
            delete a            => +2 deleted 1
            put a 2             => +3
            compact +2 physical => +3
            watch W1 a from +2  => +3 id 0
            events              => W1: put a=2(c+3 m+3 v1)
            ",
        ),
    ]);
}
