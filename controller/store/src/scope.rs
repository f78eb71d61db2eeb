//! Scopes: which keys to list or to follow.

use windlass_crds::audit::Chain;
use windlass_crds::id::{ResourceKey, ServiceKey};

use crate::key::{Key, Prefix};

/// The parts of the layout, each one level below the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `audit/`.
    Audit,
    /// `control/`.
    Control,
    /// `declared/`.
    Declared,
    /// `events/`.
    Events,
    /// `owned/`.
    Owned,
    /// `requests/`.
    Requests,
    /// `revisions/`.
    Revisions,
    /// `rollouts/`.
    Rollouts,
    /// `status/`.
    Status,
}

impl Section {
    /// Every section, as their keys sort.
    pub const ALL: [Self; 9] = [
        Self::Audit,
        Self::Control,
        Self::Declared,
        Self::Events,
        Self::Owned,
        Self::Requests,
        Self::Revisions,
        Self::Rollouts,
        Self::Status,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::Audit => "audit/",
            Self::Control => "control/",
            Self::Declared => "declared/",
            Self::Events => "events/",
            Self::Owned => "owned/",
            Self::Requests => "requests/",
            Self::Revisions => "revisions/",
            Self::Rollouts => "rollouts/",
            Self::Status => "status/",
        }
    }
}

/// A half-open range of keys: `start` is in it, `end` is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl KeyRange {
    /// One key.
    pub(crate) fn single(key: &[u8]) -> Self {
        Self { start: key.to_owned(), end: [key, b"\0"].concat() }
    }

    /// Every key that begins with `path`, which ends in a slash; every key there is, when it is empty.
    fn below(path: &str) -> Self {
        Self { start: path.as_bytes().to_owned(), end: after_slash(path) }
    }
}

/// The first path that no longer begins with `path`; empty stands for the end of all.
fn after_slash(path: &str) -> Vec<u8> {
    let mut end = path.as_bytes().to_owned();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Which keys: one or several ranges below the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Sorted, disjoint, paths below the prefix; an empty end is the end of the prefix.
    ranges: Vec<KeyRange>,
}

impl Scope {
    /// Everything under the prefix, whatever it is.
    pub fn everything() -> Self {
        Self { ranges: vec![KeyRange::below("")] }
    }

    /// Everything but events and the audit trail: what a controller decides on. Unknown keys are among it.
    pub fn state() -> Self {
        Self::everything().without(Section::Audit).without(Section::Events)
    }

    /// One section.
    pub fn section(section: Section) -> Self {
        Self { ranges: vec![KeyRange::below(section.path())] }
    }

    /// Several sections.
    pub fn sections(sections: &[Section]) -> Self {
        let mut sections = sections.to_owned();
        sections.sort();
        sections.dedup();
        Self { ranges: sections.into_iter().map(|section| KeyRange::below(section.path())).collect() }
    }

    /// The revisions of one service.
    pub fn revisions(service: &ServiceKey) -> Self {
        Self { ranges: vec![KeyRange::below(&format!("revisions/{service}/"))] }
    }

    /// The rollouts of one service.
    pub fn rollouts(service: &ServiceKey) -> Self {
        Self { ranges: vec![KeyRange::below(&format!("rollouts/{service}/"))] }
    }

    /// The requests for one resource.
    pub fn requests(target: &ResourceKey) -> Self {
        Self { ranges: vec![KeyRange::below(&format!("requests/{}/", target.path()))] }
    }

    /// One chain of the audit trail.
    pub fn chain(chain: &Chain) -> Self {
        Self { ranges: vec![KeyRange::below(&format!("audit/{}/", chain.path()))] }
    }

    /// What of a chain lies where its records do: their numbers begin with a 0. Stray keys may be among them.
    pub fn records(chain: &Chain) -> Self {
        let path = |digit: char| format!("audit/{}/{digit}", chain.path()).into_bytes();
        Self { ranges: vec![KeyRange { start: path('0'), end: path('1') }] }
    }

    /// Of its first range what is before a key.
    #[must_use]
    pub fn before(mut self, key: &Key) -> Self {
        self.ranges.first_mut().into_iter().for_each(|range| range.end = key.relative());
        self
    }

    /// Of its first range what is behind a key.
    #[must_use]
    pub fn behind(mut self, key: &Key) -> Self {
        self.ranges.first_mut().into_iter().for_each(|range| range.start = [&key.relative()[..], b"\0"].concat());
        self
    }

    /// A single key.
    pub fn key(key: &Key) -> Self {
        Self { ranges: vec![KeyRange::single(&key.relative())] }
    }

    /// What the store says of one resource, and what is asked of it: its declaration, its status, what it owns and
    /// its requests. Its revisions, rollouts and events are scopes of their own.
    pub fn resource(resource: &ResourceKey) -> Self {
        let mut scope = Self::key(&Key::Declared(resource.clone()));
        if let ResourceKey::Service(service) = resource {
            scope = scope.and(Self::key(&Key::Owned(service.clone())));
        }
        scope.and(Self::requests(resource)).and(Self::key(&Key::Status(resource.clone())))
    }

