//! Files of ours on a host that somebody has spoiled, a disk that is full meanwhile, and a socket that comes in between.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use windlass_crds::id::ServiceKey;
use windlass_crds::observation::{Listener, UnitFile};
use windlass_crds::step::{DataFate, StepError};
use windlass_hosts::fleet::{Fleet, Scrutiny, Seen};
use windlass_testbed::{Host, Spare, Testbed};

use crate::contract::{Case, Hand, Stand, revision};
use crate::faults::received;
use crate::real::Login;

/// How long a program may take to listen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that listens once `/run/listen` is there.
const HESITANT: &[u8] = br#"
import os, socket, time

while not os.path.exists("/run/listen"):
    time.sleep(0.005)
server = socket.create_server(("", int(os.environ["PORT"])))
time.sleep(600)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spoiled_costs_no_more_than_itself() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    a_spoiled_environment_travels_alone(&login).await;
    a_socket_that_opens_meanwhile_is_nobody_elses(&login).await;
    an_edited_unit_is_replaced_on_a_full_disk(&host, &login).await;
    a_base_that_does_not_fit_is_a_full_disk(&host, &login).await;
}

/// The files of the base are good, so none of them is sent again.
async fn a_spoiled_environment_travels_alone(login: &Login<'_>) {
    let case = Case::new(login, "texts");
    let first = case.releases.server("1", 300);
    case.deploy(1, 1, &first).await;
    login.run(&format!("echo X=1 >>{}/default.texts/revisions/1/env", login.dir()));
    let mut second = first.clone();
    case.releases.add(&mut second, "version.txt", b"2", false);
    // An upload that has begun lets the host be asked first, where it believes what was seen of units.
    let seen = Seen { uploads: true, ..Seen::from(&case.look(Scrutiny::Quick).await) };
    let before = received(login);
    case.stage_on((2, 2), &second, &[&first], seen).await.expect("stage");
    let bytes = received(login) - before;
    assert!(bytes < 30_000, "{bytes} bytes for one changed file and the environment");
    case.activate(2, 2).await.expect("activate");
    let seen = case.look(Scrutiny::Full).await;
    assert!(seen.drift.is_empty() && seen.unit == UnitFile::Revision(revision(2)), "{seen:?}");
    case.remove(3, DataFate::Purge).await.expect("remove");
}

/// The program begins to listen after its descriptors were listed: the next thing that is looked at must not find a
/// socket that nobody seems to hold.
async fn a_socket_that_opens_meanwhile_is_nobody_elses(login: &Login<'_>) {
    let case = Case::new(login, "socket");
    let port = case.spec.port();
    let mut release = case.releases.server("1", 0);
    case.releases.add(&mut release, "server.py", HESITANT, false);
    case.deploy(1, 1, &release).await;
    let hexadecimal = format!("{:04X}", port.map_or(0, NonZeroU16::get));
    login.run(&format!(
        "cat >/usr/local/sbin/ls <<'END' && chmod 755 /usr/local/sbin/ls\n\
         #!/bin/sh\n/bin/ls \"$@\"\n: >/run/listen\nfor try in $(seq 1000); do\n\
         grep -q ':{hexadecimal} .* 0A ' /proc/net/tcp && exit\nsleep 0.01\ndone\nEND"
    ));
    let sample = async || login.fleet().sample(&login.target(), &case.service, port).await.expect("a sample");
    let first = sample().await.listener;
    assert!(matches!(first, Some(Listener::Nobody | Listener::Ours)), "{first:?}");
    login.run("rm /usr/local/sbin/ls; touch /run/listen");
    let began = Instant::now();
    loop {
        match sample().await.listener {
            Some(Listener::Ours) => break,
            Some(Listener::Nobody) if began.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("{other:?}"),
        }
    }
    case.remove(2, DataFate::Purge).await.expect("remove");
}

/// Good and new have one unit, and the one that is installed is another: it is put right without room for it. Without
/// room for what would take it back, nothing new is begun.
async fn an_edited_unit_is_replaced_on_a_full_disk(host: &Host, login: &Login<'_>) {
    let case = Case::new(login, "edited");
    let (one, two) = (case.releases.server("1", 5), case.releases.server("2", 5));
    case.deploy(1, 1, &one).await;
    // The next revision with the same unit switches by its link alone, and leaves no unit ready that is its own.
    case.stage(2, 2, &two, &[&one]).await.expect("stage");
    case.activate(2, 2).await.expect("activate");
    case.confirm(2, 2, &[]).await.expect("confirm");
    login.lay(Hand::EditsUnit, &"default/edited".parse::<ServiceKey>().expect("a service"));
    let three = case.releases.server("3", 5);
    case.stage(3, 3, &three, &[&two]).await.expect("stage");
    tokio::task::block_in_place(|| host.fill_disk(Spare::default())).expect("a full disk");
    let armed = case.activate(3, 3).await;
    assert!(matches!(armed, Err(StepError::NoSpace { .. })), "{armed:?}");
    case.revert(4, 2).await.expect("revert");
    tokio::task::block_in_place(|| host.unfill_disk()).expect("room");
    let seen = case.look(Scrutiny::Full).await;
    assert!(seen.drift.is_empty() && seen.unit == UnitFile::Revision(revision(2)), "{seen:?}");
    case.remove(5, DataFate::Purge).await.expect("remove");
}

/// Not a base that is missing, which would let all of it travel to where there is no room either.
async fn a_base_that_does_not_fit_is_a_full_disk(host: &Host, login: &Login<'_>) {
    let case = Case::new(login, "links");
    let first = case.releases.server("1", 300);
    case.deploy(1, 1, &first).await;
    let mut second = first.clone();
    case.releases.add(&mut second, "version.txt", b"2", false);
    tokio::task::block_in_place(|| host.fill_disk(Spare { bytes: 1 << 20, inodes: 50 })).expect("few files");
    let before = received(login);
    let outcome = case.stage(2, 2, &second, &[&first]).await;
    let bytes = received(login) - before;
    tokio::task::block_in_place(|| host.unfill_disk()).expect("room");
    assert!(matches!(outcome, Err(StepError::NoSpace { .. })), "{outcome:?}");
    assert!(bytes < 30_000, "{bytes} bytes to where there is no room");
    case.stage(2, 2, &second, &[&first]).await.expect("stage");
    case.remove(3, DataFate::Purge).await.expect("remove");
}
