//! Hosts in memory, no kinder than real ones: for tests of the engine, and for simulation.
//!
//! Time is tokio's, so a test that pauses it has virtual time; nothing here draws a random number, starts a task or
//! reads another clock. Everything that will happen on a host is noted with its moment when it is begun, and
//! happens when that moment is looked back upon: so a step goes on when its caller goes away, as on a real host.
//!
//! **Invariant:** one lock holds all state, and is never held over an `await`.

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_crds::digest::{PayloadDigest, ReleaseDigest};
use windlass_crds::host::Target;
use windlass_crds::id::{HostId, ServiceKey};
use windlass_crds::observation::{HealthAnswer, HostObservation, Sample};
use windlass_crds::step::{ContactError, Step, StepError};

use crate::fleet::{Fleet, Look, Material, Order, Question, Scrutiny, Stamp};
pub use behaviour::{Answer, Behaviour, Moment, Program, RestartPolicy, Start};
pub use calls::{Call, Called, Caller, Deed, OnCall};
pub use faults::{Edit, FileChange, HostChange, Link, Mishap};
pub use host::HostSettings;
pub use world::Timing;

use faults::{UNNOTICED, Waiting};
use host::Host;
use steps::Entry;
use world::{World, payload_name};

mod behaviour;
mod calls;
mod faults;
mod host;
mod steps;
#[cfg(test)]
mod tests;
mod world;

/// Hosts in memory, as one controller sees them; clones see the same hosts.
#[derive(Clone)]
pub struct MemoryFleet {
    shared: Arc<Shared>,
    caller: Caller,
}

struct Shared {
    origin: Instant,
    world: Mutex<World>,
    on_call: Mutex<Option<OnCall>>,
}

impl Default for MemoryFleet {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryFleet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("MemoryFleet").field("caller", &self.caller).finish_non_exhaustive()
    }
}

/// What a test or a simulator does with the fleet.
impl MemoryFleet {
    /// No hosts yet; its time begins now.
    pub fn new() -> Self {
        let shared = Shared { origin: Instant::now(), world: Mutex::new(World::new()), on_call: Mutex::new(None) };
        Self { shared: Arc::new(shared), caller: Caller::default() }
    }

    /// The same hosts, as another controller sees them: with links of its own.
    #[must_use]
    pub fn seen_by(&self, caller: Caller) -> Self {
        Self { shared: Arc::clone(&self.shared), caller }
    }

    /// Time since the fleet began.
    pub fn now(&self) -> Moment {
        Instant::now().saturating_duration_since(self.shared.origin)
    }

    /// Adds a machine that can be reached at this address, or replaces it by a blank one.
    pub fn add(&self, address: &str, settings: HostSettings) {
        self.with(|world, now| {
            world.hosts.insert(address.to_owned(), Host::new(address, settings, now));
        });
    }

    /// Another address of the same machine.
    pub fn add_alias(&self, alias: &str, address: &str) {
        self.with(|world, _| world.aliases.insert(alias.to_owned(), address.to_owned()));
    }

    /// Sets how long things take.
    pub fn set_timing(&self, timing: Timing) {
        self.with(|world, _| world.timing = timing);
    }

    /// Sets how long each call takes, there and back, by the host's address and what it asks.
    ///
    /// The function must not call the fleet.
    pub fn set_pace(&self, pace: impl Fn(&str, Call) -> Duration + Send + Sync + 'static) {
        self.with(|world, _| world.pace = Some(Arc::new(pace)));
    }

    /// Sets what programs with these files do, from their next start by hand or boot on.
    pub fn set_behaviour(&self, release: ReleaseDigest, behaviour: Behaviour) {
        self.with(|world, _| world.behaviours.insert(release, behaviour));
    }

    /// Sets what programs do of which [`MemoryFleet::set_behaviour`] says nothing.
    ///
    /// The function must not call the fleet, and must give the same answer to the same question.
    pub fn choose_behaviours(&self, choose: impl Fn(&Program) -> Behaviour + Send + Sync + 'static) {
        self.with(|world, _| world.chooser = Some(Arc::new(choose)));
    }

