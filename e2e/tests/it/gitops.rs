//! What is in Git is what runs: over SSH, over HTTPS, and at once where the server says so.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_e2e::{
    Controller, Declaration, GitServer, PATIENCE, Repository, Serve, World, config_repo, eventually, holds, service,
};
use windlass_testbed::{Authority, Validity};

use crate::PORT;

/// A Service whose files lie in the same commit.
fn web(hosts: &[&str]) -> Declaration {
    service("web", PORT, Path::new("../apps/web"), hosts)
}

/// Starts a controller that knows more variables.
pub(super) fn serve_with(world: &World, environment: &[(&str, &str)]) -> Result<Controller> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut controller = world.start(&Serve { name: "serve", environment, ..Serve::default() })?;
    controller.wait_until_up()?;
    controller.wait_until_leading(PATIENCE)?;
    Ok(controller)
}

/// Waits until a commit is in force.
pub(super) fn wait_applied(world: &World, repo: &str, commit: &str) -> Result<()> {
    eventually(format_args!("{commit} of {repo} is in force"), || {
        let status = world.status(&format!("configrepos/{repo}"))?;
        ensure!(status.0["applied"] == commit, "{}", status.0);
        status.expect("Ready", "True", "Applied").map(drop)
    })
}

#[test]
fn one_commit_changes_code_and_declaration_and_its_revert_goes_back() -> Result<()> {
    let world = World::new(2)?;
    let (web1, server) = (&world.hosts[0], &world.hosts[1]);
    let mut repository = Repository::create(world.dir(), "fleet")?;
    let url = repository.on_host(server)?;
    let program = world.program_at(&repository.work().join("apps/web"), "v1")?;
    world.declare_hosts()?;
    repository.declare("production/web.yaml", &web(&[web1.name()]))?;
    let first = repository.publish("the first version")?;
    let fleet = config_repo("fleet", &url)
        .with("/spec/credentials/keyFile", server.key_file().to_string_lossy().as_ref())
        .with("/spec/credentials/hostKeys", vec![server.host_key_line()?]);
    world.put(&fleet)?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &first)?;
    world.wait_ready("web", 0)?;
    world.expect_version([web1], PORT, "v1")?;
    let revision = world.value("revisions/default/web/1")?.context("no revision")?;
    ensure!(revision.contains(&first), "the revision does not name the commit: {revision}");

    // Code and declaration together, then back together.
    program.good("v2")?;
    repository.declare("production/web.yaml", &web(&[web1.name()]).with("/spec/runtime/args", vec!["--second"]))?;
    let second = repository.publish("the second version")?;
    wait_applied(&world, "fleet", &second)?;
    eventually("the second version runs", || world.expect_version([web1], PORT, "v2"))?;
    repository.git(&["revert", "--no-edit", "HEAD"])?;
    repository.push()?;
    let third = repository.git(&["rev-parse", "HEAD"])?;
    wait_applied(&world, "fleet", &third)?;
    eventually("the first version runs", || world.expect_version([web1], PORT, "v1"))?;
    let declared = world.value("declared/services/default/web")?.context("nothing is declared")?;
    ensure!(declared.contains("\"managedBy\":\"configrepo/fleet\"") && !declared.contains("--second"), "{declared}");

    // A bad version goes back by itself, and nothing is written to Git for it.
    program.bad("v3")?;
    let bad = repository.publish("a bad version")?;
    wait_applied(&world, "fleet", &bad)?;
    let status = world.wait_not_ready("web", "RolledBack")?;
    ensure!(status.revision() > status.target(), "{}", status.0);
    world.expect_version([web1], PORT, "v1")?;
    ensure!(repository.git(&["ls-remote", &url, "refs/heads/main"])?.starts_with(&bad), "something was pushed");
    let shown = world.windlass(&["get", "configrepo"])?.expect(0)?;
    ensure!(shown.contains("fleet") && shown.contains(&bad[..12]) && shown.contains("Applied"), "{shown}");
    let described = world.windlass(&["describe", "configrepo/fleet"])?.expect(0)?;
    ensure!(described.contains("production/web.yaml") && described.contains("service/web"), "{described}");
    world.passed()
}

