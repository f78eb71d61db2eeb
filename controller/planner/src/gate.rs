//! Gates: what was declared waits until people have approved just that. What is in force goes on meanwhile.
//!
//! What is approved is a plan: which revision, all that its declaration says, which files, in place of which revision,
//! on which hosts, and since when it waits. Where any of that changes, nobody has approved it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use windlass_crds::actor::Actor;
use windlass_crds::approval::{Approved, Gated, Seen};
use windlass_crds::digest::{PlanDigest, ReleaseDigest, SpecDigest};
use windlass_crds::id::{Generation, HostId, PolicyName, RevisionNumber};
use windlass_crds::policy::{People, PolicySpec};
use windlass_crds::record::{Owned, Revision, Rollout, SourceOrigin};
use windlass_crds::service::{Approval, ServiceSpec};
use windlass_crds::status::ApprovalStatus;

use crate::input::{Files, Goal, Inputs};
use crate::target::{before, number};

/// Who asks for an approval.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The Service itself: anybody may approve.
    Service,
    /// A Policy.
    Policy(PolicyName, PolicySpec),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service => out.pad("spec.rollout.approval"),
            Self::Policy(name, _) => write!(out, "policy/{name}"),
        }
    }
}

/// What was declared, and waits.
#[derive(Debug, Clone)]
pub struct Proposal<'a> {
    /// What it says.
    pub spec: &'a ServiceSpec,
    /// The generation of the declaration.
    pub generation: Generation,
    /// The files that it would run.
    pub release: ReleaseDigest,
    /// Where they were read.
    pub origin: &'a SourceOrigin,
    /// The hosts that it would be placed on.
    pub hosts: &'a BTreeSet<HostId>,
    /// Who has declared it, as far as anybody knows.
    pub author: &'a Actor,
    /// Who asks for an approval.
    pub rules: &'a [Rule],
}

/// Who asks for an approval of a Service in whose namespace these Policies hold. Whoever would switch it off in the
/// Service needs one for that.
pub fn rules<'a>(
    declared: &ServiceSpec,
    owned: &Owned,
    policies: impl Iterator<Item = (&'a PolicyName, &'a PolicySpec)>,
) -> Vec<Rule> {
    let asks = |spec: &ServiceSpec| spec.rollout.approval == Approval::Required;
    let in_force = owned.accepted.as_ref().is_some_and(|accepted| asks(&accepted.spec));
    let service = (asks(declared) || in_force).then_some(Rule::Service);
    let policies = policies.map(|(name, spec)| Rule::Policy(name.clone(), spec.clone()));
    service.into_iter().chain(policies).collect()
}

/// Whether a declaration may come into force, whatever its files are: it is in force, or was approved.
pub fn may_be_in_force(owned: &Owned, spec: &SpecDigest) -> bool {
    let accepted = owned.accepted.as_ref().is_some_and(|accepted| accepted.spec.whole() == *spec);
    let granted = |gate: &Gated| gate.granted.is_some() && gate.spec == *spec;
    accepted || owned.gate.as_deref().is_some_and(granted)
}

/// Whether these files with this declaration may come into force.
pub fn is_open(
    owned: &Owned,
    revisions: &BTreeMap<RevisionNumber, Revision>,
    rollout: Option<&Rollout>,
    spec: &SpecDigest,
    release: &ReleaseDigest,
) -> bool {
    let granted = |gate: &Gated| gate.granted.is_some() && gate.spec == *spec && gate.release == *release;
    if owned.gate.as_deref().is_some_and(granted) {
        return true;
    }
    let accepted = owned.accepted.as_ref().is_some_and(|accepted| accepted.spec.whole() == *spec);
    let current = before(owned, rollout).and_then(|number| revisions.get(&number));
    accepted && current.is_some_and(|revision| revision.release == *release)
}

/// What is waited for, and the revision that has to be recorded first where it is new.
pub(crate) struct Waiting {
    /// What `owned/` says of it.
    pub(crate) gate: Gated,
    /// A revision that nobody has recorded yet.
    pub(crate) new: Option<Revision>,
}

