//! What a record tells: who did what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::edits::{Edit, beginning};
use super::keys::PublicKey;
use crate::actor::Actor;
use crate::condition::Reason;
use crate::configrepo::CommitId;
use crate::digest::{PlanDigest, ReleaseDigest, SpecDigest};
use crate::id::{Generation, HostId, RevisionNumber, Sequence};
use crate::problem::Problem;
use crate::record::{Purpose, Rollout, RolloutState, Verdict};
use crate::request::Request;

/// So many bytes of a sentence are kept for as long as the trail is.
pub(super) const SENTENCE: usize = 300;

/// So many hosts are told one by one; of the others, how many there are. A thousand would be a hundred kilobytes.
pub const MOST_HOSTS: usize = 200;

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Who.
    pub who: Actor,
    /// What.
    pub what: What,
}

impl Entry {
    /// What the controller did by itself, or because of what stands beside it.
    pub fn of_controller(what: What) -> Self {
        Self { who: Actor::Controller, what }
    }
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what")]
pub enum What {
    /// Declared something that came into force.
    Declared {
        /// Its generation.
        generation: Generation,
        /// What differs from what was in force before; nothing where the same was declared again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<Edit>,
        /// So many fields more differ.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
        /// Nothing was known of it before, so all of it is told.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        first: bool,
        /// It comes into force once it is approved; until then what differs is from what still is in force.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        waits: bool,
        /// All of it, of a kind of which the controller keeps nothing else: the next change is told by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        whole: Option<serde_json::Value>,
    },
    /// Declared something that makes no sense. What was in force stays.
    Refused {
        /// Its generation.
        generation: Generation,
        /// Why, and in which field, of each problem. Messages may quote what was written, and are not kept.
        problems: Vec<Wrong>,
        /// So many more.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
    },
    /// Deleted the declaration.
    Deleted,
    /// Asked for something, which was done.
    Asked {
        /// What.
        request: Request,
        /// So many hosts more are named in it.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
    },
    /// Asked for something that was refused.
    AskedInVain {
        /// What; nothing where nobody can read it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Request>,
        /// So many hosts more are named in it.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
        /// Why.
        why: String,
    },
    /// Approved a revision.
    Approved {
        /// Which.
        revision: RevisionNumber,
        /// What was to be done, as they saw it.
        plan: PlanDigest,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Made a revision of what is declared and of what its source holds.
    Accepted {
        /// Its number.
        revision: RevisionNumber,
        /// Its files.
        release: ReleaseDigest,
        /// Its spec.
        spec: SpecDigest,
        /// The commit that its files are from, where they are from one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<CommitId>,
    },
    /// Began a rollout.
    Opened {
        /// Its number.
        sequence: Sequence,
        /// Why.
        purpose: Purpose,
        /// From which revision, where one was good.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<RevisionNumber>,
        /// To which; none where the service is removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<RevisionNumber>,
        /// What it brings where.
        plan: PlanDigest,
        /// What people have approved of it, where they had to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approved: Option<PlanDigest>,
    },
    /// Ended a rollout.
    Ended {
        /// Its number.
        sequence: Sequence,
        /// How it stands now.
        state: RolloutState,
        /// What became of each host.
        hosts: BTreeMap<HostId, HostOutcome>,
        /// So many hosts more.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
    },
    /// Blocked a revision: it is not deployed again by itself.
    Blocked {
        /// Which.
        revision: RevisionNumber,
        /// Why.
        why: String,
    },
    /// Took the last of it off its hosts, and forgot it.
    Removed,
    /// Began to lead.
    Led {
        /// What the controller calls itself.
        name: String,
        /// The key that its records are signed with.
        key: PublicKey,
    },
}

/// What is wrong in a declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrong {
    /// Why it was refused.
    pub reason: Reason,
    /// Which field; or which line, as `line 3 column 7`, where the document cannot be read; empty where it is all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl From<&Problem> for Wrong {
    fn from(problem: &Problem) -> Self {
        let place = || line(&problem.message).map(ToOwned::to_owned).unwrap_or_default();
        let field = Some(&problem.field).filter(|field| !field.is_empty()).cloned();
        Self { reason: problem.reason, field: field.unwrap_or_else(place) }
    }
}

/// `line 3 column 7` at the beginning of what is said of a document that cannot be read.
fn line(message: &str) -> Option<&str> {
    let (place, _) = message.strip_prefix("error: ").unwrap_or(message).split_once(':')?;
    let plain = |byte: u8| byte.is_ascii_digit() || b" column".contains(&byte);
    place.strip_prefix("line ").filter(|rest| rest.bytes().all(plain)).map(|_| place)
}

/// What became of a host in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostOutcome {
    /// How it turned out.
    pub outcome: Outcome,
    /// Why, where it is not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a rollout turned out on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
    /// A step failed.
    Failed,
    /// It was, or may have been, switched, and nothing more is known.
    Switched,
    /// Nothing was done there.
    Untouched,
}

impl Outcome {
    /// Whether nobody misses it where not all can be told.
    pub(super) fn is_dull(self) -> bool {
        matches!(self, Self::Healthy | Self::Untouched)
    }

