//! Looks at one Host, and says what was found; and what is said of a NetworkZone.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_crds::condition::{Condition, ConditionStatus, ConditionType, Reason};
use windlass_crds::document::Declaration;
use windlass_crds::host::Target;
use windlass_crds::id::{Generation, HostId, HostName, ResourceKey, ServiceKey};
use windlass_crds::observation::HostFacts;
use windlass_crds::request::Request;
use windlass_crds::status::{Finding, HostStatus, PlainStatus, conditions};
use windlass_crds::step::{ContactError, StepError};
use windlass_hosts::fleet::{Fleet, Look, Scrutiny};
use windlass_store::{CommitError, Key, Write};

use crate::cache::{Read, ResourceView};
use crate::commit::json;
use crate::controller::{Controller, now};
use crate::goal::complaint;
use crate::queue::Next;
use crate::service::stalled;

/// Hosts are looked at so often where nothing happens (design: every 60 s).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A host out of reach is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(15);

/// A status of any kind, as far as this module writes it.
trait Said: Serialize + DeserializeOwned + Default {
    fn conditions(&self) -> &[Condition];
}

impl Said for HostStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl Said for PlainStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

/// Looks at one Host.
///
/// # Errors
/// When the store does not take what was found.
pub async fn reconcile<F: Fleet>(controller: &Arc<Controller<F>>, name: &HostName) -> Result<Next, CommitError> {
    let key = ResourceKey::Host(name.clone());
    let declared = controller.cache.resource(&key).declared;
    let Some(Read { parsed, at, .. }) = declared else { return erase(controller, &key).await };
    let generation = Generation(at.0);
    let (findings, facts, next) = match parsed.as_deref() {
        Ok(Declaration::Host(host)) => {
            let target = Target::declared(HostId::Named(name.clone()), &host.spec);
            let found = contact(controller, &target).await;
            let next = Next::After(if found.is_ok() { LOOK_EVERY } else { TRY_AGAIN });
            (findings(found.as_ref()), found.ok(), next)
        }
        Ok(_) => return Ok(Next::Never),
        Err(problems) => (stalled(&complaint(problems)), None, Next::Never),
    };
    say(
        controller,
        &key,
        findings,
        |before: &HostStatus, conditions| HostStatus {
            observed_generation: generation,
            conditions,
            // What it was stays known while it is out of reach.
            machine: facts.as_ref().map(|facts| facts.machine.clone()).or_else(|| before.machine.clone()),
            scope: facts.as_ref().map(|facts| facts.scope).or(before.scope),
            systemd: facts.as_ref().map(|facts| facts.systemd).or(before.systemd),
        },
        generation,
    )
    .await?;
    Ok(next)
}

/// Says of a NetworkZone whether it makes sense.
///
/// # Errors
/// When the store does not take it.
pub async fn reconcile_plain<F: Fleet>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
) -> Result<Next, CommitError> {
    let declared = controller.cache.resource(key).declared;
    let Some(Read { parsed, at, .. }) = declared else { return erase(controller, key).await };
    let generation = Generation(at.0);
    let findings = match &parsed {
        Ok(_) => vec![Finding {
            kind: ConditionType::Ready,
            status: ConditionStatus::True,
            reason: Reason::AsExpected,
            message: "in force".to_owned(),
        }],
        Err(problems) => stalled(&complaint(problems)),
    };
    let status = |_: &PlainStatus, conditions| PlainStatus { observed_generation: generation, conditions };
    say(controller, key, findings, status, generation).await?;
    Ok(Next::Never)
}

/// Asks a host for its facts; nothing is changed there.
async fn contact<F: Fleet>(controller: &Controller<F>, target: &Target) -> Result<HostFacts, StepError> {
    // No Service can have this name: its namespace is Windlass's own.
    let service: ServiceKey = "windlass/host".parse().expect("two DNS labels");
    let look = Look { service, stamp: None, scrutiny: Scrutiny::Quick };
    let seen = controller.fleet.observe(target, &look).await?;
    match &seen.facts.cluster {
        Some(owner) if *owner != controller.cluster => Err(StepError::OwnedByAnother { owner: owner.clone() }),
        _ => Ok(seen.facts),
    }
}

