//! Plays a script's operations on a server, one after the other.

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, CompactionOptions, DeleteOptions, Error, LeaseGrantOptions, LeaseTimeToLiveOptions};
use tokio::time::timeout;

use super::answer::Answer;
use super::operation::{Delete, Get, Lease, Operation, Put, Txn};
use super::request::{delete_options, put_options};
use super::told::{Origin, lease, lease_id};
use super::watching::Watching;
use crate::PATIENCE;

/// One script on one server, which nobody else uses meanwhile.
pub(crate) struct Session {
    client: Client,
    origin: Origin,
    watching: Watching,
}

impl Session {
    /// Empties the server, and begins a script there.
    ///
    /// Revisions count from here; what lies before is compacted, so that all scripts begin alike.
    pub(crate) async fn begin(endpoint: &str) -> Result<Self> {
        let mut client = Client::connect([endpoint], None).await?;
        for lease in client.leases().await?.leases() {
            client.lease_revoke(lease.id()).await?;
        }
        client.put("~origin", "", None).await?;
        let emptied = client.delete("\0", Some(DeleteOptions::new().with_range("\0"))).await?;
        let origin = emptied.header().context("an answer without a header")?.revision();
        // etcd takes the deletion away some time after any other compaction, and a watch sees it until then.
        client.compact(origin, Some(CompactionOptions::new().with_physical())).await?;
        let origin = Origin(origin);
        Ok(Self { watching: Watching::new(client.clone(), origin), client, origin })
    }

    /// Does one operation. What the server refuses is an answer too; an error is that it did not answer.
    pub(crate) async fn play(&mut self, operation: &Operation) -> Result<Answer> {
        let answer =
            timeout(PATIENCE, self.ask(operation)).await.with_context(|| format!("no answer to {operation}"))?;
        answer.or_else(refused).with_context(|| format!("on {operation}"))
    }

    async fn ask(&mut self, operation: &Operation) -> Result<Answer> {
        let origin = self.origin;
        match operation {
            Operation::Put(put) => self.put(put).await,
            Operation::Get(get) => self.get(get).await,
            Operation::Delete(delete) => self.delete(delete).await,
            Operation::Txn(txn) => self.txn(txn).await,
            Operation::Compact { revision, physical } => {
                // A watch that has not caught up might or might not lose its history.
                self.watching.settle().await?;
                let options = CompactionOptions::new();
                let options = if *physical { options.with_physical() } else { options };
                let told = self.client.compact(origin.absolute(*revision), Some(options)).await?;
                self.watching.compacted(*revision);
                Ok(Answer::Compact { revision: origin.header(told.header()) })
            }
            Operation::Grant { lease, ttl } => self.grant(*lease, *ttl).await,
            Operation::Revoke(lease) => {
                let told = self.client.lease_revoke(lease_id(*lease)).await?;
                Ok(Answer::Revoke { revision: origin.header(told.header()) })
            }
            Operation::KeepAlive(lease) => self.keep_alive(*lease).await,
            Operation::TimeToLive { lease, keys } => self.time_to_live(*lease, *keys).await,
            Operation::Leases => self.leases().await,
            Operation::Watch(watch) => self.watching.create(watch).await,
            Operation::Cancel(name) => self.watching.cancel(*name).await,
            Operation::Events => {
                self.watching.settle().await?;
                Ok(Answer::Events { watches: self.watching.take() })
            }
            Operation::Progress => self.watching.progress().await,
        }
    }

    async fn put(&mut self, put: &Put) -> Result<Answer> {
        let told = self.client.put(put.key.clone(), put.value.clone(), Some(put_options(put))).await?;
        Ok(self.origin.put(&told))
    }

    async fn get(&mut self, get: &Get) -> Result<Answer> {
        let told = self.client.get(get.range.key.clone(), Some(self.origin.get_options(get))).await?;
        Ok(self.origin.get(&told))
    }

    async fn delete(&mut self, delete: &Delete) -> Result<Answer> {
        let told = self.client.delete(delete.range.key.clone(), Some(delete_options(delete))).await?;
        Ok(self.origin.delete(&told))
    }

    async fn txn(&mut self, txn: &Txn) -> Result<Answer> {
        let told = self.client.txn(self.origin.txn_request(txn)?).await?;
        Ok(self.origin.txn(&told))
    }

    async fn grant(&mut self, name: Lease, ttl: i64) -> Result<Answer> {
        let options = LeaseGrantOptions::new().with_id(lease_id(name));
        let told = self.client.lease_grant(ttl, Some(options)).await?;
        let revision = self.origin.header(told.header());
        Ok(Answer::Grant { revision, lease: lease(told.id()), ttl: told.ttl(), error: told.error().to_owned() })
    }

    async fn keep_alive(&mut self, name: Lease) -> Result<Answer> {
        // etcd-client keeps the first answer for itself, so the second one is looked at.
        let (mut keeper, mut answers) = self.client.lease_keep_alive(lease_id(name)).await?;
        keeper.keep_alive().await?;
        let told = answers.message().await?.context("the stream of keep-alives ended")?;
        Ok(Answer::KeepAlive { revision: self.origin.header(told.header()), lease: lease(told.id()), ttl: told.ttl() })
    }

    async fn time_to_live(&mut self, name: Lease, keys: bool) -> Result<Answer> {
        let options = LeaseTimeToLiveOptions::new();
        let options = if keys { options.with_keys() } else { options };
        let told = self.client.lease_time_to_live(lease_id(name), Some(options)).await?;
        let (left, granted) = (told.ttl(), told.granted_ttl());
        ensure!(left <= granted.max(-1), "{left} s are left of a lease that was granted {granted} s");
        // etcd keeps them in a map, and gives them as that likes.
        let mut keys = told.keys().to_vec();
        keys.sort();
        let revision = self.origin.header(told.header());
        Ok(Answer::TimeToLive { revision, lease: lease(told.id()), granted, expired: left < 0, keys })
    }

    async fn leases(&mut self) -> Result<Answer> {
        let told = self.client.leases().await?;
        // They come by what is left of them, and equals in any order.
        let mut leases: Vec<Lease> = told.leases().iter().map(|told| lease(told.id())).collect();
        leases.sort();
        Ok(Answer::Leases { revision: self.origin.header(told.header()), leases })
    }
}

/// What the server refused, as its answer.
fn refused(error: anyhow::Error) -> Result<Answer> {
    match error.downcast_ref::<Error>() {
        Some(Error::GRpcStatus(status)) => {
            Ok(Answer::Error { code: format!("{:?}", status.code()), message: status.message().to_owned() })
        }
        // A lease that is not there has no time left: no error on the wire, but one of etcd-client's.
        Some(Error::LeaseKeepAliveError(message)) => {
            Ok(Answer::Error { code: "keep-alive".to_owned(), message: message.clone() })
        }
        _ => Err(error),
    }
}