/// What a webhook is signed with.
const SECRET: &str = "It's a Secret to Everybody";

fn signature(body: &[u8]) -> Result<String> {
    use std::io::Write as _;
    let mut command = std::process::Command::new("openssl");
    command.args(["dgst", "-sha256", "-hmac", SECRET, "-r"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().context("starting openssl")?;
    child.stdin.take().context("no standard input")?.write_all(body)?;
    let output = child.wait_with_output()?;
    let digits = String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned();
    ensure!(digits.len() == 64, "openssl said {digits:?}");
    Ok(format!("sha256={digits}"))
}

#[test]
fn a_server_over_https_says_that_something_is_new() -> Result<()> {
    let world = World::new(0)?;
    let repository = Repository::create(world.dir(), "fleet")?;
    repository.declare("production/zone.yaml", &windlass_e2e::zone("198.18.0.0/24"))?;
    let first = repository.publish("one")?;
    let authority = Authority::create(&world.dir().join("ca"), "authority")?;
    let certificate = authority.issue("git", "git", "IP:127.0.0.1", Validity::AMonth)?;
    // `me:sesame`
    let server = GitServer::start(repository.served(), &certificate, Some("bWU6c2VzYW1l"))?;
    let fleet = config_repo("fleet", &server.url("fleet.git"))
        .with("/spec/interval", "10m")
        .with("/spec/credentials/user", "me")
        .with("/spec/credentials/passwordEnv", "FLEET_TOKEN")
        .with("/spec/webhook/secretEnv", "FLEET_HOOK_SECRET");
    world.put(&fleet)?;
    let controller = serve_with(&world, &[("FLEET_TOKEN", "sesame"), ("FLEET_HOOK_SECRET", SECRET)])?;
    // A certificate that nobody vouches for is refused, whatever it serves.
    eventually("the server is not trusted", || {
        let status = world.status("configrepos/fleet")?;
        status.expect("Ready", "False", "RepoUnavailable")?;
        ensure!(status.0["conditions"].to_string().contains("certificate"), "{}", status.0);
        Ok(())
    })?;
    let authority = authority.certificate.to_string_lossy().into_owned();
    let fleet = fleet.with("/spec/credentials/caFile", authority);
    world.put(&fleet)?;
    wait_applied(&world, "fleet", &first)?;

    // Asked again, it is one `ls-remote`: two questions of git, each twice for want of a login at first.
    let before = server.asked();
    world.windlass(&["reconcile", "configrepo/fleet", "--wait"])?.expect(0)?;
    let questions = server.questions();
    let poll = &questions[before..];
    ensure!(poll.len() <= 4 && !poll.iter().any(|asked| asked.contains("receive")), "a poll asked {poll:?}");

    // A push, and the call of the webhook.
    repository.declare("production/zone.yaml", &windlass_e2e::zone("198.19.0.0/24"))?;
    let second = repository.publish("two")?;
    let body = br#"{"ref": "refs/heads/main"}"#;
    let good = signature(body)?;
    let call = |path: &str, name: &str, value: &str| controller.post(path, &[(name, value)], body);
    for (path, name, value) in [
        ("/hooks/git/fleet", "X-Hub-Signature-256", "sha256=00"),
        ("/hooks/git/fleet", "X-Other", "x"),
        ("/hooks/git/other", "X-Hub-Signature-256", good.as_str()),
        ("/hooks/git/fleet/x", "X-Hub-Signature-256", good.as_str()),
        ("/hooks/git/fleet", "X-Gitlab-Token", "wrong"),
    ] {
        let answer = call(path, name, value)?;
        ensure!(answer.status == 403, "{path} {name}: {answer:?}");
    }
    ensure!(controller.get("/hooks/git/fleet")?.status == 405);
    // What is too large is told before anything else, so that nobody learns by it which names there are.
    let much = vec![b'x'; 26 << 20];
    for path in ["/hooks/git/fleet", "/hooks/git/other"] {
        // It may be cut off before all of it is sent.
        let answer = controller.post(path, &[], &much).map(|answer| answer.status);
        ensure!(answer.as_ref().map_or(true, |status| *status == 413), "{path}: {answer:?}");
    }
    // A flood of calls that nobody has signed, many at once, asks nothing, and keeps nobody out.
    let before = server.asked();
    std::thread::scope(|scope| {
        let floods = (0..8).map(|_| {
            scope.spawn(|| -> Result<()> {
                for _ in 0..50 {
                    let answer = call("/hooks/git/fleet", "X-Hub-Signature-256", "sha256=00")?;
                    ensure!(answer.status == 403, "{answer:?}");
                }
                Ok(())
            })
        });
        let floods: Vec<_> = floods.collect();
        ensure!(controller.get("/readyz")?.status == 200, "it is not ready any more");
        floods.into_iter().try_for_each(|flood| flood.join().expect("no panic"))
    })?;
    ensure!(server.asked() == before, "a flood that nobody has signed asked the server");
    let status = world.status("configrepos/fleet")?;
    ensure!(status.0["applied"] == first, "a call that was refused has had it asked: {}", status.0);
    let begun = Instant::now();
    ensure!(call("/hooks/git/fleet", "X-Hub-Signature-256", &good)?.status == 202);
    wait_applied(&world, "fleet", &second)?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());

    // A standby cannot do it, and says so: whoever calls comes again.
    let environment = [("FLEET_HOOK_SECRET".to_owned(), SECRET.to_owned())].into();
    let mut standby = world.start(&Serve { name: "standby", environment, ..Serve::default() })?;
    standby.wait_until_up()?;
    eventually("a standby answers 503", || {
        let answer = standby.post("/hooks/git/fleet", &[("X-Hub-Signature-256", &good)], body)?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(())
    })?;
    standby.kill9()?;

    // The same call again and again costs a question a second at most.
    let before = server.asked();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        ensure!(call("/hooks/git/fleet", "X-Hub-Signature-256", &good)?.status == 202);
    }
    let (asked, most) = (server.asked() - before, 4 * (begun.elapsed().as_secs() + 2));
    ensure!(asked as u64 <= most, "a flood of calls asked {asked} questions");

    // The password is nowhere.
    let log = controller.log();
    ensure!(!log.contains("sesame") && !log.contains(SECRET), "a secret is in the log");
    for path in ["declared/", "status/", "events/", "audit/", "requests/"] {
        for key in world.keys(path)? {
            let value = world.value(&key)?.unwrap_or_default();
            ensure!(!value.contains("sesame") && !value.contains(SECRET), "a secret is in {key}");
        }
    }
    world.passed()
}

