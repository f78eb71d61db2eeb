//! `host check` on real hosts: each fault is made there, and told in its own row.

use std::time::{Duration, Instant};

use windlass_crds::host::{Privilege, Target};
use windlass_crds::step::{ContactError, StepError};
use windlass_hosts::SshFleet;
use windlass_hosts::check::{Around, Aspect, Row, Verdict, rows};
use windlass_hosts::fleet::{Fleet, Look, Scrutiny};
use windlass_hosts::keys::{self, Known};
use windlass_testbed::{Host, Spare, Testbed};

use crate::real::target;

/// A dead host is told within this (design).
const TOLD: Duration = Duration::from_secs(10);

/// Somebody else's store.
const OTHER_STORE: &str = "00112233445566778899aabbccddeeff";

async fn look(target: &Target) -> Vec<Row> {
    look_with("sh", target).await
}

async fn look_with(shell: &str, target: &Target) -> Vec<Row> {
    let fleet = SshFleet::with_shell(shell).expect("a fleet");
    let survey = fleet.survey(target).await;
    fleet.close().await;
    let ours = "ffeeddccbbaa99887766554433221100".parse().expect("an id");
    rows(target, &survey, &Around { cluster: Some(&ours), twins: Vec::new() })
}

/// Runs a shell text on a host as root.
fn run(host: &Host, text: &str) -> String {
    tokio::task::block_in_place(|| host.run(&["sh", "-c", text])).expect(text)
}

fn the(rows: &[Row], aspect: Aspect) -> &Row {
    rows.iter().find(|row| row.aspect == aspect).expect("every aspect has a row")
}

/// Everything is well but one aspect, which says `words`, in what is wrong or in what to do.
#[track_caller]
fn expect(rows: &[Row], aspect: Aspect, verdict: Verdict, words: &str) {
    let row = the(rows, aspect);
    assert_eq!(row.verdict, verdict, "{row:?}");
    let told = format!("{} {}", row.message, row.remedy.as_deref().unwrap_or_default());
    assert!(told.contains(words), "{words:?} is not in {told:?}");
    assert!(row.remedy.is_some(), "nothing says what to do: {row:?}");
    for other in rows.iter().filter(|other| other.aspect != aspect) {
        assert!(matches!(other.verdict, Verdict::Ok | Verdict::Unknown), "{other:?}");
    }
}

