//! What is told of declarations and of requests: whatever the trail does not tell yet.
//!
//! The chain itself says what it last told of a declaration, so nothing is told twice and nothing is left out, whoever
//! dies between what.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_crds::actor::Actor;
use windlass_crds::audit::bounds::LONGEST_WHOLE;
use windlass_crds::audit::edits::edits;
use windlass_crds::audit::told::Wrong;
use windlass_crds::audit::{Chain, DeclaredState, Entry, Sealed, Standing, What};
use windlass_crds::document::Declaration;
use windlass_crds::id::{Generation, ResourceKey};
use windlass_crds::record::Accepted;
use windlass_crds::request::Request;
use windlass_hosts::fleet::Fleet;
use windlass_store::{Key, RequestId};

use super::Telling;
use super::who::Askers;
use crate::cache::Read;
use crate::controller::Controller;
use crate::requests::Refused;
use crate::service::ReconcileError;

/// What is told of a Service's declaration by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServiceDeclaration<'a> {
    /// What is declared.
    pub(crate) read: Option<&'a Read>,
    /// What was in force before.
    pub(crate) before: Option<&'a Accepted>,
}

/// What a trail tells of requests that a commit ends.
pub(crate) fn asked<'a>(
    requests: &BTreeMap<RequestId, Result<Request, String>>,
    refused: impl Iterator<Item = &'a Refused>,
    askers: &Askers,
) -> Vec<Entry> {
    let refused: BTreeMap<&RequestId, &str> = refused.map(|one| (&one.request, one.why.as_str())).collect();
    let entry = |(id, request): (&RequestId, &Result<Request, String>)| {
        let who = askers.get(id).cloned().unwrap_or(Actor::UNKNOWN);
        let what = match (request, refused.get(id)) {
            (Ok(request), None) => What::Asked { request: request.clone(), more: 0 },
            (Ok(request), Some(why)) => What::asked_in_vain(Some(request.clone()), why),
            (Err(error), why) => What::asked_in_vain(None, why.unwrap_or(&error.as_str())),
        };
        Entry { who, what }
    };
    requests.iter().map(entry).collect()
}

/// The last generation that the trail knows of.
fn last(standing: Option<Standing>) -> Generation {
    standing.map_or(Generation::default(), |standing| standing.generation)
}

impl<F: Fleet> Controller<F> {
    /// What the trail does not tell yet of a Service's declaration; and then how it stands with it.
    ///
    /// # Errors
    /// When the store does not say how far the trail has come.
    pub(crate) async fn tell_service(
        &self,
        resource: &ResourceKey,
        declaration: ServiceDeclaration<'_>,
    ) -> Result<Telling, ReconcileError> {
        let told = self.standing(&Chain::Resource(resource.clone())).await?;
        let ServiceDeclaration { read, before } = declaration;
        let before = before.filter(|before| read.is_none_or(|read| before.generation.0 != read.at.0));
        let spec = |spec: &windlass_crds::service::ServiceSpec| json!({ "spec": spec });
        let tell = self.tell(resource, read, told, before.is_some());
        Ok(tell.telling(resource, |declared| match declared {
            Declaration::Service(service) => {
                let old = before.map_or(Value::Null, |before| spec(&before.spec));
                Some((old, spec(&service.spec), None))
            }
            _ => None,
        }))
    }

    /// What the trail does not tell yet of any other declaration.
    ///
    /// # Errors
    /// When the store does not say how far the trail has come.
    pub(crate) async fn tell_plain(
        &self,
        resource: &ResourceKey,
        read: Option<&Read>,
    ) -> Result<Telling, ReconcileError> {
        let chain = Chain::Resource(resource.clone());
        let told = self.standing(&chain).await?;
        let tell = self.tell(resource, read, told, told.is_some());
        let before = match told.and_then(|standing| standing.told).filter(|_| tell.is_new) {
            Some(number) => self.store.get(&Key::Audit(chain, number)).await.map_err(ReconcileError::Audit)?,
            None => None,
        };
        let before = before.and_then(|entry| whole(&entry.value)).unwrap_or(Value::Null);
        Ok(tell.telling(resource, |declared| {
            let json = declared.to_json();
            // Of a longer one the next change tells all.
            let whole = Some(&json).filter(|json| json.to_string().len() < LONGEST_WHOLE).cloned();
            Some((before, json, whole))
        }))
    }

    async fn standing(&self, chain: &Chain) -> Result<Option<Standing>, ReconcileError> {
        let known = self.audit.known(&self.store, chain).await.map_err(ReconcileError::Audit)?;
        Ok(known.and_then(|known| known.declared))
    }

    fn tell<'a>(
        &self,
        resource: &ResourceKey,
        read: Option<&'a Read>,
        told: Option<Standing>,
        was_declared: bool,
    ) -> Tell<'a> {
        let state = match read.map(|read| &read.parsed) {
            Some(Ok(_)) => DeclaredState::InForce,
            Some(Err(_)) => DeclaredState::Refused,
            None => DeclaredState::Deleted,
        };
        let generation = read.map_or_else(|| last(told), |read| Generation(read.at.0));
        let is_new = match read {
            Some(_) => told.is_none_or(|told| (told.generation, told.state) != (generation, state)),
            None => {
                let known = told.map(|told| told.state);
                known != Some(DeclaredState::Deleted) && (known.is_some() || was_declared)
            }
        };
        let who = match (is_new, read) {
            (false, _) => Actor::UNKNOWN,
            (true, Some(read)) => self.declarer(resource, read),
            (true, None) => self.deleter(resource),
        };
        Tell { read, generation, state, is_new, who }
    }
}

/// What is to be told of a declaration.
struct Tell<'a> {
    read: Option<&'a Read>,
    generation: Generation,
    state: DeclaredState,
    is_new: bool,
    who: Actor,
}

impl Tell<'_> {
    /// As it is told; `sides` says what it was, what it has become, and what is kept of that.
    fn telling(
        self,
        resource: &ResourceKey,
        sides: impl FnOnce(&Declaration) -> Option<(Value, Value, Option<Value>)>,
    ) -> Telling {
        let Self { read, generation, state, is_new, who } = self;
        let what = match read.map(|read| &read.parsed).filter(|_| is_new) {
            Some(Ok(declared)) => sides(declared).map(|(old, new, whole)| {
                let first = old.is_null();
                let (changes, more) = edits(&old, &new);
                What::Declared { generation, changes, more, first, waits: false, whole }
            }),
            Some(Err(problems)) => {
                Some(What::Refused { generation, problems: problems.iter().map(Wrong::from).collect(), more: 0 })
            }
            None if is_new && read.is_none() => Some(What::Deleted),
            None => None,
        };
        let declared = what.is_some().then_some(Standing { generation, state, told: None });
        let entries = what.into_iter().map(|what| Entry { who: who.clone(), what }).collect();
        Telling { resource: resource.clone(), entries, declared, ends: false }
    }
}

/// All of a declaration, as its record keeps it.
fn whole(stored: &[u8]) -> Option<Value> {
    let record = Sealed::of(stored).ok()?.record().ok()?;
    record.entries.into_iter().find_map(|entry| match entry.what {
        What::Declared { whole, .. } => whole,
        _ => None,
    })
}
