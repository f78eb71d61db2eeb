//! Writes of users, and the store's identity.

use anyhow::ensure;
use windlass_store::{ConnectOptions, DECLARATION_BYTES, Expectation, Key, Store, WriteError};

use crate::{check, connect, host, report};

#[test]
fn declarations_come_and_go() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let first = store.declare(&host("a"), b"one".to_vec()).await?;
        let second = store.declare(&host("a"), b"two".to_vec()).await?;
        ensure!(second > first);
        let entry = store.get(&Key::Declared(host("a"))).await?.expect("declared");
        ensure!(entry.value == b"two" && entry.mod_revision == second && entry.create_revision == first);
        ensure!(entry.version == 2 && entry.lease.is_none());
        ensure!(etcd.etcdctl(&["get", "--print-value-only", "/windlass/declared/hosts/a"])? == "two\n");
        let third = store.delete_declaration(&host("a")).await?;
        ensure!(third > Some(second));
        ensure!(store.delete_declaration(&host("a")).await?.is_none());
        ensure!(store.get(&Key::Declared(host("a"))).await?.is_none());
        ensure!(store.declare(&host("a"), vec![b'x'; DECLARATION_BYTES]).await.is_ok());
        let large = store.declare(&host("a"), vec![b'x'; DECLARATION_BYTES + 1]).await;
        ensure!(matches!(large, Err(WriteError::TooLarge { .. })));
        Ok(())
    });
}

#[test]
fn of_two_who_stand_on_the_same_one_is_refused() {
    check(async |etcd| {
        let (one, other) = (connect(&etcd).await?, connect(&etcd).await?);
        let declare = |store: &Store, value: &str, expect| {
            let (store, value) = (store.clone(), value.as_bytes().to_vec());
            async move { store.declare_expecting(&host("a"), value, expect).await }
        };
        let both = tokio::join!(declare(&one, "1", Expectation::Absent), declare(&other, "2", Expectation::Absent));
        let (first, refused) = match both {
            (Ok(first), Err(refused)) | (Err(refused), Ok(first)) => (first, refused),
            other => anyhow::bail!("{other:?}"),
        };
        ensure!(matches!(&refused, WriteError::Conflict { key } if *key == Key::Declared(host("a"))), "{refused}");
        let second = declare(&one, "3", Expectation::At(first)).await?;
        let late = declare(&other, "4", Expectation::At(first)).await;
        ensure!(matches!(late, Err(WriteError::Conflict { .. })), "{late:?}");
        let third = declare(&other, "5", Expectation::Any).await?;
        ensure!(third > second && store_holds(&one).await? == b"5");
        let large = declare(&one, &"x".repeat(DECLARATION_BYTES + 1), Expectation::Any).await;
        ensure!(matches!(large, Err(WriteError::TooLarge { .. })));
        Ok(())
    });
}

async fn store_holds(store: &Store) -> anyhow::Result<Vec<u8>> {
    Ok(store.get(&Key::Declared(host("a"))).await?.map(|entry| entry.value).unwrap_or_default())
}

#[test]
fn a_request_is_made_once() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let first = store.request(&host("a"), &"r1".parse()?, b"reconcile".to_vec()).await?;
        let again = store.request(&host("a"), &"r1".parse()?, b"reconcile".to_vec()).await?;
        ensure!(first == again);
        let other = store.request(&host("a"), &"r1".parse()?, b"undo".to_vec()).await;
        ensure!(matches!(other, Err(WriteError::Exists { .. })), "{other:?}");
        store.request(&host("a"), &"r2".parse()?, b"undo".to_vec()).await?;
        Ok(())
    });
}

#[test]
fn the_cluster_id_is_made_once() {
    check(async |etcd| {
        let (one, other) = (connect(&etcd).await?, connect(&etcd).await?);
        let (a, b) = tokio::try_join!(one.cluster_id(), other.cluster_id())?;
        ensure!(a == b && one.cluster_id().await? == a);
        let revision = etcd.revision()?;
        connect(&etcd).await?.cluster_id().await?;
        ensure!(etcd.revision()? == revision);
        let neighbour = ConnectOptions { prefix: "/other".parse()?, ..ConnectOptions::new(etcd.endpoints()) };
        ensure!(Store::connect(&neighbour).await?.cluster_id().await? != a);
        etcd.etcdctl(&["put", "/windlass/control/cluster", "?"])?;
        let damaged = one.cluster_id().await;
        ensure!(damaged.is_err_and(|error| report(error).contains("control/cluster")));
        Ok(())
    });
}

#[test]
fn a_later_layout_is_refused() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        store.cluster_id().await?;
        connect(&etcd).await?;
        etcd.etcdctl(&["put", "/windlass/control/layout", "99"])?;
        let refused = connect(&etcd).await;
        ensure!(refused.is_err_and(|error| report(error).contains("layout \"99\"")));
        ensure!(store.cluster_id().await.is_err());
        Ok(())
    });
}
