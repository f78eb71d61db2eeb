//! The servers that are held to etcd's protocol.

use anyhow::Result;
use windlass_testbed::{Etcd, EtcdVersion};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Etcd(EtcdVersion),
}

/// A running server, empty at first. Dropping it ends it.
pub(crate) enum Server {
    Etcd(Etcd),
}

impl Subject {
    /// All of them; the first is what the others are compared with.
    pub(crate) const ALL: [Self; 2] = [Self::Etcd(EtcdVersion::V3_5), Self::Etcd(EtcdVersion::V3_4)];

    pub(crate) fn start(self) -> Result<Server> {
        match self {
            Self::Etcd(version) => Ok(Server::Etcd(Etcd::start(version)?)),
        }
    }
}

impl Server {
    /// The URL that clients connect to.
    pub(crate) fn endpoint(&self) -> String {
        match self {
            Self::Etcd(etcd) => etcd.endpoint(),
        }
    }
}