    /// As it is told.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Switched => "switched",
            Self::Untouched => "untouched",
        }
    }
}

impl What {
    /// How a rollout ended on each of the hosts that it was for; `ready` are those that are where they should be.
    pub fn ended(rollout: &Rollout, placed: &BTreeSet<&HostId>, ready: &BTreeSet<&HostId>) -> Self {
        let named = rollout.touched.iter().chain(rollout.verdicts.keys()).chain(rollout.failures.keys());
        let all: BTreeSet<&HostId> = placed.iter().copied().chain(named).collect();
        let told = |host: &HostId| (host.clone(), outcome(rollout, host, ready.contains(host)));
        let mut hosts: BTreeMap<HostId, HostOutcome> = all.into_iter().map(told).collect();
        let more = hosts.len().saturating_sub(MOST_HOSTS);
        if more > 0 {
            // Those that are well are the least to be missed.
            let mut ids: Vec<HostId> = hosts.keys().cloned().collect();
            ids.sort_by_key(|id| hosts[id].outcome.is_dull());
            ids.truncate(MOST_HOSTS);
            let kept: BTreeSet<HostId> = ids.into_iter().collect();
            hosts.retain(|id, _| kept.contains(id));
        }
        Self::Ended { sequence: rollout.sequence, state: rollout.state, hosts, more }
    }

    /// A refusal that tells why.
    pub fn asked_in_vain(request: Option<Request>, why: &str) -> Self {
        Self::AskedInVain { request, more: 0, why: beginning(why, SENTENCE) }
    }

    /// A revision that is blocked for a reason.
    pub fn blocked(revision: RevisionNumber, why: &str) -> Self {
        Self::Blocked { revision, why: beginning(why, SENTENCE) }
    }
}

fn outcome(rollout: &Rollout, host: &HostId, is_ready: bool) -> HostOutcome {
    let with = |outcome, why: Option<&str>| HostOutcome { outcome, why: why.map(|why| beginning(why, SENTENCE)) };
    match (rollout.verdicts.get(host), rollout.failures.get(host)) {
        (Some(Verdict::Unhealthy { evidence }), _) => with(Outcome::Unhealthy, Some(&evidence.summary)),
        (_, Some(failure)) => with(Outcome::Failed, Some(&format!("{}: {}", failure.step, failure.error))),
        (Some(Verdict::Healthy), None) => with(Outcome::Healthy, None),
        (None, None) if rollout.touched.contains(host) && is_ready => with(Outcome::Healthy, None),
        (None, None) if rollout.touched.contains(host) => with(Outcome::Switched, None),
        (None, None) => with(Outcome::Untouched, None),
    }
}

pub(super) fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl fmt::Display for What {
    /// One sentence without its subject, for people.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared { changes, first, more, waits, .. } => {
                match (first, changes.is_empty()) {
                    (true, _) => write!(out, "declared it, {} fields", changes.len())?,
                    (false, true) => out.write_str("declared the same again")?,
                    (false, false) => {
                        out.write_str("declared ")?;
                        listed(out, changes.iter())?;
                        rest(out, *more)?;
                    }
                }
                out.write_str(if *waits { "; it waits for approval" } else { "" })
            }
            Self::Refused { problems, more, generation: _ } => {
                out.write_str("declared what was refused: ")?;
                listed(
                    out,
                    problems.iter().map(|wrong| match wrong.field.as_str() {
                        "" => wrong.reason.to_string(),
                        field => format!("{field} ({})", wrong.reason),
                    }),
                )?;
                rest(out, *more)
            }
            Self::Deleted => out.write_str("deleted the declaration"),
            Self::Asked { request, more } => {
                write!(out, "asked: {}", asked(request))?;
                rest(out, *more)
            }
            Self::AskedInVain { request, more, why } => match request {
                Some(request) => {
                    write!(out, "asked: {}", asked(request))?;
                    rest(out, *more)?;
                    write!(out, "; refused: {why}")
                }
                None => write!(out, "asked what was refused: {why}"),
            },
            Self::Approved { revision, plan, reason } => {
                write!(out, "approved revision {revision} (plan {})", plan.short())?;
                reason.iter().try_for_each(|reason| write!(out, ": {reason}"))
            }
            Self::Accepted { revision, release, commit, spec: _ } => {
                write!(out, "accepted revision {revision}, files {}", release.short())?;
                commit.iter().try_for_each(|commit| write!(out, " of commit {}", commit.short()))
            }
            Self::Opened { sequence, purpose, from, to, plan, approved } => {
                write!(out, "began rollout {sequence} ({})", purpose.word())?;
                from.iter().try_for_each(|from| write!(out, " from revision {from}"))?;
                to.iter().try_for_each(|to| write!(out, " to revision {to}"))?;
                write!(out, ", plan {}", plan.short())?;
                approved.iter().try_for_each(|approved| write!(out, ", approved as {}", approved.short()))
            }
            Self::Ended { sequence, state, hosts, more } => {
                write!(out, "ended rollout {sequence}: {}", state.word())?;
                if !hosts.is_empty() {
                    out.write_str("; ")?;
                }
                listed(
                    out,
                    hosts.iter().map(|(host, told)| match &told.why {
                        Some(why) => format!("{host} {} ({why})", told.outcome.word()),
                        None => format!("{host} {}", told.outcome.word()),
                    }),
                )?;
                rest(out, *more)
            }
            Self::Blocked { revision, why } => write!(out, "blocked revision {revision}: {why}"),
            Self::Removed => out.write_str("removed the last of it"),
            Self::Led { name, key } => write!(out, "began to lead as {name}, with the key {}", key.short()),
        }
    }
}