/// A tag, and the highest of those that a range takes; what is beyond it is not for this one.
#[test]
fn a_range_of_tags_is_followed_to_its_highest() -> Result<()> {
    let world = World::new(0)?;
    let repository = Repository::create(world.dir(), "fleet")?;
    let release = |tag: &str, cidr: &str| -> Result<String> {
        repository.declare("production/zone.yaml", &windlass_e2e::zone(cidr))?;
        let commit = repository.publish(tag)?;
        repository.git(&["tag", "--annotate", "--message", tag, tag])?;
        repository.git(&["push", "--quiet", "origin", tag])?;
        Ok(commit)
    };
    let oldest = release("v1.9.0", "198.18.0.0/24")?;
    let newest = release("v1.10.0", "198.18.1.0/24")?;
    release("v2.0.0", "198.18.2.0/24")?;
    let fleet = config_repo("fleet", &repository.url());
    world.put(&fleet.clone().with("/spec/ref", "v1.9.0"))?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &oldest)?;
    world.put(&fleet.clone().with("/spec/ref", ">=1.2, <2"))?;
    wait_applied(&world, "fleet", &newest)?;
    let next = release("v1.11.0-rc.1", "198.18.3.0/24").and_then(|_| release("v1.11.0", "198.18.4.0/24"))?;
    wait_applied(&world, "fleet", &next)?;
    let zone = world.value("declared/networkzones/internal")?.unwrap_or_default();
    ensure!(zone.contains("198.18.4.0/24"), "{zone}");
    // Nothing that it takes is left: it says so, and what is in force stays.
    world.put(&fleet.with("/spec/ref", ">=3"))?;
    eventually("no tag is within the range", || {
        world.status("configrepos/fleet")?.expect("Ready", "False", "RefNotFound").map(drop)
    })?;
    ensure!(world.value("declared/networkzones/internal")? == Some(zone));
    world.passed()
}

