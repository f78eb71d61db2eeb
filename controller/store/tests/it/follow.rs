//! Following: whatever becomes of etcd and of the network, the listener ends up knowing what is there.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_crds::audit::Chain;
use windlass_crds::id::RecordNumber;
use windlass_store::{ConnectOptions, Key, Scope, Store, Write};
use windlass_testbed::Etcd;

use crate::mirror::Mirror;
use crate::proxy::Proxy;
use crate::{check, connect, freeze, host, lead, status, until};

/// A few tries with their pauses, on a busy machine; less than it takes to find out by failing again and again.
const PROMPT: Duration = Duration::from_secs(4);

fn declared(name: &str) -> Key {
    Key::Declared(host(name))
}

/// A mirror behind a proxy, and a store beside it.
async fn behind_proxy(etcd: &Etcd) -> Result<(Proxy, Mirror, Store)> {
    let store = connect(etcd).await?;
    store.declare(&host("a"), b"1".to_vec()).await?;
    let proxy = Proxy::to(&etcd.endpoint()).await?;
    let behind = Store::connect(&ConnectOptions::new([proxy.endpoint()])).await?;
    let mut mirror = Mirror::of(behind.follow(Scope::state())).await?;
    let revision = store.declare(&host("b"), b"1".to_vec()).await?;
    mirror.until("the first change", |mirror| mirror.revision >= revision).await?;
    Ok((proxy, mirror, store))
}

#[test]
fn changes_are_told_in_order_and_others_left_out() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        let before = mirror.entries.len();
        store.declare(&host("a"), b"1".to_vec()).await?;
        store.declare(&host("a"), b"2".to_vec()).await?;
        store.delete_declaration(&host("a")).await?;
        store.declare(&host("b"), b"1".to_vec()).await?;
        let event = Write::put(Key::Event { id: "e".parse()? }, "x");
        let audit = Write::put(Key::Audit(Chain::Leader, RecordNumber(1)), "x");
        let last = store.commit(&leadership, &[event, audit]).await?;
        // Nothing of the last commit is in the scope, and its revision is reached all the same.
        mirror.until("the last commit", |mirror| mirror.revision >= last).await?;
        ensure!(mirror.changes == 4 && mirror.entries.len() == before + 1 && mirror.value(&declared("b")) == Some("1"));
        ensure!(mirror.snapshots == 1 && mirror.interruptions == 0);
        Ok(())
    });
}

#[test]
fn a_killed_etcd_that_comes_back_is_followed_from_where_it_was() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        for round in 1..=3 {
            etcd.etcdctl(&["put", "/windlass/declared/hosts/before", &round.to_string()])?;
            etcd.kill9();
            mirror.until("the interruption", |mirror| mirror.interruptions == round).await?;
            etcd.restart()?;
            etcd.etcdctl(&["put", "/windlass/declared/hosts/after", &round.to_string()])?;
            let value = round.to_string();
            let took = mirror
                .until("the change after the restart", |mirror| {
                    mirror.value(&declared("after")) == Some(value.as_str())
                })
                .await?;
            ensure!(took < Duration::from_secs(15), "took {took:?}");
            ensure!(mirror.value(&declared("before")) == Some(value.as_str()));
        }
        // Told one by one, not by listing again, and each interruption once.
        ensure!(mirror.changes == 6 && mirror.snapshots == 1 && mirror.interruptions == 3);
        Ok(())
    });
}

#[test]
fn an_interruption_is_told_once_however_long() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let mut follower = store.follow(Scope::state());
        ensure!(matches!(follower.next().await, windlass_store::Update::Snapshot { .. }));
        etcd.kill9();
        ensure!(matches!(follower.next().await, windlass_store::Update::Interrupted { .. }));
        let more = tokio::time::timeout(Duration::from_secs(8), follower.next()).await;
        ensure!(more.is_err(), "told {more:?} while etcd was away");
        etcd.restart()?;
        // Nothing changed, and the listener hears that all is well again.
        ensure!(matches!(follower.next().await, windlass_store::Update::Progress { .. }));
        Ok(())
    });
}