fn listed(out: &mut fmt::Formatter<'_>, all: impl Iterator<Item = impl fmt::Display>) -> fmt::Result {
    for (index, one) in all.enumerate() {
        write!(out, "{}{one}", if index == 0 { "" } else { ", " })?;
    }
    Ok(())
}

fn rest(out: &mut fmt::Formatter<'_>, more: usize) -> fmt::Result {
    if more > 0 { write!(out, ", and {more} more") } else { Ok(()) }
}

/// A request as people type it, with what it names.
fn asked(request: &Request) -> String {
    let mut text = request.name().to_owned();
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(request) else { return text };
    // Nobody reads a signature.
    for (name, value) in fields.iter().filter(|(name, _)| !["request", "signature"].contains(&name.as_str())) {
        text += &format!(" {name}={}", beginning(&value.to_string(), SENTENCE));
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::{Evidence, StepFailure};
    use crate::step::StepError;

    fn host(name: &str) -> HostId {
        name.parse().expect("a name")
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place_alone() {
        for (field, message, expected) in [
            ("spec.network.port", "line 3 column 4: no", "spec.network.port"),
            ("", "error: line 11 column 19: unknown variant `s3cret`\n --> 11", "line 11 column 19"),
            ("", "line 2: a second document", "line 2"),
            ("", "line s3cret: no", ""),
            ("", "not UTF-8 from byte 3 on", ""),
        ] {
            let problem = Problem::invalid(field, message);
            assert_eq!(Wrong::from(&problem).field, expected, "{message}");
        }
    }

    #[test]
    fn each_host_has_its_outcome() {
        let mut rollout =
            Rollout::begin(Sequence(7), Purpose::Deploy, Some(RevisionNumber(2)), 1, Timestamp::UNIX_EPOCH);
        rollout.state = RolloutState::Unhealthy;
        rollout.touched = ["a", "b", "c", "f"].map(host).into();
        rollout.verdicts.insert(host("a"), Verdict::Healthy);
        let evidence =
            Evidence { summary: "it answered 500".to_owned(), answer: None, logs: vec!["s3cret".to_owned()] };
        rollout.verdicts.insert(host("b"), Verdict::Unhealthy { evidence });
        rollout.failures.insert(host("d"), StepFailure { step: "stage 2".to_owned(), error: StepError::Locked });
        let placed = ["a", "b", "c", "d", "e"].map(host);
        let ready = [host("e"), host("f")];
        let told = What::ended(&rollout, &placed.iter().collect(), &ready.iter().collect());
        assert_eq!(
            told.to_string(),
            "ended rollout 7: unhealthy; a healthy, b unhealthy (it answered 500), c switched, \
             d failed (stage 2: another step holds the lock), e untouched, f healthy"
        );
        let json = serde_json::to_string(&told).expect("JSON");
        assert!(!json.contains("s3cret"), "logs are not kept: {json}");
        assert_eq!(serde_json::from_str::<What>(&json).expect(&json), told);
    }

    #[test]
    fn of_many_hosts_those_that_fared_badly_are_told() {
        let mut rollout = Rollout::begin(Sequence(7), Purpose::Deploy, None, 1, Timestamp::UNIX_EPOCH);
        let all: Vec<HostId> = (0..1000).map(|number| host(&format!("h{number:04}"))).collect();
        rollout.verdicts.extend(all.iter().map(|id| (id.clone(), Verdict::Healthy)));
        rollout.failures.insert(host("h0999"), StepFailure { step: "stage 2".to_owned(), error: StepError::Locked });
        let What::Ended { hosts, more, .. } = What::ended(&rollout, &all.iter().collect(), &BTreeSet::new()) else {
            panic!("it ended")
        };
        assert_eq!((hosts.len(), more, hosts[&host("h0999")].outcome), (MOST_HOSTS, 800, Outcome::Failed));
    }

    #[test]
    fn requests_are_told_with_what_they_name() {
        let undo = Request::Undo { revision: Some(RevisionNumber(3)), from: None };
        assert_eq!(What::Asked { request: undo.clone(), more: 0 }.to_string(), "asked: undo revision=3");
        let vain = What::asked_in_vain(Some(undo), "there is no revision 3 any more");
        assert_eq!(vain.to_string(), "asked: undo revision=3; refused: there is no revision 3 any more");
        let json = serde_json::to_string(&vain).expect("JSON");
        assert_eq!(serde_json::from_str::<What>(&json).expect(&json), vain);
    }
}