    /// Sets the way from every controller to a host.
    pub fn set_link(&self, address: &str, link: Link) {
        self.with(|world, _| {
            let address = world.resolve(address);
            world.links.insert((None, address), link)
        });
    }

    /// Sets the way from this controller alone to a host; [`Link::Up`] leaves it to the way of all.
    pub fn set_own_link(&self, address: &str, link: Link) {
        self.with(|world, _| {
            let address = world.resolve(address);
            world.links.insert((Some(self.caller), address), link)
        });
    }

    /// Makes the next such call to a host go wrong; without `call`, the next that may change something.
    pub fn fail_next(&self, address: &str, call: Option<Call>, mishap: Mishap) {
        self.on_host(address, |host| host.mishaps.push_back(Waiting { call, mishap }));
    }

    /// How many mishaps still wait for their call: 0 says that all have landed.
    pub fn mishaps_waiting(&self, address: &str) -> usize {
        self.on_host(address, |host| host.mishaps.len())
    }

    /// Changes a host itself.
    pub fn change(&self, address: &str, change: HostChange) {
        self.on_host(address, |host| host.change(change));
    }

    /// Lays a hand other than ours on a service of a host.
    pub fn edit(&self, address: &str, service: &ServiceKey, edit: Edit) {
        self.with(|world, now| {
            let address = world.resolve(address);
            world.edit(&address, service, edit, now);
        });
    }

    /// Takes a host's power away, and gives it back so that it can be reached after `dark`.
    pub fn reboot(&self, address: &str, dark: Duration) {
        self.with(|world, now| {
            let address = world.resolve(address);
            world.reboot(&address, now, dark);
        });
    }

    /// What a host has of a service in truth: no link, no delay, every hash looked at.
    pub fn peek(&self, address: &str, service: &ServiceKey) -> HostObservation {
        self.with(|world, now| host(world, address).observe(service, Scrutiny::Full, None, now))
    }

    /// Whether a service's own data is on a host.
    pub fn has_data(&self, address: &str, service: &ServiceKey) -> bool {
        self.on_host(address, |host| host.services.get(service).is_some_and(|held| held.data))
    }

    /// Whether a service's program runs there and answers well.
    pub fn serves(&self, address: &str, service: &ServiceKey) -> bool {
        self.with(|world, now| host(world, address).serves(service, now))
    }

    /// The addresses of hosts that served a confirmed revision until a step of ours, and do not serve now.
    ///
    /// A host is no longer counted once a revision is confirmed there, or the service is removed.
    pub fn down(&self, service: &ServiceKey) -> Vec<String> {
        self.with(|world, now| world.down(service, now).into_iter().collect())
    }

    /// The most hosts that [`MemoryFleet::down`] held at once.
    pub fn max_down(&self, service: &ServiceKey) -> usize {
        self.with(|world, _| world.max_down(service))
    }

    /// Counts [`MemoryFleet::max_down`] anew, from what is down now.
    pub fn reset_max_down(&self, service: &ServiceKey) {
        self.with(|world, now| world.forget_max_down(service, now));
    }

    /// The log of calls, in the order in which they were made; the last 100,000.
    pub fn calls(&self) -> Vec<Called> {
        self.with(|world, _| world.calls().cloned().collect())
    }

    /// Those of them that stamped or were steps, a line each.
    pub fn changes(&self) -> Vec<String> {
        self.with(|world, _| world.calls().filter(|called| called.call.changes()).map(Called::to_string).collect())
    }

    /// Empties the log of calls.
    pub fn clear_calls(&self) {
        self.with(|world, _| world.clear_calls());
    }

