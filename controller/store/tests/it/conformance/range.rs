//! Range: which keys, at which revision, in which order, and how many.

use super::check;

#[test]
fn a_range_reads_what_it_names() {
    check([
        (
            "one key, a range, a prefix, from a key on, all",
            "
            put a 1   => +1
            put ab 2  => +2
            put b 3   => +3
            put c 4   => +4
            get a     => +4 count 1 a=1(c+1 m+1 v1)
            get a*    => +4 count 2 a=1(c+1 m+1 v1) ab=2(c+2 m+2 v1)
            get a..b  => +4 count 2 a=1(c+1 m+1 v1) ab=2(c+2 m+2 v1)
            get b..   => +4 count 2 b=3(c+3 m+3 v1) c=4(c+4 m+4 v1)
            get ..    => +4 count 4 a=1(c+1 m+1 v1) ab=2(c+2 m+2 v1) b=3(c+3 m+3 v1) c=4(c+4 m+4 v1)
            get x     => +4 count 0
            get b..a  => +4 count 0
            get ''    => InvalidArgument: etcdserver: key is not provided
            get ''..b => InvalidArgument: etcdserver: key is not provided
            ",
        ),
        (
            "an old revision, the newest, one to come",
            "
            put a 1      => +1
            put a 2      => +2
            delete a     => +3 deleted 1
            put a 3      => +4
            get a rev +1 => +4 count 1 a=1(c+1 m+1 v1)
            get a rev +2 => +4 count 1 a=2(c+1 m+2 v2)
            get a rev +3 => +4 count 0
            get a rev +4 => +4 count 1 a=3(c+4 m+4 v1)
            get a rev +5 => OutOfRange: etcdserver: mvcc: required revision is a future revision
            get a rev 0  => +4 count 1 a=3(c+4 m+4 v1)
            ",
        ),
        (
            "limit, more and count",
            "
            put a 1               => +1
            put b 2               => +2
            put c 3               => +3
            get .. limit 2        => +3 count 3 more a=1(c+1 m+1 v1) b=2(c+2 m+2 v1)
            get .. limit 3        => +3 count 3 a=1(c+1 m+1 v1) b=2(c+2 m+2 v1) c=3(c+3 m+3 v1)
            get .. limit 4        => +3 count 3 a=1(c+1 m+1 v1) b=2(c+2 m+2 v1) c=3(c+3 m+3 v1)
            get .. limit 1 keys   => +3 count 3 more a=''(c+1 m+1 v1)
            get .. limit 1 count  => +3 count 3
            get .. count          => +3 count 3
            get a count           => +3 count 1
            get x count           => +3 count 0
            get .. rev +2 limit 1 => +3 count 2 more a=1(c+1 m+1 v1)
            ",
        ),
        (
            "sorted by anything, both ways",
            "
            put c 1                             => +1
            put a 3                             => +2
            put b 2                             => +3
            put c 1                             => +4
            get .. sort key descend             => +4 count 3 c=1(c+1 m+4 v2) b=2(c+3 m+3 v1) a=3(c+2 m+2 v1)
            get .. limit 1 sort key descend     => +4 count 3 more c=1(c+1 m+4 v2)
            get .. limit 1 sort version descend => +4 count 3 more c=1(c+1 m+4 v2)
            get .. sort create ascend           => +4 count 3 c=1(c+1 m+4 v2) a=3(c+2 m+2 v1) b=2(c+3 m+3 v1)
            get .. sort create descend          => +4 count 3 b=2(c+3 m+3 v1) a=3(c+2 m+2 v1) c=1(c+1 m+4 v2)
            get .. sort mod ascend              => +4 count 3 a=3(c+2 m+2 v1) b=2(c+3 m+3 v1) c=1(c+1 m+4 v2)
            get .. limit 2 sort mod descend     => +4 count 3 more c=1(c+1 m+4 v2) b=2(c+3 m+3 v1)
            get .. sort value ascend            => +4 count 3 c=1(c+1 m+4 v2) b=2(c+3 m+3 v1) a=3(c+2 m+2 v1)
            get .. sort value descend           => +4 count 3 a=3(c+2 m+2 v1) b=2(c+3 m+3 v1) c=1(c+1 m+4 v2)
            get .. sort value none              => +4 count 3 c=1(c+1 m+4 v2) b=2(c+3 m+3 v1) a=3(c+2 m+2 v1)
            get .. sort mod none                => +4 count 3 a=3(c+2 m+2 v1) b=2(c+3 m+3 v1) c=1(c+1 m+4 v2)
            ",
        ),
        (
            "keys alone, and a read that need not be the newest",
            "
            put a 1                    => +1
            get .. keys                => +1 count 1 a=''(c+1 m+1 v1)
            get .. serializable        => +1 count 1 a=1(c+1 m+1 v1)
            get .. rev +9 serializable => OutOfRange: etcdserver: mvcc: required revision is a future revision
            ",
        ),
        (
            "bounds of revisions",
            "
            put a 1                      => +1
            put b 1                      => +2
            put a 2                      => +3
            put c 1                      => +4
            get .. min-mod +3            => +4 count 3 a=2(c+1 m+3 v2) c=1(c+4 m+4 v1)
            get .. max-mod +3            => +4 count 3 a=2(c+1 m+3 v2) b=1(c+2 m+2 v1)
            get .. min-mod +2 max-mod +3 => +4 count 3 a=2(c+1 m+3 v2) b=1(c+2 m+2 v1)
            get .. min-create +2         => +4 count 3 b=1(c+2 m+2 v1) c=1(c+4 m+4 v1)
            get .. max-create +1         => +4 count 3 a=2(c+1 m+3 v2)
            get .. limit 1 min-mod +3    => +4 count 3 more a=2(c+1 m+3 v2)
            get .. limit 1 max-mod +2    => +4 count 3 b=1(c+2 m+2 v1)
            get .. count min-mod +4      => +4 count 3
            get .. limit 5 min-mod +9    => +4 count 3
            ",
        ),
    ]);
}
