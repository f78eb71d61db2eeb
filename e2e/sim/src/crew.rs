//! Runs that do not need each other, as many at once as there are processors.

use std::sync::{Mutex, PoisonError};

/// Plays each item, and takes in what comes of it: one at a time, as each is done, in no order.
///
/// An item is played in one thread from beginning to end, so what is planted there holds for all of it. After an error
/// nothing more is begun.
///
/// # Errors
/// One that playing or taking in comes to, or where a worker panicked.
pub fn each<I: Send, O>(
    items: impl IntoIterator<Item = I, IntoIter: Send>,
    play: impl Fn(I) -> anyhow::Result<O> + Sync,
    take_in: impl FnMut(O) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let (items, take_in) = (Mutex::new(Some(items.into_iter())), Mutex::new(take_in));
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(Iterator::next);
    let work = || -> anyhow::Result<()> {
        while let Some(item) = next() {
            let done = play(item).and_then(|outcome| take_in.lock().unwrap_or_else(PoisonError::into_inner)(outcome));
            if done.is_err() {
                *items.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return done;
            }
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        working.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })
}
