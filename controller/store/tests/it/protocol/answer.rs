//! What a server answered, and how a script writes it. Revisions are told from the script's beginning.

use std::fmt::{self, Display, Formatter};

use super::operation::{Lease, WatchName, written};

/// A key and all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) version: i64,
    pub(crate) lease: Option<Lease>,
}

/// A revision in an answer; none where the server said zero, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revision(pub(crate) Option<i64>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Put,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) pair: Pair,
    pub(crate) previous: Option<Pair>,
}

/// Why a watch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: String,
    pub(crate) compacted: Revision,
}

/// What one watch was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) name: WatchName,
    pub(crate) events: Vec<Event>,
    pub(crate) end: Option<End>,
    /// What no watch may be sent, whatever it asked for: half a revision, or one after a later one.
    pub(crate) broken: Vec<String>,
}

/// What a server answered to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Put {
        revision: Revision,
        previous: Option<Pair>,
    },
    Get {
        revision: Revision,
        pairs: Vec<Pair>,
        more: bool,
        count: i64,
    },
    Delete {
        revision: Revision,
        deleted: i64,
        previous: Vec<Pair>,
    },
    Txn {
        revision: Revision,
        succeeded: bool,
        answers: Vec<Answer>,
    },
    Compact {
        revision: Revision,
    },
    Grant {
        revision: Revision,
        lease: Lease,
        ttl: i64,
        error: String,
    },
    Revoke {
        revision: Revision,
    },
    KeepAlive {
        revision: Revision,
        lease: Lease,
        ttl: i64,
    },
    /// How much is left is not here: it depends on how fast the server was.
    TimeToLive {
        revision: Revision,
        lease: Lease,
        granted: i64,
        expired: bool,
        keys: Vec<Vec<u8>>,
    },
    Leases {
        revision: Revision,
        leases: Vec<Lease>,
    },
    Watch {
        revision: Revision,
        id: i64,
        end: Option<End>,
    },
    Cancel {
        end: Option<End>,
    },
    Events {
        watches: Vec<Watched>,
    },
    Progress {
        revision: Revision,
    },
    Error {
        code: String,
        message: String,
    },
}

impl Answer {
    /// The store's revision in it.
    pub(crate) fn revision_mut(&mut self) -> Option<&mut Revision> {
        match self {
            Self::Put { revision, .. }
            | Self::Get { revision, .. }
            | Self::Delete { revision, .. }
            | Self::Txn { revision, .. }
            | Self::Compact { revision }
            | Self::Grant { revision, .. }
            | Self::Revoke { revision }
            | Self::KeepAlive { revision, .. }
            | Self::TimeToLive { revision, .. }
            | Self::Leases { revision, .. }
            | Self::Watch { revision, .. }
            | Self::Progress { revision } => Some(revision),
            Self::Cancel { .. } | Self::Events { .. } | Self::Error { .. } => None,
        }
    }
}

impl Display for Revision {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(formatter, "{offset:+}"),
            None => formatter.write_str("none"),
        }
    }
}

impl Display for Pair {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { key, value, created, modified, version, lease } = self;
        write!(formatter, "{}={}(c{created} m{modified} v{version}", written(key), written(value))?;
        if let Some(lease) = lease {
            write!(formatter, " {lease}")?;
        }
        formatter.write_str(")")
    }
}

impl Display for Event {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, pair, previous } = self;
        let kind = match kind {
            EventKind::Put => "put",
            EventKind::Delete => "delete",
        };
        write!(formatter, " {kind} {pair}")?;
        write_previous(formatter, previous.as_slice())
    }
}

impl Display for End {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { reason, compacted } = self;
        write!(formatter, " ended compacted {compacted} {reason:?}")
    }
}

impl Display for Watched {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, events, end, broken } = self;
        write!(formatter, "{name}:")?;
        write_all(formatter, events)?;
        write_all(formatter, end.as_slice())?;
        for what in broken {
            write!(formatter, " BROKEN {what}")?;
        }
        Ok(())
    }
}

impl Display for Answer {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { revision, previous } => {
                write!(formatter, "{revision}")?;
                write_previous(formatter, previous.as_slice())
            }
            Self::Get { revision, pairs, more, count } => {
                write!(formatter, "{revision} count {count}{}", if *more { " more" } else { "" })?;
                pairs.iter().try_for_each(|pair| write!(formatter, " {pair}"))
            }
            Self::Delete { revision, deleted, previous } => {
                write!(formatter, "{revision} deleted {deleted}")?;
                write_previous(formatter, previous)
            }
            Self::Txn { revision, succeeded, answers } => {
                write!(formatter, "{revision} {}", if *succeeded { "then" } else { "else" })?;
                answers.iter().try_for_each(|answer| write!(formatter, " {{ {answer} }}"))
            }
            Self::Compact { revision } | Self::Revoke { revision } | Self::Progress { revision } => {
                write!(formatter, "{revision}")
            }
            Self::Grant { revision, lease, ttl, error } => {
                write!(formatter, "{revision} {lease} ttl {ttl}{error}")
            }
            Self::KeepAlive { revision, lease, ttl } => write!(formatter, "{revision} {lease} ttl {ttl}"),
            Self::TimeToLive { revision, lease, granted, expired, keys } => {
                write!(formatter, "{revision} {lease} granted {granted}{}", if *expired { " expired" } else { "" })?;
                keys.iter().try_for_each(|key| write!(formatter, " {}", written(key)))
            }
            Self::Leases { revision, leases } => {
                write!(formatter, "{revision}")?;
                leases.iter().try_for_each(|lease| write!(formatter, " {lease}"))
            }
            Self::Watch { revision, id, end } => {
                write!(formatter, "{revision} id {id}")?;
                write_all(formatter, end.as_slice())
            }
            Self::Cancel { end } => match end {
                Some(end) => write!(formatter, "{}", end.to_string().trim_start()),
                None => formatter.write_str("no such watch"),
            },
            Self::Events { watches } if watches.is_empty() => formatter.write_str("no watch"),
            Self::Events { watches } => {
                for (position, watched) in watches.iter().enumerate() {
                    write!(formatter, "{}{watched}", if position == 0 { "" } else { " " })?;
                }
                Ok(())
            }
            Self::Error { code, message } => write!(formatter, "{code}: {message}"),
        }
    }
}

fn write_all<Item: Display>(formatter: &mut Formatter<'_>, items: &[Item]) -> fmt::Result {
    items.iter().try_for_each(|item| item.fmt(formatter))
}

fn write_previous(formatter: &mut Formatter<'_>, pairs: &[Pair]) -> fmt::Result {
    if !pairs.is_empty() {
        formatter.write_str(" was")?;
    }
    pairs.iter().try_for_each(|pair| write!(formatter, " {pair}"))
}