fn findings(found: Result<&HostFacts, &StepError>) -> Vec<Finding> {
    let finding = |kind, status, reason, message: &str| Finding { kind, status, reason, message: message.to_owned() };
    let (ready, reason, message) = match found {
        Ok(facts) => (ConditionStatus::True, Reason::Reachable, format!("systemd {} answers", facts.systemd)),
        Err(StepError::Contact { error }) => {
            let reason = match error {
                ContactError::HostKey { .. } => Reason::HostKeyRejected,
                ContactError::Login { .. } => Reason::LoginRefused,
                ContactError::Unsuitable { .. } => Reason::HostUnsuitable,
                _ => Reason::HostUnreachable,
            };
            // Out of reach is unknown; what refuses us is not as it should be.
            let unknown = reason == Reason::HostUnreachable;
            let status = if unknown { ConditionStatus::Unknown } else { ConditionStatus::False };
            (status, reason, error.to_string())
        }
        Err(error @ StepError::OwnedByAnother { .. }) => {
            (ConditionStatus::False, Reason::OwnedByAnother, error.to_string())
        }
        Err(error) => (ConditionStatus::Unknown, Reason::HostUnreachable, error.to_string()),
    };
    let stuck = ready == ConditionStatus::False;
    let stalled = if stuck {
        finding(ConditionType::Stalled, ConditionStatus::True, reason, &message)
    } else {
        finding(ConditionType::Stalled, ConditionStatus::False, Reason::AsExpected, "")
    };
    vec![finding(ConditionType::Ready, ready, reason, &message), stalled]
}

/// Writes a status where it is news, and ends the requests that asked for it.
async fn say<F: Fleet, S: Said>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
    findings: Vec<Finding>,
    status: impl FnOnce(&S, Vec<Condition>) -> S,
    generation: Generation,
) -> Result<(), CommitError> {
    let ResourceView { status: stored, requests, .. } = controller.cache.resource(key);
    let before: S = stored.as_ref().and_then(|stored| serde_json::from_slice(&stored.value).ok()).unwrap_or_default();
    let now = now();
    let said = status(&before, conditions(findings, generation, before.conditions(), now));
    let bytes = json(&said);
    let mut writes = Vec::new();
    if stored.is_none_or(|stored| stored.value != bytes) {
        let news = crate::events::transitions(before.conditions(), said.conditions());
        writes.push(Write::put(Key::Status(key.clone()), bytes));
        writes.extend(controller.events.writes(&controller.store, key, now, news).await);
    }
    for (id, request) in requests {
        if !matches!(request, Ok(Request::Reconcile)) {
            tracing::warn!(resource = %key, request = id.as_str(), "only a Service can be asked this");
        }
        writes.push(Write::delete(Key::Request { target: key.clone(), id }));
    }
    if writes.is_empty() {
        return Ok(());
    }
    let revision = controller.store.commit(controller.leadership(), &writes).await?;
    controller.cache.reach(revision).await;
    Ok(())
}

/// Removes what was said of a resource that is gone.
async fn erase<F: Fleet>(controller: &Arc<Controller<F>>, key: &ResourceKey) -> Result<Next, CommitError> {
    let ResourceView { status: stored, requests, .. } = controller.cache.resource(key);
    let mut writes: Vec<Write> = stored.iter().map(|_| Write::delete(Key::Status(key.clone()))).collect();
    let request = |id: &windlass_store::RequestId| Write::delete(Key::Request { target: key.clone(), id: id.clone() });
    writes.extend(requests.keys().map(request));
    if !writes.is_empty() {
        let revision = controller.store.commit(controller.leadership(), &writes).await?;
        controller.cache.reach(revision).await;
    }
    Ok(Next::Never)
}
