//! Steps: how far a canary has come, in words. Pure.

use windlass_crds::id::ResourceKey;
use windlass_crds::status::{CanaryStatus, ServiceStatus};

/// `step 1 of 3 has to stay healthy until …`; nothing where there is no canary.
pub(crate) fn words(key: &ResourceKey, told: &ServiceStatus) -> Option<String> {
    let CanaryStatus { step, steps, baking_until, waiting_since } = told.rollout.as_ref()?.canary.as_ref()?;
    let step = format!("step {step} of {steps}");
    Some(match (baking_until, waiting_since, told.target) {
        (Some(until), _, _) => format!("{step} has to stay healthy until {until}"),
        (None, Some(since), Some(revision)) => {
            format!("{step} waits since {since} for `windlass rollout approve {key} --revision {revision}`")
        }
        (None, Some(_), None) | (None, None, _) => step,
    })
}
