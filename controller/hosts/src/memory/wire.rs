//! How a call travels to a host in memory and back, and what can happen to it on the way.

use std::num::NonZeroU16;
use std::time::Duration;

use windlass_crds::digest::{PayloadDigest, ReleaseDigest};
use windlass_crds::host::Target;
use windlass_crds::id::{BootId, ServiceKey};
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{HealthAnswer, HostObservation, Sample};
use windlass_crds::step::{ContactError, Step, StepError};

use super::behaviour::Moment;
use super::calls::{Call, Called, Deed};
use super::faults::{Link, Mishap, UNNOTICED};
use super::host::Held;
use super::steps::{Doing, Entry, id_revision};
use super::world::{World, payload_name};
use super::{MemoryFleet, host};
use crate::fleet::{Adoption, Fleet, Look, Material, Order, Question, Stamp};

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
                Some(stamp) => {
                    let patience = self.with(|world, _| world.timing.stamp_lock);
                    self.stamp(&ticket, &look.service, stamp, patience).await
                }
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
                return Err(contact(ContactError::Local { detail: "a stage needs its material".to_owned() }));
            }
            let outcome = self.perform(&ticket, order).await;
            self.answer(target, &ticket).await.map_err(contact)?;
            outcome
        };
        let result = acted.await;
        self.close(&ticket, result)
    }

    async fn adopt(&self, target: &Target, adoption: &Adoption) -> Result<(), StepError> {
        let ticket = self.open(target, Call::Adopt, None, None);
        let adopted = async {
            self.reach(target, &ticket).await.map_err(contact)?;
            let outcome = self.with(|world, _| host(world, &ticket.address).adopt(adoption));
            self.answer(target, &ticket).await.map_err(contact)?;
            outcome
        };
        let result = adopted.await;
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
                    boot: host.boot.clone(),
                    run: host.run_state(service, now),
                    // As in /proc/uptime: hundredths of a second, so that it may lag behind `since`.
                    monotonic: host.monotonic(now) / 10_000 * 10_000,
                    listener: port.map(|port| host.listener(service, port, now)),
                    voided: host.services.get(service).is_some_and(Held::is_voided),
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

    async fn manifest(
        &self,
        target: &Target,
        service: &ServiceKey,
        release: &ReleaseDigest,
    ) -> Result<Option<Manifest>, ContactError> {
        let ticket = self.open(target, Call::Manifest, Some(service), None);
        let read = async {
            self.reach(target, &ticket).await?;
            let held = self.with(|world, _| {
                let held = host(world, &ticket.address).services.get(service)?;
                held.releases.get(release).map(|release| release.manifest.clone())
            });
            self.answer(target, &ticket).await.map(|()| held)
        };
        let result = read.await;
        let _ = self.close(&ticket, result.clone().map(drop).map_err(contact));
        result
    }
}

