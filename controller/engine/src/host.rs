//! Looks at one Host, and says what was found; and what is said of a NetworkZone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_crds::condition::{Condition, ConditionStatus, ConditionType, Reason};
use windlass_crds::document::Declaration;
use windlass_crds::host::Target;
use windlass_crds::id::{Generation, HostId, HostName, ResourceKey, ServiceKey};
use windlass_crds::observation::HostFacts;
use windlass_crds::problem::Problem;
use windlass_crds::request::Request;
use windlass_crds::status::{Finding, HostStatus, PlainStatus, PolicyStatus, conditions};
use windlass_crds::step::{ContactError, StepError};
use windlass_hosts::fleet::{Adoption, Fleet, Look, Scrutiny};
use windlass_store::{Key, Write};

use crate::audit;
use crate::cache::{Read, ResourceView};
use crate::commit::json;
use crate::controller::Controller;
use crate::events;
use crate::goal::complaint;
use crate::queue::Next;
use crate::requests::{self, Refused, Standing};
use crate::service::{ReconcileError, stalled};

/// Hosts are looked at so often where nothing happens (design: every 60 s).
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A host out of reach is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(15);

/// What is to be said of a resource.
struct News {
    findings: Vec<Finding>,
    /// What was asked and could not be done.
    refused: Vec<Refused>,
}

/// A status of any kind, as far as this module writes it.
trait Said: Serialize + DeserializeOwned + Default {
    fn conditions(&self) -> &[Condition];
}

impl Said for HostStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl Said for PolicyStatus {
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
pub async fn reconcile<F: Fleet>(controller: &Arc<Controller<F>>, name: &HostName) -> Result<Next, ReconcileError> {
    let key = ResourceKey::Host(name.clone());
    let view = bounded(controller.cache.resource(&key));
    let Some(Read { parsed, at, .. }) = view.declared.clone() else { return erase(controller, &key).await };
    let generation = Generation(at.0);
    let standing = standing(parsed.as_deref());
    let mut refused = requests::refusals(&key, standing, &view.requests);
    let (mut owner, mut facts) = (None, None);
    let (findings, next) = match parsed.as_deref() {
        Ok(Declaration::Host(host)) => {
            let target = Target::declared(HostId::Named(name.clone()), &host.spec);
            refused.extend(adopt(controller, &target, &view).await);
            let found = contact(controller, &target).await;
            let next = Next::After(if found.is_ok() { LOOK_EVERY } else { TRY_AGAIN });
            let findings = findings(found.as_ref());
            match found {
                Ok(found) => facts = Some(found),
                Err(StepError::OwnedByAnother { owner: other }) => owner = Some(other),
                Err(_) => {}
            }
            (findings, next)
        }
        Ok(_) => return Ok(Next::Never),
        Err(problems) => (stalled(&complaint(problems)), Next::Never),
    };
    say(
        controller,
        &key,
        view,
        News { findings, refused },
        |before: &HostStatus, conditions| HostStatus {
            observed_generation: generation,
            conditions,
            // What it was stays known while it is out of reach.
            machine: facts.as_ref().map(|facts| facts.machine.clone()).or_else(|| before.machine.clone()),
            scope: facts.as_ref().map(|facts| facts.scope).or(before.scope),
            systemd: facts.as_ref().map(|facts| facts.systemd).or(before.systemd),
            owner,
        },
        generation,
    )
    .await?;
    Ok(next)
}

/// How it stands with a declaration.
fn standing(parsed: Result<&Declaration, &Vec<Problem>>) -> Standing {
    parsed.map_or_else(|problems| Standing::Nonsense(complaint(problems).reason), |_| Standing::Sound)
}

/// A view with as many requests as one commit can end.
fn bounded(mut view: ResourceView) -> ResourceView {
    requests::bound(&mut view.requests);
    view
}

/// Takes a Host over where that is asked; says what could not be.
async fn adopt<F: Fleet>(controller: &Controller<F>, target: &Target, view: &ResourceView) -> Vec<Refused> {
    let mut refused = Vec::new();
    for (id, request) in &view.requests {
        let Ok(Request::Adopt { owner }) = request else { continue };
        let adoption = Adoption { from: owner.clone(), to: controller.cluster.clone() };
        match controller.fleet.adopt(target, &adoption).await {
            Ok(()) => {
                tracing::info!(host = %target.id, from = %owner, "adopted");
                // Its Services were refused there; they need not wait until they try again.
                let HostId::Named(name) = &target.id else { continue };
                let host = BTreeSet::from([ResourceKey::Host(name.clone())]);
                for service in controller.cache.concerned_by(&host) {
                    controller.queue.push(ResourceKey::Service(service));
                }
            }
            Err(error) => refused.push(Refused { request: id.clone(), why: format!("adopt: {error}") }),
        }
    }
    refused
}

/// Says of a NetworkZone whether it makes sense.
///
/// # Errors
/// When the store does not take it.
pub async fn reconcile_plain<F: Fleet>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
) -> Result<Next, ReconcileError> {
    let status = |_: &PlainStatus, observed_generation, conditions, _: Option<&Declaration>| PlainStatus {
        observed_generation,
        conditions,
    };
    say_in_force(controller, key, status).await
}

