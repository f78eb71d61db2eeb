//! Leadership: one leads at a time, knows when it no longer does, and another takes over.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use windlass_crds::id::Sequence;
use windlass_store::{CommitError, ConnectOptions, LEADERSHIP_TTL, Loss, Scope, Store, Write};
use windlass_testbed::Etcd;

use crate::mirror::Mirror;
use crate::proxy::Proxy;
use crate::{PATIENCE, check, check_on_one_thread, connect, lead, status};

/// For tests of what happens after it: etcd takes no less than about this.
const SHORT: Duration = Duration::from_secs(3);

#[test]
fn who_leads_is_told_and_resigning_hands_over_at_once() {
    check(async |etcd| {
        let (store, other) = (connect(&etcd).await?, connect(&etcd).await?);
        ensure!(store.leader().await?.is_none());
        let leadership = store.campaign("first", LEADERSHIP_TTL).await?;
        let record = store.leader().await?.context("a leader")?;
        ensure!(record.identity == "first" && record.pid == std::process::id() && !record.hostname.is_empty());
        let mut standby = tokio::spawn(async move { other.campaign("second", LEADERSHIP_TTL).await });
        ensure!(tokio::time::timeout(Duration::from_secs(1), &mut standby).await.is_err(), "two lead");
        let begun = Instant::now();
        leadership.resign().await?;
        ensure!(!leadership.is_valid() && leadership.lost().await == Loss::Resigned);
        let second = tokio::time::timeout(PATIENCE, standby).await???;
        ensure!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
        ensure!(second.is_valid() && store.leader().await?.is_some_and(|leader| leader.identity == "second"));
        Ok(())
    });
}

#[test]
fn a_leader_that_died_is_followed_within_20_seconds() {
    check(async |etcd| {
        let (store, other) = (connect(&etcd).await?, connect(&etcd).await?);
        let leadership = store.campaign("first", LEADERSHIP_TTL).await?;
        let standby = tokio::spawn(async move { other.campaign("second", LEADERSHIP_TTL).await });
        // Its keep-alives end with it, and nothing is said to etcd.
        drop(leadership);
        let begun = Instant::now();
        tokio::time::timeout(PATIENCE, standby).await???;
        ensure!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
        Ok(())
    });
}

/// The one that matters: cut off from etcd, a leader stops believing in itself before another can lead.
#[test]
fn a_leader_that_is_cut_off_knows_before_another_leads() {
    check(async |etcd| {
        let direct = connect(&etcd).await?;
        let proxy = Proxy::to(&etcd.endpoint()).await?;
        let behind = Store::connect(&ConnectOptions::new([proxy.endpoint()])).await?;
        let first = behind.campaign("first", SHORT).await?;
        behind.commit(&first, &[Write::put(status("a"), "first")]).await?;
        // Past the first TTL, so that keep-alives are what keeps it.
        tokio::time::sleep(SHORT * 2).await;
        ensure!(first.is_valid());

        proxy.stall();
        let standby = tokio::spawn(async move {
            let leadership = direct.campaign("second", SHORT).await;
            (direct, leadership, Instant::now())
        });
        let loss = tokio::time::timeout(PATIENCE, first.lost()).await?;
        let lost = Instant::now();
        ensure!(loss == Loss::Expired && !first.is_valid(), "{loss:?}");
        let (direct, second, won) = tokio::time::timeout(PATIENCE, standby).await??;
        ensure!(lost < won, "both led for {:?}", lost - won);

        let second = second?;
        direct.commit(&second, &[Write::put(status("a"), "second")]).await?;
        proxy.pass(&etcd.endpoint())?;
        let outcome = behind.commit(&first, &[Write::put(status("a"), "first again")]).await;
        ensure!(matches!(outcome, Err(CommitError::LeadershipLost)), "{outcome:?}");
        ensure!(direct.get(&status("a")).await?.is_some_and(|entry| entry.value == b"second"));
        Ok(())
    });
}

/// etcd itself refuses an ex-leader, whatever that believes.
#[test]
fn etcd_refuses_an_ex_leader_that_does_not_know_yet() {
    check_on_one_thread(async |etcd| {
        let lease = |etcd: &Etcd| -> anyhow::Result<String> {
            let granted = etcd.etcdctl(&["lease", "grant", "60"])?;
            Ok(granted.split_whitespace().nth(1).context("a lease")?.to_owned())
        };
        let (store, first) = lead(&etcd).await?;
        // Another's value, lease and all, and the same key; then a new key, even of our own value.
        let own = etcd.etcdctl(&["get", "--print-value-only", "/windlass/control/leader"])?;
        etcd.etcdctl(&["put", "--lease", &lease(&etcd)?, "/windlass/control/leader", "another"])?;
        ensure!(first.is_valid(), "it noticed, so this shows nothing");
        let outcome = store.commit(&first, &[Write::put(status("a"), "1")]).await;
        ensure!(matches!(outcome, Err(CommitError::LeadershipLost)), "{outcome:?}");
        ensure!(!first.is_valid());

        etcd.etcdctl(&["del", "/windlass/control/leader"])?;
        let (store, second) = lead(&etcd).await?;
        etcd.etcdctl(&["del", "/windlass/control/leader"])?;
        etcd.etcdctl(&["put", "--lease", &lease(&etcd)?, "/windlass/control/leader", own.trim()])?;
        ensure!(second.is_valid(), "it noticed, so this shows nothing");
        let mut draw = store.draw(&second, Sequence(0)).await?;
        let outcome = store.commit_drawing(&second, &mut draw, &[]).await;
        ensure!(matches!(outcome, Err(CommitError::LeadershipLost)), "{outcome:?}");
        ensure!(store.get(&status("a")).await?.is_none());
        Ok(())
    });
}