/// A call under way.
struct Ticket {
    number: u64,
    address: String,
    /// The boot of the host when the call was made: a connection does not outlive it.
    boot: Option<BootId>,
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
        let (called, mishap, boot) = self.with(|world, now| {
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
            let boot = world.hosts.get(&called.address).map(|host| host.boot.clone());
            (called, mishap.map(|waiting| waiting.mishap), boot)
        });
        self.tell(&called);
        Ticket { number: called.number, address: called.address, boot, call, mishap }
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
        let told = self.told();
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
            if now < host.up || host.is_severed(now) {
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
            Some(_) | None => {
                let boot = self.with(|world, _| world.hosts.get(&ticket.address).map(|host| host.boot.clone()));
                if boot == ticket.boot { Ok(()) } else { Err(lost()) }
            }
        }
    }

    /// Waits at most so long for a service's lock, and then does what it is for.
    async fn under_lock<R>(
        &self,
        patience: Duration,
        act: impl Fn(&mut World, Moment) -> Result<R, Moment>,
    ) -> Result<R, StepError> {
        let deadline = self.now() + patience;
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

    /// Stamps a host, waiting so long for its lock.
    async fn stamp(
        &self,
        ticket: &Ticket,
        service: &ServiceKey,
        stamp: &Stamp,
        patience: Duration,
    ) -> Result<(), StepError> {
        let passed = self.under_lock(patience, |world, _| match world.locked(&ticket.address, service) {
            Some(until) => Err(until),
            None => Ok(world.pass_fence(&ticket.address, service, stamp)),
        });
        passed.await?
    }

    /// Waits for the end of a step.
    async fn follow(&self, ticket: &Ticket, order: &Order, doing: Result<Doing, StepError>) -> Result<(), StepError> {
        let doing = doing?;
        self.note(ticket, Deed::Begun);
        tokio::time::sleep_until(self.shared.origin + doing.ends).await;
        let end = self.with(|world, _| world.end_of(&ticket.address, &order.service, &doing));
        end.unwrap_or_else(|| Err(contact(lost())))
    }

    /// Begins a step, and does `then` under the same lock; `Err` is its answer already.
    async fn enter<R>(
        &self,
        ticket: &Ticket,
        order: &Order,
        then: impl Fn(&mut World, Moment) -> R,
    ) -> Result<R, Result<(), StepError>> {
        let patience = order.force_after + self.with(|world, _| world.timing.lock);
        let entry = self.under_lock(patience, |world, now| match world.enter(&ticket.address, order) {
            Entry::Locked { until } => Err(until),
            Entry::Open => Ok(Ok(then(world, now))),
            Entry::Refused(error) => Ok(Err((Deed::Nothing, Err(error)))),
            Entry::Replayed(outcome) => Ok(Err((Deed::Replayed, outcome))),
        });
        match entry.await {
            Ok(Ok(entered)) => Ok(entered),
            Ok(Err((deed, answer))) => {
                self.note(ticket, deed);
                Err(answer)
            }
            Err(error) => Err(Err(error)),
        }
    }

    /// Does a step that needs nothing but its order.
    async fn perform(&self, ticket: &Ticket, order: &Order) -> Result<(), StepError> {
        let mishap = ticket.mishap.as_ref();
        let entered =
            self.enter(ticket, order, |world, now| world.carry_out(&ticket.address, order, None, mishap, now)).await;
        match entered {
            Ok(doing) => self.follow(ticket, order, doing).await,
            Err(answer) => answer,
        }
    }

    /// Does a stage: the lock is not held while the payload is on its way, and the fence asked again when it is there.
    async fn install(
        &self,
        target: &Target,
        ticket: &Ticket,
        order: &Order,
        material: &Material,
    ) -> Result<(), StepError> {
        let opened = |world: &mut World, _| {
            host(world, &ticket.address).services.get_mut(&order.service).map(|held| held.home = true)
        };
        if let Err(answer) = self.enter(ticket, order, opened).await {
            return answer;
        }
        self.note(ticket, Deed::Begun);
        self.send(target, ticket, order, material).await?;
        let patience = order.force_after + self.with(|world, _| world.timing.lock);
        let mishap = ticket.mishap.as_ref();
        let doing = self.under_lock(patience, |world, now| {
            if let Some(until) = world.locked(&ticket.address, &order.service) {
                return Err(until);
            }
            let passed = world.pass_fence(&ticket.address, &order.service, &order.stamp);
            Ok(passed.and_then(|()| world.carry_out(&ticket.address, order, Some(material), mishap, now)))
        });
        let doing = doing.await?;
        self.follow(ticket, order, doing).await
    }

    /// Sends what a stage needs; what has arrived stays there, whatever becomes of the rest.
    async fn send(
        &self,
        target: &Target,
        ticket: &Ticket,
        order: &Order,
        material: &Material,
    ) -> Result<(), StepError> {
        let name = payload_name(id_revision(&order.step), &material.manifest.digest());
        let size = material.manifest.size();
        let (arrived, speed, free) = self.with(|world, _| {
            let speed = world.timing.bytes_per_second.max(1);
            let host = host(world, &ticket.address);
            let held = host.services.entry(order.service.clone()).or_default();
            let release = held.releases.get(&material.manifest.digest());
            let there = release.is_some_and(|release| release.damage.is_empty());
            let arrived = held.incoming.filter(|(arriving, _)| *arriving == name).map_or(0, |(_, bytes)| bytes);
            let free = host.free_kib();
            (if there { size } else { arrived.min(size) }, speed, if host.disk_full { None } else { Some(free) })
        });
        if free.is_none_or(|free| size - arrived > free.saturating_mul(1024)) {
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
        self.still_there(target, ticket).await.map_err(contact)?;
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
            return Err(contact(ContactError::Local { detail: format!("{} is not a stage", order.step) }));
        };
        if material.manifest.digest() != *release {
            return Err(StepError::Damaged { detail: "the manifest is not the release's".to_owned() });
        }
        let outcome = self.install(target, ticket, order, material).await;
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
