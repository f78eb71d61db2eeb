//! What can be wrong with a repository: each is told by its reason, and the last good state stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_e2e::{Controller, PATIENCE, Repository, World, config_repo, eventually, holds, zone};

use crate::gitops::wait_applied;

/// A world that follows one repository, with a good commit in force.
struct Followed {
    world: World,
    repository: Repository,
    good: String,
    _controller: Controller,
}

impl Followed {
    fn new() -> Result<Self> {
        let world = World::new(0)?;
        let repository = Repository::create(world.dir(), "fleet")?;
        repository.declare("production/zone.yaml", &zone("198.18.0.0/24"))?;
        let good = repository.publish("good")?;
        world.put(&config_repo("fleet", &repository.url()))?;
        let controller = world.serve()?;
        wait_applied(&world, "fleet", &good)?;
        Ok(Self { world, repository, good, _controller: controller })
    }

    /// Waits until the fault is told by its reason; and what was in force is.
    fn told(&self, what: &str, reason: &'static str) -> Result<()> {
        self.world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
        eventually(format_args!("{what} is told"), || {
            self.world.status("configrepos/fleet")?.expect("Ready", "False", reason).map(drop)
        })?;
        let declared = self.world.value("declared/networkzones/internal")?.unwrap_or_default();
        ensure!(declared.contains("198.18.0.0/24"), "{what}: what was in force is not any more: {declared}");
        Ok(())
    }

    /// Adds a good file.
    fn good_beside(&self, name: &str) -> Result<()> {
        let good = zone("198.18.7.0/24").with("/metadata/name", format!("beside-{name}"));
        self.repository.declare(&format!("production/beside-{name}.yaml"), &good)
    }

    /// Whether a good file is in force, whatever is beside it.
    fn is_in_force(&self, name: &str) -> Result<()> {
        let declared = self.world.value(&format!("declared/networkzones/beside-{name}"))?;
        ensure!(declared.is_some(), "what is good beside {name} is not in force");
        Ok(())
    }

    /// Goes back to the good commit, with a new one on top.
    fn mend(&self) -> Result<()> {
        self.repository.git(&["reset", "--quiet", "--hard", &self.good])?;
        self.repository.git(&["clean", "--quiet", "-fdx"])?;
        let commit = self.repository.publish("mended")?;
        self.world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
        wait_applied(&self.world, "fleet", &commit)
    }
}

#[test]
fn bad_commits_are_told_and_harm_nothing() -> Result<()> {
    let followed = Followed::new()?;
    let Followed { repository, world, .. } = &followed;
    let path = |name: &str| repository.work().join("production").join(name);

    repository.put(
        "production/bad.yaml",
        "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: x}\nspec: {a: 1}\n",
    )?;
    followed.good_beside("unknown-field")?;
    repository.publish("an unknown field")?;
    followed.told("an unknown field", "UnknownField")?;
    followed.is_in_force("unknown-field")?;
    followed.mend()?;

    symlink("/etc/passwd", path("out.yaml"))?;
    followed.good_beside("link")?;
    repository.publish("a link")?;
    followed.told("a link out of the tree", "LeavesTree")?;
    followed.is_in_force("link")?;
    followed.mend()?;

    let web = windlass_e2e::service("web", 8080, std::path::Path::new("../../../etc"), &["web1"]);
    repository.declare("production/web.yaml", &web)?;
    followed.good_beside("path")?;
    repository.publish("a path out of the tree")?;
    followed.told("a path with ..", "LeavesTree")?;
    followed.is_in_force("path")?;
    ensure!(world.value("declared/services/default/web")?.is_none(), "it was declared all the same");
    followed.mend()?;

    repository.declare("production/twin.yaml", &zone("198.18.5.0/24"))?;
    followed.good_beside("twice")?;
    repository.publish("twice")?;
    followed.told("two files that declare the same", "DeclaredTwice")?;
    followed.is_in_force("twice")?;
    followed.mend()?;

    for number in 0..10_000 {
        repository.put(&format!("production/many/{number}.yaml"), "{}\n")?;
    }
    repository.publish("many files")?;
    followed.told("10,000 files", "RepoTooLarge")?;
    followed.mend()?;

    fs::write(path("large.yaml"), vec![b'#'; 100 << 20])?;
    followed.good_beside("large")?;
    repository.publish("a large file")?;
    followed.told("a file of 100 MB", "TooLarge")?;
    followed.is_in_force("large")?;
    followed.mend()?;

    // Not all of it is good, so nothing of it is taken.
    world.put(&config_repo("fleet", &repository.url()).with("/spec/atomic", true))?;
    repository.put("production/bad.yaml", "a: [\n")?;
    repository.declare("production/other.yaml", &zone("198.18.6.0/24").with("/metadata/name", "other"))?;
    let bad = repository.publish("half bad")?;
    followed.told("one bad file of an atomic repository", "InvalidDeclaration")?;
    ensure!(world.value("declared/networkzones/other")?.is_none(), "a part of it was taken");
    let status = world.status("configrepos/fleet")?;
    ensure!(status.0["attempted"] == bad && status.0["applied"] != bad, "{}", status.0);
    followed.mend()?;
    followed.world.passed()
}