#[test]
fn what_was_compacted_while_away_is_listed_again() {
    check(async |etcd| {
        let (proxy, mut mirror, store) = behind_proxy(&etcd).await?;
        proxy.cut();
        mirror.until("the interruption", |mirror| mirror.interruptions == 1).await?;
        store.delete_declaration(&host("a")).await?;
        store.declare(&host("b"), b"2".to_vec()).await?;
        let last = store.declare(&host("c"), b"1".to_vec()).await?;
        etcd.compact()?;
        proxy.pass(&etcd.endpoint())?;
        let took = mirror.until("a second snapshot", |mirror| mirror.snapshots == 2).await?;
        ensure!(took < PROMPT, "took {took:?}");
        ensure!(mirror.revision >= last && mirror.value(&declared("a")).is_none());
        ensure!(mirror.value(&declared("b")) == Some("2") && mirror.value(&declared("c")) == Some("1"));
        let next = store.declare(&host("d"), b"1".to_vec()).await?;
        mirror.until("what follows", |mirror| mirror.revision >= next).await?;
        ensure!(mirror.value(&declared("d")) == Some("1") && mirror.snapshots == 2);
        Ok(())
    });
}

#[test]
fn thousands_of_missed_revisions_are_caught_up() {
    check(async |etcd| {
        let (proxy, mut mirror, _) = behind_proxy(&etcd).await?;
        let (store, leadership) = lead(&etcd).await?;
        proxy.cut();
        mirror.until("the interruption", |mirror| mirror.interruptions == 1).await?;
        let already = mirror.changes;
        let mut last = mirror.revision;
        // etcd sends a thousand revisions at once to a watch that catches up; each of these has three keys.
        for round in 0..2500 {
            let writes = ["x", "y", "z"].map(|name| Write::put(status(name), round.to_string()));
            last = store.commit(&leadership, &writes).await?;
        }
        proxy.pass(&etcd.endpoint())?;
        mirror.until("the last of them", |mirror| mirror.revision >= last).await?;
        ensure!(mirror.snapshots == 1, "listed again");
        // And the leader's key.
        let told = mirror.changes - already;
        ensure!(told == 7500 || told == 7501, "{told} changes");
        Ok(())
    });
}

#[test]
fn a_frozen_etcd_is_noticed_and_followed_on() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        freeze(&etcd).await?;
        let took = mirror.until("the interruption", |mirror| mirror.interruptions == 1).await?;
        ensure!(took < Duration::from_secs(30), "noticed after {took:?}");
        etcd.thaw()?;
        let revision = store.declare(&host("a"), b"1".to_vec()).await?;
        mirror.until("the change", |mirror| mirror.revision >= revision).await?;
        ensure!(mirror.value(&declared("a")) == Some("1"));
        Ok(())
    });
}

#[test]
fn a_network_that_swallows_packets_is_noticed() {
    check(async |etcd| {
        let (proxy, mut mirror, store) = behind_proxy(&etcd).await?;
        proxy.stall();
        let revision = store.declare(&host("a"), b"2".to_vec()).await?;
        let took = mirror.until("the interruption", |mirror| mirror.interruptions == 1).await?;
        ensure!(took < Duration::from_secs(30), "noticed after {took:?}");
        proxy.pass(&etcd.endpoint())?;
        mirror.until("the change", |mirror| mirror.revision >= revision).await?;
        ensure!(mirror.value(&declared("a")) == Some("2"));
        Ok(())
    });
}

#[test]
fn a_store_restored_to_an_earlier_revision_is_listed_again() {
    check(async |etcd| {
        let (proxy, mut mirror, store) = behind_proxy(&etcd).await?;
        for _ in 0..50 {
            store.declare(&host("a"), b"2".to_vec()).await?;
        }
        let last = store.declare(&host("late"), b"1".to_vec()).await?;
        mirror.until("the last change", |mirror| mirror.revision >= last).await?;

        let restored = Etcd::start(etcd.version())?;
        restored.etcdctl(&["put", "/windlass/declared/hosts/a", "old"])?;
        proxy.pass(&restored.endpoint())?;
        let took = mirror.until("a second snapshot", |mirror| mirror.snapshots == 2).await?;
        ensure!(took < PROMPT, "took {took:?}");
        ensure!(mirror.revision < last && mirror.value(&declared("late")).is_none());
        ensure!(mirror.value(&declared("a")) == Some("old"));
        restored.etcdctl(&["put", "/windlass/declared/hosts/a", "new"])?;
        mirror.until("what follows", |mirror| mirror.value(&declared("a")) == Some("new")).await?;
        Ok(())
    });
}

