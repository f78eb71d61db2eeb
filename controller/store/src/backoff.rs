//! Pauses between tries: they grow, they are bounded, and no two clients keep step.

use std::time::Duration;

use crate::machine::Machine;

/// The first pause: long enough not to spin, short enough that a restart of etcd is hardly noticed.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause: what a user may wait at most after etcd is back.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubling pauses from 100 ms to 5 s, each cut by up to half at random.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    machine: Machine,
}

impl Backoff {
    pub(crate) fn new(machine: &Machine) -> Self {
        Self { next: FIRST, machine: machine.clone() }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.machine.jitter(self.next);
        self.next = (self.next * 2).min(LONGEST);
        pause
    }

    /// Begins again with the first pause, after something went well.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let mut backoff = Backoff::new(&Machine::default());
        let mut longest = FIRST;
        for _ in 0..20 {
            let pause = backoff.pause();
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} around {longest:?}");
            longest = (longest * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
