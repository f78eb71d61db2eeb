//! Observations: what one look at a host found. Facts only; nothing here is a decision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{PayloadDigest, ReleaseDigest, UnitDigest};
use crate::id::{BootId, ClusterId, MachineId, RevisionNumber, Sequence};
use crate::step::Verb;

/// Whose systemd runs the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// The machine's: the login is root, or may `sudo`.
    System,
    /// The login's own.
    User,
}

/// What is true of a machine, whatever runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// Which machine it is, whatever it is called.
    pub machine: MachineId,
    /// Since which boot.
    pub boot: BootId,
    /// Whose systemd runs the units.
    pub scope: Scope,
    /// The login.
    pub user: String,
    /// The store that owns what is there, if one does.
    pub cluster: Option<ClusterId>,
    /// Where Windlass keeps its files there.
    pub remote_dir: String,
    /// The version of its systemd.
    pub systemd: u32,
}

/// The unit file that systemd would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnitFile {
    /// There is none.
    #[default]
    Absent,
    /// It is the one of this revision, to the byte.
    Revision(RevisionNumber),
    /// It names this revision, and differs from it.
    Changed(RevisionNumber),
    /// It is not one of ours.
    Foreign,
}

impl UnitFile {
    /// The revision that it names.
    pub fn revision(self) -> Option<RevisionNumber> {
        match self {
            Self::Revision(revision) | Self::Changed(revision) => Some(revision),
            Self::Absent | Self::Foreign => None,
        }
    }
}

/// systemd's `ActiveState` (org.freedesktop.systemd1(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ActiveState {
    /// It runs.
    Active,
    /// It runs and reads its configuration again.
    Reloading,
    /// It does not run.
    #[default]
    Inactive,
    /// It does not run because it failed.
    Failed,
    /// It is being started, or waits to be started again.
    Activating,
    /// It is being stopped.
    Deactivating,
    /// Something that this version does not know.
    Unknown,
}

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunState {
    /// Whether it runs.
    pub active: ActiveState,
    /// systemd's `SubState`: `running`, `auto-restart`, `dead`.
    pub sub: String,
    /// The main process.
    pub pid: Option<u32>,
    /// When it became active, in microseconds of the host's monotonic clock; 0 where it never did.
    pub since: u64,
    /// How often systemd started it again by itself.
    pub restarts: u32,
    /// systemd's `Result`: `success`, `exit-code`, `signal`.
    pub result: String,
    /// What the main process exited with last.
    pub exit_status: i32,
    /// Whether the unit file on disk is newer than what systemd has loaded.
    pub needs_reload: bool,
    /// Whether it starts at boot.
    pub enabled: bool,
}

/// How a step that has a record on the host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepState {
    /// It had begun; nobody recorded an end.
    Begun,
    /// It succeeded.
    Ok,
    /// It failed with this exit code of the script.
    Failed(i32),
    /// It was a switch that nobody confirmed in time, and the host has taken it back by itself: a dead man's switch.
    Voided,
}

/// The host's own record of the last step of one verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Under which sequence.
    pub sequence: Sequence,
    /// About which revision; 0 where it was about none.
    pub revision: RevisionNumber,
    /// How it ended.
    pub state: StepState,
}

/// Something on the host that is not as it was left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Drift {
    /// The unit file was changed, or replaced.
    UnitChanged,
    /// There are drop-ins that change the unit.
    DropIn {
        /// Their paths.
        paths: Vec<String>,
    },
    /// Files of the release were changed, added or removed.
    FilesChanged {
        /// At most ten of them.
        paths: Vec<String>,
    },
    /// The revision's own files (unit, env) were changed or removed.
    RevisionChanged,
    /// The unit does not start at boot any more.
    NotEnabled,
    /// The unit was stopped, and not by us.
    Stopped,
}

impl fmt::Display for Drift {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnitChanged => out.write_str("the unit file was changed"),
            Self::DropIn { paths } => write!(out, "drop-ins change the unit: {}", paths.join(", ")),
            Self::FilesChanged { paths } => write!(out, "files were changed: {}", paths.join(", ")),
            Self::RevisionChanged => out.write_str("the revision's unit or environment was changed"),
            Self::NotEnabled => out.write_str("the unit does not start at boot any more"),
            Self::Stopped => out.write_str("the unit was stopped"),
        }
    }
}

/// What was found of one service on one host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceObservation {
    /// The highest sequence that the host has seen for it; 0 where it has seen none.
    pub sequence: Sequence,
    /// What systemd would start.
    pub unit: UnitFile,
    /// The last revision that was confirmed.
    pub good: Option<RevisionNumber>,
    /// The revisions that are staged whole, with the release of each.
    pub revisions: BTreeMap<RevisionNumber, ReleaseDigest>,
    /// The releases whose files are there.
    pub releases: BTreeSet<ReleaseDigest>,
    /// The units and environments of its revisions.
    pub units: BTreeSet<UnitDigest>,
    /// What systemd says.
    pub run: RunState,
    /// The host's records, by verb.
    pub steps: BTreeMap<Verb, StepRecord>,
    /// What is not as it was left, by the quick look (size, time, mode, paths) or the full one (hashes).
    pub drift: BTreeSet<Drift>,
    /// A payload that has arrived in part, and its first so many bytes.
    pub incoming: Option<(PayloadDigest, u64)>,
    /// Whether anything of the service is there besides the fence.
    pub present: bool,
}

/// What one look at a host found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostObservation {
    /// The machine.
    pub facts: HostFacts,
    /// The service that was asked about.
    pub service: ServiceObservation,
}

/// Who listens on a service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Listener {
    /// Nobody.
    Nobody,
    /// A process in the unit's own cgroup.
    Ours,
    /// Some other program.
    Another,
    /// The host does not let us see.
    Hidden,
}

/// One quick look at a unit while a rollout waits for its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Since which boot.
    pub boot: BootId,
    /// What systemd says.
    pub run: RunState,
    /// The host's monotonic clock, in microseconds.
    pub monotonic: u64,
    /// Who listens on the port, where one is declared.
    pub listener: Option<Listener>,
    /// Whether the host has taken back its last switch by itself.
    pub voided: bool,
}

/// What a health endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum HealthAnswer {
    /// An HTTP response.
    Http {
        /// Its status code.
        status: u16,
        /// The beginning of its body, at most 1 KiB.
        body: String,
    },
    /// It accepts connections (`tcp`).
    Open,
    /// It refused, reset, timed out or answered something that is not HTTP: the program's fault.
    Silent {
        /// What happened.
        detail: String,
    },
    /// The connection to the host did not carry the question: nothing is known.
    Unknown {
        /// What happened.
        detail: String,
    },
}