#[test]
fn a_deleted_or_overwritten_key_is_lost_and_can_be_won_again() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        let mut terms = std::collections::BTreeSet::new();
        for arguments in [&["del", "/windlass/control/leader"][..], &["put", "/windlass/control/leader", "mine"]] {
            let leadership = store.campaign("first", LEADERSHIP_TTL).await?;
            ensure!(terms.insert(leadership.term()));
            let begun = Instant::now();
            etcd.etcdctl(arguments)?;
            let loss = tokio::time::timeout(PATIENCE, leadership.lost()).await?;
            ensure!(loss == Loss::Replaced && !leadership.is_valid(), "{loss:?}");
            ensure!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
            leadership.resign().await?;
        }
        // What somebody put there has no lease and would stay for ever: the next campaign takes the seat.
        let leadership = tokio::time::timeout(PATIENCE, store.campaign("second", LEADERSHIP_TTL)).await??;
        store.commit(&leadership, &[Write::put(status("a"), "1")]).await?;
        ensure!(terms.insert(leadership.term()), "two leaderships of one term");
        ensure!(store.leader().await?.is_some_and(|leader| leader.identity == "second"));
        Ok(())
    });
}

#[test]
fn a_revoked_lease_is_lost() {
    check(async |etcd| {
        let (_store, leadership) = lead(&etcd).await?;
        let leases = etcd.etcdctl(&["lease", "list"])?;
        let lease = leases.lines().last().context("a lease")?;
        etcd.etcdctl(&["lease", "revoke", lease])?;
        let loss = tokio::time::timeout(PATIENCE, leadership.lost()).await?;
        ensure!(matches!(loss, Loss::Replaced | Loss::Revoked), "{loss:?}");
        Ok(())
    });
}

#[test]
fn a_restart_of_etcd_costs_no_leadership() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        etcd.restart()?;
        store.commit(&leadership, &[Write::put(status("a"), "1")]).await?;
        // Beyond the TTL: the keep-alives have found etcd again.
        tokio::time::sleep(LEADERSHIP_TTL + Duration::from_secs(2)).await;
        ensure!(leadership.is_valid());
        store.commit(&leadership, &[Write::put(status("a"), "2")]).await?;
        Ok(())
    });
}

#[test]
fn a_campaign_waits_for_an_etcd_that_is_away() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        etcd.kill9();
        let campaign = tokio::spawn(async move { store.campaign("first", LEADERSHIP_TTL).await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(!campaign.is_finished());
        etcd.restart()?;
        let leadership = tokio::time::timeout(PATIENCE, campaign).await???;
        ensure!(leadership.is_valid());
        Ok(())
    });
}

#[test]
fn of_many_candidates_one_leads() {
    check(async |etcd| {
        let mut campaigns = Vec::new();
        for number in 0..5 {
            let store = connect(&etcd).await?;
            campaigns.push(tokio::spawn(async move {
                let leadership = store.campaign(&format!("c{number}"), LEADERSHIP_TTL).await?;
                anyhow::Ok((store, leadership))
            }));
        }
        for _ in 0..5 {
            let (won, _, rest) = futures::future::select_all(campaigns).await;
            let (store, leadership) = won??;
            let at = store.commit(&leadership, &[Write::put(status("a"), "1")]).await?;
            ensure!(at.0 > 0 && !rest.iter().any(tokio::task::JoinHandle::is_finished), "two lead");
            leadership.resign().await?;
            campaigns = rest;
        }
        Ok(())
    });
}

/// Two ways to one etcd stand for two members of a cluster.
#[test]
fn an_endpoint_that_goes_silent_is_left_for_another() {
    check(async |etcd| {
        let (good, bad) = (Proxy::to(&etcd.endpoint()).await?, Proxy::to(&etcd.endpoint()).await?);
        let store = Store::connect(&ConnectOptions::new([bad.endpoint(), good.endpoint()])).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        let leadership = store.campaign("first", LEADERSHIP_TTL).await?;
        // Whichever is in use: first the one, later the other.
        for (stalled, passing) in [(&bad, &good), (&good, &bad)] {
            passing.pass(&etcd.endpoint())?;
            stalled.stall();
            let begun = Instant::now();
            let revision = loop {
                match store.commit(&leadership, &[Write::put(status("a"), "1")]).await {
                    Ok(revision) => break revision,
                    Err(CommitError::Unknown(_)) => ensure!(begun.elapsed() < Duration::from_secs(15)),
                    Err(error) => return Err(error.into()),
                }
            };
            mirror.until("the commit", |mirror| mirror.revision >= revision).await?;
            ensure!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
            tokio::time::sleep(LEADERSHIP_TTL).await;
            ensure!(leadership.is_valid());
        }
        Ok(())
    });
}
