//! Commits: all or nothing, only as expected, only while we lead; and the sequence counter.

use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_crds::id::Sequence;
use windlass_store::{CommitError, Control, Expectation, Key, MOST_WRITES, SequenceError, Write};

use crate::mirror::Mirror;
use crate::{check, freeze, lead, report, status, until};

#[test]
fn expectations_hold_or_nothing_is_written() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let at = store.commit(&leadership, &[Write::put(status("a"), "1").expecting(Expectation::Absent)]).await?;
        let b = Write::put(status("b"), "1");
        // Each is tried together with a write that could be made.
        for (write, found) in [
            (Write::put(status("a"), "2").expecting(Expectation::Absent), Some(at)),
            (Write::delete(status("a")).expecting(Expectation::At(windlass_store::StoreRevision(1))), Some(at)),
            (Write::put(status("c"), "2").expecting(Expectation::At(at)), None),
            (Write::keep(status("a"), windlass_store::StoreRevision(1)), Some(at)),
            (Write::keep(status("c"), at), None),
        ] {
            let outcome = store.commit(&leadership, &[b.clone(), write.clone()]).await;
            let key = write.key;
            ensure!(
                matches!(&outcome, Err(CommitError::Conflict { key: told, found: seen }) if **told == key && *seen == found),
                "{key}: {outcome:?}"
            );
            ensure!(store.get(&status("b")).await?.is_none());
        }
        let next = store.commit(&leadership, &[b, Write::put(status("a"), "2").expecting(Expectation::At(at))]).await?;
        let (a, b) = (store.get(&status("a")).await?, store.get(&status("b")).await?);
        ensure!(a.is_some_and(|a| a.mod_revision == next && a.value == b"2") && b.is_some());
        // What is only kept is not written.
        store.commit(&leadership, &[Write::keep(status("a"), next), Write::delete(status("b"))]).await?;
        let (a, b) = (store.get(&status("a")).await?, store.get(&status("b")).await?);
        ensure!(a.is_some_and(|a| a.mod_revision == next) && b.is_none());
        store.commit(&leadership, &[Write::delete(status("a")).expecting(Expectation::At(next))]).await?;
        ensure!(store.get(&status("a")).await?.is_none());
        Ok(())
    });
}

#[test]
fn limits_are_told_before_etcd_tells_them() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let write = |number: usize| Write::put(status(&format!("h{number}")), "x").expecting(Expectation::Absent);
        let most: Vec<Write> = (0..MOST_WRITES).map(write).collect();
        let mut mirror = Mirror::of(store.follow(windlass_store::Scope::state())).await?;
        let at = store.commit(&leadership, &most).await?;
        mirror.until("all writes of one revision", |mirror| mirror.revision >= at).await?;
        ensure!(mirror.changes == MOST_WRITES);

        let more: Vec<Write> = (0..=MOST_WRITES).map(write).collect();
        let outcome = store.commit(&leadership, &more).await;
        ensure!(matches!(outcome, Err(CommitError::TooMany { .. })), "{outcome:?}");
        let twice = [Write::put(status("a"), "1"), Write::delete(status("a"))];
        let outcome = store.commit(&leadership, &twice).await;
        ensure!(matches!(outcome, Err(CommitError::Twice { .. })), "{outcome:?}");
        let large: Vec<Write> = (0..7).map(|n| Write::put(status(&format!("l{n}")), vec![0; 230_000])).collect();
        let outcome = store.commit(&leadership, &large).await;
        ensure!(matches!(outcome, Err(CommitError::TooLarge { .. })), "{outcome:?}");
        // What we let through, etcd takes.
        let full: Vec<Write> = (0..6).map(|n| Write::put(status(&format!("l{n}")), vec![0; 261_800])).collect();
        store.commit(&leadership, &full).await?;
        Ok(())
    });
}

#[test]
fn leased_keys_vanish_and_their_lease_is_told_gone() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let lease = store.grant_lease(Duration::from_secs(2)).await?;
        let key = Key::Event { id: "e1".parse()? };
        store.commit(&leadership, &[Write::put_leased(key.clone(), "x", lease)]).await?;
        ensure!(store.get(&key).await?.is_some_and(|entry| entry.lease == Some(lease)));
        until("the event has expired", async || Ok(store.get(&key).await?.is_none())).await?;
        let outcome = store.commit(&leadership, &[Write::put_leased(key, "x", lease)]).await;
        ensure!(matches!(outcome, Err(CommitError::LeaseGone(_))), "{outcome:?}");
        Ok(())
    });
}

