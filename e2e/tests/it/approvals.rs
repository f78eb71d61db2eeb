//! What is declared waits until other people have approved it: known by certificate, by signed commit, by SSH key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use windlass_e2e::{Controller, PATIENCE, Program, Repository, Serve, World, config_repo, eventually, holds, service};

use super::gitops::wait_applied;
use crate::PORT;

/// What a person's commands are told so that they show their certificate.
struct Person {
    files: Vec<String>,
}

impl Person {
    fn new(world: &World, name: &str) -> Result<Self> {
        let out = world.dir().join(name);
        let folder = out.display().to_string();
        world.windlass(&["store", "certificate", name, "--out", &folder])?.expect(0)?;
        let file = |name: &str| out.join(name).display().to_string();
        let (cert, key) = (file(&format!("{name}.pem")), file(&format!("{name}-key.pem")));
        let files = ["--cacert", &file("windlass-ca.pem"), "--cert", &cert, "--key", &key];
        Ok(Self { files: files.map(str::to_owned).into() })
    }

    fn windlass(&self, world: &World, arguments: &[&str]) -> Result<windlass_e2e::Ran> {
        // It is another one after each start.
        let endpoint = fs::read_to_string(world.dir().join("serve/store/endpoint")).context("where the store is")?;
        let own = self.files.iter().map(String::as_str).chain(["--endpoints", endpoint.trim()]);
        world.windlass(&arguments.iter().copied().chain(own).collect::<Vec<_>>())
    }
}

fn policy(members: &serde_json::Value) -> String {
    let spec = json!({"namespaces": ["default"], "people": 2, "members": members});
    json!({"apiVersion": "windlass/v1", "kind": "Policy", "metadata": {"name": "two"}, "spec": spec}).to_string()
}

/// Waits until a revision waits for so many people; what an approval has to name.
fn waits(world: &World, revision: u64, missing: u64) -> Result<String> {
    let mut plan = String::new();
    eventually(format_args!("revision {revision} waits"), || {
        let status = world.service("web")?;
        status.expect("Reconciling", "True", "WaitingForApproval")?;
        let waiting = &status.0["approval"];
        ensure!(waiting["revision"] == revision && waiting["missing"] == missing, "{waiting}");
        waiting["plan"].as_str().unwrap_or_default().clone_into(&mut plan);
        Ok(())
    })?;
    Ok(plan)
}

const WHY: [&str; 2] = ["--reason", "CHG-1"];

#[test]
fn nobody_approves_what_is_their_own() -> Result<()> {
    let world = World::embedded(1)?;
    let mut controller: Controller = world.serve()?;
    let (ana, bo) = (Person::new(&world, "ana")?, Person::new(&world, "bo")?);
    let members = json!([{"name": "Ana", "certificate": "ana"}, {"name": "Bo", "certificate": "bo"}]);
    world.put_text("declared/policies/two", &policy(&members))?;
    world.declare_hosts()?;
    let program = world.program("web", "v1")?;
    let file = world.dir().join("web.yaml");
    fs::write(&file, service("web", PORT, program.dir(), &world.host_names()).text())?;
    ana.windlass(&world, &["apply", "-f", &file.display().to_string()])?.expect(0)?;
    let plan = waits(&world, 1, 1)?;
    let approve = ["rollout", "approve", "service/web", "--revision", "1"];
    let own = ana.windlass(&world, &[&approve[..], &WHY, &["--wait", "--timeout", "20s"]].concat())?.expect_error(1)?;
    ensure!(own.contains("Ana has declared it") && own.contains("somebody else has to approve it"), "{own}");
    // Who runs the store is nobody whom the Policy names.
    let local = world.windlass(&[&approve[..], &WHY, &["--wait", "--timeout", "20s"]].concat())?.expect_error(1)?;
    ensure!(local.contains("local (certificate) is none of those who may approve by policy/two"), "{local}");
    let unsaid = bo.windlass(&world, &approve)?.expect_error(2)?;
    ensure!(unsaid.contains("--reason"), "{unsaid}");
    let other = bo.windlass(&world, &[&approve[..], &WHY, &["--plan", &"0".repeat(64)]].concat())?.expect_error(1)?;
    ensure!(other.contains(&plan), "{other}");
    // Neither can take the Policy away.
    let refused = bo.windlass(&world, &["delete", "policy/two", "--yes"])?;
    ensure!(world.value("declared/policies/two")?.is_some(), "{refused:?}");
    let shown = world.windlass(&["describe", "service/web"])?.expect(0)?;
    ensure!(shown.contains("declared by ana (certificate)") && shown.contains(&plan), "{shown}");
    ensure!(world.version_on(&world.hosts[0], PORT).is_err(), "it runs");

    // Another controller waits for the same.
    controller.kill9()?;
    controller = world.start(&Serve { name: "serve", ..Serve::default() })?;
    controller.wait_until_up()?;
    world.expire_leader()?;
    controller.wait_until_leading(PATIENCE)?;
    ensure!(waits(&world, 1, 1)? == plan, "another plan");
    bo.windlass(&world, &[&approve[..], &WHY, &["--plan", &plan, "--wait"]].concat())?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v1")?;

    // The audit trail has who declared it, who let it in, and that it is what was let in.
    let told = world.windlass(&["audit", "--service", "web"])?.expect(0)?;
    let digest = &plan[..12];
    let approved = format!("approved revision 1 (plan {digest}): CHG-1");
    for (who, what) in [
        ("ana (certificate)", "; it waits for approval"),
        ("ana (certificate)", "Ana has declared it"),
        ("bo (certificate)", approved.as_str()),
        ("the controller", &format!(", approved as {digest}")),
    ] {
        ensure!(told.lines().any(|line| line.contains(who) && line.contains(what)), "{who}: {what}: {told}");
    }

    // Who only changes the files is known to nobody, so both have to approve them.
    program.good("v2")?;
    waits(&world, 2, 2)?;
    let approve = ["rollout", "approve", "service/web", "--revision", "2"];
    ana.windlass(&world, &[&approve[..], &WHY].concat())?.expect(0)?;
    waits(&world, 2, 1)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    bo.windlass(&world, &[&approve[..], &WHY, &["--wait"]].concat())?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v2")?;

    // Nor has an author declared the files that come after.
    fs::write(
        &file,
        service("web", PORT, program.dir(), &world.host_names()).with("/spec/runtime/args", vec!["-v"]).text(),
    )?;
    ana.windlass(&world, &["apply", "-f", &file.display().to_string()])?.expect(0)?;
    waits(&world, 3, 1)?;
    program.good("v3")?;
    waits(&world, 4, 2)?;
    controller.check_alive()?;
    world.passed()
}