#[test]
fn what_a_watch_did_not_tell_is_read_before_what_came_after_it() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        store.declare(&host("a"), b"1".to_vec()).await?;
        let proxy = Proxy::with_losses(&etcd.endpoint()).await?;
        let behind = Store::connect(&ConnectOptions::new([proxy.endpoint()])).await?;
        let mut mirror = Mirror::of(behind.follow(Scope::state())).await?;
        let first = store.declare(&host("b"), b"1".to_vec()).await?;
        mirror.until("the first change", |mirror| mirror.revision >= first).await?;

        proxy.lose("untold");
        store.declare(&host("lost"), b"untold".to_vec()).await?;
        until("it is lost", async || Ok(proxy.has_lost())).await?;
        ensure!(mirror.value(&declared("lost")).is_none());
        let after = store.declare(&host("after"), b"1".to_vec()).await?;
        mirror.until("what came after it", |mirror| mirror.revision >= after).await?;
        ensure!(mirror.value(&declared("lost")) == Some("untold") && mirror.value(&declared("after")) == Some("1"));
        ensure!(mirror.snapshots == 2 && mirror.interruptions == 0);

        // And where nothing comes after it.
        proxy.lose("/windlass/declared/hosts/lost");
        store.delete_declaration(&host("lost")).await?;
        let took = mirror.until("the deletion", |mirror| mirror.value(&declared("lost")).is_none()).await?;
        ensure!(proxy.has_lost() && took < Duration::from_secs(30), "noticed after {took:?}");
        ensure!(mirror.snapshots == 3 && mirror.interruptions == 0);

        // A watch that compaction overtakes, and that lives on, tells what comes after that.
        proxy.lose("overtaken");
        let lost = store.declare(&host("lost"), b"overtaken".to_vec()).await?;
        until("it is lost", async || Ok(proxy.has_lost())).await?;
        etcd.etcdctl(&["compact", &lost.to_string()])?;
        let last = store.declare(&host("last"), b"1".to_vec()).await?;
        mirror.until("what came after it", |mirror| mirror.revision >= last).await?;
        ensure!(mirror.value(&declared("lost")) == Some("overtaken") && mirror.snapshots == 4);
        Ok(())
    });
}

#[test]
fn writes_of_others_beside_ours_are_nothing_that_was_missed() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        let mut last = mirror.revision;
        for round in 0..30 {
            etcd.etcdctl(&["put", "/others/key", &round.to_string()])?;
            let [same, new] = ["same".to_owned(), format!("new{round}")].map(|name| host(&name));
            store.declare(&same, round.to_string().into_bytes()).await?;
            store.declare(&new, b"1".to_vec()).await?;
            last = store.revision().await?;
            if round % 3 == 0 {
                etcd.etcdctl(&["del", "/others/key"])?;
                last = store.delete_declaration(&new).await?.unwrap_or(last);
            }
        }
        etcd.etcdctl(&["put", "/others/key", "last"])?;
        mirror.until("the last change", |mirror| mirror.revision >= last).await?;
        ensure!(mirror.entries.len() == 21 && mirror.value(&declared("same")) == Some("29"));
        // The store was asked about the first gaps, and had told everything.
        let signs = mirror.signs;
        mirror.until("two signs of life", |mirror| mirror.signs >= signs + 2).await?;
        ensure!(mirror.snapshots == 1 && mirror.interruptions == 0, "{} snapshots", mirror.snapshots);
        Ok(())
    });
}

#[test]
fn a_slow_listener_misses_nothing() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let follower = store.follow(Scope::state());
        let mut last = store.revision().await?;
        for round in 0..300 {
            last = store.commit(&leadership, &[Write::put(status("a"), round.to_string())]).await?;
        }
        let mut mirror = Mirror::of(follower).await?;
        mirror.until("the last", |mirror| mirror.revision >= last).await?;
        ensure!(mirror.value(&status("a")) == Some("299") && mirror.interruptions == 0 && mirror.snapshots == 1);
        Ok(())
    });
}