/// What is waited for, by what was waited for before.
pub(crate) fn wait(inputs: &Inputs<'_>, proposal: &Proposal<'_>) -> Waiting {
    let Proposal { spec, generation, release, origin, hosts, author, rules } = proposal;
    let (revision, new) = number(inputs, spec, release, origin);
    let whole = spec.whole();
    let known = inputs.owned.gate.as_deref().filter(|gate| gate.spec == whole && gate.release == *release);
    let known = known.filter(|gate| gate.granted.is_none());
    let since = known.map_or(inputs.now, |gate| gate.since);
    let from = before(inputs.owned, inputs.rollout);
    let seen = Seen { service: inputs.service, revision, spec: whole, release: *release, from, hosts, since };
    let plan = seen.digest();
    // Who declared something is known when it is new, and may be forgotten since.
    let author = match known.filter(|gate| gate.generation == *generation) {
        Some(gate) if !author.is_verified() => gate.author.clone(),
        _ => (*author).clone(),
    };
    let approvals = known.filter(|gate| gate.plan == plan).map(|gate| gate.approvals.clone()).unwrap_or_default();
    let mut gate = Gated {
        generation: *generation,
        revision,
        spec: whole,
        release: *release,
        plan,
        since,
        author,
        approvals,
        granted: None,
    };
    gate.approvals.retain(|approval| rules.iter().any(|rule| rule.counts(approval, inputs.now)));
    if rules.iter().all(|rule| rule.missing(&gate, inputs.now) == 0) {
        gate.granted = Some(inputs.now);
    }
    Waiting { gate, new }
}

/// Why an approval counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unapproved {
    /// Nothing waits for one.
    #[error("nothing waits for approval")]
    Nothing,
    /// Another revision does.
    #[error("it is revision {0} that waits for approval")]
    Other(RevisionNumber),
    /// It waits, and what would come about is not what was approved.
    #[error("the plan has come to be another since it was looked at: {0}; look at it again")]
    Changed(PlanDigest),
    /// No plan is named.
    #[error("it has to name the plan that it is about: {0}")]
    Unnamed(PlanDigest),
    /// It gives no reason that may be shown.
    #[error(transparent)]
    Reason(#[from] windlass_crds::approval::NoReason),
    /// Nobody knows who asks.
    #[error(
        "{rule} says who may approve, and nobody knows who asks ({actor}); sign it with `--sign`, or ask with a certificate of the embedded store"
    )]
    Unknown {
        /// Who says so.
        rule: String,
        /// Who asks.
        actor: String,
    },
    /// It is known who asks, and they may not.
    #[error("{actor} is none of those who may approve by {rule}")]
    NotAllowed {
        /// Who says so.
        rule: String,
        /// Who asks.
        actor: String,
    },
    /// They have declared it.
    #[error("{name} has declared it; {rule} asks for two people, so somebody else has to approve it")]
    Own {
        /// Who says so.
        rule: String,
        /// Who asks.
        name: String,
    },
    /// They have approved it already.
    #[error("{0} has approved it already; somebody else has to approve it too")]
    Again(String),
}

impl Rule {
    fn expiry(&self) -> Option<jiff::SignedDuration> {
        match self {
            Self::Service => None,
            Self::Policy(_, spec) => spec.expiry.duration().try_into().ok(),
        }
    }

    /// Whether an approval is not too old.
    fn is_fresh(&self, approval: &Approved, now: Timestamp) -> bool {
        self.expiry().is_none_or(|expiry| now.duration_since(approval.at) < expiry)
    }

    /// Whether an approval stands for anybody whom this asks for.
    fn counts(&self, approval: &Approved, now: Timestamp) -> bool {
        let may = match self {
            Self::Service => true,
            Self::Policy(_, spec) if spec.members.is_empty() => true,
            Self::Policy(_, spec) => spec.member(&approval.by).is_some_and(|member| member.approves),
        };
        may && self.is_fresh(approval, now)
    }

