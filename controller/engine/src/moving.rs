//! How many rollouts are under way: while there are any, more is told soon.

use std::sync::Arc;

/// The rollouts that are under way.
#[derive(Debug, Default)]
pub struct Moving(Arc<()>);

/// One of them, as long as it is held.
#[derive(Debug)]
pub struct Moves(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Moving {
    /// One begins, or goes on.
    pub fn begin(&self) -> Moves {
        Moves(Arc::clone(&self.0))
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_under_way_for_as_long_as_it_is_held() {
        let moving = Moving::default();
        assert!(!moving.any());
        let (one, other) = (moving.begin(), moving.begin());
        drop(one);
        assert!(moving.any());
        drop(other);
        assert!(!moving.any());
    }
}
