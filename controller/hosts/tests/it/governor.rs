//! How many logins and connections there are, on a real host whose sshd is strict.

use std::time::{Duration, Instant};

use windlass_crds::host::Target;
use windlass_crds::id::ServiceKey;
use windlass_hosts::SshFleet;
use windlass_hosts::fleet::{Fleet as _, Look, Scrutiny};
use windlass_hosts::traffic::{Login as Ended, Traffic};
use windlass_testbed::Testbed;

use crate::contract::{Case, Stand as _};
use crate::real::{Login, target};

/// Services that are confirmed at once, by a login each.
const AT_ONCE: u64 = 8;

/// Much longer than a connection stays that nobody uses.
const PATIENCE: Duration = Duration::from_secs(90);

fn logins(traffic: &Traffic, ended: Ended) -> u64 {
    traffic.logins.get(&ended).copied().unwrap_or_default()
}

/// sshd lets one in at a time here, and turns away whoever comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_away_comes_again() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    tokio::task::block_in_place(|| host.set_sshd_option("MaxStartups 1:100:1")).expect("a setting");
    let login = Login::new(&host, "root", "sh", "default", 8000);
    let cases: Vec<Case<'_, Login<'_>>> =
        (0..AT_ONCE).map(|number| Case::new(&login, &format!("turned{number}"))).collect();
    for case in &cases {
        case.stage(1, 1, &case.releases.server("1", 0), &[]).await.expect("stage");
        case.activate(1, 1).await.expect("activate");
    }
    let confirmed = futures::future::join_all(cases.iter().map(|case| case.confirm(1, 1, &[]))).await;
    assert!(confirmed.iter().all(Result::is_ok), "{confirmed:?}");
    let traffic = login.fleet().traffic();
    assert_eq!(logins(&traffic, Ended::Ok), AT_ONCE + 1, "one for all, and one each: {traffic:?}");
    let dropped = login.run("journalctl --no-pager -q -t sshd | grep -c MaxStartups || :");
    assert_ne!(dropped.trim(), "0", "nobody was turned away, so this shows nothing");
}

/// Nobody may log in there for now: that is told by its name, soon.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_always_turned_away_says_so() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    tokio::task::block_in_place(|| host.set_sshd_option("MaxStartups 1:100:1")).expect("a setting");
    // Somebody who never says who he is takes the one place.
    let stranger = std::net::TcpStream::connect((host.address().to_string(), 22)).expect("a connection");
    let fleet = SshFleet::new().expect("a fleet");
    let began = Instant::now();
    let looked = fleet.observe(&target(&host, "root"), &look()).await;
    let text = looked.expect_err("nobody gets in").to_string();
    assert!(text.contains("MaxStartups"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(stranger);
    fleet.observe(&target(&host, "root"), &look()).await.expect("there is room again");
    fleet.close().await;
}

fn look() -> Look {
    let service: ServiceKey = "default/web".parse().expect("a service");
    Look { service, stamp: None, scrutiny: Scrutiny::Quick }
}

/// Waits until so many connections are open.
async fn until_open(fleet: &SshFleet, connections: u64) {
    let few = async {
        while fleet.traffic().connections != connections {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = || panic!("{:?}, and not {connections}", fleet.traffic());
    tokio::time::timeout(PATIENCE, few).await.unwrap_or_else(|_| told());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_those_that_are_kept_end_when_nobody_uses_them() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let fleet = SshFleet::keeping(1).expect("a fleet");
    // Three ways to one host are three connections.
    let ways = ["a", "b", "c"]
        .map(|name| Target { remote_dir: Some(format!("/opt/windlass-{name}")), ..target(&host, "root") });
    for way in &ways {
        fleet.observe(way, &look()).await.expect("a look");
    }
    assert_eq!(fleet.traffic().connections, 3);
    until_open(&fleet, 1).await;
    let before = logins(&fleet.traffic(), Ended::Ok);
    fleet.observe(&ways[0], &look()).await.expect("a look");
    assert_eq!(logins(&fleet.traffic(), Ended::Ok), before, "the first is kept");
    fleet.observe(&ways[1], &look()).await.expect("a look");
    assert_eq!(logins(&fleet.traffic(), Ended::Ok), before + 1, "the second is opened anew");
    fleet.close().await;
}

/// A step that takes longer than a connection stays that nobody uses.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_ended_under_work() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let login = Login::keeping(&host, 0);
    let case = Case::new(&login, "busy");
    case.deploy(1, 1, &case.releases.server("1", 0)).await;
    let lock = format!("/opt/windlass/fence/{}/lock", case.service.folder());
    login.run(&format!("systemd-run --quiet --unit=holds flock {lock} sleep 18"));
    let held = format!("! flock --nonblock {lock} true");
    while tokio::task::block_in_place(|| host.run(&["sh", "-c", &held])).is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (before, began) = (login.fleet().traffic(), Instant::now());
    case.revert(2, 1).await.expect("it waits for the lock");
    assert!(began.elapsed() > Duration::from_secs(15), "it did not wait: {:?}", began.elapsed());
    let after = login.fleet().traffic();
    assert_eq!((after.connections, &after.logins), (1, &before.logins), "all that by one connection");
    until_open(login.fleet(), 0).await;
    case.remove(3, windlass_crds::step::DataFate::Purge).await.expect("remove, by a new one");
}
