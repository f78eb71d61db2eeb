//! The audit trail of a run: whole, whoever has died in the middle of what, and told of every service.

use windlass_crds::audit::Chain;
use windlass_crds::audit::verify::{Against, Finding, Place, Verifier};
use windlass_crds::id::ResourceKey;
use windlass_engine::audit::holds;
use windlass_store::{Key, Scope, Section};

use crate::world::World;

/// Whether something is found because the store is an older one now: whoever has come further goes on from there.
fn is_of_an_older_copy(found: &Finding) -> bool {
    matches!(
        found,
        Finding::Missing { .. }
            | Finding::BeginningMissing { .. }
            | Finding::EndMissing { .. }
            | Finding::ChainMissing { .. }
            | Finding::NotAsAnchored { .. }
            | Finding::Unlinked { .. }
    )
}

impl World {
    /// Looks through all of the trail.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn looks_through_trail(&self) -> anyhow::Result<()> {
        let mut verifier = Verifier::new(holds, Against::default());
        let entries = self.truth.list(&Scope::section(Section::Audit)).await?.entries;
        for entry in &entries {
            let place = match &entry.key {
                Key::Audit(chain, number) => Place::Key(chain.clone(), *number),
                other => Place::Stray(other.to_string()),
            };
            verifier.take(place, &entry.value);
        }
        // Where an older copy was put in under whoever leads, what that lacks is missing, and is told so.
        let restored = self.ground.oracle.is_restored();
        let found = verifier.end().findings.into_iter().filter(|found| !restored || !is_of_an_older_copy(found));
        for finding in found {
            self.ground.history.violated(format_args!("the audit trail: {finding}"));
        }
        for model in self.services.iter().filter(|model| model.declared) {
            let chain = Chain::Resource(ResourceKey::Service(model.key.clone()));
            let told = entries.iter().any(|entry| matches!(&entry.key, Key::Audit(of, _) if *of == chain));
            if !told {
                self.ground.history.violated(format_args!("the audit trail does not tell of {chain}"));
            }
        }
        Ok(())
    }
}
