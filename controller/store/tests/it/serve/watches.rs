//! What a watch is told while others write, and where its client asks no more.

use anyhow::{Context, Result, ensure};
use etcd_client::Client;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;
use crate::subject::{Embedded, Keeping, Subject};

/// Watches that are begun while somebody writes: where a revision is named too early, one in some tens shows it.
const WATCHES: usize = 300;

/// Puts to one key until it is told to stop: so every revision is an event.
async fn write(mut client: Client, stop: CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        client.put("a", "", None).await?;
    }
    Ok(())
}

/// Begins a watch and asks how far it is: whatever is not newer than an answer says has come before it.
async fn check(client: &mut Client) -> Result<()> {
    let mut stream = client.watch("a", None).await?;
    stream.request_progress().await?;
    let mut seen = None;
    loop {
        let told = timeout(PATIENCE, stream.message()).await??.context("the stream ended")?;
        let revision = told.header().context("an answer without a header")?.revision();
        if told.created() {
            seen = Some(revision);
            continue;
        }
        let seen = seen.as_mut().context("an answer before the first one")?;
        for event in told.events() {
            let modified = event.kv().context("an event without a key")?.mod_revision();
            ensure!(modified == *seen + 1, "{modified} follows {seen}");
            *seen = modified;
        }
        ensure!(revision <= *seen, "{revision} is named, and {seen} is the last that came");
        if told.watch_id() == -1 {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revision_is_named_before_its_events_have_come() -> Result<()> {
    let served = Embedded::start(Keeping::Memory)?;
    let stop = CancellationToken::new();
    let writers = [0; 2].map(|_| {
        let (endpoint, stop) = (served.endpoint(), stop.clone());
        tokio::spawn(async move { write(Client::connect([endpoint], None).await?, stop).await })
    });
    let mut client = Client::connect([served.endpoint()], None).await?;
    for _ in 0..WATCHES {
        check(&mut client).await?;
    }
    stop.cancel();
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

/// gRPC lets a client say that it asks no more, and listen on.
#[tokio::test]
async fn whoever_asks_no_more_is_told_all_the_same() -> Result<()> {
    for subject in Subject::ALL {
        let server = subject.start()?;
        let mut client = Client::connect([server.endpoint()], None).await?;
        let (asking, mut told) = client.watch("a", None).await?.split();
        let created = timeout(PATIENCE, told.message()).await??.context("the stream ended")?;
        ensure!(created.created(), "{subject:?}: {created:?}");
        drop(asking);
        // So often that the end of its requests has come meanwhile.
        for _ in 0..10 {
            client.put("a", "", None).await?;
            let event = timeout(PATIENCE, told.message()).await??;
            ensure!(event.is_some_and(|told| told.events().len() == 1), "{subject:?}: the stream ended");
        }
    }
    Ok(())
}
