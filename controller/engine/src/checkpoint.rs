//! The named steps of a rollout, at each of which a test kills the controller, or holds it.
//!
//! A controller that was started with `WINDLASS_CHECKPOINT=<name>:<file>` writes the file and kills itself with
//! SIGKILL the first time that it reaches the step. With `WINDLASS_CHECKPOINT=hold@<name>:<file>` it writes the file, and
//! goes on with the step once somebody has taken the file away. It can harm nobody but the controller itself.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

macro_rules! checkpoints {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// A named step of a rollout.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Checkpoint {
            $($(#[$doc])* $variant,)*
        }

        impl Checkpoint {
            /// All of them, in the order of a rollout.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As tests call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

checkpoints! {
    /// The plan is made, and nothing is recorded.
    Planned => "planned",
    /// The rollout is recorded, and no host is stamped.
    RolloutOpened => "rollout-opened",
    /// The hosts are stamped.
    Stamped => "stamped",
    /// A release is about to be brought to a host.
    BeforeStage => "before-stage",
    /// It is there.
    AfterStage => "after-stage",
    /// The switch is recorded, and not begun.
    BeforeActivate => "before-activate",
    /// The host was switched.
    AfterActivate => "after-activate",
    /// A verdict is in, and nothing of it is recorded.
    Judged => "judged",
    /// A host is about to be told that what it runs is good.
    BeforeConfirm => "before-confirm",
    /// It is told.
    AfterConfirm => "after-confirm",
    /// An unhealthy verdict is recorded, and the rollback has not begun.
    BlockRecorded => "block-recorded",
    /// A host is about to go back.
    BeforeRevert => "before-revert",
    /// It has gone back.
    AfterRevert => "after-revert",
    /// A commit of a ConfigRepo is fetched, and nothing of it is written.
    CommitFetched => "commit-fetched",
    /// Some of what it declares is written, and nothing is said of it.
    DeclarationsWritten => "declarations-written",
    /// Every host is done, and the rollout is not closed.
    BeforeClose => "before-close",
    /// The rollout is closed.
    AfterClose => "after-close",
    /// A host is about to be rid of the service.
    BeforeRemove => "before-remove",
    /// It is rid of it.
    AfterRemove => "after-remove",
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// What is to happen at a step, and the file that says that it does.
#[derive(Debug)]
struct Wish {
    name: String,
    end: End,
    file: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum End {
    /// The process dies.
    Killed,
    /// The step waits until the file is gone.
    Held,
}

/// Between two looks for the file.
const POLL: Duration = Duration::from_millis(5);

fn chosen() -> Option<&'static Wish> {
    static CHOSEN: OnceLock<Option<Wish>> = OnceLock::new();
    let read = || {
        let wish = std::env::var("WINDLASS_CHECKPOINT").ok()?;
        let (name, file) = wish.split_once(':')?;
        let (name, end) = match name.strip_prefix("hold@") {
            Some(name) => (name, End::Held),
            None => (name, End::Killed),
        };
        Some(Wish { name: name.to_owned(), end, file: PathBuf::from(file) })
    };
    CHOSEN.get_or_init(read).as_ref()
}

/// Says that a step is reached; the process ends or waits here where a test asked for it.
pub fn reached(checkpoint: Checkpoint) {
    /// Errands run side by side: the second that arrives must not empty the file that the first has written.
    static DONE: Mutex<bool> = Mutex::new(false);
    let Some(Wish { name, end, file }) = chosen() else { return };
    if name != checkpoint.name() {
        return;
    }
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if *done || std::fs::write(file, name).is_err() {
        return;
    }
    *done = true;
    match end {
        End::Killed => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        // The thread waits and not the task, so that nothing can come between this and the step.
        End::Held => {
            while file.exists() {
                std::thread::sleep(POLL);
            }
        }
    }
}
