//! Telling: what somebody who waits is shown, on a screen that is drawn again or as plain lines.

use std::collections::BTreeMap;

use windlass_crds::id::ResourceKey;
use windlass_store::FollowError;

use crate::inventory::Resource;
use crate::live::Live;
use crate::narration::Narrator;
use crate::output;
use crate::waiting::{Listener, Sight};

/// Shows rollouts as they go where stderr is a screen, and leaves them to `plain` where it is not. What is done is
/// told by `plain` in either case.
#[derive(Debug, Default)]
pub(crate) struct Shown<Plain> {
    live: Option<Live>,
    plain: Plain,
}

impl<Plain> Shown<Plain> {
    /// On the screen, if stderr is one.
    pub(crate) fn new(plain: Plain) -> Self {
        Self { live: Live::start(), plain }
    }

    /// On the screen only where stdout is one too: else whoever reads it wants the lines.
    pub(crate) fn unless_piped(plain: Plain) -> Self {
        Self { live: Live::start().filter(|_| output::is_shown()), plain }
    }
}

impl<Plain: Listener> Listener for Shown<Plain> {
    fn seen(&mut self, resource: &Resource, sight: Sight) -> anyhow::Result<()> {
        match &mut self.live {
            Some(live) => {
                live.show(resource);
                Ok(())
            }
            None => self.plain.seen(resource, sight),
        }
    }

    fn met(&mut self, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()> {
        if let Some(live) = &mut self.live {
            live.leave(key);
        }
        self.plain.met(key, resource)?;
        self.tick();
        Ok(())
    }

    fn tick(&mut self) {
        if let Some(live) = &mut self.live {
            live.draw();
        }
    }

    fn interrupted(&mut self, error: &FollowError) {
        if let Some(live) = &mut self.live {
            live.erase();
        }
        self.plain.interrupted(error);
        self.tick();
    }
}

/// Tells on stderr what happens to each host, and on stdout what is done.
#[derive(Debug, Default)]
pub(crate) struct Running {
    narrators: BTreeMap<ResourceKey, Narrator>,
    quiet: bool,
}

impl Running {
    /// Nothing on stdout: `-o name` has said all that programs want.
    pub(crate) fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }
}

impl Listener for Running {
    fn seen(&mut self, resource: &Resource, sight: Sight) -> anyhow::Result<()> {
        let news = self.narrators.entry(resource.key.clone()).or_default().news(resource);
        // How it was before is no answer to what was asked.
        if sight == Sight::Later {
            news.into_iter().for_each(output::note);
        }
        Ok(())
    }

    fn met(&mut self, key: &ResourceKey, resource: Option<&Resource>) -> anyhow::Result<()> {
        let text = match resource {
            Some(resource) if resource.declared.is_some() => format!("{key} {}", ending(resource)),
            _ => format!("{key} gone"),
        };
        if self.quiet {
            output::note(text);
            return Ok(());
        }
        Ok(output::line(text)?)
    }
}

/// `ready: revision 3 runs on 3 of 3 hosts`.
pub(crate) fn ending(resource: &Resource) -> String {
    use windlass_crds::condition::{ConditionType::Ready, Reason};
    let told = resource.any_status();
    match windlass_crds::status::condition(&told.conditions, Ready) {
        Some(ready) if ready.reason == Reason::Undone => format!("undone: {}", ready.message),
        Some(ready) if ready.reason == Reason::Aborted => format!("aborted: {}", ready.message),
        Some(ready) if ready.reason == Reason::WaitingForApproval => format!("waiting: {}", ready.message),
        Some(ready) if ready.message.is_empty() => "ready".to_owned(),
        Some(ready) => format!("ready: {}", ready.message),
        None => "ready".to_owned(),
    }
}
