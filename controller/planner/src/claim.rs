//! Claims: what `owned/` says once every host that may be touched is in it, and which machines were lost sight of.

use std::fmt;
use std::sync::Arc;

use windlass_crds::host::Target;
use windlass_crds::id::{Destination, HostId, MachineId};
use windlass_crds::record::{Owned, OwnedHost, Revision};
use windlass_crds::status::{HostRow, HostState};

use crate::flap;
use crate::hold;
use crate::input::{HostInput, HostView, Inputs, Placement};
use crate::planted::{Bug, planted};
use crate::position::unproven;
use crate::target::Aim;

/// So many former machines of one host are remembered: who replaces a machine more often without declaring anything
/// knows about it.
const FORMER: usize = 3;

/// The records, and what was found out about machines on the way.
pub(crate) struct Claimed {
    pub(crate) owned: Owned,
    pub(crate) left_behind: Vec<LeftBehind>,
}

/// A host that leads to another machine than the one that the Service was put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// Which host.
    pub host: HostId,
    /// The machine that the Service was put on.
    pub machine: MachineId,
    /// The machine that answers now.
    pub now: MachineId,
    /// What becomes of the Service on the old one.
    pub fate: Fate,
}

/// What becomes of a Service on a machine that its host does not lead to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is taken off at the machine's old address.
    Removed(HostId),
    /// Nobody knows a way there, so whatever it runs stays.
    Unknown,
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, machine, now, fate } = self;
        write!(out, "{host} is machine {now} now, and was {machine} when the service was put there; ")?;
        match fate {
            Fate::Removed(place) => write!(out, "it is taken off {machine} at {place}"),
            Fate::Unknown => write!(out, "what {machine} still runs, wherever it is, was left behind"),
        }
    }
}

/// What `owned/` says once every host that may be touched is in it.
pub(crate) fn claim(inputs: &Inputs<'_>, aim: &Aim, new: Option<&Revision>) -> Claimed {
    let mut owned = inputs.owned.clone();
    release(inputs, aim, &mut owned);
    hold::unconfirmed(inputs, aim, &mut owned);
    flap::forget(&mut owned, aim.revision(), |id| {
        inputs.hosts.get(id).is_some_and(|host| host.placement != Placement::Unplaced)
    });
    let mut left_behind = Vec::new();
    if let Some(new) = new {
        owned.last_revision = new.number;
    }
    if let Aim::Declared(_) = aim {
        // Something else is declared now, which lifts what was blocked.
        owned.blocked.clear();
    }
    for (id, host) in inputs.hosts {
        if host.placement != Placement::Unplaced {
            owned.confirmed_removals.remove(id);
        }
        // Nothing is ever done on a host that is not seen, so a mistyped address leaves nothing to be removed.
        let HostView::Seen(seen) = &host.view else { continue };
        let machine = &seen.facts.machine;
        let placed = host.placement == Placement::Placed && aim.revision().is_some();
        let replaced = owned.hosts.get(id).filter(|before| before.machine.as_ref().is_some_and(|old| old != machine));
        if let Some(before) = replaced.cloned()
            && (placed || host.placement == Placement::Unplaced)
        {
            left_behind.extend(left(inputs, (id, host), &before, machine, &mut owned));
        }
        if placed {
            let before = owned.hosts.remove(id);
            let in_doubt = before.as_ref().is_some_and(|before| before.in_doubt) && unproven(&seen.service);
            let former = before.map(|before| before.former).unwrap_or_default();
            let former = former.into_iter().filter(|machine| !known(inputs, id, machine)).collect();
            let confirmed = seen.service.good.is_some();
            let claimed = OwnedHost {
                target: host.target.clone(),
                machine: Some(machine.clone()),
                confirmed,
                in_doubt,
                carries: seen.service.unit.revision(),
                former,
            };
            if !planted(Bug::HostsUnclaimed) {
                owned.hosts.insert(id.clone(), claimed);
            }
        }
    }
    Claimed { owned, left_behind }
}

