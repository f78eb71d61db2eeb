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
use windlass_crds::record::{InForce, Owned, Purpose, Revision, Rollout, SourceOrigin};
use windlass_crds::service::{Approval, ServiceSpec};
use windlass_crds::status::ApprovalStatus;

use crate::input::{Files, Goal, Inputs};
use crate::target::{before, number};

/// So far the clock of whoever signs may be ahead of ours.
const CLOCKS: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// So many fields and hosts of what waits are told; `describe` and the declaration have the rest.
const TOLD: usize = 20;

/// Who asks for an approval.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The Service itself: anybody may approve.
    Service,
    /// A Policy.
    Policy(PolicyName, PolicySpec),
    /// A Policy of which nobody knows what it says: it may be this Service that it is about.
    Broken(PolicyName),
}

impl std::fmt::Display for Rule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service => out.pad("spec.rollout.approval"),
            Self::Policy(name, _) | Self::Broken(name) => write!(out, "policy/{name}"),
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
    if let Some(in_force) = &owned.in_force {
        return in_force.spec == *spec && in_force.release == *release;
    }
    // From before anybody asked for approvals.
    let accepted = owned.accepted.as_ref().is_some_and(|accepted| accepted.spec.whole() == *spec);
    let current = before(owned, rollout).and_then(|number| revisions.get(&number));
    accepted && !was_removed(owned, rollout) && current.is_some_and(|revision| revision.release == *release)
}

/// Whether nothing is in force because the Service was being taken off its hosts last.
pub fn was_removed(owned: &Owned, rollout: Option<&Rollout>) -> bool {
    owned.in_force.is_none() && rollout.is_some_and(|rollout| rollout.purpose == Purpose::Removal)
}

/// What is in force from now on, of a Service that needs approvals.
pub(crate) fn in_force(inputs: &Inputs<'_>, declared: Option<RevisionNumber>) -> Option<InForce> {
    match &inputs.goal {
        _ if !inputs.gated => None,
        Goal::Run { files: Files::Release { digest, .. }, spec, .. } => {
            Some(InForce { spec: spec.whole(), release: *digest, revision: declared? })
        }
        Goal::Run { files: Files::AsBefore, .. } => inputs.owned.in_force.clone(),
        Goal::Remove => None,
    }
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
    let Proposal { spec, generation, release, origin: _, hosts, author, rules } = proposal;
    let (revision, new) = proposed_number(inputs, proposal);
    let whole = spec.whole();
    let earlier = inputs.owned.gate.as_deref();
    let known = earlier.filter(|gate| gate.granted.is_none() && gate.spec == whole && gate.release == *release);
    // What was approved too long ago was not approved, and neither was what was signed for it.
    let stale = |approval: &Approved| !rules.iter().any(|rule| rule.is_fresh(approval, inputs.now));
    let known = known.filter(|gate| !gate.approvals.iter().any(stale));
    let since = known.map_or(inputs.now, |gate| gate.since);
    let from = from(inputs);
    let seen = Seen { service: inputs.service, revision, spec: whole, release: *release, from, hosts, since };
    let plan = seen.digest();
    // Who declared something is known when it is new, and may be forgotten since; and they have not declared files that
    // came later.
    let same = earlier.filter(|gate| gate.generation == *generation);
    let files_changed = same.is_some_and(|gate| gate.files_changed || gate.release != *release);
    let author = match same {
        _ if files_changed => Actor::UNKNOWN,
        Some(gate) if gate.author.is_verified() => gate.author.clone(),
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
        files_changed,
        approvals,
        granted: None,
    };
    gate.approvals.retain(|approval| rules.iter().any(|rule| rule.counts(approval, inputs.now)));
    if rules.iter().all(|rule| rule.missing(&gate, inputs.now) == 0) {
        gate.granted = Some(inputs.now);
    }
    Waiting { gate, new }
}

/// The number of what is proposed: that of a revision which was in force, where hosts would get the same, and never that of
/// another one which nobody has let in: whoever goes back would get what that one says.
fn proposed_number(inputs: &Inputs<'_>, proposal: &Proposal<'_>) -> (RevisionNumber, Option<Revision>) {
    let Proposal { spec, release, origin, .. } = proposal;
    let in_force = inputs.owned.in_force.as_ref().map(|in_force| in_force.revision);
    let usable = |revision: &Revision| {
        let number = Some(revision.number);
        revision.spec.as_ref() == *spec || number == in_force || inputs.owned.good.contains(&revision.number)
    };
    number(inputs, spec, release, origin, usable)
}

/// The revision that is in force.
fn from(inputs: &Inputs<'_>) -> Option<RevisionNumber> {
    let in_force = inputs.owned.in_force.as_ref().map(|in_force| in_force.revision);
    in_force.or_else(|| before(inputs.owned, inputs.rollout))
}

/// What waits by now, before anybody's approval is looked at: an approval is of what waits, and not of what waited when
/// that was recorded last.
pub fn refreshed(inputs: &Inputs<'_>) -> Option<Box<Gated>> {
    inputs.proposal.as_ref().map(|proposal| Box::new(wait(inputs, proposal).gate))
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
    /// It was signed too long ago, or is of a time to come.
    #[error("it was signed at {0}, and counts no more, or not yet; sign it anew")]
    Late(Timestamp),
    /// A Policy makes no sense, and was never in force.
    #[error("{0} makes no sense, so nobody knows who may approve; mend it")]
    Broken(String),
    /// They have approved it already.
    #[error("{0} has approved it already; somebody else has to approve it too")]
    Again(String),
}

impl Rule {
    fn expiry(&self) -> Option<jiff::SignedDuration> {
        match self {
            Self::Service | Self::Broken(_) => None,
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
            Self::Broken(_) => false,
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
            Self::Service | Self::Policy(..) | Self::Broken(_) => u32::from(approvals().next().is_none()),
        }
    }

