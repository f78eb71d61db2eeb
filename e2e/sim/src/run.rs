//! Runs: one seed, one thread, virtual time.

use crate::chance::Chance;
use crate::extras::Edition;
use crate::history::History;
use crate::story;
use crate::world::World;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of which seed.
    pub seed: u64,
    /// Which invariants did not hold.
    pub violations: Vec<String>,
    /// What happened.
    pub history: History,
}

/// Plays the story of a seed.
///
/// # Errors
/// When the simulation itself fails.
pub fn seed(seed: u64) -> anyhow::Result<Outcome> {
    seed_of(Edition::LAST, seed)
}

/// Plays the story that a seed had in an edition.
///
/// # Errors
/// When the simulation itself fails.
pub fn seed_of(edition: Edition, seed: u64) -> anyhow::Result<Outcome> {
    within(seed, async |chance: Chance| story::play(&chance, edition).await)
}

/// Runs something in a world of its own, which is over when it returns.
///
/// # Errors
/// When it fails.
pub fn within(seed: u64, play: impl AsyncFnOnce(Chance) -> anyhow::Result<World>) -> anyhow::Result<Outcome> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // What `select!` begins with is drawn by tokio. Without this it is another one in each run.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build()?;
    let chance = Chance::new(seed);
    let history = runtime.block_on(async {
        let world = play(chance).await?;
        let history = world.ground.history.clone();
        let World { seats, .. } = world;
        for seat in seats {
            seat.stop().await;
        }
        anyhow::Ok(history)
    })?;
    Ok(Outcome { seed, violations: history.violations(), history })
}
