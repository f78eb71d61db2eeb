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
use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::{HostId, ServiceKey};
use windlass_crds::observation::HostObservation;

use crate::fleet::Scrutiny;
pub use behaviour::{Answer, Behaviour, Moment, Program, RestartPolicy, Start};
pub use calls::{Call, Called, Caller, Deed, OnCall};
pub use faults::{Edit, FileChange, Flaw, HostChange, Link, Mishap};
pub use host::HostSettings;
pub use world::Timing;

use faults::Waiting;
use host::{Held, Host};
use world::{Watch, World};

mod behaviour;
mod calls;
mod faults;
mod host;
mod steps;
#[cfg(test)]
mod tests;
mod wire;
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
        Self::of(World::new(Watch::Closely))
    }

    /// The same with nobody who watches: no call is logged, and it is not counted how many hosts are down. For many
    /// hosts in real time, where both would take longer than what is watched.
    pub fn unwatched() -> Self {
        Self::of(World::new(Watch::Nothing))
    }

    fn of(world: World) -> Self {
        let shared = Shared { origin: Instant::now(), world: Mutex::new(world), on_call: Mutex::new(None) };
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

    /// Gives every host a flaw.
    pub fn set_flaw(&self, flaw: Flaw) {
        self.with(|world, _| world.flaw = Some(flaw));
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

    /// Whether a program that runs there, or will at the end of a boot, keeps everybody from it.
    pub fn is_severed(&self, address: &str) -> bool {
        self.with(|world, _| host(world, address).services.values().any(Held::severs))
    }

    /// Whether a host will take back by itself what it runs of a service, unless that is confirmed or stopped before.
    pub fn goes_back(&self, address: &str, service: &ServiceKey) -> bool {
        self.on_host(address, |host| host.services.get(service).is_some_and(Held::goes_back))
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

    /// Who wants to be told of calls.
    fn told(&self) -> Option<OnCall> {
        self.shared.on_call.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