    /// Has each call told when it begins and when it ends; the function may use the fleet.
    pub fn on_call(&self, told: impl Fn(&Called) + Send + Sync + 'static) {
        *self.shared.on_call.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(told));
    }

    /// How a machine of the fleet is reached.
    ///
    /// # Panics
    /// Where `address` is not an address.
    pub fn target(&self, address: &str) -> Target {
        let id: HostId = address.parse().expect("a host's address is the name of a Host or a destination");
        Target::inline(&id).unwrap_or_else(|| Target {
            id,
            address: address.to_owned(),
            port: NonZeroU16::new(22).expect("22 is not zero"),
            user: None,
            key_file: None,
            host_keys: Vec::new(),
            privilege: None,
            remote_dir: None,
        })
    }

    /// Everything that is due has happened when `act` sees the world.
    fn with<R>(&self, act: impl FnOnce(&mut World, Moment) -> R) -> R {
        let now = self.now();
        let mut world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        world.settle(now);
        act(&mut world, now)
    }

    fn on_host<R>(&self, address: &str, act: impl FnOnce(&mut Host) -> R) -> R {
        self.with(|world, _| act(host(world, address)))
    }
}

/// A host that a test speaks of.
fn host<'a>(world: &'a mut World, address: &str) -> &'a mut Host {
    let address = world.resolve(address);
    world.hosts.get_mut(&address).unwrap_or_else(|| panic!("no host was added at {address}"))
}

/// A call under way.
struct Ticket {
    number: u64,
    address: String,
    call: Call,
    mishap: Option<Mishap>,
}

fn lost() -> ContactError {
    ContactError::Lost { detail: "Connection reset by peer".to_owned() }
}

fn contact(error: ContactError) -> StepError {
    StepError::Contact { error }
}

/// How a call travels.
impl MemoryFleet {
    /// Notes a call in the log.
    fn open(
        &self,
        target: &Target,
        call: Call,
        service: Option<&ServiceKey>,
        stamp: Option<(&Stamp, Option<&Step>)>,
    ) -> Ticket {
        let (called, mishap) = self.with(|world, now| {
            let address = world.resolve(&target.address);
            let mishaps = world.hosts.get_mut(&address).map(|host| &mut host.mishaps);
            let mishap = mishaps.and_then(|mishaps| {
                let place = mishaps.iter().position(|waiting| waiting.fits(call))?;
                mishaps.remove(place)
            });
            let called = world.log(Called {
                number: 0,
                caller: self.caller,
                host: target.id.clone(),
                address,
                call,
                service: service.cloned(),
                sequence: stamp.map(|(stamp, _)| stamp.sequence),
                revision: stamp.and_then(|(_, step)| step).and_then(Step::revision),
                began: now,
                ended: None,
                deed: Deed::Nothing,
                error: None,
            });
            (called, mishap.map(|waiting| waiting.mishap))
        });
        self.tell(&called);
        Ticket { number: called.number, address: called.address, call, mishap }
    }

    /// Notes how it ended.
    fn close<T>(&self, ticket: &Ticket, result: Result<T, StepError>) -> Result<T, StepError> {
        let called = self.with(|world, now| {
            let called = world.called(ticket.number)?;
            called.ended = Some(now);
            called.error = result.as_ref().err().cloned();
            Some(called.clone())
        });
        if let Some(called) = called {
            self.tell(&called);
        }
        result
    }

    fn tell(&self, called: &Called) {
        let told = self.shared.on_call.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(told) = told {
            told(called);
        }
    }

    fn note(&self, ticket: &Ticket, deed: Deed) {
        self.with(|world, _| {
            if let Some(called) = world.called(ticket.number) {
                called.deed = deed;
            }
        });
    }

