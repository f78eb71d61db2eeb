//! What is measured on: hosts, an etcd that waits for its disk, a controller, and the ssh configuration of both sides.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use windlass_e2e::{Controller, World, get, zone};
use windlass_testbed::{Durability, Etcd, EtcdVersion, Host};

use crate::rsync::{Rsync, Style};
use crate::tree::Tree;
use crate::windlass::Windlass;

/// Between two questions from outside to a service.
const POLL: Duration = Duration::from_millis(5);

/// How long a controller may take to end when it is asked to.
const STOP: Duration = Duration::from_secs(30);

/// Hosts, store and controller.
pub(crate) struct Ground {
    /// The store, the hosts and their network.
    pub(crate) world: World,
    /// The controller; none while it is stopped.
    controller: Mutex<Option<Controller>>,
}

impl Ground {
    /// Boots hosts, and starts a store and a controller that knows them.
    ///
    /// # Errors
    /// When any of them does not come up.
    pub(crate) fn new(hosts: u8) -> Result<Self> {
        let world = World::around(Etcd::start_with(EtcdVersion::V3_4, Durability::Synced)?, hosts)?;
        world.put(&zone(&world.testbed.cidr()))?;
        for host in &world.hosts {
            // root on both sides, so that neither pays for sudo.
            world.put(&windlass_e2e::host(host)?.with("/spec/user", "root"))?;
        }
        let controller = world.serve()?;
        let ground = Self { world, controller: Mutex::new(Some(controller)) };
        std::fs::write(ground.ssh_config(), ground.ssh_configuration()?).context("writing an ssh configuration")?;
        Ok(ground)
    }

    /// The first hosts.
    pub(crate) fn hosts(&self, count: u8) -> &[Host] {
        &self.world.hosts[..usize::from(count)]
    }

    /// Windlass.
    ///
    /// # Errors
    /// When it is not built, or its controller is stopped.
    pub(crate) fn windlass(&self) -> Result<Windlass> {
        let log = self.controller(|controller| controller.log_file().to_owned())?;
        Windlass::new(self.world.dir(), &self.world.etcd.endpoint(), &log)
    }

    /// rsync over ssh.
    pub(crate) fn rsync(&self, style: Style) -> Rsync {
        Rsync::new(self.ssh_config(), style)
    }

    /// A tree of this name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn tree(&self, name: &str, seed: u64, version: &str) -> Result<Tree> {
        Tree::create(self.world.dir().join("trees").join(name), seed, version)
    }

    /// Asks the controller something.
    ///
    /// # Errors
    /// When it is stopped.
    pub(crate) fn controller<T>(&self, ask: impl FnOnce(&Controller) -> T) -> Result<T> {
        self.place().as_ref().map(ask).context("the controller is stopped")
    }

    /// Stops the controller, and with it its connections.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) fn stop_controller(&self) -> Result<()> {
        self.place().take().map_or(Ok(()), |controller| controller.stop(STOP))
    }

    /// Starts the controller again.
    ///
    /// # Errors
    /// When it does not lead soon.
    pub(crate) fn start_controller(&self) -> Result<()> {
        *self.place() = Some(self.world.serve()?);
        Ok(())
    }

    fn place(&self) -> MutexGuard<'_, Option<Controller>> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a service answers on a host; nothing where it does not.
    pub(crate) fn answer(&self, host: &Host, port: u16) -> Option<String> {
        let address = SocketAddr::from((host.address(), port));
        get(address, "/health").ok().map(|answer| answer.body)
    }

    /// Makes sure that no host has cached anything for a service: one that is not the first there would not have to
    /// compile its modules.
    ///
    /// # Errors
    /// When one has.
    pub(crate) fn expect_nothing_of(&self, hosts: &[Host], name: &str) -> Result<()> {
        for host in hosts {
            let found = host.run(&["find", "/var/cache", "-name", &format!("*{name}")])?;
            ensure!(found.is_empty(), "{} has met {name} before: {found}", host.name());
        }
        Ok(())
    }

    /// Makes sure that every host answers with a version.
    ///
    /// # Errors
    /// When one does not.
    pub(crate) fn expect(&self, hosts: &[Host], port: u16, version: &str) -> Result<()> {
        for host in hosts {
            let found = self.answer(host, port);
            ensure!(found.as_deref() == Some(version), "{} answers {found:?}, not {version}", host.name());
        }
        Ok(())
    }

    /// Waits until a host answers with a version.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub(crate) fn await_answer(&self, host: &Host, port: u16, version: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.answer(host, port).as_deref() != Some(version) {
            if Instant::now() > deadline {
                bail!("{} does not answer {version} within {limit:?}", host.name());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends what would outlive the hosts.
    ///
    /// # Errors
    /// When the controller does not end.
    pub(crate) fn clean(self) -> Result<()> {
        self.rsync(Style::Steps).close(&self.world.hosts);
        self.stop_controller()?;
        self.world.passed()
    }

    fn ssh_config(&self) -> PathBuf {
        self.world.dir().join("ssh_config")
    }

    /// What the operator has in `~/.ssh/config`: keys checked, one connection a host that stays open.
    fn ssh_configuration(&self) -> Result<String> {
        let dir = self.world.dir();
        let known_hosts: Vec<String> =
            self.world.hosts.iter().map(Host::known_hosts_line).collect::<Result<_>>().context("reading host keys")?;
        std::fs::write(dir.join("known_hosts"), known_hosts.join("\n") + "\n").context("writing known hosts")?;
        let mut text = String::new();
        for host in &self.world.hosts {
            let (name, address, key) = (host.name(), host.address(), host.key_file().display());
            let _ = writeln!(text, "Host {name}\n  HostName {address}\n  User root\n  IdentityFile {key}");
        }
        let _ = writeln!(
            text,
            "Host *\n  IdentitiesOnly yes\n  BatchMode yes\n  StrictHostKeyChecking yes\n  UserKnownHostsFile {0}/known_hosts\n  \
             GlobalKnownHostsFile none\n  ControlMaster auto\n  ControlPath {0}/s-%h\n  ControlPersist 60",
            dir.display()
        );
        Ok(text)
    }
}