/// Lets hosts that were held back go, where it does not matter any more: the revision is neither wanted nor one that
/// may be gone back to, or the host is not one of ours.
fn release(inputs: &Inputs<'_>, aim: &Aim, owned: &mut Owned) {
    let Owned { held_back, good, .. } = owned;
    held_back.retain(|id, revisions| {
        revisions.retain(|revision, _| {
            inputs.revisions.contains_key(revision) && (aim.revision() == Some(*revision) || good.contains(revision))
        });
        let placed = inputs.hosts.get(id).is_some_and(|host| host.placement != Placement::Unplaced);
        placed && !revisions.is_empty()
    });
}

/// Takes in that a host leads to another machine than the one that is recorded.
fn left(
    inputs: &Inputs<'_>,
    (id, host): (&HostId, &HostInput),
    before: &OwnedHost,
    now: &MachineId,
    owned: &mut Owned,
) -> Option<LeftBehind> {
    let machine = before.machine.clone()?;
    let elsewhere = known(inputs, id, &machine);
    let fate = match elsewhere_by_address(before, host).filter(|place| !inputs.hosts.contains_key(place)) {
        Some(place) if !elsewhere => {
            let target = Arc::new(Target { id: place.clone(), ..Target::clone(&before.target) });
            let old = OwnedHost {
                target,
                machine: Some(machine.clone()),
                former: Vec::new(),
                confirmed: before.confirmed,
                in_doubt: before.in_doubt,
                carries: before.carries,
            };
            owned.hosts.insert(place.clone(), old);
            Fate::Removed(place)
        }
        _ => Fate::Unknown,
    };
    if host.placement == Placement::Unplaced {
        // It is not what the Service was put on, so nothing is taken off it.
        owned.hosts.remove(id);
        owned.confirmed_removals.remove(id);
    } else if fate == Fate::Unknown
        && !elsewhere
        && let Some(entry) = owned.hosts.get_mut(id)
    {
        entry.former.retain(|former| *former != machine);
        entry.former.push(machine.clone());
        let surplus = entry.former.len().saturating_sub(FORMER);
        entry.former.drain(..surplus);
    }
    (!elsewhere).then(|| LeftBehind { host: id.clone(), machine, now: now.clone(), fate })
}

/// Whether a machine is known by another name: two that have changed places are still where they were put.
fn known(inputs: &Inputs<'_>, not: &HostId, machine: &MachineId) -> bool {
    let mut others = inputs.hosts.iter().filter(|(id, _)| *id != not);
    others.any(|(id, host)| match &host.view {
        HostView::Seen(seen) => seen.facts.machine == *machine,
        _ => inputs.owned.hosts.get(id).is_some_and(|owned| owned.machine.as_ref() == Some(machine)),
    })
}

/// The old address, where the host has another one now: the old machine may still be there.
fn elsewhere_by_address(before: &OwnedHost, host: &HostInput) -> Option<HostId> {
    let (old, new) = (&before.target, &host.target);
    if (&old.address, old.port) == (&new.address, new.port) {
        return None;
    }
    let destination = Destination { user: old.user.clone(), address: old.address.clone(), port: Some(old.port) };
    let id = HostId::Inline(destination);
    // Only what is read back as it was written can be a key of the records.
    id.to_string().parse().ok().filter(|read| *read == id)
}

/// A row that says which machines were left behind under this name, where it has nothing worse to say.
pub(crate) fn haunted(mut row: HostRow, owned: Option<&OwnedHost>) -> HostRow {
    let former = owned.map(|owned| owned.former.as_slice()).unwrap_or_default();
    let at_work = matches!(row.state, HostState::Pending | HostState::Working | HostState::Starting);
    if (row.message.is_empty() || at_work) && !former.is_empty() {
        let names: Vec<String> = former.iter().map(ToString::to_string).collect();
        let before = if row.message.is_empty() { "" } else { "; " };
        row.message += before;
        row.message +=
            &format!("another machine was here before, and what it runs was left behind: {}", names.join(", "));
    }
    row
}