/// A key pair, and its public half.
fn key(dir: &Path, name: &str) -> Result<(PathBuf, String)> {
    let file = dir.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file).status()?;
    ensure!(made.success(), "ssh-keygen failed");
    let public = fs::read_to_string(file.with_extension("pub"))?;
    Ok((file, public.trim().to_owned()))
}

/// A repository whose commits Ana signs, with a service in it that Bo may approve.
struct Signing {
    ana: PathBuf,
    bo: PathBuf,
    /// Who may sign commits.
    signers: PathBuf,
    repository: Repository,
    program: Program,
}

impl Signing {
    fn of(world: &World) -> Result<Self> {
        let (ana, ana_public) = key(world.dir(), "ana")?;
        let (bo, bo_public) = key(world.dir(), "bo")?;
        let members = json!([
            {"name": "Ana", "sshKeys": [ana_public]},
            {"name": "Bo", "sshKeys": [bo_public]},
        ]);
        world.put_text("declared/policies/two", &policy(&members))?;
        let signers = world.dir().join("signers");
        fs::write(&signers, format!("ana@example.com {ana_public}\n"))?;
        world.declare_hosts()?;
        let repository = Repository::create(world.dir(), "fleet")?;
        let program = world.program_at(&repository.work().join("apps/web"), "v1")?;
        let web = service("web", PORT, Path::new("../apps/web"), &world.host_names());
        repository.declare("production/web.yaml", &web)?;
        Ok(Self { ana, bo, signers, repository, program })
    }
}

/// Commits what is there, signed, and pushes it.
fn publish_signed(repository: &Repository, key: &Path) -> Result<String> {
    repository.git(&["add", "--all"])?;
    let key = format!("user.signingkey={}", key.display());
    repository.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-S", "-m", "a version"])?;
    repository.push()?;
    repository.git(&["rev-parse", "HEAD"])
}

/// Approves a revision, and waits until it is in force.
fn approve(world: &World, revision: u64, key: Option<&Path>) -> Result<windlass_e2e::Ran> {
    let (revision, key) = (revision.to_string(), key.map(|key| key.display().to_string()));
    let mut arguments =
        vec!["rollout", "approve", "service/web", "--revision", &revision, "--wait", "--timeout", "60s"];
    arguments.extend(WHY);
    arguments.extend(key.iter().flat_map(|key| ["--sign", key.as_str()]));
    world.windlass(&arguments)
}