    async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }

    /// What stands in the way to a host, and how long it takes to notice.
    fn obstacle(&self, target: &Target, address: &str) -> Option<(ContactError, Duration)> {
        self.with(|world, now| {
            let away = Some((ContactError::Timeout { seconds: UNNOTICED.as_secs() }, UNNOTICED));
            let link = match world.link(self.caller, address) {
                Link::Up if world.hosts.contains_key(address) => None,
                Link::Up => Some(Link::no_address()),
                down @ Link::Down { .. } => Some(down),
            };
            if let Some(Link::Down { error, after }) = link {
                return Some((error, after));
            }
            let host = &world.hosts[address];
            if now < host.up {
                return away;
            }
            let pinned = host.settings.host_key.as_ref().filter(|_| !target.host_keys.is_empty());
            match (pinned.is_some_and(|key| !target.host_keys.contains(key)), Link::wrong_host_key()) {
                (true, Link::Down { error, after }) => Some((error, after)),
                _ => None,
            }
        })
    }

    /// The way there.
    async fn reach(&self, target: &Target, ticket: &Ticket) -> Result<(), ContactError> {
        if let Some((error, after)) = self.obstacle(target, &ticket.address) {
            self.wait(after).await;
            return Err(error);
        }
        let half = self.with(|world, _| world.half_way(&ticket.address, ticket.call));
        self.wait(half).await;
        match ticket.mishap {
            Some(Mishap::LostBefore) => Err(lost()),
            _ => self.still_there(target, ticket).await,
        }
    }

    /// The way back.
    async fn answer(&self, target: &Target, ticket: &Ticket) -> Result<(), ContactError> {
        let half = self.with(|world, _| world.half_way(&ticket.address, ticket.call));
        self.wait(half).await;
        match ticket.mishap {
            Some(Mishap::LostReply) => Err(lost()),
            _ => self.still_there(target, ticket).await,
        }
    }

    /// Whether a connection that was in use still is: packets that vanish, and a host that does, end it.
    async fn still_there(&self, target: &Target, ticket: &Ticket) -> Result<(), ContactError> {
        match self.obstacle(target, &ticket.address) {
            Some((error @ ContactError::Timeout { .. }, after)) => {
                self.wait(after).await;
                Err(error)
            }
            Some((ContactError::Lost { .. } | ContactError::Refused { .. }, _)) => Err(lost()),
            // Keys and logins are asked for when a connection is made, not while it lasts.
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for a service's lock as long as the script would, and then does what it is for.
    async fn under_lock<R>(&self, act: impl Fn(&mut World, Moment) -> Result<R, Moment>) -> Result<R, StepError> {
        let deadline = self.with(|world, now| now + world.timing.lock);
        loop {
            let until = match self.with(&act) {
                Ok(done) => return Ok(done),
                Err(until) => until,
            };
            if self.now() >= deadline {
                return Err(StepError::Locked);
            }
            tokio::time::sleep_until(self.shared.origin + until.min(deadline)).await;
        }
    }

    /// Stamps a host.
    async fn stamp(&self, ticket: &Ticket, service: &ServiceKey, stamp: &Stamp) -> Result<(), StepError> {
        let passed = self.under_lock(|world, _| match world.locked(&ticket.address, service) {
            Some(until) => Err(until),
            None => Ok(world.pass_fence(&ticket.address, service, stamp)),
        });
        passed.await?
    }

    /// Does a step on a host that was reached, and waits for its end.
    async fn perform(&self, ticket: &Ticket, order: &Order, material: Option<&Material>) -> Result<(), StepError> {
        let mishap = ticket.mishap.as_ref();
        let entry = self.under_lock(|world, now| match world.begin(&ticket.address, order, material, mishap, now) {
            Entry::Locked { until } => Err(until),
            entry => Ok(entry),
        });
        let (ends, boot) = match entry.await? {
            Entry::Refused(error) => return Err(error),
            Entry::Replayed(outcome) => {
                self.note(ticket, Deed::Replayed);
                return outcome;
            }
            Entry::Begun { ends, boot } => (ends, boot),
            Entry::Locked { .. } => unreachable!("`under_lock` waits while the lock is held"),
        };
        self.note(ticket, Deed::Begun);
        tokio::time::sleep_until(self.shared.origin + ends).await;
        if mishap == Some(&Mishap::TimesOut) {
            return Err(StepError::TimedOut { detail: format!("systemctl, in {}", order.step) });
        }
        self.with(|world, _| {
            let same_boot = world.hosts.get(&ticket.address).is_some_and(|host| host.boot == boot);
            world.recorded(&ticket.address, order).filter(|_| same_boot).unwrap_or_else(|| Err(contact(lost())))
        })
    }

    /// Sends what a stage needs; what has arrived stays there, whatever becomes of the rest.
    async fn send(&self, ticket: &Ticket, order: &Order, material: &Material) -> Result<(), StepError> {
        let name = payload_name(steps::id_revision(&order.step), &material.manifest.digest());
        let size = material.manifest.size();
        let (arrived, speed, free) = self.with(|world, _| {
            let speed = world.timing.bytes_per_second.max(1);
            let host = host(world, &ticket.address);
            let held = host.services.entry(order.service.clone()).or_default();
            let there = held.releases.contains_key(&material.manifest.digest());
            let arrived = held.incoming.filter(|(arriving, _)| *arriving == name).map_or(0, |(_, bytes)| bytes);
            (if there { size } else { arrived.min(size) }, speed, host.free_kib())
        });
        if size - arrived > free.saturating_mul(1024) {
            return Err(StepError::NoSpace { detail: "No space left on device".to_owned() });
        }
        let mut upload =
            Upload { fleet: self, ticket, order, name, arrived, speed, size, began: self.now(), whole: false };
        if let Some(Mishap::HalfUpload { bytes }) = ticket.mishap {
            upload.size = bytes.min(size);
            self.wait(upload.takes()).await;
            return Err(contact(lost()));
        }
        self.wait(upload.takes()).await;
        upload.whole = true;
        Ok(())
    }

    async fn staged(
        &self,
        ticket: &Ticket,
        target: &Target,
        order: &Order,
        material: &Material,
    ) -> Result<(), StepError> {
        self.reach(target, ticket).await.map_err(contact)?;
        let Step::Stage { revision: _, release } = &order.step else {
            return Err(StepError::Failed { code: 2, detail: format!("{} is not a stage", order.step) });
        };
        if material.manifest.digest() != *release {
            return Err(StepError::Damaged { detail: "the manifest is not the release's".to_owned() });
        }
        // The fence is asked before the payload is sent, and again under the lock when it has arrived.
        self.stamp(ticket, &order.service, &order.stamp).await?;
        let recorded = self.with(|world, _| world.recorded(&ticket.address, order));
        let outcome = if let Some(outcome) = recorded {
            self.note(ticket, Deed::Replayed);
            outcome
        } else {
            self.send(ticket, order, material).await?;
            self.still_there(target, ticket).await.map_err(contact)?;
            self.perform(ticket, order, Some(material)).await
        };
        self.answer(target, ticket).await.map_err(contact)?;
        outcome
    }
}

/// A payload on its way; where it ends before it is whole, the host keeps what has arrived.
struct Upload<'a> {
    fleet: &'a MemoryFleet,
    ticket: &'a Ticket,
    order: &'a Order,
    name: PayloadDigest,
    /// So many bytes were there before.
    arrived: u64,
    /// Bytes a second.
    speed: u64,
    /// Bytes that the connection carries, with those that were there.
    size: u64,
    began: Moment,
    whole: bool,
}

