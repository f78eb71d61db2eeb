//! Txn: comparisons, branches, revisions shared, and what is refused.

use super::check;

#[test]
fn a_transaction_is_whole() {
    check([
        (
            "every target, every relation",
            "
            put a 1                                       => +1
            put a 2                                       => +2
            grant L1 60                                   => +2 L1 ttl 60
            put b x lease L1                              => +3
            txn if { version a = 2 } then { get a keys }  => +3 then { +3 count 1 a=''(c+1 m+2 v2) }
            txn if { version a != 2 } then { get a keys } => +3 else
            txn if { version a > 1 } then { get a keys }  => +3 then { +3 count 1 a=''(c+1 m+2 v2) }
            txn if { version a < 2 } then { get a keys }  => +3 else
            txn if { create a = +1 }                      => +3 then
            txn if { create a > +1 }                      => +3 else
            txn if { mod a = +2 }                         => +3 then
            txn if { mod a < +2 }                         => +3 else
            txn if { mod a != +1 }                        => +3 then
            txn if { value a = 2 }                        => +3 then
            txn if { value a > 1 }                        => +3 then
            txn if { value a < 1 }                        => +3 else
            txn if { value a != 2 }                       => +3 else
            txn if { lease b = L1 }                       => +3 then
            txn if { lease b != L1 }                      => +3 else
            txn if { lease a = none }                     => +3 then
            txn if { lease b > none }                     => +3 then
            ",
        ),
        (
            "a key that is not there",
            "
            txn if { version a = 0 }  => +0 then
            txn if { create a = 0 }   => +0 then
            txn if { mod a = 0 }      => +0 then
            txn if { mod a < +1 }     => +0 then
            txn if { value a = '' }   => +0 else
            txn if { value a != x }   => +0 else
            txn if { value a < x }    => +0 else
            txn if { lease a = none } => +0 then
            txn if { version a > 0 }  => +0 else
            ",
        ),
        (
            "a range is compared key by key, and must hold for each",
            "
            put a 1                     => +1
            put b 1                     => +2
            put b 2                     => +3
            txn if { version a..c > 0 } => +3 then
            txn if { version a..c = 1 } => +3 else
            txn if { value a..c != 0 }  => +3 then
            txn if { mod x..z = +1 }    => +3 else
            txn if { value x..z = 1 }   => +3 else
            txn if { version x..z > 0 } => +3 else
            ",
        ),
        (
            "all of them must hold",
            "
            put a 1                                                      => +1
            txn if { version a = 1 ; value a = 1 } then { put b 1 } else { put c 1 } => +2 then { +2 }
            txn if { version a = 1 ; value a = 2 } then { put b 1 } else { put c 1 } => +3 else { +3 }
            txn then { put d 1 }                                         => +4 then { +4 }
            txn else { put d 2 }                                         => +4 then
            txn                                                          => +4 then
            ",
        ),
        (
            "its writes share a revision, and it reads its own writes",
            "
            put a 1                                                      => +1
            txn then { put a 2 prev ; get a ; put b 1 ; get .. ; delete c } => +2 then { +2 was a=1(c+1 m+1 v1) } { +2 count 1 a=2(c+1 m+2 v2) } { +2 } { +2 count 2 a=2(c+1 m+2 v2) b=1(c+2 m+2 v1) } { +2 deleted 0 }
            txn then { delete a prev ; get a..c ; put c 1 }              => +3 then { +3 deleted 1 was a=2(c+1 m+2 v2) } { +3 count 1 b=1(c+2 m+2 v1) } { +3 }
            get .. rev +2                                                => +3 count 2 a=2(c+1 m+2 v2) b=1(c+2 m+2 v1)
            get .. rev +3                                                => +3 count 2 b=1(c+2 m+2 v1) c=1(c+3 m+3 v1)
            txn then { get b ; get b rev +1 }                            => +3 then { +3 count 1 b=1(c+2 m+2 v1) } { +3 count 0 }
            txn then { delete x ; delete y }                             => +3 then { +3 deleted 0 } { +3 deleted 0 }
            ",
        ),
        (
            "a read of an old revision in it, and one of what is to come",
            "
            put a 1                             => +1
            put a 2                             => +2
            txn then { put b 1 ; get a rev +1 } => +3 then { +3 } { +3 count 1 a=1(c+1 m+1 v1) }
            txn then { put b 2 ; get a rev +4 } => OutOfRange: etcdserver: mvcc: required revision is a future revision
            txn then { put b 3 ; get a rev +9 } => OutOfRange: etcdserver: mvcc: required revision is a future revision
            get b                               => +3 count 1 b=1(c+3 m+3 v1)
            ",
        ),
        (
            "deleted and put again in one revision",
            "
            put a 1                         => +1
            txn then { delete a ; put b 1 } => +2 then { +2 deleted 1 } { +2 }
            txn then { put a 2 ; delete b } => +3 then { +3 } { +3 deleted 1 }
            get ..                          => +3 count 1 a=2(c+3 m+3 v1)
            txn then { delete a ; get a }   => +4 then { +4 deleted 1 } { +4 count 0 }
            get a                           => +4 count 0
            ",
        ),
        (
            "one key is written once",
            "
            txn then { put a 1 ; put a 2 }                               => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { put a 1 ; delete a }                              => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { delete a ; put a 1 }                              => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { delete a* ; put ab 1 }                            => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { put ab 1 ; delete a* }                            => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { delete a ; delete a }                             => +0 then { +0 deleted 0 } { +0 deleted 0 }
            txn then { put a 1 } else { put a 2 }                        => +1 then { +1 }
            txn then { put a 1 ; txn then { put a 2 } }                  => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { put b 1 ; txn then { delete b* } }                => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { txn then { put c 1 } else { put c 2 } ; put d 1 } => +2 then { none then { +2 } } { +2 }
            txn then { txn then { put c 1 } ; txn then { put c 2 } }     => InvalidArgument: etcdserver: duplicate key given in txn request
            txn then { txn then { put c 1 } ; txn else { put c 2 } }     => InvalidArgument: etcdserver: duplicate key given in txn request
            get ..                                                       => +2 count 3 a=1(c+1 m+1 v1) c=1(c+2 m+2 v1) d=1(c+2 m+2 v1)
            ",
        ),
        (
            "nested, it compares what the outer one has found",
            "
            put a 1                                                      => +1
            txn if { value a = 1 } then { put b 1 ; txn if { value b = 1 } then { get b } else { put c 1 } } else { put d 1 } => +2 then { +2 } { none else { +2 } }
            txn if { value a = 2 } then { put b 2 } else { txn if { version a = 1 } then { delete a ; txn then { put e 1 } } ; get e } => +3 else { none then { +3 deleted 1 } { none then { +3 } } } { +3 count 1 e=1(c+3 m+3 v1) }
            get ..                                                       => +3 count 3 b=1(c+2 m+2 v1) c=1(c+2 m+2 v1) e=1(c+3 m+3 v1)
            ",
        ),
        (
            "what is refused is refused whole",
            "
            put a 1                                      => +1
            txn then { put b 1 ; put c 1 lease L9 }      => NotFound: etcdserver: requested lease not found
            txn then { put b 1 ; put c '' ignore-value } => InvalidArgument: etcdserver: key not found
            txn then { put b 1 ; put a 2 ignore-lease }  => +2 then { +2 } { +2 }
            txn then { put b 1 ; put '' 1 }              => InvalidArgument: etcdserver: key is not provided
            txn then { get '' }                          => InvalidArgument: etcdserver: key is not provided
            txn then { delete '' }                       => InvalidArgument: etcdserver: key is not provided
            txn if { version '' = 0 }                    => InvalidArgument: etcdserver: key is not provided
            txn then { put x 1 ; put a 2 ignore-value }  => InvalidArgument: etcdserver: value is provided
            get ..                                       => +2 count 2 a=2(c+1 m+2 v2) b=1(c+2 m+2 v1)
            ",
        ),
        (
            "of several things that are wrong, which is told",
            "
            put a 1                                                     => +1
            put a 2                                                     => +2
            compact +2 physical                                         => +2
            txn then { get a rev +1 ; put b 1 lease L9 }                => NotFound: etcdserver: requested lease not found
            txn then { put b '' lease L9 ignore-value }                 => InvalidArgument: etcdserver: key not found
            put b '' lease L9 ignore-value                              => NotFound: etcdserver: requested lease not found
            txn if { version '' = 0 } then { put a 1 ignore-value }     => InvalidArgument: etcdserver: key is not provided
            txn then { txn if { version '' = 0 } ; put a 1 ignore-value } => InvalidArgument: etcdserver: key is not provided
            put '' 1 ignore-value                                       => InvalidArgument: etcdserver: key is not provided
            ",
        ),
    ]);
}
