//! Sources and placements that lead nowhere, each with the reason and the words that people get, while what ran goes on.
//!
//! `docs/bad-input.md` lists them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use windlass_e2e::{Declaration, Program, Serve, World, eventually, service};

use crate::PORT;

/// Root without the right to read what its mode forbids: as a controller that does not run as root.
const BOUND_BY_MODES: &[&str] = &["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"];

/// What is done to the source, or said in the declaration.
enum Act {
    Source(fn(&Program) -> Result<()>),
    Declaration(fn(Declaration) -> Declaration),
}

/// A mistake, and what is said of it.
struct Mistake {
    what: &'static str,
    make: Act,
    /// Takes back what was done to the source.
    mend: fn(&Program) -> Result<()>,
    reason: &'static str,
    words: [&'static str; 2],
}

/// Nothing was done to the source.
fn nothing(_: &Program) -> Result<()> {
    Ok(())
}

/// Each mistake in its turn, on one service that runs all the while, and was started once when all are over.
#[test]
fn what_runs_goes_on_while_its_source_or_placement_makes_no_sense() -> Result<()> {
    let mistakes = [
        Mistake {
            what: "a source that is gone",
            make: Act::Source(|program| Ok(fs::rename(program.dir(), program.dir().with_extension("away"))?)),
            mend: |program| Ok(fs::rename(program.dir().with_extension("away"), program.dir())?),
            reason: "SourceUnavailable",
            words: ["is not available on the controller's machine", "No such file or directory"],
        },
        Mistake {
            what: "a source that is a file",
            make: Act::Declaration(|web| {
                let path = format!("{}/server.py", web.document["spec"]["source"]["path"].as_str().unwrap_or_default());
                web.with("/spec/source/path", path)
            }),
            mend: nothing,
            reason: "SourceUnavailable",
            words: ["server.py is not available", "Not a directory"],
        },
        Mistake {
            what: "a file that may not be read",
            make: Act::Source(|program| {
                program.put("secret.txt", "x")?;
                Ok(fs::set_permissions(program.dir().join("secret.txt"), fs::Permissions::from_mode(0o000))?)
            }),
            mend: |program| Ok(fs::remove_file(program.dir().join("secret.txt"))?),
            reason: "SourceInvalid",
            words: ["secret.txt", "let the controller's user read it, or exclude it"],
        },
        Mistake {
            what: "a pipe among the files",
            make: Act::Source(|program| {
                let made = std::process::Command::new("mkfifo").arg(program.dir().join("control")).status()?;
                ensure!(made.success(), "mkfifo");
                Ok(())
            }),
            mend: |program| Ok(fs::remove_file(program.dir().join("control"))?),
            reason: "SourceInvalid",
            words: ["control is a pipe", "exclude it"],
        },
        Mistake {
            what: "globs that leave nothing",
            make: Act::Declaration(|web| web.with("/spec/source/include", vec!["*.nothing"])),
            mend: nothing,
            reason: "SourceInvalid",
            words: ["is left to release", "look at the include and exclude globs"],
        },
        Mistake {
            what: "an entry point that is not in the release",
            make: Act::Declaration(|web| web.with("/spec/runtime/entryPoint", "main.py")),
            mend: nothing,
            reason: "EntryPointMissing",
            words: ["spec.runtime.entryPoint: main.py is not in the release", "look at include and exclude"],
        },
        Mistake {
            what: "a program that runs by itself and may not be executed",
            make: Act::Declaration(|web| web.with("/spec/runtime/target", "generic")),
            mend: nothing,
            reason: "EntryPointMissing",
            words: ["server.py is not executable", "chmod +x"],
        },
        Mistake {
            what: "dependencies that nobody installs",
            make: Act::Source(|program| program.put("requirements.txt", "flask\n")),
            mend: |program| Ok(fs::remove_file(program.dir().join("requirements.txt"))?),
            reason: "InstallNotSupported",
            words: ["requirements.txt asks for dependencies", "say `install: none`"],
        },
        Mistake {
            what: "a selector that matches nothing",
            make: Act::Declaration(|web| web.with("/spec/placement", json!({"selector": {"role": "wbe"}}))),
            mend: nothing,
            reason: "NoHosts",
            words: ["spec.placement: the selector role=wbe matches no Host", "`windlass get hosts -o yaml`"],
        },
    ];
    let world = World::new(1)?;
    let program = world.program("web", "v1")?;
    world.declare_hosts()?;
    let web = service("web", PORT, program.dir(), &["web1"]);
    let generation = world.put(&web)?;
    let mut controller = world.start(&Serve { name: "serve", wrapper: BOUND_BY_MODES, ..Serve::default() })?;
    controller.wait_until_up()?;
    world.wait_ready("web", generation)?;
    for Mistake { what, make, mend, reason, words } in mistakes {
        match make {
            Act::Source(make) => make(&program).context(what)?,
            Act::Declaration(change) => _ = world.put(&change(web.clone()))?,
        }
        eventually(format_args!("{what}: {reason}"), || {
            let message = world.service("web")?.expect("Ready", "False", reason)?;
            for words in words {
                ensure!(message.contains(words), "{words:?} is not in {message:?}");
            }
            world.service("web")?.expect("Stalled", "True", reason).map(drop)
        })?;
        world.expect_version(&world.hosts, PORT, "v1").context(what)?;
        mend(&program).context(what)?;
        let generation = world.put(&web)?;
        world.wait_ready("web", generation).context(what)?;
    }
    // All these mistakes later it is still the process of the first deploy.
    ensure!(world.starts("web", "v1")? == [1], "it was started {:?} times", world.starts("web", "v1")?);
    a_log_that_grows(&world, &program)?;
    nowhere_to_begin_with(&world, &program)?;
    a_port_that_is_taken(&world)?;
    controller.check_alive()?;
    world.passed()
}

/// A file that is written all the time never settles: it is named, and left out once somebody says so.
fn a_log_that_grows(world: &World, program: &Program) -> Result<()> {
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (done, log) = (Arc::clone(&done), program.dir().join("app.log"));
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut log = fs::File::options().create(true).append(true).open(log)?;
            while !done.load(Ordering::Relaxed) {
                log.write_all(b"one line more\n")?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })
    };
    let told = eventually("the log is named", || {
        let message = world.service("web")?.expect("Ready", "False", "SourceUnsettled")?;
        ensure!(message.contains("app.log in") && message.contains("exclude it"), "{message:?}");
        world.expect_version(&world.hosts, PORT, "v1")
    });
    // Without it the source is what it was.
    let excluded = service("web", PORT, program.dir(), &["web1"]).with("/spec/source/exclude", vec!["*.log"]);
    let ready = told.and_then(|()| world.wait_ready("web", world.put(&excluded)?));
    done.store(true, Ordering::Relaxed);
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ready?;
    ensure!(world.starts("web", "v1")? == [1], "a log restarted it");
    fs::remove_file(program.dir().join("app.log"))?;
    Ok(())
}

