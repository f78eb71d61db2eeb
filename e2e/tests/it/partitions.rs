//! Two controllers, of which one cannot reach one host, and then not the store either: nothing that runs is changed for
//! it, and all comes to what is declared.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use windlass_e2e::{Gate, Serve, World, eventually, holds};

use crate::{PORT, Running};

/// As whom the first controller runs, so that a way can be barred to it alone.
const NOBODY: &[&str] =
    &["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"];

/// See [`NOBODY`].
const NOBODYS_ID: &str = "65534-65534";

/// Another leads so long after one has lost the store (the lease, and a margin for a busy machine).
const TAKEOVER: Duration = Duration::from_secs(30);

/// A host that one user of this machine has no way to. Dropping it gives the way back.
struct NoWay {
    to: String,
}

impl NoWay {
    fn to(address: Ipv4Addr) -> Result<Self> {
        let way = Self { to: format!("{address}/32") };
        way.rule("add")?;
        Ok(way)
    }

    fn rule(&self, verb: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["rule", verb, "uidrange", NOBODYS_ID, "to", &self.to, "pref", "100", "unreachable"]);
        let done = ip.status().context("starting ip")?;
        ensure!(done.success(), "ip rule {verb} exited with {done}");
        Ok(())
    }
}

impl Drop for NoWay {
    fn drop(&mut self) {
        let _ = self.rule("del");
    }
}

#[test]
fn partitions_change_nothing_that_runs() -> Result<()> {
    // For a minute after a controller has begun to lead, a host that it cannot reach counts as one that is down.
    let slow = |web: windlass_e2e::Declaration| {
        web.with("/spec/rollout/minHealthyTime", "1s").with("/spec/rollout/maxUnavailable", 2)
    };
    let Running { world, controller, program, .. } = Running::changed(World::new(3)?, slow)?;
    controller.stop(Duration::from_secs(30))?;
    let [web1, web2, web3] = world.hosts.as_slice() else { anyhow::bail!("three hosts") };
    let gate = Gate::to(world.etcd_address()?)?;
    let environment = vec![("WINDLASS_ENDPOINTS".to_owned(), gate.endpoint())];
    let mut first = world.start(&Serve { name: "first", environment, wrapper: NOBODY, ..Serve::default() })?;
    first.wait_until_up()?;
    first.wait_until_leading(TAKEOVER)?;
    let mut second = world.start(&Serve { name: "second", ..Serve::default() })?;
    second.wait_until_up()?;
    let prober = world.probe(PORT);
    world.wait_ready("web", 0)?;

    // One host is out of reach of the leader alone: the others are served, and this one runs on as it is.
    let no_way = NoWay::to(web2.address())?;
    program.good("v2")?;
    eventually("the others get the new version", || {
        world.expect_version([web1, web3], PORT, "v2")?;
        let row = world.service("web")?.host("web2")?;
        ensure!(row.state == "unreachable", "web2: {row:?}");
        world.expect_version([web2], PORT, "v1")
    })?;

    // The leader hears nothing of the store any more, in mid-rollout. Another leads, and reaches that host.
    program.good("v3")?;
    eventually("the first host is switched", || world.expect_version([web1], PORT, "v3"))?;
    gate.shut();
    second.wait_until_leading(TAKEOVER)?;
    world.wait_version("web", PORT, "v3")?;
    program.good("v4")?;
    world.wait_version("web", PORT, "v4")?;

    // All is mended: who led is a standby, and brings nothing of what it was at.
    gate.open();
    drop(no_way);
    eventually("who led knows better", || {
        let answer = first.get("/readyz")?;
        ensure!(answer.status == 200 && answer.body.to_lowercase().contains("standby"), "/readyz says {answer:?}");
        Ok(())
    })?;
    holds(Duration::from_secs(5), "nothing is changed by who led", || {
        world.expect_version(&world.hosts, PORT, "v4")?;
        world.service("web")?.expect("Ready", "True", None).map(drop)
    })?;
    let answers = prober.finish();
    ensure!(answers.most_down_at_once() <= 2, "{}", answers.summary());
    for (version, expected) in [("v2", [1, 0, 1]), ("v3", [1, 1, 1]), ("v4", [1, 1, 1])] {
        let starts = world.starts("web", version)?;
        ensure!(starts == expected, "{version} was started {starts:?} times");
    }
    first.check_alive()?;
    second.check_alive()?;
    world.passed()
}
