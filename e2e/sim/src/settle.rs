//! How a run ends: faults stop, and the fleet has to come to where the declarations say, and to stay there.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::RevisionNumber;
use windlass_crds::observation::{HostObservation, UnitFile};
use windlass_crds::request::Request;
use windlass_crds::status::{HostState, ServiceStatus, condition};
use windlass_hosts::memory::{Behaviour, Edit, HostChange, Link};
use windlass_planner::position::switched_to;
use windlass_store::{Scope, Section};

use crate::world::{Model, Quality, World, host_name};

/// By then it has to be where it shall be: three times the longest backoff there is.
const PATIENCE: Duration = Duration::from_secs(900);

/// So many times as long where a version does not work on one host: each time that fails, the rollout halts, and other
/// hosts get on by one step until the next.
const PICKY: u32 = 4;

/// For so long it has to stay there: three times as long as hosts are left alone.
const REST: Duration = Duration::from_secs(200);

/// Hosts are looked at once a minute.
const LOOKED_AT: Duration = Duration::from_secs(90);

/// So often it is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// So many calls are told of those that should not have been.
const MOST_TOLD: usize = 6;

/// No host waits for longer until it goes back by itself: `startPeriod`, looks, and 45 s for a takeover.
const GONE_BACK: Duration = Duration::from_secs(400);

/// A second look finds the same, so that it is not merely passing through.
const LOOKS: u32 = 3;

