//! What the embedded store does with those who ask too much, make no sense, or say nothing at all.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, Error, PutOptions};
use tonic::Code;

use crate::PATIENCE;
use crate::subject::{Embedded, Keeping, Subject};

/// More than anybody keeps open.
const IDLE: usize = 1000;

fn refusal<Answer>(answer: Result<Answer, Error>) -> Result<(Code, String)> {
    match answer.err().context("it was answered")? {
        Error::GRpcStatus(status) => Ok((status.code(), status.message().to_owned())),
        other => Err(other.into()),
    }
}

/// It answers somebody else.
async fn is_well(endpoint: &str) -> Result<()> {
    let mut client = Client::connect([endpoint], None).await?;
    let told = tokio::time::timeout(PATIENCE, client.put("well", "", Some(PutOptions::new()))).await?;
    told.map(|_| ()).context("it does not answer any more")
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_etcds_words() -> Result<()> {
    let mut told = Vec::new();
    for subject in Subject::LIKE_3_5 {
        let server = subject.start()?;
        let mut client = Client::connect([server.endpoint()], None).await?;
        let mut refusals = Vec::new();
        // What does not fit the request, the message, and a message that it reads on a stream.
        for megabytes in [1.8, 3.0, 20.0] {
            let bytes = (megabytes * f64::from(1 << 20)) as usize;
            refusals.push(refusal(client.put("large", vec![b'x'; bytes], None).await)?);
        }
        let watched = match client.watch(vec![b'k'; 3 << 20], None).await {
            Ok(mut stream) => stream.message().await.map(|_| ()),
            Err(error) => Err(error),
        };
        refusals.push(refusal(watched).context("a watch")?);
        is_well(&server.endpoint()).await?;
        told.push(refusals);
    }
    let (etcd, ours) = told.split_first().context("etcd comes first")?;
    ensure!(etcd[0].1 == "etcdserver: request is too large", "{etcd:?}");
    for ours in ours {
        assert_eq!(ours, etcd);
    }
    Ok(())
}

#[tokio::test]
async fn what_it_does_not_do_says_what_to_do() -> Result<()> {
    let served = Embedded::start(Keeping::Memory)?;
    let mut client = Client::connect([served.endpoint()], None).await?;
    let rows = [
        ("users", refusal(client.user_list().await)?, "windlass store certificate"),
        ("roles", refusal(client.role_list().await)?, "windlass store certificate"),
        ("authentication", refusal(client.auth_enable().await)?, "windlass store certificate"),
        ("a member", refusal(client.member_add(["http://127.0.0.1:1"], None).await)?, "windlass store migrate"),
        ("a member's end", refusal(client.member_remove(1).await)?, "windlass store migrate"),
        ("another leader", refusal(client.move_leader(1).await)?, "windlass store migrate"),
    ];
    for (what, (code, told), hint) in rows {
        ensure!(code == Code::Unimplemented && told.contains(hint), "{what}: {code:?} {told}");
    }
    Ok(())
}

/// Something that speaks no HTTP/2, or stops in the middle of it.
#[tokio::test]
async fn whoever_makes_no_sense_is_hung_up_on() -> Result<()> {
    let served = Embedded::start(Keeping::Memory)?;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // A frame of a kind that there is not, longer than any may be.
    let frame = [&preface[..], &[0xff; 64]].concat();
    let garbage: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0; 64], &[0xff; 100_000], &frame];
    for garbage in garbage {
        let mut stream = TcpStream::connect(served.address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // It may have hung up before all of it was said.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).context("it did not hang up"),
        }
        is_well(&served.endpoint()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() -> Result<()> {
    let served = Embedded::start(Keeping::Memory)?;
    let idle = (0..IDLE).map(|_| TcpStream::connect(served.address())).collect::<Result<Vec<_>, _>>()?;
    is_well(&served.endpoint()).await?;
    drop(idle);
    is_well(&served.endpoint()).await
}