    /// How many people have to approve yet.
    fn missing(&self, gate: &Gated, now: Timestamp) -> u32 {
        let approvals = || gate.approvals.iter().filter(|approval| self.counts(approval, now));
        match self {
            Self::Policy(_, spec) if spec.people == People::Two => {
                let name = |actor: &Actor| spec.member(actor).map(|member| member.name.as_str());
                let author = name(&gate.author);
                let others: BTreeSet<&str> = approvals().filter_map(|approval| name(&approval.by)).collect();
                let others = others.into_iter().filter(|other| Some(*other) != author).count();
                let behind = others + usize::from(author.is_some());
                // An author alone approves nothing.
                u32::try_from(2_usize.saturating_sub(behind).max(usize::from(others == 0))).unwrap_or(2)
            }
            Self::Service | Self::Policy(..) => u32::from(approvals().next().is_none()),
        }
    }

    /// Whether this still asks for somebody, and an approval of theirs would count.
    fn takes(&self, gate: &Gated, approval: &Approved) -> Result<(), Unapproved> {
        let Self::Policy(_, spec) = self else { return Ok(()) };
        let (rule, actor) = (self.to_string(), approval.by.to_string());
        if spec.members.is_empty() {
            return Ok(());
        }
        if !approval.by.is_verified() {
            return Err(Unapproved::Unknown { rule, actor });
        }
        let Some(member) = spec.member(&approval.by).filter(|member| member.approves) else {
            return Err(Unapproved::NotAllowed { rule, actor });
        };
        if spec.people == People::One {
            return Ok(());
        }
        let name = member.name.clone();
        if member.is(&gate.author) {
            return Err(Unapproved::Own { rule, name });
        }
        if gate.approvals.iter().any(|before| self.counts(before, approval.at) && member.is(&before.by)) {
            return Err(Unapproved::Again(name));
        }
        Ok(())
    }
}

/// Takes an approval in, where somebody still asks for it.
///
/// # Errors
/// [`Unapproved`]; nothing has changed then.
pub fn approve(
    gate: Option<&mut Gated>,
    rules: &[Rule],
    (revision, plan): (RevisionNumber, Option<PlanDigest>),
    approval: Approved,
) -> Result<(), Unapproved> {
    let gate = gate.filter(|gate| gate.granted.is_none()).ok_or(Unapproved::Nothing)?;
    if gate.revision != revision {
        return Err(Unapproved::Other(gate.revision));
    }
    match plan {
        None => return Err(Unapproved::Unnamed(gate.plan)),
        Some(plan) if plan != gate.plan => return Err(Unapproved::Changed(gate.plan)),
        Some(_) => {}
    }
    windlass_crds::approval::check_reason(&approval.reason)?;
    // One who is asked for by one rule may be no help with another.
    let asks = rules.iter().filter(|rule| rule.missing(gate, approval.at) > 0);
    let mut first = None;
    for rule in asks {
        match rule.takes(gate, &approval) {
            Ok(()) => {
                gate.approvals.push(approval);
                return Ok(());
            }
            Err(why) => first = first.or(Some(why)),
        }
    }
    Err(first.unwrap_or(Unapproved::Nothing))
}

/// What of an earlier gate still holds once it is known what is in force: that just this was approved.
pub(crate) fn kept(inputs: &Inputs<'_>) -> Option<Box<Gated>> {
    let gate = inputs.owned.gate.as_ref()?;
    let same = match &inputs.goal {
        // It is not known what would be brought.
        Goal::Run { files: Files::AsBefore, .. } => true,
        Goal::Run { files: Files::Release { digest, .. }, spec, .. } => {
            gate.granted.is_some() && gate.release == *digest && gate.spec == spec.whole()
        }
        Goal::Remove => false,
    };
    same.then(|| gate.clone())
}

/// What is said of what waits.
pub(crate) fn told(gate: &Gated, rules: &[Rule], now: Timestamp) -> Option<ApprovalStatus> {
    if gate.granted.is_some() {
        return None;
    }
    let Gated { revision, plan, since, author, approvals, .. } = gate.clone();
    let asks: Vec<(&Rule, u32)> = rules.iter().map(|rule| (rule, rule.missing(gate, now))).collect();
    let asked_by = asks.iter().filter(|(_, missing)| *missing > 0).map(|(rule, _)| rule.to_string()).collect();
    let missing = asks.iter().map(|(_, missing)| *missing).max().unwrap_or_default();
    Some(ApprovalStatus { revision, plan, since, author, asked_by, approvals, missing })
}

