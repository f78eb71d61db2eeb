//! Settling: whether what somebody waits for has come, may still come, or cannot come any more. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use windlass_crds::condition::{Condition, ConditionStatus, ConditionType, Reason};
use windlass_crds::id::{Generation, ResourceKey};
use windlass_crds::status;
use windlass_store::RequestId;

use crate::inventory::Resource;
use crate::outlook;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// A condition holds, or does not: `condition=Ready=True`.
    Condition(ConditionType, ConditionStatus),
    /// The controller has seen what is declared: `generation`.
    Observed,
    /// Nothing is left of it, here and on the hosts: `delete`.
    Gone,
    /// A person's pause is recorded: nothing more is begun.
    Paused,
    /// The work that was asked for is over, and well.
    Settled(Ending),
}

/// Which end of the work is a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// What is declared runs everywhere.
    Declared,
    /// An older revision runs everywhere, as a person asked.
    Undone,
    /// Either of them: what runs was started anew.
    Restarted,
    /// What a person aborted is off the hosts.
    Aborted,
    /// What is declared runs everywhere, or waits for a person once more.
    Approved,
}

impl Ending {
    /// Whether a Service that is not ready for this reason is at a good end all the same.
    fn includes(self, reason: Reason) -> bool {
        match self {
            Self::Declared => false,
            Self::Undone => reason == Reason::Undone,
            // What is in force runs, and something else waits to come into force.
            Self::Restarted => matches!(reason, Reason::Undone | Reason::WaitingForApproval),
            Self::Aborted => reason == Reason::Aborted,
            Self::Approved => reason == Reason::WaitingForApproval,
        }
    }
}

/// Why a text is no [`Goal`].
#[derive(Debug, thiserror::Error)]
#[error("write condition=Ready, condition=Available=False, delete or generation")]
pub(crate) struct NoGoal;

impl FromStr for Goal {
    type Err = NoGoal;

    fn from_str(text: &str) -> Result<Self, NoGoal> {
        match text {
            "delete" => return Ok(Self::Gone),
            "generation" => return Ok(Self::Observed),
            _ => {}
        }
        let condition = text.strip_prefix("condition=").ok_or(NoGoal)?;
        let (kind, value) = condition.split_once('=').unwrap_or((condition, "True"));
        let kind = ConditionType::ALL.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(kind));
        let values = [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown];
        let value = values.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(value));
        Ok(Self::Condition(kind.ok_or(NoGoal)?, value.ok_or(NoGoal)?))
    }
}

impl fmt::Display for Goal {
    /// What the resource is not, as long as the goal is not reached.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Condition(kind, ConditionStatus::True) => kind.fmt(out),
            Self::Condition(kind, value) => write!(out, "{kind}={value}"),
            Self::Observed => out.write_str("seen by the controller"),
            Self::Gone => out.write_str("gone"),
            Self::Paused => out.write_str("paused"),
            Self::Settled(Ending::Declared | Ending::Restarted | Ending::Approved) => out.write_str("Ready"),
            Self::Settled(Ending::Undone | Ending::Aborted) => out.write_str("back"),
        }
    }
}

/// What somebody waits for, and from which moment on the status is to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of which resource.
    pub(crate) key: ResourceKey,
    /// What.
    pub(crate) goal: Goal,
    /// The generation that the status must speak of, or a later one.
    pub(crate) generation: Generation,
    /// The requests that must have been done: the status is about the time before them.
    pub(crate) requests: BTreeSet<RequestId>,
    /// Those of them that the person who waits has made.
    pub(crate) own: BTreeSet<RequestId>,
}

/// How it stands with what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It may come: why it has not yet.
    Waiting(Why),
    /// It is there.
    Met,
    /// It cannot come by itself any more.
    Never(Why),
}

/// Why something is not as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing of that name is declared.
    NotDeclared,
    /// The controller has not done a request.
    Asked(RequestId),
    /// The controller has not seen the declaration.
    NotSeen,
    /// It is still declared.
    Declared,
    /// The controller could not do what was asked.
    Refused(String),
    /// The status says so.
    Told {
        /// For programs.
        reason: Reason,
        /// For people.
        message: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDeclared => out.write_str("it is not declared"),
            Self::Asked(id) => write!(out, "the controller has not dealt with request {id} yet"),
            Self::NotSeen => out.write_str("the controller has not looked at what is declared yet"),
            Self::Declared => out.write_str("it is still declared"),
            Self::Refused(why) => write!(out, "the controller refused: {why}"),
            Self::Told { reason, message } if message.is_empty() => write!(out, "{reason}"),
            Self::Told { reason, message } => write!(out, "{reason}: {message}"),
        }
    }
}

impl Why {
    fn told(condition: Option<&Condition>) -> Self {
        condition.map_or(Self::NotSeen, |condition| Self::Told {
            reason: condition.reason,
            message: condition.message.clone(),
        })
    }

