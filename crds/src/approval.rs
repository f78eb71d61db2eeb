//! Approvals: what a person lets come into force, and what they sign for it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::digest::{PlanDigest, ReleaseDigest, SpecDigest};
use crate::id::{ClusterId, Generation, HostId, RevisionNumber, ServiceKey};

/// What a signature is for, so that one that was made for something else is none (`ssh-keygen -n`).
pub const SIGNED_FOR: &str = "windlass-approval";

/// The longest reason, in bytes.
pub const LONGEST_REASON: usize = 500;

/// The longest signature, in bytes: one of an RSA key of 8,192 bits has some 3,000.
pub const LONGEST_SIGNATURE: usize = 5 * 1024;

/// What was declared, and comes into force once it is approved: in `owned/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gated {
    /// The generation of the declaration.
    pub generation: Generation,
    /// Which revision it would be.
    pub revision: RevisionNumber,
    /// All that it says.
    pub spec: SpecDigest,
    /// The files that it would run.
    pub release: ReleaseDigest,
    /// All that whoever approves it has to have seen.
    pub plan: PlanDigest,
    /// Since when it waits.
    pub since: Timestamp,
    /// Who has declared it.
    pub author: Actor,
    /// Its files are others than those that were there when it was declared: nobody knows who has changed them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub files_changed: bool,
    /// Who has approved just that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approved>,
    /// When that was enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Timestamp>,
}

/// That somebody has approved something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    /// Who.
    pub by: Actor,
    /// When they signed it, or when the controller took it in.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What somebody who approves has to have seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen<'a> {
    /// Of which Service.
    pub service: &'a ServiceKey,
    /// Which revision it would be.
    pub revision: RevisionNumber,
    /// All that its declaration says.
    pub spec: SpecDigest,
    /// The files that it would run.
    pub release: ReleaseDigest,
    /// Which revision it would take the place of.
    pub from: Option<RevisionNumber>,
    /// The hosts that it would be placed on.
    pub hosts: &'a BTreeSet<HostId>,
    /// Since when it waits: what was approved once, and was taken back since, was not approved when it comes again.
    pub since: Timestamp,
}

impl Seen<'_> {
    /// What an approval names.
    pub fn digest(&self) -> PlanDigest {
        PlanDigest::of(&serde_json::to_vec(self).expect("a plan is always JSON"))
    }
}

/// What an approval is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// In which store.
    pub cluster: &'a ClusterId,
    /// Of which Service.
    pub service: &'a ServiceKey,
    /// Which revision.
    pub revision: RevisionNumber,
    /// By which plan.
    pub plan: &'a PlanDigest,
    /// Why.
    pub reason: &'a str,
    /// When they sign it: it counts from then on.
    pub at: Timestamp,
}

impl Subject<'_> {
    /// What is signed: one line each, and the reason last, which is one line too.
    pub fn text(&self) -> String {
        let Self { cluster, service, revision, plan, reason, at } = self;
        format!(
            "windlass approval 1\nstore {cluster}\nservice {service}\nrevision {revision}\nplan {plan}\nat {at}\nreason {reason}\n"
        )
    }
}

/// Why a text is no reason for an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reason has to be one line of 1 to {LONGEST_REASON} bytes")]
pub struct NoReason;

/// Checks a reason.
///
/// # Errors
/// [`NoReason`].
pub fn check_reason(reason: &str) -> Result<(), NoReason> {
    let fits = !reason.trim().is_empty() && reason.len() <= LONGEST_REASON && !reason.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(NoReason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_reason_says_can_be_taken_for_another_line() {
        assert_eq!(check_reason("CHG-1234: fixes the leak"), Ok(()));
        for reason in ["", " ", "a\nrevision 9", "a\rb", "\u{85}", &"x".repeat(LONGEST_REASON + 1)] {
            assert_eq!(check_reason(reason), Err(NoReason), "{reason:?}");
        }
    }

    #[test]
    fn each_thing_that_is_approved_has_a_text_of_its_own() {
        let cluster: ClusterId = "0123456789abcdef0123456789abcdef".parse().expect("an id");
        let service: ServiceKey = "production/web".parse().expect("two labels");
        let (one, other) = (PlanDigest::of(b"1"), PlanDigest::of(b"2"));
        let text = |revision, plan, reason| {
            let at = Timestamp::UNIX_EPOCH;
            Subject { cluster: &cluster, service: &service, revision: RevisionNumber(revision), plan, reason, at }
                .text()
        };
        let told = text(7, &one, "why");
        assert!(told.contains("\nservice production/web\nrevision 7\n") && told.ends_with("\nreason why\n"), "{told}");
        for other in [text(8, &one, "why"), text(7, &other, "why"), text(7, &one, "why not")] {
            assert_ne!(told, other);
        }
    }
}
