//! Leases: granted, kept, listed, revoked, and the keys that go with them.

use windlass_testbed::EtcdVersion;

use super::{check, check_on};
use crate::subject::{Keeping, Subject};

#[test]
fn a_lease_holds_its_keys() {
    check([
        (
            "granted, listed, revoked",
            "
            leases       => +0
            grant L1 60  => +0 L1 ttl 60
            grant L2 100 => +0 L2 ttl 100
            grant L1 60  => FailedPrecondition: etcdserver: lease already exists
            leases       => +0 L1 L2
            ttl L1       => +0 L1 granted 60
            ttl L9       => +0 L9 granted 0 expired
            revoke L1    => +0
            revoke L1    => NotFound: etcdserver: requested lease not found
            leases       => +0 L2
            ttl L1       => +0 L1 granted 0 expired
            ",
        ),
        (
            "its keys go with it, in one revision",
            "
            grant L1 60      => +0 L1 ttl 60
            put a 1 lease L1 => +1
            put b 1 lease L1 => +2
            put c 1          => +3
            ttl L1 keys      => +3 L1 granted 60 a b
            ttl L1           => +3 L1 granted 60
            revoke L1        => +4
            get ..           => +4 count 1 c=1(c+3 m+3 v1)
            get .. rev +3    => +4 count 3 a=1(c+1 m+1 v1 L1) b=1(c+2 m+2 v1 L1) c=1(c+3 m+3 v1)
            put d 1          => +5
            ",
        ),
        (
            "a lease without keys leaves no revision",
            "
            grant L1 60 => +0 L1 ttl 60
            revoke L1   => +0
            put a 1     => +1
            ",
        ),
        (
            "kept alive",
            "
            grant L1 60   => +0 L1 ttl 60
            keep-alive L1 => +0 L1 ttl 60
            keep-alive L9 => keep-alive: lease not found
            ",
        ),
        (
            "a key has one lease",
            "
            grant L1 60      => +0 L1 ttl 60
            grant L2 60      => +0 L2 ttl 60
            put a 1 lease L1 => +1
            put a 2 lease L2 => +2
            ttl L1 keys      => +2 L1 granted 60
            ttl L2 keys      => +2 L2 granted 60 a
            revoke L1        => +2
            get a            => +2 count 1 a=2(c+1 m+2 v2 L2)
            revoke L2        => +3
            get a            => +3 count 0
            ",
        ),
        (
            "how long it can be",
            "
            grant L1 2          => +0 L1 ttl 2
            grant L2 9000000000 => +0 L2 ttl 9000000000
            grant L3 9000000001 => OutOfRange: etcdserver: too large lease TTL
            ",
        ),
    ]);
}

/// etcd makes it of its election timeout, which is a second by default; those of the tests have a fifth of that.
#[test]
fn how_short_a_lease_can_be() {
    check_on(
        &[Subject::Etcd(EtcdVersion::V3_5), Subject::Etcd(EtcdVersion::V3_4)],
        [(
            "with the election timeout of the tests",
            "
            grant L1 0  => +0 L1 ttl 1
            grant L2 -1 => +0 L2 ttl 1
            grant L3 1  => +0 L3 ttl 1
            ",
        )],
    );
    check_on(
        &[Subject::Embedded(Keeping::Memory), Subject::Embedded(Keeping::Disk)],
        [(
            "with the default election timeout",
            "
            grant L1 0  => +0 L1 ttl 2
            grant L2 -1 => +0 L2 ttl 2
            grant L3 1  => +0 L3 ttl 2
            ",
        )],
    );
}