impl Upload<'_> {
    fn takes(&self) -> Duration {
        let left = self.size.saturating_sub(self.arrived);
        Duration::from_micros(left.saturating_mul(1_000_000) / self.speed)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        self.fleet.with(|world, now| {
            let elapsed = u64::try_from(now.saturating_sub(self.began).as_micros()).unwrap_or(u64::MAX);
            let sent = elapsed.saturating_mul(self.speed) / 1_000_000;
            let there = self.arrived.saturating_add(sent).min(self.size);
            if let Some(host) = world.hosts.get_mut(&self.ticket.address) {
                let held = host.services.entry(self.order.service.clone()).or_default();
                held.incoming = Some((self.name, there));
            }
        });
    }
}

impl Fleet for MemoryFleet {
    async fn observe(&self, target: &Target, look: &Look) -> Result<HostObservation, StepError> {
        let call = if look.stamp.is_some() { Call::Stamp } else { Call::Observe };
        let stamp = look.stamp.as_ref().map(|stamp| (stamp, None));
        let ticket = self.open(target, call, Some(&look.service), stamp);
        let looked = async {
            self.reach(target, &ticket).await.map_err(contact)?;
            if let Some(Mishap::Answers(error)) = &ticket.mishap {
                return Err(error.clone());
            }
            let stamped = match &look.stamp {
                Some(stamp) => self.stamp(&ticket, &look.service, stamp).await,
                None => Ok(()),
            };
            let seen = self.with(|world, now| {
                host(world, &ticket.address).observe(&look.service, look.scrutiny, target.user.as_deref(), now)
            });
            self.answer(target, &ticket).await.map_err(contact)?;
            stamped.map(|()| seen)
        };
        let result = looked.await;
        self.close(&ticket, result)
    }