    /// What a person may type next.
    pub(crate) fn hint(&self, key: &ResourceKey) -> Option<String> {
        match self {
            // What a wait ends with; of what goes on by itself it was told all the time.
            Self::Told {
                reason:
                    reason @ (Reason::RolledBack
                    | Reason::Unhealthy
                    | Reason::FirstDeployUnhealthy
                    | Reason::Undone
                    | Reason::Aborted
                    | Reason::HeldBack
                    | Reason::Paused
                    | Reason::Unconfirmed
                    | Reason::MassUnhealthy
                    | Reason::Flapping
                    | Reason::RemovalNeedsConfirmation
                    | Reason::OwnedByAnother
                    | Reason::HostKeyRejected
                    | Reason::LoginRefused
                    | Reason::HostUnsuitable
                    | Reason::HostUnreachable),
                ..
            } => outlook::advice(*reason, key),
            _ => None,
        }
    }
}

/// How it stands with what is wanted of a resource, of which the store may know nothing.
pub(crate) fn judge(wanted: &Wanted, resource: Option<&Resource>) -> Progress {
    let resource = resource.filter(|resource| resource.exists());
    let Some(resource) = resource else {
        return if wanted.goal == Goal::Gone { Progress::Met } else { Progress::Never(Why::NotDeclared) };
    };
    let told = resource.any_status();
    let condition = |kind| status::condition(&told.conditions, kind);
    let holds = |kind| condition(kind).filter(|condition| condition.status == ConditionStatus::True);
    let pending = wanted.requests.intersection(&resource.requests).next();
    if wanted.goal == Goal::Gone {
        return match (&resource.declared, pending) {
            (Some(_), _) => Progress::Waiting(Why::Declared),
            // What the status says may be what the request is about: that a removal waits.
            (None, Some(id)) => Progress::Waiting(Why::Asked(id.clone())),
            (None, None) => removal(condition(ConditionType::Ready)),
        };
    }
    if resource.declared.is_none() {
        return Progress::Never(Why::NotDeclared);
    }
    if resource.status.is_none() || told.observed_generation < wanted.generation {
        return Progress::Waiting(Why::NotSeen);
    }
    // Whoever asks for a generation asks what the controller has read, not what it has done.
    if wanted.goal == Goal::Observed {
        return Progress::Met;
    }
    if let Some(id) = pending {
        return Progress::Waiting(Why::Asked(id.clone()));
    }
    if wanted.goal == Goal::Paused {
        let paused = resource.owned_record().is_some_and(|owned| owned.paused.is_some());
        return if paused { Progress::Met } else { Progress::Waiting(Why::told(condition(ConditionType::Ready))) };
    }
    let (ready, stalled) = (condition(ConditionType::Ready), holds(ConditionType::Stalled));
    let paused = holds(ConditionType::Reconciling).filter(|condition| condition.reason == Reason::Paused);
    match wanted.goal {
        Goal::Condition(kind, value) => match (condition(kind), stalled) {
            (Some(found), _) if found.status == value => Progress::Met,
            (_, Some(stalled)) if kind == ConditionType::Ready && value == ConditionStatus::True => {
                Progress::Never(Why::told(Some(stalled)))
            }
            (Some(found), _) if kind == ConditionType::Ready && found.reason == Reason::Paused => {
                Progress::Never(Why::told(Some(found)))
            }
            (found, _) => Progress::Waiting(Why::told(found)),
        },
        Goal::Settled(ending) => match (ready, stalled) {
            (Some(ready), _) if ready.status == ConditionStatus::True => Progress::Met,
            (Some(ready), _) if ending.includes(ready.reason) => Progress::Met,
            (_, Some(stalled)) => Progress::Never(Why::told(Some(stalled))),
            // Whatever is left waits for a person.
            (Some(Condition { reason: Reason::Paused | Reason::DriftFound, .. }), None) if paused.is_some() => {
                Progress::Never(Why::told(paused))
            }
            // It has not been looked at since the controller came: that passes.
            (Some(Condition { reason: Reason::NotObserved, .. }) | None, None) => Progress::Waiting(Why::told(ready)),
            (Some(_), None) if holds(ConditionType::Reconciling).is_none() => Progress::Never(Why::told(ready)),
            (Some(_), None) => Progress::Waiting(Why::told(ready)),
        },
        Goal::Observed | Goal::Gone | Goal::Paused => Progress::Met,
    }
}

/// How a removal stands, of which something is left.
fn removal(ready: Option<&Condition>) -> Progress {
    match ready {
        Some(ready) if ready.reason == Reason::RemovalNeedsConfirmation => Progress::Never(Why::told(Some(ready))),
        Some(ready) if ready.reason == Reason::Removing => Progress::Waiting(Why::told(Some(ready))),
        _ => Progress::Waiting(Why::NotSeen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_read_as_kubectl_does() {
        for (text, expected) in [
            ("condition=Ready", Some("Ready")),
            ("condition=ready=true", Some("Ready")),
            ("condition=Available=False", Some("Available=False")),
            ("delete", Some("gone")),
            ("generation", Some("seen by the controller")),
            ("condition=Well", None),
            ("condition=Ready=Maybe", None),
            ("Ready", None),
        ] {
            let goal = text.parse::<Goal>().ok().map(|goal| goal.to_string());
            assert_eq!(goal.as_deref(), expected, "{text}");
        }
    }
}