/// Fetching may take minutes; what becomes of a repository meanwhile counts.
#[test]
fn what_is_changed_while_it_is_fetched_is_not_what_was_declared_before() -> Result<()> {
    for change in ["suspended", "deleted", "elsewhere"] {
        let world = World::new(0)?;
        let repository = Repository::create(world.dir(), "fleet")?;
        repository.declare("production/zone.yaml", &windlass_e2e::zone("198.18.0.0/24"))?;
        repository.declare("staging/zone.yaml", &windlass_e2e::zone("198.18.1.0/24"))?;
        let first = repository.publish("one")?;
        let declared = config_repo("fleet", &repository.url()).with("/spec/path", "production");
        world.put(&declared)?;
        let marker = world.dir().join("held");
        let checkpoint = Some(("hold@commit-fetched".to_owned(), marker.clone()));
        let mut controller = world.start(&Serve { name: "serve", checkpoint, ..Serve::default() })?;
        eventually("it is fetched", || {
            controller.check_alive()?;
            ensure!(marker.exists(), "not yet");
            Ok(())
        })?;
        match change {
            "suspended" => world.put(&declared.with("/spec/suspend", true)).map(drop)?,
            "deleted" => world.delete_key("declared/configrepos/fleet")?,
            _ => world.put(&declared.with("/spec/path", "staging")).map(drop)?,
        }
        // Whether the controller has heard of that or not.
        std::fs::remove_file(&marker)?;
        let written = || world.history("declared/networkzones/internal", 0);
        if change == "elsewhere" {
            wait_applied(&world, "fleet", &first)?;
            let written = written()?;
            ensure!(written.len() == 1 && written[0].contains("198.18.1.0/24"), "{written:?}");
        } else {
            holds(Duration::from_secs(2), "nothing of it is declared", || {
                let written = written()?;
                ensure!(written.is_empty(), "{change}: {written:?}");
                Ok(())
            })?;
        }
        if change == "suspended" {
            world.status("configrepos/fleet")?.expect("Ready", "True", "Suspended")?;
        }
        controller.check_alive()?;
        world.passed()?;
    }
    Ok(())
}

#[test]
fn a_controller_that_dies_half_way_is_followed_by_one_that_goes_on() -> Result<()> {
    for checkpoint in ["commit-fetched", "declarations-written"] {
        let world = World::new(0)?;
        let repository = Repository::create(world.dir(), "fleet")?;
        repository.declare("production/zone.yaml", &windlass_e2e::zone("198.18.0.0/24"))?;
        let first = repository.publish("one")?;
        world.put(&config_repo("fleet", &repository.url()))?;
        let marker = world.dir().join("reached");
        let dying = world.start(&Serve {
            name: "serve",
            checkpoint: Some((checkpoint.to_owned(), marker.clone())),
            ..Serve::default()
        })?;
        dying.wait_until_killed(PATIENCE)?;
        ensure!(marker.exists(), "{checkpoint} was not reached");
        let there = world.value("declared/networkzones/internal")?.is_some();
        ensure!(there == (checkpoint == "declarations-written"), "{checkpoint}");
        let before = there.then(|| world.history("declared/networkzones/internal", 0)).transpose()?;
        world.expire_leader()?;
        let _controller = world.serve()?;
        wait_applied(&world, "fleet", &first)?;
        // What was written is not written once more.
        let after = world.history("declared/networkzones/internal", 0)?;
        ensure!(after.len() == before.map_or(1, |before| before.len()), "{after:?}");
        world.passed()?;
    }
    Ok(())
}