    async fn stage(&self, target: &Target, order: &Order, material: &Material) -> Result<(), StepError> {
        let ticket = self.open(
            target,
            Call::Step(order.step.verb()),
            Some(&order.service),
            Some((&order.stamp, Some(&order.step))),
        );
        let result = self.staged(&ticket, target, order, material).await;
        self.close(&ticket, result)
    }

    async fn act(&self, target: &Target, order: &Order) -> Result<(), StepError> {
        let ticket = self.open(
            target,
            Call::Step(order.step.verb()),
            Some(&order.service),
            Some((&order.stamp, Some(&order.step))),
        );
        let acted = async {
            self.reach(target, &ticket).await.map_err(contact)?;
            if let Step::Stage { .. } = order.step {
                return Err(StepError::Failed { code: 2, detail: "a stage needs its material".to_owned() });
            }
            let outcome = self.perform(&ticket, order, None).await;
            self.answer(target, &ticket).await.map_err(contact)?;
            outcome
        };
        let result = acted.await;
        self.close(&ticket, result)
    }

    async fn sample(
        &self,
        target: &Target,
        service: &ServiceKey,
        port: Option<NonZeroU16>,
    ) -> Result<Sample, ContactError> {
        let ticket = self.open(target, Call::Sample, Some(service), None);
        let looked = async {
            self.reach(target, &ticket).await?;
            let sample = self.with(|world, now| {
                let host = host(world, &ticket.address);
                Sample {
                    run: host.run_state(service, now),
                    monotonic: host.monotonic(now),
                    listener: port.map(|port| host.listener(service, port, now)),
                }
            });
            self.answer(target, &ticket).await.map(|()| sample)
        };
        let result = looked.await;
        let _ = self.close(&ticket, result.clone().map_err(contact));
        result
    }

    async fn ask(&self, target: &Target, question: &Question) -> HealthAnswer {
        let ticket = self.open(target, Call::Ask, None, None);
        let asked = async {
            self.reach(target, &ticket).await?;
            let (answer, delay) = self.with(|world, now| host(world, &ticket.address).ask(question, now));
            self.wait(delay).await;
            self.answer(target, &ticket).await.map(|()| answer)
        };
        let result = asked.await;
        let _ = self.close(&ticket, result.clone().map_err(contact));
        result.unwrap_or_else(|error| HealthAnswer::Unknown { detail: error.to_string() })
    }

    async fn logs(&self, target: &Target, service: &ServiceKey, lines: u32) -> Result<Vec<String>, ContactError> {
        let ticket = self.open(target, Call::Logs, Some(service), None);
        let read = async {
            self.reach(target, &ticket).await?;
            let lines = usize::try_from(lines).unwrap_or(usize::MAX);
            let logged = self.with(|world, now| {
                let host = host(world, &ticket.address);
                host.services.get(service).map(|held| held.logs(now, lines)).unwrap_or_default()
            });
            self.answer(target, &ticket).await.map(|()| logged)
        };
        let result = read.await;
        let _ = self.close(&ticket, result.clone().map_err(contact));
        result
    }
}