#[test]
fn a_repository_that_is_not_as_it_was_is_told_and_harms_nothing() -> Result<()> {
    let followed = Followed::new()?;
    let Followed { repository, world, .. } = &followed;

    // A branch that was rewritten is followed, and that is told.
    repository.declare("production/zone.yaml", &zone("198.18.0.0/24").with("/metadata/labels/step", "one"))?;
    let before = repository.publish("on top")?;
    world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
    wait_applied(world, "fleet", &before)?;
    repository.git(&["reset", "--quiet", "--hard", &followed.good])?;
    let rewritten = repository.publish("rewritten")?;
    world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
    wait_applied(world, "fleet", &rewritten)?;
    eventually("the forced push is told", || {
        let events = world.windlass(&["events"])?.expect(0)?;
        ensure!(events.contains("HistoryRewritten"), "{events}");
        Ok(())
    })?;

    let bare = repository.bare().to_string_lossy().into_owned();
    repository.git(&["--git-dir", &bare, "branch", "-m", "main", "elsewhere"])?;
    followed.told("a branch that is gone", "RefNotFound")?;
    repository.git(&["--git-dir", &bare, "branch", "-m", "elsewhere", "main"])?;
    followed.mend()?;

    let away = repository.bare().with_extension("away");
    fs::rename(repository.bare(), &away)?;
    followed.told("a repository that is away", "RepoUnavailable")?;
    // What was in force is put back all the same.
    world.put(&zone("198.18.9.0/24"))?;
    eventually("it is put back", || {
        let declared = world.value("declared/networkzones/internal")?.unwrap_or_default();
        ensure!(!declared.contains("198.18.9.0/24"), "{declared}");
        Ok(())
    })?;
    followed.told("a repository that is away", "RepoUnavailable")?;
    fs::rename(&away, repository.bare())?;
    followed.mend()?;

    // Half a copy: what is left of it is thrown away.
    let copy = world.dir().join("serve/repos/fleet.git");
    for entry in fs::read_dir(copy.join("objects"))?.flatten() {
        fs::remove_dir_all(entry.path())?;
    }
    followed.mend()?;
    followed.world.passed()
}

/// What is in force is known after another start, too, while the server is away or has nothing that can be taken; and what
/// another place had is not taken for it.
#[test]
fn what_is_in_force_outlives_another_start() -> Result<()> {
    let Followed { world, repository, _controller: controller, .. } = Followed::new()?;
    let put_back = || {
        world.put(&zone("198.18.9.0/24"))?;
        eventually("it is put back", || {
            let declared = world.value("declared/networkzones/internal")?.unwrap_or_default();
            ensure!(!declared.contains("198.18.9.0/24"), "{declared}");
            Ok(())
        })
    };
    let start_again = |controller: Controller| {
        controller.kill9()?;
        world.expire_leader()?;
        world.serve()
    };
    let told = |reason: &'static str| {
        eventually(reason, || world.status("configrepos/fleet")?.expect("Ready", "False", reason).map(drop))
    };
    let away = repository.bare().with_extension("away");
    fs::rename(repository.bare(), &away)?;
    let controller = start_again(controller)?;
    put_back()?;
    told("RepoUnavailable")?;
    fs::rename(&away, repository.bare())?;

    repository.remove("production/zone.yaml")?;
    repository.put("production/README", "nothing is declared here\n")?;
    repository.publish("nothing any more")?;
    let controller = start_again(controller)?;
    told("EmptyTree")?;
    put_back()?;

    // Of another directory nothing was ever in force.
    controller.stop(PATIENCE)?;
    world.expire_leader()?;
    world.put(&config_repo("fleet", &repository.url()).with("/spec/path", "staging"))?;
    let _controller = world.serve()?;
    told("EmptyTree")?;
    world.put(&zone("198.18.9.0/24"))?;
    world.windlass(&["reconcile", "configrepo/fleet", "--wait"])?.expect(1)?;
    let declared = world.value("declared/networkzones/internal")?.unwrap_or_default();
    ensure!(declared.contains("198.18.9.0/24"), "{declared}");
    world.passed()
}

