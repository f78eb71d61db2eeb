//! The contract on real hosts: as root, by `sudo` and in user scope, under dash and under busybox.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU16, Ordering};

use windlass_crds::host::Target;
use windlass_crds::id::ServiceKey;
use windlass_hosts::SshFleet;
use windlass_testbed::{Host, Testbed};

use crate::contract::{Hand, Stand, an_adopted_host_changes_its_store, hold};

/// A login on a throwaway host.
pub(crate) struct Login<'a> {
    pub(crate) host: &'a Host,
    pub(crate) user: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) next_port: AtomicU16,
    pub(crate) fleet: SshFleet,
}

/// How to reach a throwaway host.
pub(crate) fn target(host: &Host, user: &str) -> Target {
    let destination = format!("{user}@{}", host.address());
    let mut target = Target::inline(&destination.parse().expect("a destination")).expect("inline");
    target.key_file = Some(host.key_file().to_str().expect("UTF-8").to_owned());
    target.host_keys = vec![host.host_key_line().expect("a key").parse().expect("a key")];
    target
}

impl<'a> Login<'a> {
    pub(crate) fn new(
        host: &'a Host,
        user: &'static str,
        shell: &str,
        namespace: &'static str,
        first_port: u16,
    ) -> Self {
        let fleet = SshFleet::with_shell(shell).expect("a fleet");
        Self { host, user, namespace, next_port: AtomicU16::new(first_port), fleet }
    }

    /// root's, by a fleet that keeps so many connections.
    pub(crate) fn keeping(host: &'a Host, connections: usize) -> Self {
        let fleet = SshFleet::keeping(connections).expect("a fleet");
        Self { host, user: "root", namespace: "default", next_port: AtomicU16::new(8000), fleet }
    }

    /// Runs a shell text on the host as root.
    pub(crate) fn run(&self, text: &str) -> String {
        tokio::task::block_in_place(|| self.host.run(&["sh", "-c", text])).expect(text)
    }

    fn in_user_scope(&self) -> bool {
        self.user == "app"
    }

    pub(crate) fn dir(&self) -> &'static str {
        if self.in_user_scope() { "/home/app/.local/share/windlass" } else { "/opt/windlass" }
    }

    fn unit_dir(&self) -> &'static str {
        if self.in_user_scope() { "/home/app/.config/systemd/user" } else { "/etc/systemd/system" }
    }

    /// systemctl as the service's manager knows it.
    fn systemctl(&self) -> &'static str {
        match self.in_user_scope() {
            true => "runuser -u app -- env XDG_RUNTIME_DIR=/run/user/$(id -u app) systemctl --user",
            false => "systemctl",
        }
    }
}

impl Stand for Login<'_> {
    type Fleet = SshFleet;

    fn fleet(&self) -> &SshFleet {
        &self.fleet
    }

    fn target(&self) -> Target {
        target(self.host, self.user)
    }

    fn namespace(&self) -> &str {
        self.namespace
    }

    fn port(&self) -> NonZeroU16 {
        NonZeroU16::new(self.next_port.fetch_add(1, Ordering::Relaxed)).expect("a port")
    }

    fn lay(&self, hand: Hand, service: &ServiceKey) {
        let (folder, unit) = (service.folder(), service.unit());
        let (dir, unit_dir, systemctl) = (self.dir(), self.unit_dir(), self.systemctl());
        self.run(&match hand {
            Hand::EditsFile => {
                format!("cd {dir}/{folder}/current/release && chmod u+w . && printf edited >version.txt")
            }
            Hand::EditsUnit => format!("echo '# edited' >>{unit_dir}/{unit}"),
            Hand::StopsUnit => format!("{systemctl} stop {unit}"),
            Hand::AddsDropIn => format!(
                "mkdir -p {unit_dir}/{unit}.d && printf '[Service]\\nNice=5\\n' >{unit_dir}/{unit}.d/nice.conf && \
                 {systemctl} daemon-reload"
            ),
            Hand::Disables => format!("rm {unit_dir}/*.wants/{unit} && {systemctl} daemon-reload"),
        });
    }

    fn has_data(&self, service: &ServiceKey) -> bool {
        let folder = service.folder();
        let places = match self.in_user_scope() {
            true => format!("/home/app/.config/windlass/{folder} /home/app/.local/state/windlass/{folder}"),
            false => format!("/var/lib/windlass/{folder} /var/lib/private/windlass/{folder}"),
        };
        self.run(&format!("for place in {places}; do [ ! -e $place/data ] || echo found; done")).contains("found")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_hosts_keep_the_contract() {
    let testbed = Testbed::new().expect("a testbed");
    let host = testbed.host("web1").expect("a host");
    let logins = [
        Login::new(&host, "root", "dash", "root", 8100),
        Login::new(&host, "deploy", "busybox sh", "sudo", 8200),
        Login::new(&host, "app", "busybox sh", "busybox", 8300),
        Login::new(&host, "app", "dash", "dash", 8400),
    ];
    let [root, sudo, busybox, dash] = &logins;
    tokio::join!(hold(root), hold(sudo), hold(busybox), hold(dash));
    for login in &logins {
        an_adopted_host_changes_its_store(login).await;
    }
}
