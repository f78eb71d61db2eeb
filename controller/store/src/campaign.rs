//! Campaigns: waiting to become the one controller that acts.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};

use crate::backoff::Backoff;
use crate::call::{CallError, Repeat};
use crate::connect::Store;
use crate::entry::{Entry, LeaseId, StoreRevision};
use crate::follow::{Change, Follower, Update};
use crate::key::{Control, Key};
use crate::leadership::{LeaderRecord, Leadership};
use crate::report::Call;
use crate::scope::Scope;
use crate::write::whole_seconds;

/// How long after its last keep-alive a leader that died still holds up the next one. Shorter makes a slow disk of
/// etcd cost leaderships, longer leaves the fleet without a controller.
pub const LEADERSHIP_TTL: Duration = Duration::from_secs(15);

/// Why a campaign was given up. An etcd that is away is no reason: the campaign waits for it.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The store answered, and will not have us.
    #[error("the store does not let this controller lead")]
    Refused(#[source] CallError),
}

/// What lies at the leader's key, as far as we have heard.
enum Seat {
    /// We have not heard yet, or what we heard has changed since.
    Unknown,
    /// A living controller's: its lease will end with it.
    Taken,
    /// Nobody's.
    Free,
    /// A value without a lease, which no controller put there and which would stay for ever.
    Squatted(Entry),
}

impl Seat {
    fn of(entry: Option<Entry>) -> Self {
        match entry {
            None => Self::Free,
            Some(entry) if entry.lease.is_none() => Self::Squatted(entry),
            Some(_) => Self::Taken,
        }
    }
}

impl Store {
    /// Waits until this controller leads. `identity` names it to people; `ttl` is [`LEADERSHIP_TTL`] but in tests,
    /// and etcd makes less than about 2 s of it 2 s.
    ///
    /// While another leads it only watches, and writes nothing. An etcd that is away is waited for. Dropped before
    /// it is done, it may leave a lease behind, which ends by itself.
    ///
    /// # Errors
    /// When the store answers that we may not.
    pub async fn campaign(&self, identity: &str, ttl: Duration) -> Result<Leadership, CampaignError> {
        let mut follower = self.follow(Scope::key(&Key::Control(Control::Leader)));
        let mut seat = Seat::Unknown;
        let mut backoff = Backoff::new(self.machine());
        loop {
            let outcome = match &seat {
                Seat::Unknown | Seat::Taken => {
                    seat = self.hear(&mut follower, seat).await;
                    continue;
                }
                Seat::Free => self.stand(identity, ttl).await,
                Seat::Squatted(entry) => self.clear_seat(entry).await.map(|()| None),
            };
            match outcome {
                Ok(Some(leadership)) => return Ok(leadership),
                // The follower will tell what became of it.
                Ok(None) => seat = Seat::Unknown,
                Err(error) if error.is_transient() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot stand for leadership yet");
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(CampaignError::Refused(error)),
            }
        }
    }

    /// Waits for the next thing to hear of the leader's key.
    async fn hear(&self, follower: &mut Follower, seat: Seat) -> Seat {
        match follower.next().await {
            Update::Snapshot { entries, .. } => Seat::of(entries.into_iter().next()),
            Update::Changes { changes, .. } => match changes.into_iter().last() {
                Some(Change::Put(entry)) => Seat::of(Some(entry)),
                Some(Change::Deleted { .. }) => Seat::Free,
                None => seat,
            },
            // Somebody was quicker, and nothing was told of it by now.
            Update::Progress { .. } if matches!(seat, Seat::Unknown) => {
                self.get(&Key::Control(Control::Leader)).await.map_or(seat, Seat::of)
            }
            Update::Progress { .. } => seat,
            Update::Interrupted { error } => {
                // Whoever follows the store tells it to people.
                tracing::debug!(error = &error as &dyn std::error::Error, "waiting to lead, and the store is away");
                seat
            }
        }
    }

    /// Deletes what lies at the leader's key, if it is still that. Not simply put over, since a key that is created
    /// anew has a revision of its own, by which one leadership is told from all others.
    async fn clear_seat(&self, squatter: &Entry) -> Result<(), CallError> {
        let leader = self.path(&Key::Control(Control::Leader));
        let expected = squatter.mod_revision.as_etcd();
        self.call(Call::Txn, Repeat::Freely, |mut client| {
            let txn = Txn::new()
                .when([Compare::mod_revision(leader.clone(), CompareOp::Equal, expected)])
                .and_then([TxnOp::delete(leader.clone(), None)]);
            async move { client.txn(txn).await }
        })
        .await
        .map(drop)
    }

    /// Tries once to take the seat; nothing when another was quicker.
    async fn stand(&self, identity: &str, ttl: Duration) -> Result<Option<Leadership>, CallError> {
        let granted = self.machine().since_boot();
        let seconds = whole_seconds(ttl);
        let grant = self
            .call(Call::LeaseGrant, Repeat::Freely, |mut client| async move { client.lease_grant(seconds, None).await })
            .await?;
        let lease = LeaseId(grant.id());
        let ttl = Duration::from_secs(u64::try_from(grant.ttl()).unwrap_or(0));
        if let Some(created) = self.take_seat(identity, lease).await? {
            return Ok(Some(Leadership::begin(self, lease, created, ttl, granted)));
        }
        // It would end by itself; that it cannot be revoked now does not matter.
        let _ = self.revoke_lease(lease).await;
        Ok(None)
    }

    /// Puts our record at the leader's key. Safe to do twice: the second finds the first by its lease.
    async fn take_seat(&self, identity: &str, lease: LeaseId) -> Result<Option<StoreRevision>, CallError> {
        let leader = self.path(&Key::Control(Control::Leader));
        let record = record(identity);
        let answer = self
            .call(Call::Txn, Repeat::Freely, |mut client| {
                let options = PutOptions::new().with_lease(lease.0);
                let txn = Txn::new()
                    .when([Compare::create_revision(leader.clone(), CompareOp::Equal, 0)])
                    .and_then([TxnOp::put(leader.clone(), record.clone(), Some(options))])
                    .or_else([TxnOp::get(leader.clone(), None)]);
                async move { client.txn(txn).await }
            })
            .await?;
        if answer.succeeded() {
            return Ok(Some(crate::write::revision(answer.header())));
        }
        let there = crate::commit::found(&answer).into_iter().next().flatten();
        Ok(there.filter(|pair| pair.lease() == lease.0).map(|pair| StoreRevision::from_etcd(pair.create_revision())))
    }
}

fn record(identity: &str) -> Vec<u8> {
    let record = LeaderRecord {
        identity: identity.to_owned(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        since: jiff::Timestamp::now().to_string(),
    };
    serde_json::to_vec(&record).expect("a struct of texts and a number is JSON")
}