/// A selector that never matched anything removes nothing, so nothing has to be confirmed.
fn nowhere_to_begin_with(world: &World, program: &Program) -> Result<()> {
    let lost = service("lost", 8083, program.dir(), &[]).with("/spec/placement", json!({"selector": {"role": "wbe"}}));
    world.put(&lost)?;
    eventually("it says that it runs nowhere", || {
        let message = world.service("lost")?.expect("Ready", "False", "NoHosts")?;
        ensure!(message.contains("the selector role=wbe matches no Host"), "{message:?}");
        Ok(())
    })
}

/// A program that runs on without the port that it is told to listen on.
const PATIENT: &str = "import time\n\nprint('started patient', flush=True)\nwhile True:\n    time.sleep(60)\n";

/// Another program has the port, and says there that all is well: it is not ours, whether ours ends over it or not.
fn a_port_that_is_taken(world: &World) -> Result<()> {
    let web1 = &world.hosts[0];
    web1.write_file("/srv/squatter/health", "all is well")?;
    let python = ["python3", "-m", "http.server", "--directory", "/srv/squatter", "8082"];
    web1.run(&[&["systemd-run", "--quiet", "--unit=squatter"][..], &python].concat())?;
    eventually("it is well", || {
        let answer = windlass_e2e::get(world.address(web1, 8082), "/health")?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })?;
    let ending = world.program("ending", "v1")?;
    let patient = world.program("patient", "v1")?;
    patient.put("server.py", PATIENT)?;
    for (name, program) in [("ending", ending), ("patient", patient)] {
        world.put(&service(name, 8082, program.dir(), &["web1"]))?;
        eventually(format_args!("the port of {name} is named"), || {
            let message = world.service(name)?.expect("Ready", "False", "FirstDeployUnhealthy")?;
            ensure!(message.contains("another program listens on port 8082; stop it"), "{message:?}");
            world.expect_version(&world.hosts, PORT, "v1")
        })?;
        let unit = format!("windlass-default.{name}.service");
        eventually(format_args!("{name} is stopped"), || {
            let state = web1.run(&["systemctl", "show", "--property=MainPID", &unit])?;
            ensure!(state == "MainPID=0\n", "{state}");
            Ok(())
        })?;
    }
    Ok(())
}

/// As a power cut of the controller's machine may leave it: a file of the data directory has its length, and is empty
/// otherwise. The host refuses what comes of it, and it is read again from the source, without anybody's help.
#[test]
fn what_was_damaged_on_the_controllers_machine_is_read_again() -> Result<()> {
    let world = World::new(2)?;
    let controller = world.serve()?;
    world.declare_hosts()?;
    let program = world.program("web", "v1")?;
    let generation = world.put(&service("web", PORT, program.dir(), &["web1"]))?;
    world.wait_ready("web", generation)?;

    let server = fs::read(program.dir().join("server.py"))?;
    let mut damaged = 0;
    for folder in fs::read_dir(world.dir().join("serve/contents/files"))? {
        for file in fs::read_dir(folder?.path())? {
            let path = file?.path();
            if fs::read(&path)? == server {
                fs::OpenOptions::new().write(true).open(&path)?.write_all(&vec![0; server.len()])?;
                damaged += 1;
            }
        }
    }
    ensure!(damaged == 1, "{damaged} files hold the program");
    let generation = world.put(&service("web", PORT, program.dir(), &["web1", "web2"]))?;
    world.wait_ready("web", generation)?;
    world.expect_version(&world.hosts, PORT, "v1")?;
    let log = controller.log();
    ensure!(log.contains("were damaged in the data directory"), "{log}");
    world.passed()
}
