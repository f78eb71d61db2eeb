//! Hosts that are switched at the same time and confirmed together.
//!
//! A confirmation comes by a login of its own, which costs controller and host as much as many a switch. Nobody waits
//! for it where no other host waits for the place of this one: so there it comes after the last verdict, and what is
//! declared answers everywhere that much earlier.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// So long a confirmation waits for verdicts on other hosts: on a busy machine the starts of ten programs are more than a
/// second apart. Small beside the time that is left for it: a host takes back what is not confirmed after
/// [`windlass_planner::verdict::confirm_within`], 45 seconds at least.
const LONGEST: Duration = Duration::from_secs(3);

/// How many hosts have no verdict yet.
#[derive(Debug, Clone, Default)]
pub struct Wave(Arc<watch::Sender<usize>>);

impl Wave {
    /// One host more.
    pub fn join(&self) -> Member {
        self.0.send_modify(|pending| *pending += 1);
        Member { wave: self.clone(), pending: true.into() }
    }
}

/// One host of a wave, without a verdict until it waits for the others, or is dropped.
#[derive(Debug)]
pub struct Member {
    wave: Wave,
    pending: std::sync::atomic::AtomicBool,
}

impl Member {
    /// It has a verdict. Waits until all others have one or have ended, or it is cancelled, for a bounded time.
    pub async fn wait_for_others(&self, cancel: &CancellationToken) {
        self.settle();
        let mut pending = self.wave.0.subscribe();
        tokio::select! {
            _ = tokio::time::timeout(LONGEST, pending.wait_for(|pending| *pending == 0)) => {}
            () = cancel.cancelled() => {}
        }
    }

    fn settle(&self) {
        if self.pending.swap(false, std::sync::atomic::Ordering::Relaxed) {
            self.wave.0.send_modify(|pending| *pending -= 1);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_waits_for_the_last_verdict_and_not_for_ever() {
        let (wave, cancel) = (Wave::default(), CancellationToken::new());
        let (first, second, third) = (wave.join(), wave.join(), wave.join());
        assert!(first.wait_for_others(&cancel).now_or_never().is_none(), "two have none yet");
        drop(second);
        assert!(first.wait_for_others(&cancel).now_or_never().is_none(), "one has none yet");
        assert!(third.wait_for_others(&cancel).now_or_never().is_some(), "all have one");
        assert!(first.wait_for_others(&cancel).now_or_never().is_some());
        let _hangs = wave.join();
        let began = tokio::time::Instant::now();
        first.wait_for_others(&cancel).await;
        assert_eq!(began.elapsed(), LONGEST);
        cancel.cancel();
        assert!(third.wait_for_others(&cancel).now_or_never().is_some(), "something else is wanted");
    }
}
