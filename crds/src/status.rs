//! Status: what the controller says of a resource, under a key of its own.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::approval::Approved;
use crate::condition::{Condition, ConditionStatus, ConditionType, Reason};
use crate::configrepo::CommitId;
use crate::digest::{PlanDigest, ReleaseDigest};
use crate::id::{ClusterId, Generation, HostId, MachineId, ResourceKey, RevisionNumber, Sequence};
use crate::observation::Scope;
use crate::policy::PolicySpec;
use crate::record::{Evidence, Purpose, RolloutState};

/// What is said of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// What holds.
    pub conditions: Vec<Condition>,
    /// The revision of what is declared, once it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
    /// The revision that hosts are brought to: another one after a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<RevisionNumber>,
    /// The files of that revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseDigest>,
    /// The last rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Hosts that run the target, healthy and confirmed.
    pub ready: u32,
    /// Hosts that should.
    pub desired: u32,
    /// Each host.
    pub hosts: BTreeMap<HostId, HostRow>,
    /// Why the last revision failed, until another one is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What is declared, and does not come into force before somebody has approved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalStatus>,
}

/// What waits for people to approve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalStatus {
    /// Which revision it would be.
    pub revision: RevisionNumber,
    /// What an approval has to name.
    pub plan: PlanDigest,
    /// Since when it waits.
    pub since: Timestamp,
    /// Who has declared it.
    pub author: Actor,
    /// Who asks for it: `policy/production`, or the Service itself.
    pub asked_by: Vec<String>,
    /// Who has approved it so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approved>,
    /// How many people have to approve it yet.
    pub missing: u32,
    /// Which revision it would take the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RevisionNumber>,
    /// The files that it would run.
    pub release: ReleaseDigest,
    /// Which fields it has otherwise than what is in force, the first of them; none where only its files are others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The hosts that it would be placed on, the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostId>,
    /// How many hosts that are.
    #[serde(default)]
    pub host_count: usize,
}

/// What is said of a Policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyStatus {
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// What holds.
    pub conditions: Vec<Condition>,
    /// What is in force: the last that made sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<PolicySpec>,
}

/// Why a revision failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which.
    pub revision: RevisionNumber,
    /// Where.
    pub host: HostId,
    /// How it showed.
    pub evidence: Evidence,
}

/// A rollout in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Its number.
    pub sequence: Sequence,
    /// Why.
    pub purpose: Purpose,
    /// How it stands.
    pub state: RolloutState,
    /// When it began.
    pub started: Timestamp,
    /// How far its canary has come, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
}

/// A canary in a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// The step that is under way, from 1.
    pub step: u32,
    /// How many there are.
    pub steps: u32,
    /// Until when its hosts have to stay healthy, once they all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baking_until: Option<Timestamp>,
    /// Since when the next step has been waiting for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Timestamp>,
}

/// What a service does on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRow {
    /// The revision that its unit names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
    /// How it stands.
    pub state: HostState,
    /// More about it; empty where there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when its state and revision, or what is under way there, are what they are. The planner leaves it open; it is
    /// filled in where the status is written, from the one before, so that it changes nothing by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Rows with the time since when each is as it is, taken over from `before` where it has not changed.
pub fn rows(
    found: &BTreeMap<HostId, HostRow>,
    before: &BTreeMap<HostId, HostRow>,
    now: Timestamp,
) -> BTreeMap<HostId, HostRow> {
    let dated = |(host, row): (&HostId, &HostRow)| {
        // What is under way is another thing from step to step.
        let same = before.get(host).filter(|old| match row.state {
            HostState::Working => (old.state, &old.message) == (row.state, &row.message),
            _ => (old.state, old.revision) == (row.state, row.revision),
        });
        let since = same.map_or(Some(now), |old| old.since.or(Some(now)));
        (host.clone(), HostRow { since, ..row.clone() })
    };
    found.iter().map(dated).collect()
}

/// How a service stands on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostState {
    /// It runs the target, and was found healthy.
    Ready,
    /// It has not got there yet.
    Pending,
    /// A step is being done.
    Working,
    /// The target runs there, and no verdict is in.
    Starting,
    /// It runs, and its health endpoint does not answer well.
    Unhealthy,
    /// It was changed behind our back.
    Drifted,
    /// A step failed.
    Failed,
    /// Out of reach: nothing is known.
    Unreachable,
    /// It is stopped, since nothing good is known.
    Stopped,
    /// It is being taken off.
    Removing,
    /// The target was unhealthy there, and it went back by itself, within `maxFailures`.
    HeldBack,
}

/// What is said of a Host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostStatus {
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// What holds.
    pub conditions: Vec<Condition>,
    /// Which machine it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Whose systemd is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The version of its systemd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<u32>,
    /// The store that it belongs to, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<ClusterId>,
}

/// What is said of a ConfigRepo.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigRepoStatus {
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// What holds.
    pub conditions: Vec<Condition>,
    /// The commit that was looked at last, whether or not it could be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempted: Option<CommitId>,
    /// The commit that is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<CommitId>,
    /// What led to it: `refs/heads/main`.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Where it was taken from: the url, and the directory in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who signed the commit that is in force, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// How far it has come: the newest commit that was in force. What neither comes after it nor is younger is not its
    /// signer's doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub furthest: Option<Furthest>,
    /// What is wrong in which file; the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FileError>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_errors: usize,
    /// What it owns, by the file that declares it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inventory: BTreeMap<String, BTreeSet<ResourceKey>>,
    /// What it owns, and no file declares any more.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<ResourceKey>,
}

/// A commit, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Furthest {
    /// Which.
    pub commit: CommitId,
    /// When, as it says itself and its signature covers: seconds since 1970.
    pub at: i64,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl ConfigRepoStatus {
    /// Whether it declares a resource by a file.
    pub fn declares(&self, resource: &ResourceKey) -> bool {
        self.inventory.values().any(|resources| resources.contains(resource))
    }

    /// Everything that it owns.
    pub fn owns(&self) -> impl Iterator<Item = &ResourceKey> {
        self.inventory.values().flatten().chain(&self.left)
    }
}

/// What is wrong in a file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileError {
    /// Which, from the root of the repository.
    pub file: String,
    /// Where, from 1; nothing where it is the file as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Where, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl std::fmt::Display for FileError {
    /// `production/web.yaml:3:7: spec.network.port: …`
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.file)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(out, ":{number}")?;
        }
        write!(out, ": {}", self.message)
    }
}

/// What is said of a resource that has no state of its own: a NetworkZone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlainStatus {
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// What holds.
    pub conditions: Vec<Condition>,
}

/// The part that every status has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnyStatus {
    /// The generation that this speaks of.
    pub observed_generation: Generation,
    /// What holds.
    pub conditions: Vec<Condition>,
}

/// What a condition shall say, before it is known whether that is news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which aspect.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// Conditions that say what was found, with the time of the last transition taken over from `before` where the
/// status has not changed.
pub fn conditions(
    findings: Vec<Finding>,
    generation: Generation,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let transition = |finding: &Finding| {
        let same = before.iter().find(|old| old.kind == finding.kind && old.status == finding.status);
        same.map_or(now, |old| old.last_transition_time)
    };
    let mut conditions: Vec<Condition> = findings
        .into_iter()
        .map(|finding| Condition {
            last_transition_time: transition(&finding),
            kind: finding.kind,
            status: finding.status,
            reason: finding.reason,
            message: finding.message,
            observed_generation: generation,
        })
        .collect();
    conditions.sort_by_key(|condition| condition.kind);
    conditions
}

/// The condition of one kind.
pub fn condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}