impl World {
    /// Ends every fault.
    ///
    /// # Errors
    /// Where there are more controllers than there can be.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.tell("faults end");
        for way in self.ways() {
            way.thaw();
            way.mend();
            way.set_off(0);
            way.lose_answers(0);
            way.loses_told(0);
        }
        for (number, _) in self.seats.iter().enumerate() {
            let caller = windlass_hosts::memory::Caller(u32::try_from(number)?);
            let fleet = self.ground.fleet.seen_by(caller);
            self.hosts.iter().for_each(|host| fleet.set_own_link(host, Link::Up));
        }
        for (host, key) in std::mem::take(&mut self.ill) {
            // Nobody restarts for them what has fallen ill by itself; here they get well again.
            let found = self.ground.fleet.peek(&host, &key).service;
            // It runs on where somebody has taken the unit file away.
            let runs = found.unit.revision().or_else(|| switched_to(&found)).or(found.good);
            let runs = runs.and_then(|revision| found.revisions.get(&revision));
            if runs.is_some_and(|release| !self.ground.oracle.knows_as_bad(release, &host)) {
                self.ground.fleet.edit(&host, &key, Edit::Behave(Behaviour::default()));
            }
        }
        for host in &self.hosts {
            self.ground.fleet.set_link(host, Link::Up);
            self.ground.fleet.change(host, HostChange::DiskFree);
        }
        Ok(())
    }

    /// Waits until everything is as declared, and then that nothing more is done.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn settles(&self) -> anyhow::Result<()> {
        self.restless.store(false, Ordering::Relaxed);
        if !self.comes_there().await? {
            return Ok(());
        }
        // By then every host was looked at once more, and what a hand had changed there was put right.
        sleep(LOOKED_AT).await;
        if !self.comes_there().await? {
            return Ok(());
        }
        if !self.looks_closely().await? || !self.comes_there().await? {
            return Ok(());
        }
        self.all_gone_back().await;
        self.tell("settled");
        self.looks_through_trail().await?;
        if self.restless.load(Ordering::Relaxed) { Ok(()) } else { self.rests().await }
    }

    /// Waits until everything is as declared; says whether it came to that.
    async fn comes_there(&self) -> anyhow::Result<bool> {
        let deadline = Instant::now() + if self.has_picky() { PATIENCE * PICKY } else { PATIENCE };
        let mut looks = 0;
        let mut resumed = BTreeSet::new();
        while looks < LOOKS {
            sleep(GLANCE).await;
            self.resume_neighbours(&mut resumed).await?;
            let why = self.not_yet().await?;
            looks = if why.is_none() { looks + 1 } else { 0 };
            if let Some(why) = why.filter(|_| Instant::now() >= deadline) {
                let leader = self.truth.leader().await?.map(|leader| leader.identity);
                self.ground.history.violated(format_args!("never settled, led by {leader:?}: {why}"));
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What could not be confirmed since another service kept everybody from the host is resumed by a person, once
    /// each time, for that service may come back; what stands still since hosts fell ill together, and what is left since
    /// it was changed again and again, as often as it is.
    async fn resume_neighbours(&self, resumed: &mut BTreeSet<(usize, String)>) -> anyhow::Result<()> {
        for (number, model) in self.services.iter().enumerate() {
            let Some(status) = self.status(&model.key).await? else { continue };
            let ready = condition(&status.conditions, ConditionType::Ready);
            let held = ready.is_some_and(|ready| ready.reason == Reason::Unconfirmed);
            if ready.is_some_and(|ready| matches!(ready.reason, Reason::MassUnhealthy | Reason::Flapping)) {
                self.ask(number, &Request::Resume).await?;
            }
            let asks = condition(&status.conditions, ConditionType::Reconciling)
                .filter(|asks| asks.reason == Reason::WaitingForApproval);
            if let (Some(asks), Some(revision)) = (asks, status.target)
                && resumed.insert((number, asks.message.clone()))
            {
                self.ask(number, &Request::next_step(revision, None)).await?;
            }
            let severed = self.hosts.iter().any(|host| self.ground.fleet.is_severed(host));
            let message = ready.map(|ready| ready.message.clone()).unwrap_or_default();
            if held && !severed && model.quality != Quality::Severing && resumed.insert((number, message)) {
                self.ask(number, &Request::Resume).await?;
            }
        }
        Ok(())
    }

    /// Waits for hosts that a service leaves, and that have yet to take back by themselves what nobody there has
    /// confirmed: that is nothing that a controller does, and its being told may come while it rests.
    async fn all_gone_back(&self) {
        let deadline = Instant::now() + GONE_BACK;
        let goes_back = |model: &Model| self.hosts.iter().any(|host| self.ground.fleet.goes_back(host, &model.key));
        let mut waits = false;
        while self.services.iter().any(goes_back) && Instant::now() < deadline {
            waits = true;
            sleep(GLANCE).await;
        }
        if waits {
            // By then it was looked at.
            sleep(LOOKED_AT).await;
        }
    }

    async fn rests(&self) -> anyhow::Result<()> {
        let (revision, changes) = (self.ground.store.revision(), self.ground.fleet.changes().len());
        let events = self.truth.list(&Scope::section(Section::Events)).await?.entries;
        sleep(REST).await;
        let (writes, calls) = (self.ground.store.revision() - revision, self.ground.fleet.changes());
        // Events are kept for an hour: each that has gone since may be one write, and nobody's.
        let left = self.truth.list(&Scope::section(Section::Events)).await?.entries;
        let gone = events.iter().filter(|event| left.iter().all(|other| other.key != event.key)).count();
        let writes = writes - i64::try_from(gone)?.min(writes);
        if writes > 0 || calls.len() > changes {
            let last = calls.get(changes..).unwrap_or_default();
            let last = last.iter().take(MOST_TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
            let now = self.truth.list(&Scope::state()).await?;
            let written = now.entries.iter().filter(|entry| entry.mod_revision.0 > revision.cast_unsigned());
            let written: Vec<String> =
                written.map(|entry| format!("{}: {}", entry.key, String::from_utf8_lossy(&entry.value))).collect();
            written.iter().for_each(|line| self.tell(line));
            self.ground.history.violated(format_args!("no rest: {writes} writes, and on hosts: {last}"));
        }
        Ok(())
    }

    /// Why something is not as declared.
    async fn not_yet(&self) -> anyhow::Result<Option<String>> {
        for model in &self.services {
            let why = if model.declared { self.runs(model).await? } else { self.is_gone(model).await? };
            if let Some(why) = why {
                return Ok(Some(format!("{}: {why}", model.key)));
            }
        }
        self.host_lies().await
    }

    /// Which Host is said not to be ready though it is in reach. One that carries nothing is looked at ever less often
    /// while it is away, so that may come long after the rest.
    async fn host_lies(&self) -> anyhow::Result<Option<String>> {
        for (index, address) in self.hosts.iter().enumerate() {
            let name = host_name(index);
            let Some(status) = self.host_status(&name).await? else { continue };
            let ready = condition(&status.conditions, ConditionType::Ready);
            let ready = ready.is_some_and(|ready| ready.status == ConditionStatus::True);
            if !ready && !self.ground.fleet.is_severed(address) {
                return Ok(Some(format!("{name} is in reach, and said not to be ready")));
            }
        }
        Ok(None)
    }

    async fn is_gone(&self, model: &Model) -> anyhow::Result<Option<String>> {
        if self.owned(&model.key).await?.is_some() || self.status(&model.key).await?.is_some() {
            return Ok(Some("something is recorded of it".to_owned()));
        }
        if self.ground.oracle.is_restored() {
            // What the older store knew nothing of stays where it is.
            return Ok(None);
        }
        Ok(self.hosts.iter().find_map(|host| {
            let found = self.ground.fleet.peek(host, &model.key).service;
            is_ours(found.unit).then(|| format!("{host} still has {:?}", found.unit))
        }))
    }

    async fn runs(&self, model: &Model) -> anyhow::Result<Option<String>> {
        let Some(status) = self.status(&model.key).await? else { return Ok(Some("nothing is said of it".to_owned())) };
        let declared = self.declared_at(&model.key).await?.unwrap_or_default();
        if status.observed_generation.0 != declared.0 {
            return Ok(Some("it was not looked at since".to_owned()));
        }
        let is = |kind, status: ConditionStatus, conditions: &ServiceStatus| {
            condition(&conditions.conditions, kind).is_some_and(|condition| condition.status == status)
        };
        if is(ConditionType::Reconciling, ConditionStatus::True, &status) && self.is_tried_again(model, &status) {
            self.restless.store(true, Ordering::Relaxed);
            return Ok(self.rows_lie(model, &status));
        }
        if is(ConditionType::Reconciling, ConditionStatus::True, &status) {
            let rows: Vec<String> =
                status.hosts.iter().map(|(id, row)| format!("{id} {:?} {}", row.state, row.message)).collect();
            return Ok(Some(format!("it is under way, {}", rows.join(", "))));
        }
        let ready = condition(&status.conditions, ConditionType::Ready);
        let (good, reason) = match ready {
            Some(ready) => (ready.status == ConditionStatus::True, ready.reason),
            None => return Ok(Some("nothing is said of Ready".to_owned())),
        };
        if let Some(why) = self.rows_lie(model, &status) {
            return Ok(Some(why));
        }
        if self.is_good(model) {
            if !good {
                let message = ready.map(|ready| ready.message.clone()).unwrap_or_default();
                return Ok(Some(format!("Ready is {reason}: {message}")));
            }
            return Ok(self.differs(model, status.target, None));
        }
        let held_back = reason == Reason::HeldBack && model.max_failures > 0;
        let told = match model.quality {
            // Nobody knows whether it is well.
            Quality::Severing => reason == Reason::Unconfirmed,
            _ => held_back || matches!(reason, Reason::RolledBack | Reason::FirstDeployUnhealthy | Reason::Unhealthy),
        };
        if good || !told {
            return Ok(Some(format!("a bad version is {reason}, ready: {good}")));
        }
        let well = |_: &&Quality| reason == Reason::HeldBack;
        if let Some(Quality::Picky(number)) = Some(&model.quality).filter(well) {
            // It runs everywhere else.
            return Ok(self.runs_bad(model).or_else(|| self.differs(model, status.target, Some(*number))));
        }
        Ok(self.runs_bad(model))
    }

    /// Whether nothing is left but hosts on which that does not work which is good elsewhere: it is tried again there for
    /// ever, ever less often.
    fn is_tried_again(&self, model: &Model, status: &ServiceStatus) -> bool {
        let Some(target) = status.target else { return false };
        let bad = |id: &windlass_crds::id::HostId| {
            let address = self.address(&id.to_string());
            let found = self.ground.fleet.peek(&address, &model.key).service;
            let shall = [Some(target), found.unit.revision()].into_iter().flatten();
            let mut releases = shall.filter_map(|revision| found.revisions.get(&revision));
            releases.any(|release| self.ground.oracle.knows_as_bad(release, &address))
        };
        let other = |row: &&HostState| !matches!(row, HostState::Ready | HostState::Removing);
        let others: Vec<_> = status.hosts.iter().filter(|(_, row)| other(&&row.state)).collect();
        let tried = |id: &windlass_crds::id::HostId, state| state == HostState::Unhealthy && bad(id);
        // What serves is not taken down, to be repaired or to go back, while one of those is down.
        let waits = |id: &windlass_crds::id::HostId, state| match state {
            HostState::Drifted | HostState::HeldBack => true,
            HostState::Pending => self.ground.fleet.serves(&self.address(&id.to_string()), &model.key),
            _ => false,
        };
        others.iter().any(|(id, row)| tried(id, row.state))
            && others.iter().all(|(id, row)| waits(id, row.state) || tried(id, row.state))
    }

    /// Whether the present version works wherever it is placed.
    fn is_good(&self, model: &Model) -> bool {
        match model.quality {
            Quality::Good => true,
            Quality::Picky(number) => !model.hosts.contains(&host_name(usize::from(number))),
            _ => false,
        }
    }

    /// Where a host does not run what it shall, but for one.
    fn differs(&self, model: &Model, target: Option<RevisionNumber>, but: Option<u8>) -> Option<String> {
        let Some(target) = target else { return Some("it has no target".to_owned()) };
        let but = but.map(usize::from);
        let serves = |host: &String| self.placed(model, host) && self.ground.fleet.serves(host, &model.key);
        let nowhere = !self.hosts.iter().any(serves);
        for (_, host) in self.hosts.iter().enumerate().filter(|(number, _)| Some(*number) != but) {
            let found: HostObservation = self.ground.fleet.peek(host, &model.key);
            let found = found.service;
            if !self.placed(model, host) {
                // What serves there goes on for as long as it serves nowhere where it shall be.
                let goes_on = nowhere && self.ground.fleet.serves(host, &model.key);
                if is_ours(found.unit) && !goes_on && !self.ground.oracle.is_restored() {
                    return Some(format!("{host} still has {:?}", found.unit));
                }
                continue;
            }
            let runs = found.unit == UnitFile::Revision(target) && found.good == Some(target);
            let files = found.revisions.get(&target) == Some(&model.release);
            if !runs || !files || !self.ground.fleet.serves(host, &model.key) {
                return Some(format!("{host} has {:?}, good {:?}, files {files}", found.unit, found.good));
            }
        }
        None
    }

    /// Where a bad version runs still, or nothing although there is something good.
    fn runs_bad(&self, model: &Model) -> Option<String> {
        self.hosts.iter().filter(|host| self.placed(model, host)).find_map(|host| {
            let found = self.ground.fleet.peek(host, &model.key).service;
            let runs = found.unit.revision().and_then(|revision| found.revisions.get(&revision));
            let serves = self.ground.fleet.serves(host, &model.key);
            let active = found.run.active == windlass_crds::observation::ActiveState::Active;
            let bad = runs.is_some_and(|release| self.ground.oracle.knows_as_bad(release, host));
            if runs == Some(&model.release) && active && bad {
                return Some(format!("{host} runs the bad version"));
            }
            // An older store may not know the revision that a host calls good.
            // Nor is what was unhealthy elsewhere started again, where it was good and has stopped.
            let good = found.good.and_then(|good| found.revisions.get(&good));
            let other = good.is_some_and(|good| *good != model.release);
            (other && !serves && !self.ground.oracle.is_restored())
                .then(|| format!("{host} has something good and does not serve"))
        })
    }

    fn placed(&self, model: &Model, address: &str) -> bool {
        model.hosts.iter().any(|name| self.address(name) == address)
    }

    /// Where a row of the status is not what the host is.
    fn rows_lie(&self, model: &Model, status: &ServiceStatus) -> Option<String> {
        let placed: Vec<&String> = model.hosts.iter().collect();
        if status.hosts.len() < placed.len() {
            return Some("there is not a row for each host".to_owned());
        }
        let mut ready = 0;
        for (id, row) in &status.hosts {
            let address = self.address(&id.to_string());
            let found = self.ground.fleet.peek(&address, &model.key).service;
            if row.revision != found.unit.revision() {
                return Some(format!("{id} has {:?}, and its row says {:?}", found.unit, row.revision));
            }
            let serves = self.ground.fleet.serves(&address, &model.key);
            if row.state == HostState::Ready && !serves {
                return Some(format!("{id} does not serve, and its row says that it is ready"));
            }
            ready += u32::from(row.state == HostState::Ready);
        }
        (status.ready != ready).then(|| format!("{ready} rows are ready, and the status says {}", status.ready))
    }
}

/// What somebody else has put in the place of a unit is not taken away.
fn is_ours(unit: UnitFile) -> bool {
    !matches!(unit, UnitFile::Absent | UnitFile::Foreign)
}