#[track_caller]
fn all_well(rows: &[Row]) {
    assert!(rows.iter().all(|row| row.verdict == Verdict::Ok && row.remedy.is_none()), "{rows:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_host_has_its_own_row() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    nothing_is_wrong_and_nothing_is_changed(&host).await;
    contact(&host).await;
    logins(&host).await;
    sshd(&host).await;
    disks(&host).await;
    machine(&host).await;
}

async fn nothing_is_wrong_and_nothing_is_changed(host: &Host) {
    let tree =
        || run(host, "ls -lR --time-style=full-iso /opt /etc/systemd /home/app/.config /home/app/.local 2>&1 || :");
    let before = tree();
    for (user, shell) in [("root", "dash"), ("deploy", "busybox sh"), ("app", "dash"), ("app", "busybox sh")] {
        all_well(&look_with(shell, &target(host, user)).await);
    }
    assert_eq!(before, tree());
}

async fn contact(host: &Host) {
    let mut closed = target(host, "root");
    closed.port = std::num::NonZeroU16::new(23).expect("a port");
    expect(&look(&closed).await, Aspect::Connection, Verdict::Failed, "port 23");
    let mut nowhere = target(host, "root");
    nowhere.address = "nowhere.invalid".to_owned();
    expect(&look(&nowhere).await, Aspect::Connection, Verdict::Failed, "nowhere.invalid");
    let mut unknown = target(host, "root");
    unknown.host_keys.clear();
    expect(&look(&unknown).await, Aspect::HostKey, Verdict::Failed, "windlass host add");
    let mut other = target(host, "root");
    other.host_keys = vec![
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIECbeTt7MaivvwPRiStQ28iE+cqpkpYOTB5dQVSHigMW".parse().expect("a key"),
    ];
    let rows = look(&other).await;
    expect(&rows, Aspect::HostKey, Verdict::Failed, "ssh-keygen -lf");
    assert_eq!(the(&rows, Aspect::Login).verdict, Verdict::Unknown, "nobody logged in");
    let mut stranger = target(host, "root");
    stranger.key_file = Some(host.stranger_key_file().to_str().expect("UTF-8").to_owned());
    expect(&look(&stranger).await, Aspect::Login, Verdict::Failed, "authorized_keys");
    run(host, "chsh -s /usr/sbin/nologin nolinger");
    expect(&look(&target(host, "nolinger")).await, Aspect::Login, Verdict::Failed, "not available");
    run(host, "chsh -s /bin/bash nolinger");

    tokio::task::block_in_place(|| host.swallow()).expect("packets are swallowed");
    let began = Instant::now();
    expect(&look(&target(host, "root")).await, Aspect::Connection, Verdict::Failed, "no answer");
    assert!(began.elapsed() < TOLD, "it took {:?}", began.elapsed());
    tokio::task::block_in_place(|| host.unswallow()).expect("packets get through");
}

async fn logins(host: &Host) {
    let rows = look(&target(host, "nolinger")).await;
    expect(&rows, Aspect::Lingering, Verdict::Failed, "loginctl enable-linger nolinger");
    let mut no_sudo = target(host, "app");
    no_sudo.privilege = Some(Privilege::Sudo);
    expect(&look(&no_sudo).await, Aspect::Privilege, Verdict::Failed, "NOPASSWD");
    let mut no_root = target(host, "deploy");
    no_root.privilege = Some(Privilege::Root);
    expect(&look(&no_root).await, Aspect::Privilege, Verdict::Failed, "deploy is not root");
}

async fn sshd(host: &Host) {
    let set = |line| tokio::task::block_in_place(|| host.set_sshd_option(line)).expect(line);
    let clear = || tokio::task::block_in_place(|| host.clear_sshd_options()).expect("sshd as it was");
    set("AllowTcpForwarding no");
    expect(&look(&target(host, "deploy")).await, Aspect::Forwarding, Verdict::Failed, "AllowTcpForwarding");
    clear();
    set("MaxSessions 1");
    expect(&look(&target(host, "deploy")).await, Aspect::Sessions, Verdict::Warning, "only 1 at once");
    clear();
    set("MaxSessions 0");
    let rows = look(&target(host, "deploy")).await;
    assert_eq!(the(&rows, Aspect::Sessions).verdict, Verdict::Failed, "{rows:?}");
    clear();
}

async fn disks(host: &Host) {
    let root = || target(host, "root");
    tokio::task::block_in_place(|| host.fill_disk(Spare::default())).expect("a full disk");
    expect(&look(&root()).await, Aspect::Disk, Verdict::Failed, "it is full");
    tokio::task::block_in_place(|| host.fill_disk(Spare { bytes: 64 << 20, inodes: 10 })).expect("few files");
    expect(&look(&root()).await, Aspect::Disk, Verdict::Warning, "files free for /opt/windlass");
    tokio::task::block_in_place(|| host.unfill_disk()).expect("room again");

    run(host, "mkdir -p /srv/disk && mount -t tmpfs -o ro,size=1g tmpfs /srv/disk");
    let mut there = root();
    there.remote_dir = Some("/srv/disk/windlass".to_owned());
    expect(&look(&there).await, Aspect::Disk, Verdict::Failed, "read-only");
    run(host, "mount -o remount,rw,noexec /srv/disk");
    expect(&look(&there).await, Aspect::Disk, Verdict::Warning, "noexec");
    run(host, "umount /srv/disk && touch /srv/file && ln -s /srv/disk /srv/link");
    there.remote_dir = Some("/srv/file/windlass".to_owned());
    expect(&look(&there).await, Aspect::Disk, Verdict::Failed, "something else");
    there.remote_dir = Some("/srv/link/windlass".to_owned());
    all_well(&look(&there).await);
    let mut not_ours = target(host, "app");
    not_ours.remote_dir = Some("/srv/disk".to_owned());
    expect(&look(&not_ours).await, Aspect::Disk, Verdict::Failed, "may not be written");
}

/// A deploy says the same of a host that will not do.
async fn refuses(target: &Target, words: &str) {
    let fleet = SshFleet::new().expect("a fleet");
    let service = "default/web".parse().expect("a service");
    let outcome = fleet.observe(target, &Look { service, stamp: None, scrutiny: Scrutiny::Quick }).await;
    fleet.close().await;
    match outcome {
        Err(StepError::Contact { error: ContactError::Unsuitable { detail } }) => {
            assert!(detail.contains(words), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

async fn machine(host: &Host) {
    let root = target(host, "root");
    run(host, "mv /usr/bin/flock /usr/bin/flock.away");
    expect(&look(&root).await, Aspect::Tools, Verdict::Failed, "install util-linux");
    run(host, "mv /usr/bin/flock.away /usr/bin/flock");

    run(host, "mount -t tmpfs tmpfs /run/systemd");
    expect(&look(&root).await, Aspect::Systemd, Verdict::Failed, "it does not run there");
    run(host, "umount /run/systemd");

    for (user, socket) in [("root", "/run/dbus/system_bus_socket"), ("app", "/run/user/$(id -u app)/bus")] {
        run(host, &format!("mv {socket} {socket}.away"));
        let login = target(host, user);
        let rows = look(&login).await;
        expect(&rows, Aspect::Systemd, Verdict::Failed, "D-Bus does not run");
        assert!(the(&rows, Aspect::Systemd).remedy.as_deref().is_some_and(|remedy| remedy.contains("dbus.socket")));
        refuses(&login, "D-Bus does not run").await;
        run(host, &format!("mv {socket}.away {socket}"));
        all_well(&look(&login).await);
    }

    // The machines of a test share one clock, so only what says the time there can be wrong.
    run(
        host,
        "printf '#!/bin/sh\\n/bin/date -d \"+1 hour\" \"$@\"\\n' >/usr/local/bin/date && chmod +x /usr/local/bin/date",
    );
    let rows = look(&root).await;
    expect(&rows, Aspect::Clock, Verdict::Warning, "s ahead of ours");
    run(host, "rm /usr/local/bin/date");

    run(host, &format!("mkdir -p /opt/windlass && echo {OTHER_STORE} >/opt/windlass/cluster"));
    expect(&look(&root).await, Aspect::Owner, Verdict::Failed, "windlass host adopt");
    run(host, ": >/opt/windlass/cluster");
    expect(&look(&root).await, Aspect::Owner, Verdict::Failed, "holds no store's id");
    run(host, "rm /opt/windlass/cluster");

    // What failed beside us is told, and no reason to stay away.
    run(host, "systemd-run --quiet --wait --unit=broken false; systemctl is-failed --quiet broken.service");
    let rows = look(&root).await;
    assert_eq!(the(&rows, Aspect::Systemd).verdict, Verdict::Ok);
    assert!(the(&rows, Aspect::Systemd).message.contains("degraded: broken.service failed"), "{rows:?}");
    run(host, "systemctl reset-failed broken.service");
    all_well(&look(&root).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_as_the_host_itself_shows_it() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let (address, port) = (host.address().to_string(), std::num::NonZeroU16::new(22).expect("a port"));
    let shown = keys::show(&address, port).await.expect("its keys");
    let line = run(&host, &format!("ssh-keygen -lf {}", shown[0].file()));
    assert!(line.contains(&format!("{} ", shown[0].fingerprint)), "{shown:?}: {line}");
    assert!(line.trim_end().ends_with(&format!("({})", shown[0].kind)), "{shown:?}: {line}");
    assert_eq!(shown[0].key.to_string(), host.host_key_line().expect("a key"));
    assert_eq!(keys::known(&address, port, &shown).await, Ok(Known::No));
    tokio::task::block_in_place(|| host.power_cut()).expect("it is off");
    keys::show(&address, port).await.expect_err("nobody is there");
}
