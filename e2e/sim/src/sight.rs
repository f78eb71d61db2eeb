//! The fleet as one controller sees it, over its ways; whatever it does there is held against the invariants.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use windlass_crds::digest::ReleaseDigest;
use windlass_crds::host::Target;
use windlass_crds::id::ServiceKey;
use windlass_crds::manifest::Manifest;
use windlass_crds::observation::{HealthAnswer, HostObservation, Sample, StepRecord};
use windlass_crds::step::{ContactError, Step, StepError, Verb};
use windlass_hosts::fleet::{Adoption, Fleet, Look, Material, Order, Question, Stamp};
use windlass_hosts::memory::MemoryFleet;

use crate::oracle::{Issued, Oracle};
use crate::way::Way;

/// One controller's fleet.
pub struct Sight {
    /// With links of its own.
    pub fleet: MemoryFleet,
    /// Which may be frozen, or end.
    pub way: Way,
    /// Who watches.
    pub oracle: Arc<Oracle>,
}

impl Fleet for Sight {
    async fn observe(&self, target: &Target, look: &Look) -> Result<HostObservation, StepError> {
        let stamps = look.stamp.is_some();
        let what = if stamps { "stamp" } else { "look" };
        let found = self.way.reach(what, stamps, self.fleet.observe(target, look)).await;
        if !matches!(found, Err(StepError::Contact { .. })) {
            self.oracle.heard(&target.address, &look.service);
        }
        found
    }

    async fn stamp(
        &self,
        target: &Target,
        service: &ServiceKey,
        stamp: &Stamp,
    ) -> Result<BTreeMap<Verb, StepRecord>, StepError> {
        self.way.reach("stamp", true, self.fleet.stamp(target, service, stamp)).await
    }

    async fn stage(&self, target: &Target, order: &Order, material: &Material) -> Result<(), StepError> {
        let doing = self.fleet.stage(target, order, material);
        self.step(target, order, doing, None::<fn(Issued)>).await
    }

    async fn act(&self, target: &Target, order: &Order) -> Result<(), StepError> {
        let doing = self.fleet.act(target, order);
        self.step(target, order, doing, Some(|issued| self.leave_behind(target, order, issued))).await
    }

    async fn adopt(&self, target: &Target, adoption: &Adoption) -> Result<(), StepError> {
        self.way.reach("adopt", true, self.fleet.adopt(target, adoption)).await
    }

    async fn sample(
        &self,
        target: &Target,
        service: &ServiceKey,
        port: Option<NonZeroU16>,
    ) -> Result<Sample, ContactError> {
        self.way.reach("sample", false, self.fleet.sample(target, service, port)).await
    }

    async fn ask(&self, target: &Target, question: &Question) -> HealthAnswer {
        self.way.reach("ask", false, self.fleet.ask(target, question)).await
    }

    async fn logs(&self, target: &Target, service: &ServiceKey, lines: u32) -> Result<Vec<String>, ContactError> {
        self.way.reach("logs", false, self.fleet.logs(target, service, lines)).await
    }

    async fn manifest(
        &self,
        target: &Target,
        service: &ServiceKey,
        release: &ReleaseDigest,
    ) -> Result<Option<Manifest>, ContactError> {
        self.way.reach("manifest", false, self.fleet.manifest(target, service, release)).await
    }
}

impl Sight {
    async fn step(
        &self,
        target: &Target,
        order: &Order,
        doing: impl Future<Output = Result<(), StepError>>,
        left: Option<impl FnOnce(Issued)>,
    ) -> Result<(), StepError> {
        let what = format!("{} on {}", order.step, target.id);
        let issued = self.oracle.issued(&self.way, target, order).await;
        let behind = issued.clone();
        let told = async {
            let done = doing.await;
            self.oracle.done(&self.way, target, order, &issued, &done);
            done
        };
        match left {
            Some(left) => self.way.send(&what, told, || left(behind)).await,
            None => self.way.reach(&what, true, told).await,
        }
    }

    /// What was on its way to a host when its sender died may arrive long after, when somebody else leads.
    fn leave_behind(&self, target: &Target, order: &Order, issued: Issued) {
        let late = self.way.late();
        let (fleet, oracle, way) = (self.fleet.clone(), Arc::clone(&self.oracle), self.way.clone());
        let (target, order) = (target.clone(), order.clone());
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            let done = fleet.act(&target, &order).await;
            oracle.arrived(&way, &target, &order, &issued, &done);
        });
    }
}

/// Whether a step makes a host run a revision.
pub(crate) fn activates(step: &Step) -> bool {
    matches!(step, Step::Activate { .. })
}
