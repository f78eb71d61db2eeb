//! What following a Git repository costs: from a push to the first host, a thousand declarations in one commit, and a
//! poll that finds nothing new.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use windlass_e2e::{Controller, GitServer, PATIENCE, Repository, Serve, World, config_repo, service, within};
use windlass_testbed::{Authority, Validity};

use crate::footprint::field;
use crate::machine::Machine;
use crate::report::{aligned, piped};

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct GitopsArguments {
    /// How many declarations one commit has
    #[arg(long, default_value_t = 1000)]
    declarations: usize,
    /// How many pushes are measured
    #[arg(long, default_value_t = 5)]
    pushes: usize,
}

/// How long a thousand declarations may take before it is given up; they shall take a minute at most.
const LONGEST: Duration = Duration::from_secs(300);

/// The port of the service.
const PORT: u16 = 8080;

/// What the webhook's server sends in the place of a signature, as GitLab does.
const TOKEN: &str = "bench";

/// Runs it, and tells a table.
///
/// # Errors
/// When something cannot be measured.
pub(crate) fn run(arguments: &GitopsArguments, doc: Option<&Path>) -> Result<String> {
    let began = Instant::now();
    let mut rows = vec![["what", "promised", "found"].map(str::to_owned)];
    pushes(arguments.pushes, &mut rows)?;
    many(arguments.declarations, &mut rows)?;
    let machine = Machine::here(&[(Path::new("git"), "--version")])?.told();
    let told = format!("{machine}; {} s in all.\n", began.elapsed().as_secs());
    if let Some(file) = doc {
        let text = format!("{}\n## The last run\n\n{told}\n{}", include_str!("gitops.md"), piped(&rows));
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(format!("{told}\n{}", aligned(&rows)))
}

/// A repository behind HTTPS, and a controller that follows it.
struct Followed {
    world: World,
    repository: Repository,
    server: GitServer,
    controller: Controller,
}

impl Followed {
    /// `prepare` makes the first commit, which is not in force yet when this returns.
    fn new(hosts: u8, prepare: impl FnOnce(&World, &Repository) -> Result<()>) -> Result<Self> {
        let world = World::new(hosts)?;
        let repository = Repository::create(world.dir(), "fleet")?;
        prepare(&world, &repository)?;
        let authority = Authority::create(&world.dir().join("ca"), "authority")?;
        let certificate = authority.issue("git", "git", "IP:127.0.0.1", Validity::AMonth)?;
        let server = GitServer::start(repository.served(), &certificate, None)?;
        world.declare_hosts()?;
        let environment = vec![("BENCH_TOKEN".to_owned(), TOKEN.to_owned())];
        let mut controller = world.start(&Serve { name: "serve", environment, ..Serve::default() })?;
        controller.wait_until_up()?;
        controller.wait_until_leading(PATIENCE)?;
        let followed = Self { world, repository, server, controller };
        let fleet = config_repo("fleet", &followed.server.url("fleet.git"))
            .with("/spec/interval", "10m")
            .with("/spec/credentials/caFile", authority.certificate.to_string_lossy().as_ref())
            .with("/spec/webhook/secretEnv", "BENCH_TOKEN");
        followed.world.put(&fleet)?;
        Ok(followed)
    }

    fn wait_applied(&self, commit: &str) -> Result<()> {
        within(LONGEST, "the commit is in force", || {
            let status = self.world.status("configrepos/fleet")?;
            ensure!(status.0["applied"] == commit, "{}", status.0["conditions"]);
            Ok(())
        })
    }

    fn call(&self) -> Result<()> {
        let answer = self.controller.post("/hooks/git/fleet", &[("X-Gitlab-Token", TOKEN)], b"{}")?;
        ensure!(answer.status == 202, "{answer:?}");
        Ok(())
    }
}

/// From a push and the call of the webhook to the first host on which the new release lies.
#[expect(clippy::print_stderr, reason = "it takes a minute, and says how far it is")]
fn pushes(count: usize, rows: &mut Vec<[String; 3]>) -> Result<()> {
    let followed = Followed::new(3, |world, repository| {
        world.program_at(&repository.work().join("apps/web"), "v0")?;
        repository
            .declare("production/web.yaml", &service("web", PORT, Path::new("../apps/web"), &world.host_names()))?;
        repository.publish("v0").map(drop)
    })?;
    let Followed { world, repository, .. } = &followed;
    world.wait_ready("web", 0)?;
    let releases = || -> usize {
        let folders = world.hosts.iter().map(|host| host.root().join("opt/windlass/default.web/releases"));
        folders.map(|folder| fs::read_dir(folder).map_or(0, |entries| entries.flatten().count())).sum()
    };
    let mut took = Vec::new();
    for number in 1..=count {
        let program = world.program_at(&repository.work().join("apps/web"), &format!("v{number}"))?;
        drop(program);
        repository.commit("next")?;
        let before = releases();
        let begun = Instant::now();
        repository.push()?;
        followed.call()?;
        within(LONGEST, "a host has the new release", || {
            ensure!(releases() > before, "no host has it yet");
            Ok(())
        })?;
        took.push(begun.elapsed());
        eprintln!("push {number}: {:.2} s", begun.elapsed().as_secs_f64());
        world.wait_version("web", PORT, &format!("v{number}"))?;
    }
    took.sort();
    let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
    let found = format!("{:.2} s, {:.2} s at most, of {count}", middle.as_secs_f64(), longest.as_secs_f64());
    rows.push(["from `git push` and its webhook to the first host staged".to_owned(), "3 s".to_owned(), found]);
    followed.world.passed()
}

/// A thousand declarations, one of them changed, and nothing new.
fn many(count: usize, rows: &mut Vec<[String; 3]>) -> Result<()> {
    let declaration = |number: usize, args: &str| {
        let name = format!("svc-{number:04}");
        service(&name, PORT, Path::new("../apps/web"), &["nowhere"]).with("/spec/runtime/args", vec![args])
    };
    let followed = Followed::new(0, |world, repository| {
        world.program_at(&repository.work().join("apps/web"), "v0")?;
        for number in 0..count {
            repository.declare(&format!("production/{number:04}.yaml"), &declaration(number, "first"))?;
        }
        repository.publish("all of them").map(drop)
    })?;
    let Followed { world, repository, server, controller } = &followed;
    let begun = Instant::now();
    let first = repository.git(&["rev-parse", "HEAD"])?;
    followed.wait_applied(&first)?;
    let declared = begun.elapsed();
    within(LONGEST, "each has a status", || {
        let told = world.keys("status/services/default/")?.iter().filter(|key| !key.is_empty()).count();
        ensure!(told == count, "{told} of {count}");
        Ok(())
    })?;
    let accepted = begun.elapsed();
    let what = format!("{count} declarations in one commit, until all are accepted");
    let found = format!("{:.1} s; declared after {:.1} s", accepted.as_secs_f64(), declared.as_secs_f64());
    rows.push([what, "60 s".to_owned(), found]);
    let status = fs::read_to_string(format!("/proc/{}/status", controller.id())).context("reading its status")?;
    let most = field(&status, "VmHWM:")?;
    let found = format!("{:.0} MB", most as f64 / 1024.0);
    rows.push(["memory of the controller meanwhile, resident, at most".to_owned(), "256 MB".to_owned(), found]);

    let keys = || -> Result<Vec<(String, String)>> {
        let keys = world.keys("declared/services/default/")?;
        let keys = keys.into_iter().filter(|key| !key.is_empty());
        keys.map(|key| Ok((key.clone(), world.value(&key)?.unwrap_or_default()))).collect()
    };
    let before = keys()?;
    repository.declare("production/0007.yaml", &declaration(7, "second"))?;
    let second = repository.publish("one of them")?;
    let begun = Instant::now();
    followed.call()?;
    followed.wait_applied(&second)?;
    let took = begun.elapsed();
    let after = keys()?;
    let changed = before.iter().zip(&after).filter(|(one, other)| one != other).count();
    ensure!(before.len() == after.len(), "declarations came or went");
    let found = format!("{changed}, after {:.2} s", took.as_secs_f64());
    rows.push([format!("declarations written by a commit that touches one of {count}"), "1".to_owned(), found]);

    let asked = server.questions().len();
    world.windlass(&["reconcile", "configrepo/fleet", "--wait"])?.expect(0)?;
    let questions = server.questions();
    let poll = questions[asked..].iter().filter(|question| question.starts_with("POST")).count();
    let found = format!("{poll} `ls-remote`, {} questions by HTTP", questions.len() - asked);
    rows.push(["what a poll that finds nothing new asks".to_owned(), "1 `ls-remote`".to_owned(), found]);
    followed.world.passed()
}