/// Says of a Policy whether it makes sense; and what is in force of one that does not.
pub async fn reconcile_policy<F: Fleet>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
) -> Result<Next, ReconcileError> {
    let status = |before: &PolicyStatus, observed_generation, conditions, declared: Option<&Declaration>| {
        let accepted = match declared {
            Some(Declaration::Policy(policy)) => Some(policy.spec.clone()),
            _ => before.accepted.clone(),
        };
        PolicyStatus { observed_generation, conditions, accepted }
    };
    say_in_force(controller, key, status).await
}

/// Says of a resource without a state of its own whether what is declared of it makes sense.
async fn say_in_force<F: Fleet, S: Said>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
    status: impl FnOnce(&S, Generation, Vec<Condition>, Option<&Declaration>) -> S,
) -> Result<Next, ReconcileError> {
    let view = bounded(controller.cache.resource(key));
    let Some(Read { parsed, at, .. }) = view.declared.clone() else { return erase(controller, key).await };
    let generation = Generation(at.0);
    let refused = requests::refusals(key, standing(parsed.as_deref()), &view.requests);
    let findings = match &parsed {
        Ok(_) => vec![Finding {
            kind: ConditionType::Ready,
            status: ConditionStatus::True,
            reason: Reason::AsExpected,
            message: "in force".to_owned(),
        }],
        Err(problems) => stalled(&complaint(problems)),
    };
    let status = |before: &S, conditions| status(before, generation, conditions, parsed.as_deref().ok());
    say(controller, key, view, News { findings, refused }, status, generation).await?;
    Ok(Next::Never)
}

/// Asks a host for its facts; nothing is changed there.
async fn contact<F: Fleet>(controller: &Controller<F>, target: &Target) -> Result<HostFacts, StepError> {
    // No Service can have this name: its namespace is Windlass's own.
    let service: ServiceKey = "windlass/host".parse().expect("two DNS labels");
    let look = Look { service, stamp: None, scrutiny: Scrutiny::Quick };
    let seen = controller.fleet.observe(target, &look).await.map_err(|error| match error {
        StepError::Contact { error } => StepError::Contact { error: controller.contacts.failed(target, error).0 },
        other => other,
    })?;
    // Its Services find that out when they look next: one that cannot be looked at for a reason of its own would be
    // woken again and again.
    controller.contacts.answered(&target.id);
    controller.check_owner(&seen.facts)?;
    Ok(seen.facts)
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

/// Writes a status where it is news, and ends the requests that `view` has.
async fn say<F: Fleet, S: Said>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
    view: ResourceView,
    news: News,
    status: impl FnOnce(&S, Vec<Condition>) -> S,
    generation: Generation,
) -> Result<(), ReconcileError> {
    let ResourceView { declared, status: stored, requests, asked_at } = view;
    let News { findings, refused } = news;
    let before: S = stored.as_ref().and_then(|stored| serde_json::from_slice(&stored.value).ok()).unwrap_or_default();
    let now = controller.now();
    let said = status(&before, conditions(findings, generation, before.conditions(), now));
    let bytes = json(&said);
    let mut writes = Vec::new();
    let told = audit::asked(&requests, refused.iter(), &controller.askers(key, requests.keys(), &asked_at));
    let mut happened: Vec<_> = refused.into_iter().map(events::News::from).collect();
    if stored.is_none_or(|stored| stored.value != bytes) {
        happened.extend(events::transitions(before.conditions(), said.conditions()));
        writes.push(Write::put(Key::Status(key.clone()), bytes));
    }
    writes.extend(requests::ended(key, &requests));
    if writes.is_empty() {
        return Ok(());
    }
    writes.extend(controller.events.writes(&controller.store, key, now, happened).await?);
    let mut telling = controller.tell_plain(key, declared.as_ref()).await?;
    telling.entries.extend(told);
    let revision = controller.commit_telling(None, writes, telling).await?;
    controller.reach(revision).await;
    Ok(())
}

/// Removes what was said of a resource that is gone.
pub(crate) async fn erase<F: Fleet>(
    controller: &Arc<Controller<F>>,
    key: &ResourceKey,
) -> Result<Next, ReconcileError> {
    let ResourceView { status: stored, requests, asked_at, .. } = bounded(controller.cache.resource(key));
    let mut writes: Vec<Write> = stored.iter().map(|_| Write::delete(Key::Status(key.clone()))).collect();
    writes.extend(requests::ended(key, &requests));
    let refused = requests::refusals(key, Standing::Absent, &requests);
    let told = audit::asked(&requests, refused.iter(), &controller.askers(key, requests.keys(), &asked_at));
    let news = refused.into_iter().map(events::News::from).collect();
    writes.extend(controller.events.writes(&controller.store, key, controller.now(), news).await?);
    if !writes.is_empty() {
        let mut telling = controller.tell_plain(key, None).await?;
        telling.entries.extend(told);
        let revision = controller.commit_telling(None, writes, telling).await?;
        controller.reach(revision).await;
    }
    Ok(Next::Never)
}
