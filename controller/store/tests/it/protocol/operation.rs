//! What a script asks of a server, and how it is written.

use std::fmt::{self, Display, Formatter};

use etcd_client::{SortOrder, SortTarget};

/// A revision that a request names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum At {
    /// None: zero on the wire.
    #[default]
    Unset,
    /// So many after the script began, `+3`; below zero is before it, and compacted.
    Relative(i64),
}

/// A lease, by the script's own small number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease(pub(crate) i64);

/// A watch, by the script's own small number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatchName(pub(crate) i64);

/// The keys that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) key: Vec<u8>,
    /// The first key after them; empty for one key, a zero byte for no end.
    pub(crate) end: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) lease: Option<Lease>,
    pub(crate) previous: bool,
    pub(crate) ignore_value: bool,
    pub(crate) ignore_lease: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) range: KeyRange,
    pub(crate) revision: At,
    pub(crate) limit: i64,
    pub(crate) sort: Option<(SortTarget, SortOrder)>,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    pub(crate) serializable: bool,
    pub(crate) min_mod: At,
    pub(crate) max_mod: At,
    pub(crate) min_create: At,
    pub(crate) max_create: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delete {
    pub(crate) range: KeyRange,
    pub(crate) previous: bool,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CompareTarget {
    Version(i64),
    Create(At),
    Mod(At),
    Value(Vec<u8>),
    Lease(Option<Lease>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) range: KeyRange,
    pub(crate) relation: Relation,
    pub(crate) target: CompareTarget,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Txn {
    pub(crate) compares: Vec<Compare>,
    /// Only [`Operation::Put`], `Get`, `Delete` and `Txn` can stand here.
    pub(crate) success: Vec<Operation>,
    pub(crate) failure: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) name: WatchName,
    pub(crate) range: KeyRange,
    pub(crate) start: At,
    pub(crate) previous: bool,
    pub(crate) without_puts: bool,
    pub(crate) without_deletes: bool,
    pub(crate) fragment: bool,
    /// The id that the client asks for; zero lets the server choose.
    pub(crate) id: i64,
}

/// One line of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Put(Put),
    Get(Get),
    Delete(Delete),
    Txn(Txn),
    Compact {
        revision: At,
        physical: bool,
    },
    Grant {
        lease: Lease,
        ttl: i64,
    },
    Revoke(Lease),
    KeepAlive(Lease),
    TimeToLive {
        lease: Lease,
        keys: bool,
    },
    Leases,
    Watch(Watch),
    Cancel(WatchName),
    /// All that each watch has been sent since the last time; writes to their keys to know when that is all.
    Events,
    /// Asks the stream of watches how far it is.
    Progress,
}

impl KeyRange {
    pub(crate) fn one(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), end: Vec::new() }
    }

    pub(crate) fn new(key: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), end: end.into() }
    }

    /// Every key there is.
    pub(crate) fn all() -> Self {
        Self::new("\0", "\0")
    }
}

impl Get {
    pub(crate) fn of(range: KeyRange) -> Self {
        Self {
            range,
            revision: At::Unset,
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            serializable: false,
            min_mod: At::Unset,
            max_mod: At::Unset,
            min_create: At::Unset,
            max_create: At::Unset,
        }
    }
}

impl Put {
    pub(crate) fn of(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            lease: None,
            previous: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }
}

impl Watch {
    pub(crate) fn of(name: WatchName, range: KeyRange) -> Self {
        Self {
            name,
            range,
            start: At::Unset,
            previous: false,
            without_puts: false,
            without_deletes: false,
            fragment: false,
            id: 0,
        }
    }
}

/// Bytes as a script writes them: `''` when empty, `#900` for nine hundred times `x`, anything unusual as `\xff`.
pub(crate) fn written(bytes: &[u8]) -> String {
    /// Longer ones would hide the rest of the line.
    const MOST_SHOWN: usize = 40;
    if bytes.is_empty() {
        return "''".to_owned();
    }
    if bytes.len() > MOST_SHOWN && bytes.iter().all(|byte| *byte == b'x') {
        return format!("#{}", bytes.len());
    }
    bytes.iter().map(|byte| written_byte(*byte)).collect()
}

fn written_byte(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"/_-~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("\\x{byte:02x}")
    }
}

/// Writes a word where it holds.
struct Flag(bool, &'static str);

impl Display for Flag {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        if self.0 { write!(formatter, " {}", self.1) } else { Ok(()) }
    }
}

/// Writes a word and a revision where there is one.
struct Bound(&'static str, At);

impl Display for Bound {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            At::Unset => Ok(()),
            at @ At::Relative(_) => write!(formatter, " {} {at}", self.0),
        }
    }
}

impl Display for At {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => formatter.write_str("0"),
            Self::Relative(offset) => write!(formatter, "{offset:+}"),
        }
    }
}

impl Display for Lease {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "L{}", self.0)
    }
}

impl Display for WatchName {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "W{}", self.0)
    }
}