#[test]
fn only_signed_commits_of_allowed_signers_are_taken() -> Result<()> {
    let world = World::new(0)?;
    let repository = Repository::create(world.dir(), "fleet")?;
    let key = |name: &str| -> Result<String> {
        let path = world.dir().join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status()?;
        ensure!(made.success(), "ssh-keygen failed");
        Ok(path.to_string_lossy().into_owned())
    };
    let (ours, theirs) = (key("ours")?, key("theirs")?);
    let signers = world.dir().join("signers");
    fs::write(&signers, format!("me@example.com {}", fs::read_to_string(format!("{ours}.pub"))?))?;
    let publish = |key: Option<&str>, cidr: &str| -> Result<String> {
        repository.declare("production/zone.yaml", &zone(cidr))?;
        repository.git(&["add", "--all"])?;
        match key {
            Some(key) => {
                let key = format!("user.signingkey={key}");
                repository.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-S", "-m", cidr])?
            }
            None => repository.git(&["commit", "--quiet", "-m", cidr])?,
        };
        repository.push()?;
        repository.git(&["rev-parse", "HEAD"])
    };
    let good = publish(Some(&ours), "198.18.0.0/24")?;
    let signers = signers.to_string_lossy().into_owned();
    world.put(&config_repo("fleet", &repository.url()).with("/spec/verify/allowedSigners", signers.as_str()))?;
    let _controller = world.serve()?;
    wait_applied(&world, "fleet", &good)?;
    let told = |what: &str, reason: &'static str, commit: &str| -> Result<()> {
        world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
        eventually(what, || {
            let status = world.status("configrepos/fleet")?;
            status.expect("Ready", "False", reason)?;
            ensure!(status.0["attempted"] == commit && status.0["applied"] == good, "{}", status.0);
            ensure!(status.0["signer"] == "me@example.com", "{}", status.0);
            Ok(())
        })?;
        let declared = world.value("declared/networkzones/internal")?.unwrap_or_default();
        ensure!(declared.contains("198.18.0.0/24"), "{what}: {declared}");
        Ok(())
    };
    let unsigned = publish(None, "198.18.1.0/24")?;
    told("an unsigned commit", "UnsignedCommit", &unsigned)?;
    let stranger = publish(Some(&theirs), "198.18.2.0/24")?;
    told("a commit that a stranger has signed", "SignerNotAllowed", &stranger)?;
    // Once he may sign, the same commit is taken.
    let stranger_key = fs::read_to_string(format!("{theirs}.pub"))?;
    let both = format!("{}\nyou@example.com {stranger_key}", fs::read_to_string(&signers)?.trim_end());
    fs::write(&signers, both)?;
    world.windlass(&["reconcile", "configrepo/fleet", "--wait"])?.expect(0)?;
    ensure!(world.status("configrepos/fleet")?.0["signer"] == "you@example.com", "another signer is told");
    let mended = publish(Some(&ours), "198.18.3.0/24")?;
    world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
    wait_applied(&world, "fleet", &mended)?;

    // The audit trail names who has signed what, also where a commit takes something away.
    let tells = |what: &str, commit: &str, done: &str| {
        let who = format!("me@example.com (signed commit {} of configrepo/fleet, made by ", &commit[..12]);
        eventually(what, || {
            let told = world.windlass(&["audit", "--kind", "networkzone"])?.expect(0)?;
            let found = told.lines().any(|line| line.contains(&who) && line.contains(done));
            ensure!(found, "{told}");
            Ok(())
        })
    };
    tells("who changed the zone", &mended, "declared spec.cidrs: ")?;
    world.put(
        &config_repo("fleet", &repository.url())
            .with("/spec/verify/allowedSigners", signers.as_str())
            .with("/spec/prune", true),
    )?;
    repository.declare("production/other.yaml", &zone("198.18.4.0/24").with("/metadata/name", "other"))?;
    repository.remove("production/zone.yaml")?;
    let key = format!("user.signingkey={ours}");
    repository.git(&["add", "--all"])?;
    repository.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-S", "-m", "other"])?;
    repository.push()?;
    let moved = repository.git(&["rev-parse", "HEAD"])?;
    world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
    wait_applied(&world, "fleet", &moved)?;
    tells("who deleted the zone", &moved, "deleted the declaration")?;
    let whole = world.windlass(&["audit", "verify"])?.expect(0)?;
    ensure!(whole.starts_with("whole: "), "{whole}");

    // Who is taken off the list has nothing put back any more; what is stored stays.
    fs::write(&signers, format!("you@example.com {stranger_key}"))?;
    world.windlass(&["reconcile", "configrepo/fleet"])?.expect(0)?;
    eventually("the signer is not allowed any more", || {
        world.status("configrepos/fleet")?.expect("Ready", "False", "SignerNotAllowed").map(drop)
    })?;
    let other = world.value("declared/networkzones/other")?.unwrap_or_default();
    ensure!(other.contains("198.18.4.0/24"), "{other}");
    let changed = zone("198.18.5.0/24").with("/metadata/name", "other").text();
    world.put_text("declared/networkzones/other", &changed)?;
    holds(STILL, "what somebody puts stays", || {
        let other = world.value("declared/networkzones/other")?.unwrap_or_default();
        ensure!(other.contains("198.18.5.0/24"), "{other}");
        Ok(())
    })?;
    world.passed()
}

/// Longer than the interval at which the repository is asked.
const STILL: Duration = Duration::from_secs(8);
