//! What goes wrong again and again is told when it begins, when it changes and when it ends, and not in between.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use windlass_crds::id::ResourceKey;

/// The last complaint about each key that has one.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<BTreeMap<ResourceKey, String>>);

impl Complaints {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ResourceKey, String>> {
        self.0.lock().expect("no panic happens under this lock")
    }

    /// Whether this is news.
    pub fn begins(&self, key: &ResourceKey, text: &str) -> bool {
        self.lock().insert(key.clone(), text.to_owned()).is_none_or(|before| before != text)
    }

    /// Whether there was a complaint; there is none any more.
    pub fn ends(&self, key: &ResourceKey) -> bool {
        self.lock().remove(key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once() {
        let complaints = Complaints::default();
        let key = ResourceKey::from_path("hosts/web1").expect("a key");
        assert!(!complaints.ends(&key));
        assert!(complaints.begins(&key, "no answer"));
        assert!(!complaints.begins(&key, "no answer"));
        assert!(complaints.begins(&key, "login refused"));
        assert!(complaints.ends(&key));
        assert!(!complaints.ends(&key));
        assert!(complaints.begins(&key, "login refused"));
    }
}
