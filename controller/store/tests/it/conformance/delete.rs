//! DeleteRange: one revision for all of it, and none for nothing.

use super::check;

#[test]
fn a_delete_counts_what_was_there() {
    check([
        (
            "all keys of a range go in one revision",
            "
            put a 1          => +1
            put b 2          => +2
            put c 3          => +3
            delete a..c prev => +4 deleted 2 was a=1(c+1 m+1 v1) b=2(c+2 m+2 v1)
            get .. rev +4    => +4 count 1 c=3(c+3 m+3 v1)
            get .. rev +3    => +4 count 3 a=1(c+1 m+1 v1) b=2(c+2 m+2 v1) c=3(c+3 m+3 v1)
            get ..           => +4 count 1 c=3(c+3 m+3 v1)
            delete .. prev   => +5 deleted 1 was c=3(c+3 m+3 v1)
            ",
        ),
        (
            "deleting nothing is no revision",
            "
            put a 1   => +1
            delete b  => +1 deleted 0
            delete b* => +1 deleted 0
            put a 2   => +2
            delete a  => +3 deleted 1
            delete a  => +3 deleted 0
            ",
        ),
        (
            "nobody deletes an empty key",
            "
            delete ''   => InvalidArgument: etcdserver: key is not provided
            delete b..a => +0 deleted 0
            ",
        ),
        (
            "a delete takes the key from its lease",
            "
            grant L1 60      => +0 L1 ttl 60
            put a 1 lease L1 => +1
            delete a         => +2 deleted 1
            ttl L1 keys      => +2 L1 granted 60
            ",
        ),
    ]);
}