    /// Whether this still asks for somebody, and an approval of theirs would count.
    fn takes(&self, gate: &Gated, approval: &Approved) -> Result<(), Unapproved> {
        let spec = match self {
            Self::Service => return Ok(()),
            Self::Broken(_) => return Err(Unapproved::Broken(self.to_string())),
            Self::Policy(_, spec) => spec,
        };
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
    now: Timestamp,
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
    let early = approval.at.duration_since(now) > CLOCKS;
    if early || !rules.iter().all(|rule| rule.is_fresh(&approval, now)) {
        return Err(Unapproved::Late(approval.at));
    }
    // One who is asked for by one rule may be no help with another.
    let asks = rules.iter().filter(|rule| rule.missing(gate, now) > 0);
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
pub(crate) fn told(inputs: &Inputs<'_>, gate: &Gated) -> Option<ApprovalStatus> {
    let proposal = inputs.proposal.as_ref().filter(|_| gate.granted.is_none())?;
    let Gated { revision, plan, since, author, approvals, release, .. } = gate.clone();
    let asks: Vec<(&Rule, u32)> = proposal.rules.iter().map(|rule| (rule, rule.missing(gate, inputs.now))).collect();
    let asked_by = asks.iter().filter(|(_, missing)| *missing > 0).map(|(rule, _)| rule.to_string()).collect();
    let missing = asks.iter().map(|(_, missing)| *missing).max().unwrap_or_default();
    let before = inputs.owned.accepted.as_ref();
    let mut fields = before.map(|before| before.spec.differing(proposal.spec)).unwrap_or_default();
    fields.truncate(TOLD);
    let (hosts, host_count) = (proposal.hosts.iter().take(TOLD).cloned().collect(), proposal.hosts.len());
    let from = from(inputs);
    Some(ApprovalStatus {
        revision,
        plan,
        since,
        author,
        asked_by,
        approvals,
        missing,
        from,
        release,
        fields,
        hosts,
        host_count,
    })
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
    const HERS: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW";
    const SHOWN: &str = "SHA256:qDsnIVs8NkUEdv/ESgzp4SZbjzY1sPiTuDt9C1OTQ0s";

    fn policy(people: &str, members: bool) -> Rule {
        let members = if members {
            format!(
                "members: [{{name: Ana, certificate: ana, sshKeys: [{HERS}]}}, {{name: Bo, sshKeys: [{KEY}], certificate: bo}}, {{name: Carl, certificate: carl, approves: false}}]"
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
        let key = signer.and_then(|_| windlass_crds::policy::fingerprint(&HERS.parse().expect("a key")));
        let (repo, signer) = ("fleet".parse().expect("a name"), signer.map(ToOwned::to_owned));
        Actor::Git { repo, commit, author: "Ana <ana@example.com>".to_owned(), signer, key }
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
            files_changed: false,
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
            match approve(Some(&mut gate), &rules, named, approval, at(10)) {
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
            let author = certificate("carl");
            let says = Actor::Unverified { says: Some("ana".to_owned()) };
            for (who, why) in [
                (says, "nobody knows who asks (ana (unverified))"),
                (git(None), "nobody knows who asks"),
                (certificate("eve"), "eve (certificate) is none of those who may approve by policy/production"),
                (certificate("carl"), "is none of those who may approve"),
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
            let error = approve(Some(&mut gate(Actor::UNKNOWN)), &rules, named, approval(1), at(1)).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
        let mut one = gate(Actor::UNKNOWN);
        let named = (one.revision, Some(plan));
        let unsaid = Approved { reason: String::new(), ..approval(1) };
        assert!(matches!(approve(Some(&mut one), &rules, named, unsaid, at(1)), Err(Unapproved::Reason(_))));
        assert_eq!(approve(None, &rules, named, approval(1), at(1)), Err(Unapproved::Nothing));
        // Signed an hour ago, or by a clock that is far ahead.
        let late = approve(Some(&mut one), &rules, named, approval(1), at(3601));
        assert_eq!(late, Err(Unapproved::Late(at(1))));
        let early = approve(Some(&mut one), &rules, named, approval(302), at(1));
        assert_eq!(early, Err(Unapproved::Late(at(302))));
        assert_eq!(approve(Some(&mut one), &rules, named, approval(1), at(1)), Ok(()));
        assert_eq!(rules[0].missing(&one, at(3600)), 0);
        assert_eq!(rules[0].missing(&one, at(3601)), 1, "it is an hour old");
        assert_eq!(expires(&one, &rules, at(5)), Some(at(3601)));
        one.granted = Some(at(2));
        assert_eq!(approve(Some(&mut one), &rules, named, approval(3), at(3)), Err(Unapproved::Nothing));
    }

    #[test]
    fn every_rule_has_to_be_content() {
        let rules = [Rule::Service, policy("2", true)];
        let mut one = gate(certificate("ana"));
        let named = (one.revision, Some(one.plan));
        let approval = |by| Approved { by, at: at(1), reason: "CHG-1".to_owned() };
        // The Service itself asks for anybody.
        assert_eq!(approve(Some(&mut one), &rules, named, approval(Actor::UNKNOWN), at(1)), Ok(()));
        assert_eq!(rules.iter().map(|rule| rule.missing(&one, at(1))).collect::<Vec<_>>(), [0, 1]);
        assert!(matches!(
            approve(Some(&mut one), &rules, named, approval(certificate("ana")), at(1)),
            Err(Unapproved::Own { .. })
        ));
        assert_eq!(approve(Some(&mut one), &rules, named, approval(key()), at(1)), Ok(()));
        assert!(rules.iter().all(|rule| rule.missing(&one, at(1)) == 0));
    }
}