/// When the next approval expires.
pub(crate) fn expires(gate: &Gated, rules: &[Rule], now: Timestamp) -> Option<Timestamp> {
    let each = gate
        .approvals
        .iter()
        .flat_map(|approval| rules.iter().filter_map(move |rule| approval.at.checked_add(rule.expiry()?).ok()));
    each.filter(|at| *at > now).min()
}

#[cfg(test)]
mod tests {
    use windlass_crds::configrepo::CommitId;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIrA1XIFIaIzNVq5ZQ4ntmKbVyPwSs1ZlY0OFqKPcvKG";
    const SHOWN: &str = "SHA256:qDsnIVs8NkUEdv/ESgzp4SZbjzY1sPiTuDt9C1OTQ0s";

    fn policy(people: &str, members: bool) -> Rule {
        let members = if members {
            format!(
                "members: [{{name: Ana, certificate: ana, gitSigners: [ana@example.com]}}, {{name: Bo, sshKeys: [{KEY}], certificate: bo}}, {{name: Carl, gitSigners: [carl@example.com], approves: false}}]"
            )
        } else {
            String::new()
        };
        let text = format!(
            "apiVersion: windlass/v1\nkind: Policy\nmetadata: {{name: production}}\nspec:\n  namespaces: [production]\n  people: {people}\n  expiry: 1h\n  {members}\n"
        );
        let parsed = windlass_crds::document::parse_bytes(text.as_bytes()).expect("a Policy");
        let windlass_crds::document::Declaration::Policy(declared) = parsed else { panic!("{text}") };
        Rule::Policy(declared.key, declared.spec)
    }

    fn certificate(name: &str) -> Actor {
        Actor::Certificate { name: name.to_owned() }
    }

