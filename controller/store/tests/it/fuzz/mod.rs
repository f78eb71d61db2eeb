//! Random operations, played to etcd 3.5 and 3.4 and to the embedded store: every answer must be the same.
//!
//! `WINDLASS_FUZZ_SEED` plays one seed again; `WINDLASS_FUZZ_SEEDS` says how many are played, and `make fuzz-store
//! SEEDS=n` sets it. What is not compared stands in [`exemptions`].

mod duel;
mod exemptions;
mod generator;
mod planted;

use std::env;
use std::ops::Range;

use anyhow::{Context, Result, bail};

use self::duel::{Duel, script};

/// Seeds of an ordinary run: some ten seconds.
const SEEDS: u64 = 25;

fn number(name: &str) -> Result<Option<u64>> {
    let Ok(text) = env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{name}={text} is no number"))?))
}

fn seeds() -> Result<Range<u64>> {
    if let Some(seed) = number("WINDLASS_FUZZ_SEED")? {
        return Ok(seed..seed + 1);
    }
    Ok(0..number("WINDLASS_FUZZ_SEEDS")?.unwrap_or(SEEDS))
}

#[tokio::test]
async fn the_embedded_store_answers_as_etcd_does() -> Result<()> {
    let duel = Duel::begin()?;
    for seed in seeds()? {
        let lines = duel.play_seed(seed).await.with_context(|| format!("WINDLASS_FUZZ_SEED={seed}"))?;
        let Some(difference) = lines.last().and_then(|line| line.difference()) else { continue };
        let all: Vec<_> = lines.iter().map(|line| line.operation.clone()).collect();
        let short = duel.shorten(all).await?;
        let lines = duel.play(|_, so_far| short.get(so_far).cloned()).await?;
        bail!("WINDLASS_FUZZ_SEED={seed}\n{}\nwhich differs in\n{difference}", script(&lines));
    }
    Ok(())
}
