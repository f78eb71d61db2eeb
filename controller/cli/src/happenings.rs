//! Happenings: the events in the store, read, sorted and picked.

use windlass_crds::id::{Kind, Namespace, ResourceKey};
use windlass_engine::events::Event;
use windlass_store::{Entry, ReadError, Scope, Section, Store};

use crate::resources::Selection;

/// Every event that the store still has, the newest last.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn read(store: &Store) -> Result<Vec<Event>, ReadError> {
    let listing = store.list(&Scope::section(Section::Events)).await?;
    Ok(in_order(&listing.entries))
}

/// The events in some entries, the newest last. What a later version wrote and cannot be read is left out.
pub(crate) fn in_order(entries: &[Entry]) -> Vec<Event> {
    let mut events: Vec<Event> = entries.iter().filter_map(event).collect();
    // Stable: of one moment, the key says which came first.
    events.sort_by_key(|event| event.time);
    events
}

/// The event in an entry.
pub(crate) fn event(entry: &Entry) -> Option<Event> {
    serde_json::from_slice(&entry.value).ok()
}

/// Which events somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pick {
    /// About these; nothing for all of them.
    pub(crate) selection: Option<Selection>,
    /// Of kinds that live in a namespace, only those in this one; nothing for all of them.
    pub(crate) namespace: Option<Namespace>,
}

impl Pick {
    /// The events about one resource.
    pub(crate) fn about(key: &ResourceKey) -> Self {
        Self { selection: Some(Selection::Named(vec![key.clone()])), namespace: None }
    }

    /// Whether an event is among them.
    pub(crate) fn takes(&self, event: &Event) -> bool {
        let (kind, name) = event.regarding.split_once('/').unwrap_or((&event.regarding, ""));
        let kinds = match &self.selection {
            Some(Selection::Named(keys)) => return keys.iter().any(|key| key.to_string() == event.regarding),
            Some(Selection::Kinds(kinds)) => kinds.as_slice(),
            None => &Kind::ALL,
        };
        // As it is printed: the namespace stands in front where it is not the default one.
        let namespace = name
            .split_once('/')
            .map_or_else(Namespace::default, |(namespace, _)| namespace.parse().unwrap_or_default());
        let inside =
            kind != Kind::Service.singular() || self.namespace.as_ref().is_none_or(|asked| *asked == namespace);
        inside && kinds.iter().any(|known| known.singular() == kind)
    }
}

#[cfg(test)]
mod tests {
    use windlass_crds::condition::Reason;

    use super::*;

    #[test]
    fn events_are_picked_by_what_they_regard() {
        let event = |regarding: &str| Event {
            time: jiff::Timestamp::UNIX_EPOCH,
            count: 1,
            first: None,
            regarding: regarding.to_owned(),
            reason: Reason::Converged,
            message: String::new(),
            request: None,
        };
        let default = Some(Namespace::default());
        let all = Pick { selection: None, namespace: None };
        let here = Pick { selection: None, namespace: default.clone() };
        let hosts = Pick { selection: Some(Selection::Kinds(vec![Kind::Host])), namespace: default };
        let one = Pick::about(&ResourceKey::from_path("services/prod/web").expect("a key"));
        for (regarding, expected) in [
            ("service/web", [true, true, false, false]),
            ("service/prod/web", [true, false, false, true]),
            ("host/web", [true, true, true, false]),
            ("nonsense", [false, false, false, false]),
        ] {
            let event = event(regarding);
            let taken = [&all, &here, &hosts, &one].map(|pick| pick.takes(&event));
            assert_eq!(taken, expected, "{regarding}");
        }
    }
}
