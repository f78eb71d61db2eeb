//! What has to be approved before it comes into force: who asks for that, what waits, and who says yes.

use std::collections::{BTreeMap, BTreeSet};

use windlass_crds::actor::Actor;
use windlass_crds::approval::{LONGEST_SIGNATURE, SIGNED_FOR, Subject};
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::id::{HostId, ResourceKey, ServiceKey};
use windlass_crds::policy::{fingerprint, is_name};
use windlass_crds::record::{Accepted, Owned, SourceOrigin};
use windlass_crds::request::Request;
use windlass_hosts::fleet::Fleet;
use windlass_hosts::signature;
use windlass_planner::gate::{Proposal, Rule, is_open, may_be_in_force, rules};
use windlass_planner::input::Files;
use windlass_store::embedded::OWN_NAME;
use windlass_store::{Key, RequestId, StoreRevision};

use super::Turn;
use crate::cache::{ServiceView, Surroundings};
use crate::controller::Controller;

/// What was declared, and waits.
#[derive(Debug, Clone)]
pub(super) struct Proposed {
    accepted: Accepted,
    release: ReleaseDigest,
    origin: SourceOrigin,
    hosts: BTreeSet<HostId>,
    author: Actor,
}

impl Proposed {
    /// As the planner wants it.
    pub(super) fn as_input<'a>(&'a self, rules: &'a [Rule]) -> Proposal<'a> {
        Proposal {
            spec: &self.accepted.spec,
            generation: self.accepted.generation,
            release: self.release,
            origin: &self.origin,
            hosts: &self.hosts,
            author: &self.author,
            rules,
        }
    }
}

/// What may be in force of what is declared.
pub(super) struct Gate {
    /// Who asks for an approval; nobody does of most Services.
    pub(super) rules: Vec<Rule>,
    /// What is in force as far as that can be told without its files: what is declared, or what was before.
    pub(super) accepted: Option<Accepted>,
}

impl<F: Fleet> Turn<'_, F> {
    /// Who asks for an approval of what is declared, and what is in force meanwhile.
    pub(super) fn gate(&self, declared: Option<&Accepted>, owned: &Owned, around: &Surroundings) -> Gate {
        let Some(declared) = declared else { return Gate { rules: Vec::new(), accepted: None } };
        let here = around.policies.iter().filter(|(_, policy)| policy.holds_in(&self.key.namespace));
        let broken = around.broken_policies.iter().cloned().map(Rule::Broken);
        let rules: Vec<Rule> = rules(&declared.spec, owned, here).into_iter().chain(broken).collect();
        let open = rules.is_empty() || may_be_in_force(owned, &declared.spec.whole());
        // Where nothing was ever in force, hosts are those that it would be placed on; nothing is done there.
        let before = owned.accepted.clone().filter(|_| !open);
        Gate { rules, accepted: before.or_else(|| Some(declared.clone())) }
    }

    /// What has to wait of what is declared, now that its files are known.
    pub(super) fn proposed(
        &self,
        rules: &[Rule],
        declared: &Accepted,
        view: &ServiceView,
        files: &Files,
        around: &Surroundings,
    ) -> Option<Proposed> {
        // Nobody asks for approvals of most Services, and each plan comes by here.
        if rules.is_empty() {
            return None;
        }
        let Files::Release { digest, origin } = files else { return None };
        let owned = view.owned.as_ref().map(|owned| &owned.value);
        let rollout = view.rollouts.values().next_back().map(|stored| &stored.value);
        let open = owned.is_some_and(|owned| is_open(owned, &view.revisions, rollout, &declared.spec.whole(), digest));
        if open {
            return None;
        }
        // Who only changed the files on the controller's disk is known to nobody.
        let same = |before: &Accepted| before.spec == declared.spec;
        let unchanged = owned.and_then(|owned| owned.accepted.as_ref()).is_some_and(same);
        Some(Proposed {
            accepted: declared.clone(),
            release: *digest,
            origin: origin.clone(),
            hosts: declared.spec.hosts(around.labelled()),
            author: if unchanged { Actor::UNKNOWN } else { self.author(view) },
        })
    }

    /// Who has declared it. What the controller itself has written is somebody's commit, and nobody knows whose.
    fn author(&self, view: &ServiceView) -> Actor {
        let Some(read) = &view.declared else { return Actor::UNKNOWN };
        match self.controller.declarer(&ResourceKey::Service(self.key.clone()), read) {
            Actor::Controller => Actor::UNKNOWN,
            author => author,
        }
    }
}

impl<F: Fleet> Controller<F> {
    /// Who asks for each approval, and why it is not believed.
    pub(super) async fn approvers(
        &self,
        service: &ServiceKey,
        view: &ServiceView,
        rules: &[Rule],
        waits: bool,
    ) -> BTreeMap<RequestId, Result<Actor, String>> {
        let mut known = BTreeMap::new();
        if !waits {
            return known;
        }
        for (id, request) in &view.requests {
            if let Ok(request @ Request::Approve { plan: Some(_), .. }) = request {
                let at = view.asked_at.get(id).copied();
                known.insert(id.clone(), self.approver((service, id, at), request, rules).await);
            }
        }
        known
    }

    async fn approver(
        &self,
        (service, id, at): (&ServiceKey, &RequestId, Option<StoreRevision>),
        request: &Request,
        rules: &[Rule],
    ) -> Result<Actor, String> {
        let Request::Approve { revision, plan: Some(plan), reason, at: signed, says, signature, .. } = request else {
            return Ok(Actor::UNKNOWN);
        };
        if says.as_deref().is_some_and(|says| !is_name(says)) {
            return Err("`as` has to be a name of 1 to 100 characters on one line".to_owned());
        }
        let members = rules.iter().filter_map(|rule| match rule {
            Rule::Policy(_, spec) => Some(&spec.members),
            Rule::Service | Rule::Broken(_) => None,
        });
        let members: Vec<_> = members.flatten().collect();
        let keys: Vec<_> = members.iter().flat_map(|member| member.ssh_keys.iter().cloned()).collect();
        // Where nobody is known by a key, anybody may sign.
        let Some(signature) = signature.as_ref().filter(|_| !keys.is_empty()) else {
            let target = ResourceKey::Service(service.clone());
            let key = Key::Request { target, id: id.clone() };
            return Ok(match at.map_or(Actor::UNKNOWN, |at| self.author(&key, at)) {
                Actor::Certificate { name } if name != OWN_NAME => Actor::Certificate { name },
                _ => Actor::Unverified { says: says.clone() },
            });
        };
        if signature.len() > LONGEST_SIGNATURE {
            return Err(format!("a signature of {} bytes is none", signature.len()));
        }
        let reason = reason.as_deref().unwrap_or_default();
        let at = signed.ok_or_else(|| "what is signed says when: `at`".to_owned())?;
        let subject = Subject { cluster: &self.cluster, service, revision: *revision, plan, reason, at };
        let key = signature::signer(&subject.text(), SIGNED_FOR, signature, &keys)
            .await
            .map_err(|error| error.to_string())?;
        let name = members.iter().find(|member| member.ssh_keys.contains(key)).map(|member| member.name.clone());
        let shown = fingerprint(key).unwrap_or_default();
        Ok(Actor::SshKey { name: name.unwrap_or_default(), fingerprint: shown })
    }
}
