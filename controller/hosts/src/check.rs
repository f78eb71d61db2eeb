//! Whether a host has what Windlass needs: what was found there as facts, and what that means as rows for people.

use std::fmt;

use windlass_crds::host::{Privilege, Target};
use windlass_crds::id::{ClusterId, MachineId};
use windlass_crds::observation::Scope;
use windlass_crds::step::ContactError;

mod rows;

pub use rows::{Around, rows};

/// What was found of a host, without changing anything there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// What was found after the login, or why there is none.
    pub contact: Result<Contacted, ContactError>,
}

/// What was found on an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contacted {
    /// Whether sshd leads connections on to ports of the host.
    pub forwarding: Forwarding,
    /// How many sessions sshd grants at once, of [`Contacted::SESSIONS`] that were asked for.
    pub sessions: usize,
    /// What a command found there, or why none could be run.
    pub inside: Result<Inside, ContactError>,
}

impl Contacted {
    /// So many sessions Windlass uses at once where it may.
    pub const SESSIONS: usize = 4;
}

/// What sshd does when it is asked to lead a connection on to a port of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarding {
    /// It does.
    Allowed,
    /// Its settings, or those of the key, forbid it.
    Forbidden,
    /// It could not be told.
    Unknown {
        /// Why not.
        detail: String,
    },
}

/// What a command found on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inside {
    /// The login.
    pub login: String,
    /// What the login may do; `None` where that is less than the Host says.
    pub power: Option<Power>,
    /// Whether the login's services outlive its sessions; only looked at in user scope.
    pub lingers: bool,
    /// Whether the login's own systemd runs; only looked at in user scope.
    pub user_manager: bool,
    /// The machine's systemd.
    pub systemd: Systemd,
    /// The socket of D-Bus through which systemd would be asked, where it is not there.
    pub missing_bus: Option<String>,
    /// Tools that are missing.
    pub missing: Vec<MissingTool>,
    /// Where Windlass would keep its files, and what it is on.
    pub folder: Option<Folder>,
    /// Where unit files would go, and what it is on.
    pub units: Option<Folder>,
    /// Free space where Windlass would keep its files.
    pub space: Option<Space>,
    /// How many seconds its clock is ahead of ours (behind where negative); 0 within the precision of the look.
    pub ahead: i64,
    /// The store that owns what is there.
    pub owner: Owner,
    /// Which machine it is.
    pub machine: Option<MachineId>,
}

/// What a login may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It is root.
    Root,
    /// It may run anything with `sudo`, without a password.
    Sudo,
    /// It is nobody special.
    User,
}

impl Power {
    /// Whose systemd would run the units.
    pub fn scope(self) -> Scope {
        match self {
            Self::Root | Self::Sudo => Scope::System,
            Self::User => Scope::User,
        }
    }
}

/// The machine's systemd.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Systemd {
    /// Nothing was said of it.
    #[default]
    Unknown,
    /// It does not run.
    Absent {
        /// What runs as the first process.
        first: String,
    },
    /// It runs.
    Running {
        /// Its version; 0 where it has another form than a number.
        version: u32,
        /// As `systemctl is-system-running` says it: `running`, `degraded`.
        state: String,
        /// The first few units that failed.
        failed: Vec<String>,
    },
}

/// A tool that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingTool {
    /// Its name.
    pub name: String,
    /// The package that brings it, as Debian and Fedora call it.
    pub package: String,
}

/// A folder on a host, there or to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Which.
    pub path: String,
    /// The options of the file system that it is or would be on; `None` where something is in its place.
    pub mount: Option<Vec<String>>,
    /// Whether it can be written to, as far as permissions tell.
    pub writable: bool,
}

impl Folder {
    fn has(&self, option: &str) -> bool {
        self.mount.iter().flatten().any(|have| have == option)
    }
}

/// Free space on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes.
    pub bytes: u64,
    /// Files; `None` where the file system has no limit.
    pub files: Option<u64>,
}

/// Which store owns what is on a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Owner {
    /// None: no controller has put anything there.
    #[default]
    Nobody,
    /// This one.
    Store(ClusterId),
    /// The record cannot be read.
    Unreadable,
}

/// What is looked at, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Whether anything answers.
    Connection,
    /// Whether it is the machine that is meant.
    HostKey,
    /// Whether it lets us in.
    Login,
    /// Whether health endpoints can be asked.
    Forwarding,
    /// Whether several things can be done at once.
    Sessions,
    /// What the login may do.
    Privilege,
    /// Whether services of a login outlive its sessions.
    Lingering,
    /// Whether there is anything to run units.
    Systemd,
    /// Whether the script finds what it calls.
    Tools,
    /// Whether there is room.
    Disk,
    /// Whether its time is ours.
    Clock,
    /// Which store's it is.
    Owner,
    /// Whether it has another name too.
    Machine,
}

impl fmt::Display for Aspect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Connection => "connection",
            Self::HostKey => "host-key",
            Self::Login => "login",
            Self::Forwarding => "forwarding",
            Self::Sessions => "sessions",
            Self::Privilege => "privilege",
            Self::Lingering => "lingering",
            Self::Systemd => "systemd",
            Self::Tools => "tools",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Owner => "owner",
            Self::Machine => "machine",
        })
    }
}

/// What was found of one aspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and may surprise.
    Warning,
    /// It keeps services from running, or from being judged.
    Failed,
    /// It could not be told, for something before it failed.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

/// One aspect of a host, told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub aspect: Aspect,
    /// What was found.
    pub verdict: Verdict,
    /// In words; empty where there is nothing to say.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What a target asks of its login, as the scripts call it.
pub(crate) fn asked(target: &Target) -> &'static str {
    match target.privilege {
        Some(Privilege::Root) => "root",
        Some(Privilege::Sudo) => "sudo",
        Some(Privilege::User) => "user",
        None => "auto",
    }
}
