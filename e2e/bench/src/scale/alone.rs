//! The hosts' own time: the same steps on the same hosts, so many at a time, with nobody who decides or records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::stream::TryStreamExt as _;
use tokio_util::sync::CancellationToken;
use windlass_crds::digest::FileDigest;
use windlass_crds::document::{Declaration, parse_at};
use windlass_crds::host::Target;
use windlass_crds::id::{ClusterId, ResourceKey, RevisionNumber, Sequence, ServiceKey};
use windlass_crds::manifest::{Entry, Manifest};
use windlass_crds::service::{ServiceSpec, Transport};
use windlass_crds::step::Step;
use windlass_engine::judge::{Case, Found, Rules, judge};
use windlass_engine::starts::Starts;
use windlass_hosts::fleet::{Fleet as _, Material, Order, Stamp};
use windlass_hosts::memory::MemoryFleet;

use super::crowd::{AT_ONCE, Crowd, WIDE, address};

/// How long it takes until the Service on every host has gone from its first revision to its second, `AT_ONCE` hosts at
/// a time: each is switched, judged and confirmed, and the next begins at once. The release has come before, as it
/// does in a rollout; that of the first host is counted.
///
/// # Errors
/// When a step does not succeed.
pub(crate) async fn time(crowd: Crowd) -> Result<Duration> {
    let alone = Arc::new(Alone::new(crowd)?);
    let hosts = || (0..crowd.hosts).map(|number| alone.fleet.target(&address(number)));
    alone.all(hosts(), |alone, target| async move { alone.change(&target, RevisionNumber(1)).await }).await?;
    let began = Instant::now();
    alone.stage(&alone.fleet.target(&address(0)), RevisionNumber(2)).await?;
    let first = began.elapsed();
    alone.all(hosts(), |alone, target| async move { alone.stage(&target, RevisionNumber(2)).await }).await?;
    let began = Instant::now();
    alone.all(hosts(), |alone, target| async move { alone.switch(&target, RevisionNumber(2)).await }).await?;
    Ok(first + began.elapsed())
}

struct Alone {
    fleet: MemoryFleet,
    service: ServiceKey,
    rules: Rules,
    starts: Starts,
    manifest: Arc<Manifest>,
    cluster: ClusterId,
}

impl Alone {
    fn new(crowd: Crowd) -> Result<Self> {
        let service: ServiceKey = format!("default/{WIDE}").parse()?;
        let text = crowd.wide(1, Path::new("/srv")).1;
        let parsed = parse_at(&ResourceKey::Service(service.clone()), text.as_bytes());
        let Ok(Declaration::Service(declared)) = parsed else { bail!("the declaration makes no sense") };
        let entry = Entry::File { digest: FileDigest::of(b"program"), size: 30, executable: false };
        let manifest =
            Arc::new(Manifest { entries: [("server.py".parse().map_err(|error| anyhow!("{error}"))?, entry)].into() });
        let rules = Rules { spec: declared.spec, default_transport: Transport::Http };
        Ok(Self {
            fleet: crowd.fleet(),
            service,
            rules,
            starts: Starts::default(),
            manifest,
            cluster: "0123456789abcdef".parse().context("an id")?,
        })
    }

    /// Does the same on all hosts, so many at a time.
    async fn all<Done>(
        self: &Arc<Self>,
        hosts: impl Iterator<Item = Target>,
        act: impl Fn(Arc<Self>, Target) -> Done,
    ) -> Result<()>
    where
        Done: Future<Output = Result<()>>,
    {
        let acts = futures::stream::iter(hosts.map(|target| Ok(act(Arc::clone(self), target))));
        acts.try_buffer_unordered(AT_ONCE).try_for_each(|()| async { Ok(()) }).await
    }

    fn order(&self, step: Step, revision: RevisionNumber) -> Order {
        Order {
            service: self.service.clone(),
            stamp: Stamp { sequence: Sequence(revision.0), cluster: self.cluster.clone() },
            step,
            force_after: Duration::from_secs(10),
            confirm_within: Duration::from_secs(60),
        }
    }

    fn spec(&self, revision: RevisionNumber) -> ServiceSpec {
        let mut spec = self.rules.spec.clone();
        spec.runtime.env.insert("VERSION".to_owned(), revision.to_string());
        spec
    }

    async fn change(&self, target: &Target, revision: RevisionNumber) -> Result<()> {
        self.stage(target, revision).await?;
        self.switch(target, revision).await
    }

    async fn stage(&self, target: &Target, revision: RevisionNumber) -> Result<()> {
        let material = Material {
            spec: self.spec(revision),
            manifest: Arc::clone(&self.manifest),
            bases: BTreeMap::new(),
            contents: Arc::new(|_| PathBuf::new()),
            seen: None,
        };
        let step = Step::Stage { revision, release: self.manifest.digest() };
        Ok(self.fleet.stage(target, &self.order(step, revision), &material).await?)
    }

    async fn switch(&self, target: &Target, revision: RevisionNumber) -> Result<()> {
        self.fleet.act(target, &self.order(Step::Activate { revision }, revision)).await?;
        let case = Case { target, service: &self.service, rules: &self.rules, starts: Some(&self.starts) };
        match judge(&self.fleet, case, &CancellationToken::new()).await {
            Found::Healthy(_) => {}
            other => bail!("{}: {other:?}", target.id),
        }
        Ok(self.fleet.act(target, &self.order(Step::Confirm { revision, keep: Vec::new() }, revision)).await?)
    }
}