    /// Everything that is in either.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.ranges.extend(other.ranges);
        self.ranges.sort_by(|left, right| left.start.cmp(&right.start));
        let mut ranges: Vec<KeyRange> = Vec::new();
        for range in self.ranges {
            match ranges.last_mut() {
                Some(last) if last.end.is_empty() || last.end >= range.start => {
                    if range.end.is_empty() || range.end > last.end && !last.end.is_empty() {
                        last.end = range.end;
                    }
                }
                _ => ranges.push(range),
            }
        }
        Self { ranges }
    }

    fn without(mut self, section: Section) -> Self {
        let hole = KeyRange::below(section.path());
        let cut = self.ranges.pop().expect("a scope has a range");
        self.ranges.push(KeyRange { start: cut.start, end: hole.start });
        self.ranges.push(KeyRange { start: hole.end, end: cut.end });
        self
    }

    /// Whether a path below the prefix is in it.
    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        self.ranges
            .iter()
            .any(|range| range.start.as_slice() <= path && (range.end.is_empty() || path < range.end.as_slice()))
    }

    /// Its ranges as etcd knows them.
    pub(crate) fn ranges(&self, prefix: &Prefix) -> Vec<KeyRange> {
        self.ranges
            .iter()
            .map(|range| KeyRange {
                start: prefix.join(&range.start),
                end: if range.end.is_empty() { end_of(prefix) } else { prefix.join(&range.end) },
            })
            .collect()
    }

    /// Whether all that is written below the prefix is within the smallest single range around them.
    pub(crate) fn spans_all(&self, prefix: &Prefix) -> bool {
        self.hull(prefix) == Self::everything().hull(prefix)
    }

    /// The smallest single range around all of them.
    pub(crate) fn hull(&self, prefix: &Prefix) -> KeyRange {
        let ranges = self.ranges(prefix);
        match (ranges.first(), ranges.last()) {
            (Some(first), Some(last)) => KeyRange { start: first.start.clone(), end: last.end.clone() },
            // No section at all: a range that holds no key that anybody can write below the prefix.
            _ => KeyRange { start: prefix.join(b""), end: prefix.join(b"\0") },
        }
    }
}

/// The first key after everything under the prefix.
fn end_of(prefix: &Prefix) -> Vec<u8> {
    let mut end = prefix.join(b"");
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_leaves_out_events_and_audit_and_nothing_else() {
        let state = Scope::state();
        for (path, inside) in [
            (&b""[..], true),
            (b"aaa", true),
            (b"audit", true),
            (b"audit/1", false),
            (b"audit0", true),
            (b"control/leader", true),
            (b"declared/services/default/web", true),
            (b"events/1", false),
            (b"events/\xff", false),
            (b"eventsx", true),
            (b"status/hosts/a", true),
            (b"zzz", true),
            (b"\xff\xff", true),
        ] {
            assert_eq!(state.contains(path), inside, "{}", path.escape_ascii());
        }
        assert_eq!(state.ranges(&Prefix::default()).len(), 3);
    }

    #[test]
    fn ranges_stay_under_the_prefix() {
        let prefix = Prefix::default();
        let hull = Scope::state().hull(&prefix);
        assert_eq!(hull, KeyRange { start: b"/windlass/".to_vec(), end: b"/windlass0".to_vec() });
        let hull = Scope::sections(&[Section::Status, Section::Declared]).hull(&prefix);
        assert_eq!(hull, KeyRange { start: b"/windlass/declared/".to_vec(), end: b"/windlass/status0".to_vec() });
    }

    #[test]
    fn a_service_does_not_see_its_neighbour() {
        let web: ServiceKey = "default/web".parse().expect("a service");
        assert!(Scope::revisions(&web).contains(b"revisions/default/web/1"));
        assert!(!Scope::revisions(&web).contains(b"revisions/default/web2/1"));
        assert!(!Scope::key(&Key::Owned(web.clone())).contains(b"owned/default/web2"));
        let scope = Scope::resource(&ResourceKey::Service(web));
        for (path, inside) in [
            ("declared/services/default/web", true),
            ("declared/services/default/web2", false),
            ("declared/hosts/web", false),
            ("owned/default/web", true),
            ("owned/default/web/x", false),
            ("requests/services/default/web/1", true),
            ("requests/services/default/web2/1", false),
            ("rollouts/default/web/1", false),
            ("status/services/default/web", true),
        ] {
            assert_eq!(scope.contains(path.as_bytes()), inside, "{path}");
        }
    }

    #[test]
    fn a_chain_is_gone_through_piece_by_piece() {
        let chain = Chain::from_path("services/default/web").expect("a chain");
        let records = Scope::records(&chain);
        for (path, inside) in [
            ("audit/services/default/web/000000000001", true),
            ("audit/services/default/web/099999999999", true),
            ("audit/services/default/web/0stray", true),
            ("audit/services/default/web/stray", false),
            ("audit/services/default/web/999999999999", false),
            ("audit/services/default/web2/000000000001", false),
        ] {
            assert_eq!(records.contains(path.as_bytes()), inside, "{path}");
        }
        let key = |number| Key::Audit(chain.clone(), windlass_crds::id::RecordNumber(number));
        let between = records.behind(&key(3)).before(&key(5));
        let inside = (1..9).filter(|number| between.contains(&key(*number).relative())).collect::<Vec<_>>();
        assert_eq!(inside, [4]);
    }

    #[test]
    fn what_is_in_either_is_in_both_together() {
        let bounds = |scope: &Scope| -> Vec<String> {
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
            scope.ranges.iter().map(|range| format!("{}..{}", text(&range.start), text(&range.end))).collect()
        };
        let (events, status) = (Scope::section(Section::Events), Scope::section(Section::Status));
        assert_eq!(bounds(&status.clone().and(events.clone())), ["events/..events0", "status/..status0"]);
        assert_eq!(bounds(&status.clone().and(status.clone())), ["status/..status0"]);
        let host = ResourceKey::from_path("hosts/a").expect("a host");
        assert_eq!(
            bounds(&Scope::resource(&host).and(status)),
            ["declared/hosts/a..declared/hosts/a\\x00", "requests/hosts/a/..requests/hosts/a0", "status/..status0"]
        );
        assert_eq!(bounds(&Scope::everything().and(events.clone())), [".."]);
        assert_eq!(bounds(&events.and(Scope::everything())), [".."]);
    }
}