impl Display for KeyRange {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let key = written(&self.key);
        match self.end.as_slice() {
            [] => formatter.write_str(&key),
            b"\0" if self.key == b"\0" => formatter.write_str(".."),
            b"\0" => write!(formatter, "{key}.."),
            end => write!(formatter, "{key}..{}", written(end)),
        }
    }
}

impl Display for Relation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::Less => "<",
        })
    }
}

impl Display for Compare {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { range, relation, target } = self;
        match target {
            CompareTarget::Version(version) => write!(formatter, "version {range} {relation} {version}"),
            CompareTarget::Create(at) => write!(formatter, "create {range} {relation} {at}"),
            CompareTarget::Mod(at) => write!(formatter, "mod {range} {relation} {at}"),
            CompareTarget::Value(value) => write!(formatter, "value {range} {relation} {}", written(value)),
            CompareTarget::Lease(Some(lease)) => write!(formatter, "lease {range} {relation} {lease}"),
            CompareTarget::Lease(None) => write!(formatter, "lease {range} {relation} none"),
        }
    }
}

/// Writes `{ one ; two }`.
fn block<Item: Display>(formatter: &mut Formatter<'_>, word: &str, items: &[Item]) -> fmt::Result {
    write!(formatter, " {word} {{ ")?;
    for (position, item) in items.iter().enumerate() {
        let separator = if position == 0 { "" } else { "; " };
        write!(formatter, "{separator}{item} ")?;
    }
    formatter.write_str("}")
}

impl Display for Txn {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("txn")?;
        for (word, compares) in [("if", &self.compares)] {
            if !compares.is_empty() {
                block(formatter, word, compares)?;
            }
        }
        for (word, operations) in [("then", &self.success), ("else", &self.failure)] {
            if !operations.is_empty() {
                block(formatter, word, operations)?;
            }
        }
        Ok(())
    }
}

impl Display for Put {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { key, value, lease, previous, ignore_value, ignore_lease } = self;
        write!(formatter, "put {} {}", written(key), written(value))?;
        if let Some(lease) = lease {
            write!(formatter, " lease {lease}")?;
        }
        let flags = (Flag(*previous, "prev"), Flag(*ignore_value, "ignore-value"), Flag(*ignore_lease, "ignore-lease"));
        write!(formatter, "{}{}{}", flags.0, flags.1, flags.2)
    }
}

impl Display for Get {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { range, revision, limit, sort, keys_only, count_only, serializable, .. } = self;
        write!(formatter, "get {range}{}", Bound("rev", *revision))?;
        if *limit != 0 {
            write!(formatter, " limit {limit}")?;
        }
        if let Some((target, order)) = sort {
            let words = format!("{target:?} {order:?}").to_lowercase();
            write!(formatter, " sort {words}")?;
        }
        let flags = (Flag(*keys_only, "keys"), Flag(*count_only, "count"), Flag(*serializable, "serializable"));
        write!(formatter, "{}{}{}", flags.0, flags.1, flags.2)?;
        write!(formatter, "{}{}", Bound("min-mod", self.min_mod), Bound("max-mod", self.max_mod))?;
        write!(formatter, "{}{}", Bound("min-create", self.min_create), Bound("max-create", self.max_create))
    }
}

impl Display for Watch {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, range, start, previous, without_puts, without_deletes, fragment, id } = self;
        write!(formatter, "watch {name} {range}{}{}", Bound("from", *start), Flag(*previous, "prev"))?;
        let flags = (Flag(*without_puts, "no-puts"), Flag(*without_deletes, "no-deletes"), Flag(*fragment, "fragment"));
        write!(formatter, "{}{}{}", flags.0, flags.1, flags.2)?;
        if *id == 0 { Ok(()) } else { write!(formatter, " id {id}") }
    }
}

impl Display for Operation {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(put) => put.fmt(formatter),
            Self::Get(get) => get.fmt(formatter),
            Self::Delete(Delete { range, previous }) => write!(formatter, "delete {range}{}", Flag(*previous, "prev")),
            Self::Txn(txn) => txn.fmt(formatter),
            Self::Compact { revision, physical } => {
                write!(formatter, "compact {revision}{}", Flag(*physical, "physical"))
            }
            Self::Grant { lease, ttl } => write!(formatter, "grant {lease} {ttl}"),
            Self::Revoke(lease) => write!(formatter, "revoke {lease}"),
            Self::KeepAlive(lease) => write!(formatter, "keep-alive {lease}"),
            Self::TimeToLive { lease, keys } => write!(formatter, "ttl {lease}{}", Flag(*keys, "keys")),
            Self::Leases => formatter.write_str("leases"),
            Self::Watch(watch) => watch.fmt(formatter),
            Self::Cancel(name) => write!(formatter, "cancel {name}"),
            Self::Events => formatter.write_str("events"),
            Self::Progress => formatter.write_str("progress"),
        }
    }
}
