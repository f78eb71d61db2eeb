//! Put: revisions, versions, previous values, and what is kept of the old one.

use super::check;

#[test]
fn a_put_counts() {
    check([
        (
            "each put is a revision of its own",
            "
            put a 1      => +1
            put b 1      => +2
            put a 2 prev => +3 was a=1(c+1 m+1 v1)
            put c 1 prev => +4
            get ..       => +4 count 3 a=2(c+1 m+3 v2) b=1(c+2 m+2 v1) c=1(c+4 m+4 v1)
            ",
        ),
        (
            "a version begins again after a delete",
            "
            put a 1  => +1
            put a 2  => +2
            delete a => +3 deleted 1
            put a 3  => +4
            get a    => +4 count 1 a=3(c+4 m+4 v1)
            ",
        ),
        (
            "an empty value is a value, an empty key is none",
            "
            put a '' => +1
            get a    => +1 count 1 a=''(c+1 m+1 v1)
            put '' 1 => InvalidArgument: etcdserver: key is not provided
            ",
        ),
        (
            "the old value or the old lease stays where that is asked",
            "
            grant L1 60                   => +0 L1 ttl 60
            put a 1 lease L1              => +1
            put a '' prev ignore-value    => +2 was a=1(c+1 m+1 v1 L1)
            get a                         => +2 count 1 a=1(c+1 m+2 v2)
            put a 2 lease L1              => +3
            put a 3 ignore-lease          => +4
            get a                         => +4 count 1 a=3(c+1 m+4 v4 L1)
            put a 4 ignore-value          => InvalidArgument: etcdserver: value is provided
            put a 4 lease L1 ignore-lease => InvalidArgument: etcdserver: lease is provided
            put b '' ignore-value         => InvalidArgument: etcdserver: key not found
            put b 1 ignore-lease          => InvalidArgument: etcdserver: key not found
            ",
        ),
        (
            "a put without a lease takes the key from its lease",
            "
            grant L1 60      => +0 L1 ttl 60
            put a 1 lease L1 => +1
            put a 2          => +2
            ttl L1 keys      => +2 L1 granted 60
            get a            => +2 count 1 a=2(c+1 m+2 v2)
            put b 1 lease L2 => NotFound: etcdserver: requested lease not found
            ",
        ),
    ]);
}