    fn git(signer: Option<&str>) -> Actor {
        let commit: CommitId = "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit");
        let signer = signer.map(ToOwned::to_owned);
        Actor::Git {
            repo: "fleet".parse().expect("a name"),
            commit,
            author: "Ana <ana@example.com>".to_owned(),
            signer,
        }
    }

    fn key() -> Actor {
        Actor::SshKey { name: "Bo".to_owned(), fingerprint: SHOWN.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn gate(author: Actor) -> Gated {
        Gated {
            generation: Generation(7),
            revision: RevisionNumber(2),
            spec: SpecDigest::of(b"spec"),
            release: ReleaseDigest::of(b"files"),
            plan: PlanDigest::of(b"plan"),
            since: at(0),
            author,
            approvals: Vec::new(),
            granted: None,
        }
    }

    /// Approves in this order, and returns how many are missing after each, or why it was refused.
    fn story(rule: &Rule, author: Actor, approvers: &[Actor]) -> Vec<String> {
        let (mut gate, rules) = (gate(author), [rule.clone()]);
        let named = (gate.revision, Some(gate.plan));
        let approve = |by: &Actor| {
            let approval = Approved { by: by.clone(), at: at(10), reason: "CHG-1".to_owned() };
            match approve(Some(&mut gate), &rules, named, approval) {
                Ok(()) => rule.missing(&gate, at(10)).to_string(),
                Err(why) => why.to_string(),
            }
        };
        approvers.iter().map(approve).collect()
    }

    #[test]
    fn one_person_is_anybody_where_nobody_is_named() {
        for rule in [Rule::Service, policy("1", false)] {
            for who in [Actor::UNKNOWN, certificate("ana"), key()] {
                assert_eq!(story(&rule, certificate("ana"), &[who]), ["0"], "{rule}");
            }
        }
    }

    #[test]
    fn who_is_not_named_or_not_known_approves_nothing() {
        for people in ["1", "2"] {
            let rule = policy(people, true);
            let author = git(Some("carl@example.com"));
            let says = Actor::Unverified { says: Some("ana".to_owned()) };
            for (who, why) in [
                (says, "nobody knows who asks (ana (unverified))"),
                (git(None), "nobody knows who asks"),
                (certificate("eve"), "eve (certificate) is none of those who may approve by policy/production"),
                (git(Some("carl@example.com")), "is none of those who may approve"),
            ] {
                let told = story(&rule, author.clone(), &[who]);
                assert!(told[0].contains(why), "{told:?} lacks {why}");
            }
            assert_eq!(story(&rule, author.clone(), &[key()]), ["0"]);
        }
    }

    #[test]
    fn two_people_are_the_author_and_another_or_two_others() {
        let two = policy("2", true);
        let own = "has declared it; policy/production asks for two people";
        let again = "has approved it already";
        for (author, approvers, told) in [
            // By whatever either is known.
            (certificate("ana"), vec![certificate("ana"), certificate("bo")], vec![own, "0"]),
            (git(Some("ana@example.com")), vec![certificate("ana"), key()], vec![own, "0"]),
            (certificate("bo"), vec![key(), certificate("ana")], vec![own, "0"]),
            // Nobody knows who declared it, so it may have been either of them.
            (Actor::UNKNOWN, vec![certificate("ana"), certificate("ana"), key()], vec!["1", again, "0"]),
            (git(None), vec![key(), certificate("bo"), certificate("ana")], vec!["1", again, "0"]),
            (certificate("eve"), vec![key(), certificate("ana")], vec!["1", "0"]),
        ] {
            let said = story(&two, author.clone(), &approvers);
            assert_eq!(said.len(), told.len());
            for (said, told) in said.iter().zip(told) {
                assert!(said.contains(told), "{author}: {said} is not {told}");
            }
        }
    }

    #[test]
    fn what_was_approved_is_one_plan_and_not_for_ever() {
        let rules = [policy("1", true)];
        let approval = |second| Approved { by: certificate("ana"), at: at(second), reason: "CHG-1".to_owned() };
        let plan = gate(Actor::UNKNOWN).plan;
        for (named, why) in [
            ((RevisionNumber(3), Some(plan)), "it is revision 2 that waits"),
            ((RevisionNumber(2), None), "has to name the plan"),
            ((RevisionNumber(2), Some(PlanDigest::of(b"other"))), "come to be another"),
        ] {
            let error = approve(Some(&mut gate(Actor::UNKNOWN)), &rules, named, approval(1)).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
        let mut one = gate(Actor::UNKNOWN);
        let named = (one.revision, Some(plan));
        let unsaid = Approved { reason: String::new(), ..approval(1) };
        assert!(matches!(approve(Some(&mut one), &rules, named, unsaid), Err(Unapproved::Reason(_))));
        assert_eq!(approve(None, &rules, named, approval(1)), Err(Unapproved::Nothing));
        assert_eq!(approve(Some(&mut one), &rules, named, approval(1)), Ok(()));
        assert_eq!(rules[0].missing(&one, at(3600)), 0);
        assert_eq!(rules[0].missing(&one, at(3601)), 1, "it is an hour old");
        assert_eq!(expires(&one, &rules, at(5)), Some(at(3601)));
        one.granted = Some(at(2));
        assert_eq!(approve(Some(&mut one), &rules, named, approval(3)), Err(Unapproved::Nothing));
    }

    #[test]
    fn every_rule_has_to_be_content() {
        let rules = [Rule::Service, policy("2", true)];
        let mut one = gate(certificate("ana"));
        let named = (one.revision, Some(one.plan));
        let approval = |by| Approved { by, at: at(1), reason: "CHG-1".to_owned() };
        // The Service itself asks for anybody.
        assert_eq!(approve(Some(&mut one), &rules, named, approval(Actor::UNKNOWN)), Ok(()));
        let told = told(&one, &rules, at(1)).expect("it waits");
        assert_eq!((told.missing, told.asked_by), (1, vec!["policy/production".to_owned()]));
        assert!(matches!(
            approve(Some(&mut one), &rules, named, approval(certificate("ana"))),
            Err(Unapproved::Own { .. })
        ));
        assert_eq!(approve(Some(&mut one), &rules, named, approval(key())), Ok(()));
        assert!(rules.iter().all(|rule| rule.missing(&one, at(1)) == 0));
    }
}