/// Somebody who may push, and not sign, leads the branch back to what Ana signed once: she has not declared it now, not
/// after another start either, nor what she signed on the way from there. What she signs next is hers.
#[test]
fn who_leads_a_branch_back_has_declared_nothing() -> Result<()> {
    let world = World::new(1)?;
    let Signing { ana, bo, signers, repository, program } = Signing::of(&world)?;
    let first = publish_signed(&repository, &ana)?;
    let allowed = signers.to_string_lossy().into_owned();
    world.put(&config_repo("fleet", &repository.url()).with("/spec/verify/allowedSigners", allowed.as_str()))?;
    let mut controller = world.serve()?;
    let mut commits = vec![first];
    for (revision, version) in [(1, "v1"), (2, "v2"), (3, "v3")] {
        if revision > 1 {
            program.good(version)?;
            commits.push(publish_signed(&repository, &ana)?);
        }
        waits(&world, revision, 1)?;
        approve(&world, revision, Some(&bo))?.expect(0)?;
        world.expect_version(&world.hosts, PORT, version)?;
    }

    let lead_to = |commit: &str, missing: u64| -> Result<()> {
        repository.git(&["push", "--quiet", "--force", "origin", &format!("{commit}:main")])?;
        wait_applied(&world, "fleet", commit)?;
        people_missing(&world, missing)
    };
    lead_to(&commits[0], 2)?;
    controller.kill9()?;
    controller = world.start(&Serve { name: "serve", ..Serve::default() })?;
    controller.wait_until_up()?;
    world.expire_leader()?;
    controller.wait_until_leading(PATIENCE)?;
    world.windlass(&["reconcile", "configrepo/fleet", "--wait"])?.expect(0)?;
    holds(STILL, "it is nobody's after another start", || people_missing(&world, 2))?;
    lead_to(&commits[1], 2)?;
    // On from where it was, and on from somewhere else: signed since.
    program.good("v4")?;
    let fourth = publish_signed(&repository, &ana)?;
    lead_to(&fourth, 1)?;
    eventually("another second begins", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let before: u64 = repository.git(&["show", "--no-patch", "--format=%ct", "HEAD"])?.parse()?;
        ensure!(now > before, "{now}");
        Ok(())
    })?;
    repository.git(&["reset", "--quiet", "--hard", &commits[0]])?;
    program.good("v5")?;
    let fifth = publish_signed(&repository, &ana)?;
    lead_to(&fifth, 1)?;
    world.expect_version(&world.hosts, PORT, "v3")?;
    controller.check_alive()?;
    world.passed()
}

/// How long nothing may change that should not.
const STILL: Duration = Duration::from_secs(3);

/// Waits until what is declared last waits for so many people.
fn people_missing(world: &World, missing: u64) -> Result<()> {
    eventually(format_args!("{missing} people are missing"), || {
        let status = world.service("web")?;
        status.expect("Reconciling", "True", "WaitingForApproval")?;
        let waiting = &status.0["approval"];
        ensure!(waiting["missing"] == missing, "{waiting}");
        Ok(())
    })
}

/// Who has signed the commit has declared what is in it; what merely says that it comes from there has not.
#[test]
fn a_signed_commit_is_its_signers_and_somebody_else_approves_it_with_a_key() -> Result<()> {
    let world = World::new(1)?;
    let Signing { ana, bo, signers, repository, program } = Signing::of(&world)?;
    let publish = || publish_signed(&repository, &ana);
    let first = publish()?;
    let allowed = signers.to_string_lossy().into_owned();
    world.put(&config_repo("fleet", &repository.url()).with("/spec/verify/allowedSigners", allowed.as_str()))?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &first)?;
    waits(&world, 1, 1)?;
    let status = world.service("web")?;
    ensure!(status.0["approval"]["author"]["signer"] == "ana@example.com", "{}", status.0);
    let approve = |revision, key| approve(&world, revision, key);
    let own = approve(1, Some(&ana))?.expect_error(1)?;
    ensure!(own.contains("Ana has declared it"), "{own}");
    let unsigned = approve(1, None)?.expect_error(1)?;
    ensure!(unsigned.contains("nobody knows who asks"), "{unsigned}");
    approve(1, Some(&bo))?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    // The trail has who signed the commit, who signed the approval, and what nobody can know.
    let told = world.windlass(&["audit", "--service", "web"])?.expect(0)?;
    let in_line = |words: &[&str]| told.lines().any(|line| words.iter().all(|word| line.contains(word)));
    ensure!(in_line(&["ana@example.com", "declared"]), "{told}");
    ensure!(in_line(&["Bo (SSH key SHA256:", "approved revision 1"]), "{told}");
    ensure!(in_line(&["(unverified)", "nobody knows who asks"]), "{told}");
    world.windlass(&["audit", "verify"])?.expect(0)?;

    // The revision of a commit waits as well, and its revert.
    program.good("v2")?;
    let second = publish()?;
    wait_applied(&world, "fleet", &second)?;
    waits(&world, 2, 1)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    approve(2, Some(&bo))?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v2")?;
    // Back at once, by what was in force before, also while something else waits.
    program.good("v3")?;
    let third = publish()?;
    wait_applied(&world, "fleet", &third)?;
    waits(&world, 3, 1)?;
    world.windlass(&["rollout", "undo", "service/web", "--wait"])?.expect(0)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    world.passed()
}