#[test]
fn sequences_only_grow() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let zero = Sequence(0);
        ensure!(draw(&store, &leadership, zero).await? == Sequence(1));
        ensure!(draw(&store, &leadership, zero).await? == Sequence(2));
        ensure!(draw(&store, &leadership, Sequence(40)).await? == Sequence(40));
        ensure!(draw(&store, &leadership, Sequence(7)).await? == Sequence(41));
        // Somebody raises it by hand: who draws then is told, and reads it again.
        etcd.etcdctl(&["put", "/windlass/control/sequence", "100"])?;
        let mut raised = store.draw(&leadership, zero).await?;
        let outcome = store.commit_drawing(&leadership, &mut raised, &[]).await;
        let counter = Key::Control(Control::SequenceCounter);
        ensure!(matches!(&outcome, Err(CommitError::Conflict { key, .. }) if **key == counter), "{outcome:?}");
        drop(raised);
        ensure!(draw(&store, &leadership, zero).await? == Sequence(101));
        let drawn = futures_join(&store, &leadership).await?;
        ensure!(drawn == (102..112).map(Sequence).collect::<Vec<_>>(), "{drawn:?}");
        leadership.resign().await?;
        let (store, leadership) = lead(&etcd).await?;
        ensure!(draw(&store, &leadership, zero).await? == Sequence(112));
        etcd.etcdctl(&["put", "/windlass/control/sequence", "many"])?;
        ensure!(draw(&store, &leadership, zero).await.is_err(), "it is not what it was");
        let damaged = store.draw(&leadership, zero).await;
        ensure!(matches!(damaged, Err(SequenceError::Damaged { .. })), "{damaged:?}");
        ensure!(etcd.etcdctl(&["get", "--print-value-only", "/windlass/control/sequence"])? == "many\n");
        Ok(())
    });
}

/// Draws a sequence by a commit of nothing else.
async fn draw(
    store: &windlass_store::Store,
    leadership: &windlass_store::Leadership,
    at_least: Sequence,
) -> Result<Sequence> {
    let mut draw = store.draw(leadership, at_least).await?;
    let sequence = draw.sequence();
    store.commit_drawing(leadership, &mut draw, &[]).await?;
    Ok(sequence)
}

/// Ten draws at once, sorted.
async fn futures_join(store: &windlass_store::Store, leadership: &windlass_store::Leadership) -> Result<Vec<Sequence>> {
    let draws = (0..10).map(|_| draw(store, leadership, Sequence(0)));
    let mut drawn = futures::future::try_join_all(draws).await?;
    drawn.sort();
    Ok(drawn)
}

#[test]
fn a_lost_answer_is_told_from_a_refused_connection() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        freeze(&etcd).await?;
        let outcome = store.commit(&leadership, &[Write::put(status("a"), "1")]).await;
        ensure!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
        etcd.thaw()?;
        until("the store answers", async || Ok(store.get(&status("a")).await.is_ok())).await?;

        etcd.kill9();
        until("nothing listens, and that is told", async || {
            match store.commit(&leadership, &[Write::put(status("b"), "1")]).await {
                Err(CommitError::NotApplied(error)) => {
                    ensure!(report(error).contains("cannot be reached"));
                    Ok(true)
                }
                Err(CommitError::Unknown(_)) => Ok(false),
                other => anyhow::bail!("{other:?}"),
            }
        })
        .await?;
        etcd.restart()?;
        ensure!(store.get(&status("b")).await?.is_none());
        store.commit(&leadership, &[Write::put(status("b"), "1")]).await?;
        Ok(())
    });
}

#[test]
fn a_deleted_leader_key_stops_commits_at_once() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        etcd.etcdctl(&["del", "/windlass/control/leader"])?;
        let outcome = store.commit(&leadership, &[Write::put(status("a"), "1")]).await;
        ensure!(matches!(outcome, Err(CommitError::LeadershipLost)), "{outcome:?}");
        ensure!(!leadership.is_valid());
        ensure!(store.get(&status("a")).await?.is_none());
        ensure!(store.get(&Key::Control(Control::Leader)).await?.is_none());
        Ok(())
    });
}
