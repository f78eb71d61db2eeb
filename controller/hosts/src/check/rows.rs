//! What a survey means: a row for each aspect, with what to do where something is wrong.

use windlass_crds::host::Target;
use windlass_crds::id::{ClusterId, HostId};
use windlass_crds::observation::Scope;
use windlass_crds::step::ContactError;

use super::{
    Aspect, Contacted, Folder, Forwarding, Inside, MissingTool, Owner, Power, Row, Space, Survey, Systemd, Verdict,
    asked,
};

/// Less than this is a full disk: not even the records of a step fit beside a unit and its environment.
const NO_ROOM: u64 = 1 << 20;

/// Less than this is told: two releases of an ordinary program stand beside each other during a deploy.
const LITTLE_ROOM: u64 = 256 << 20;

/// Fewer free files than this are told: a release of a Python or Node program has thousands.
const FEW_FILES: u64 = 5_000;

/// A clock that is further off than this is told: certificates and timers begin to notice.
const CLOCK_SECONDS: i64 = 5;

/// `systemd-run --wait --pipe --collect`, which the switch runs in, is in systemd since then (its NEWS).
const OLDEST_SYSTEMD: u32 = 236;

/// What the rest of the world has to do with a host.
#[derive(Debug, Clone, Default)]
pub struct Around<'a> {
    /// The id of our store, where it is known.
    pub cluster: Option<&'a ClusterId>,
    /// Other names for the same machine.
    pub twins: Vec<HostId>,
}

fn row(aspect: Aspect, verdict: Verdict, message: impl Into<String>) -> Row {
    Row { aspect, verdict, message: message.into(), remedy: None }
}

fn ok(aspect: Aspect, message: impl Into<String>) -> Row {
    row(aspect, Verdict::Ok, message)
}

fn unknown(aspect: Aspect) -> Row {
    row(aspect, Verdict::Unknown, "")
}

impl Row {
    fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Everything that there is to say of a host, in a fixed order; every aspect once.
pub fn rows(target: &Target, survey: &Survey, around: &Around<'_>) -> Vec<Row> {
    use Aspect::{
        Clock, Connection, Disk, Forwarding, HostKey, Lingering, Login, Machine, Owner, Privilege, Sessions, Systemd,
        Tools,
    };
    let behind = [Forwarding, Sessions, Privilege, Lingering, Systemd, Tools, Disk, Clock, Owner, Machine];
    let contacted = match &survey.contact {
        Ok(contacted) => contacted,
        Err(error) => {
            let mut rows = no_contact(target, error);
            rows.extend(behind.map(unknown));
            return rows;
        }
    };
    let mut rows = vec![
        ok(Connection, format!("{} port {} answers", target.address, target.port)),
        ok(HostKey, if target.host_keys.is_empty() { "it is in known_hosts" } else { "it is the pinned one" }),
    ];
    match &contacted.inside {
        Ok(inside) => {
            rows.push(ok(Login, format!("as {}", inside.login)));
            rows.push(forwarding(contacted));
            rows.push(sessions(contacted));
            rows.extend(within(target, inside, around));
        }
        Err(error) => {
            let remedy = format!("does `ssh {} true` work by hand, and print nothing?", destination(target));
            rows.push(
                row(Login, Verdict::Failed, format!("it lets us in, and runs no command: {error}")).with_remedy(remedy),
            );
            rows.push(forwarding(contacted));
            rows.push(sessions(contacted));
            rows.extend(behind[2..].iter().map(|aspect| unknown(*aspect)));
        }
    }
    rows
}

/// `user@address`, as people would type it.
fn destination(target: &Target) -> String {
    let port = if target.port.get() == 22 { String::new() } else { format!("-p {} ", target.port) };
    match &target.user {
        Some(user) => format!("{port}{user}@{}", target.address),
        None => format!("{port}{}", target.address),
    }
}

/// The first three aspects, where there is no connection.
fn no_contact(target: &Target, error: &ContactError) -> Vec<Row> {
    use Aspect::{Connection, HostKey, Login};
    let place = format!("{} port {}", target.address, target.port);
    let failed = |aspect| row(aspect, Verdict::Failed, error.to_string());
    match error {
        ContactError::HostKey { .. } => vec![
            ok(Connection, format!("{place} answers")),
            match target.host_keys.is_empty() {
                true => failed(HostKey).with_remedy("no key is pinned, and known_hosts has none or another; `windlass host add` shows the key, asks, and pins it"),
                false => failed(HostKey).with_remedy("compare what is pinned with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host itself; where the machine is really new, `windlass host add --replace` pins its key"),
            },
            unknown(Login),
        ],
        ContactError::Login { .. } => {
            let key = match &target.key_file {
                Some(file) => format!("put {file}.pub into ~/.ssh/authorized_keys of the login there"),
                None => "put your public key into ~/.ssh/authorized_keys of the login there, or say which key with keyFile".to_owned(),
            };
            vec![
                ok(Connection, format!("{place} answers")),
                ok(HostKey, if target.host_keys.is_empty() { "it is in known_hosts" } else { "it is the pinned one" }),
                failed(Login).with_remedy(format!("{key}; by hand: ssh {}", destination(target))),
            ]
        }
        _ => {
            let remedy = match error {
                ContactError::Timeout { .. } => format!("is the machine on, and do firewalls let {place} through?"),
                ContactError::Refused { .. } => format!("does sshd run there, and listen on port {}?", target.port),
                ContactError::NoAddress { .. } => "is spec.address right? `getent hosts` asks the same resolver".to_owned(),
                _ => format!("by hand: ssh {}", destination(target)),
            };
            vec![failed(Connection).with_remedy(remedy), unknown(HostKey), unknown(Login)]
        }
    }
}

fn forwarding(contacted: &Contacted) -> Row {
    let aspect = Aspect::Forwarding;
    match &contacted.forwarding {
        Forwarding::Allowed => ok(aspect, "health endpoints can be asked"),
        Forwarding::Forbidden => {
            row(aspect, Verdict::Failed, "sshd forbids it, so no health endpoint can be asked, and no rollout judged")
                .with_remedy("in sshd_config there: `AllowTcpForwarding local`, no PermitOpen; no `no-port-forwarding` or `restrict` at the key")
        }
        Forwarding::Unknown { detail } => row(aspect, Verdict::Warning, format!("it could not be tried: {detail}")),
    }
}

fn sessions(contacted: &Contacted) -> Row {
    let (aspect, granted, wanted) = (Aspect::Sessions, contacted.sessions, Contacted::SESSIONS);
    let remedy = "in sshd_config there: `MaxSessions 10`, which is the default";
    match granted {
        0 => row(aspect, Verdict::Failed, "sshd grants none, so nothing can be done there").with_remedy(remedy),
        _ if granted >= wanted => ok(aspect, format!("{granted} at once")),
        _ => {
            let message = format!("only {granted} at once: while one step runs, others wait");
            row(aspect, Verdict::Warning, message).with_remedy(remedy)
        }
    }
}

fn within(target: &Target, inside: &Inside, around: &Around<'_>) -> Vec<Row> {
    vec![
        privilege(target, inside),
        lingering(inside),
        systemd(inside),
        tools(&inside.missing),
        disk(inside),
        clock(inside.ahead),
        owner(inside, around),
        machine(inside, around),
    ]
}

fn privilege(target: &Target, inside: &Inside) -> Row {
    let (aspect, login) = (Aspect::Privilege, &inside.login);
    match inside.power {
        Some(Power::Root) => ok(aspect, "it is root: units are the machine's"),
        Some(Power::Sudo) => ok(aspect, format!("{login} may sudo: units are the machine's")),
        Some(Power::User) => ok(aspect, format!("{login} is nobody special: units are its own")),
        None => {
            let (lack, remedy) = match asked(target) {
                "root" => ("is not root".to_owned(), "say user: root, or another privilege".to_owned()),
                _ => (
                    "may not sudo without a password".to_owned(),
                    format!(
                        "there, in /etc/sudoers.d/{login}: `{login} ALL=(ALL) NOPASSWD: ALL`; or say privilege: user"
                    ),
                ),
            };
            row(aspect, Verdict::Failed, format!("{login} {lack}, and the Host says privilege: {}", asked(target)))
                .with_remedy(remedy)
        }
    }
}

fn lingering(inside: &Inside) -> Row {
    let (aspect, login) = (Aspect::Lingering, &inside.login);
    let remedy = format!("as root there: loginctl enable-linger {login}; or give the login sudo without a password");
    match inside.power.map(Power::scope) {
        None => unknown(aspect),
        Some(Scope::System) => ok(aspect, "not needed"),
        Some(Scope::User) if !inside.lingers => {
            row(aspect, Verdict::Failed, format!("it is off for {login}: its services would end at logout"))
                .with_remedy(remedy)
        }
        Some(Scope::User) if !inside.user_manager => {
            row(aspect, Verdict::Failed, format!("it is on, and the systemd of {login} does not run"))
                .with_remedy(remedy)
        }
        Some(Scope::User) => ok(aspect, format!("it is on for {login}")),
    }
}

fn systemd(inside: &Inside) -> Row {
    let aspect = Aspect::Systemd;
    match &inside.systemd {
        Systemd::Unknown => row(aspect, Verdict::Failed, "systemctl does not say its version")
            .with_remedy("does `systemctl --version` work there?"),
        Systemd::Absent { first } => {
            row(aspect, Verdict::Failed, format!("it does not run there; process 1 is {first}"))
                .with_remedy("Windlass needs a machine, or a container, that systemd has booted")
        }
        Systemd::Running { version, .. } if *version < OLDEST_SYSTEMD => {
            row(aspect, Verdict::Failed, format!("version {version}, and {OLDEST_SYSTEMD} is the oldest that will do"))
                .with_remedy("upgrade the machine's distribution")
        }
        Systemd::Running { .. } if inside.missing_bus.is_some() => {
            let (socket, login) = (inside.missing_bus.as_deref().unwrap_or_default(), &inside.login);
            let remedy = match inside.power.map(Power::scope) {
                Some(Scope::User) => {
                    format!("install dbus-user-session there, then as {login}: systemctl --user start dbus.socket")
                }
                _ => "install dbus there, then as root: systemctl start dbus.socket".to_owned(),
            };
            row(aspect, Verdict::Failed, format!("D-Bus does not run (no {socket}), and systemd-run needs it"))
                .with_remedy(remedy)
        }
        Systemd::Running { version, state, failed } => {
            // It may still be starting, or a unit that has nothing to do with us has failed.
            let units = if failed.is_empty() { String::new() } else { format!(": {} failed", failed.join(", ")) };
            ok(aspect, format!("version {version}, {state}{units}"))
        }
    }
}

fn tools(missing: &[MissingTool]) -> Row {
    if missing.is_empty() {
        return ok(Aspect::Tools, "all there");
    }
    let names: Vec<&str> = missing.iter().map(|tool| tool.name.as_str()).collect();
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    row(Aspect::Tools, Verdict::Failed, format!("missing: {}", names.join(", ")))
        .with_remedy(format!("install {}", packages.join(" ")))
}

/// A folder that cannot be used, whatever room there is.
fn unusable(folder: &Folder) -> Option<Row> {
    let failed = |message: String| row(Aspect::Disk, Verdict::Failed, message);
    let path = &folder.path;
    if folder.mount.is_none() {
        return Some(
            failed(format!("{path} cannot be a folder: a part of it is something else"))
                .with_remedy("remove that, or say another remoteDir"),
        );
    }
    if folder.has("ro") {
        let remedy = "mount it for writing, or say a remoteDir on another file system";
        return Some(failed(format!("{path} is on a read-only file system")).with_remedy(remedy));
    }
    let remedy = "make it and give it to the login, or say another remoteDir";
    (!folder.writable).then(|| failed(format!("{path} may not be written by the login")).with_remedy(remedy))
}

fn disk(inside: &Inside) -> Row {
    let aspect = Aspect::Disk;
    let Some(folder) = &inside.folder else { return unknown(aspect) };
    if let Some(row) = unusable(folder).or_else(|| inside.units.as_ref().and_then(unusable)) {
        return row;
    }
    let Some(Space { bytes, files }) = inside.space else { return unknown(aspect) };
    let path = &folder.path;
    let room = match files {
        Some(files) => format!("{} and {files} files free for {path}", size(bytes)),
        None => format!("{} free for {path}", size(bytes)),
    };
    let remedy = "make room there, or say a remoteDir on another file system";
    if bytes < NO_ROOM || files == Some(0) {
        row(aspect, Verdict::Failed, format!("it is full: {room}")).with_remedy(remedy)
    } else if bytes < LITTLE_ROOM || files.is_some_and(|files| files < FEW_FILES) {
        row(aspect, Verdict::Warning, room).with_remedy(remedy)
    } else if folder.has("noexec") {
        row(
            aspect,
            Verdict::Warning,
            format!("{path} is on a file system with noexec: programs of target generic do not start"),
        )
        .with_remedy("mount it without noexec, or say a remoteDir on another file system")
    } else {
        ok(aspect, room)
    }
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

fn clock(ahead: i64) -> Row {
    if ahead.abs() <= CLOCK_SECONDS {
        return ok(Aspect::Clock, "as here");
    }
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    row(Aspect::Clock, Verdict::Warning, format!("{} s {side} ours: certificates, timers and logs suffer", ahead.abs()))
        .with_remedy("one of the two is wrong; on both: `timedatectl`, and let systemd-timesyncd or chrony set it")
}

fn owner(inside: &Inside, around: &Around<'_>) -> Row {
    let aspect = Aspect::Owner;
    match (&inside.owner, around.cluster) {
        _ if inside.folder.is_none() => unknown(aspect),
        (Owner::Nobody, _) => ok(aspect, "none yet"),
        (Owner::Store(owner), Some(ours)) if owner == ours => ok(aspect, "this store"),
        (Owner::Store(owner), None) => ok(aspect, format!("the store {owner}")),
        (Owner::Store(owner), Some(_)) => {
            row(aspect, Verdict::Failed, format!("the store {owner}, which is not this one: nothing is done there"))
                .with_remedy("`windlass host adopt` takes it over")
        }
        (Owner::Unreadable, _) => {
            let path = inside.folder.as_ref().map_or("", |folder| folder.path.as_str());
            row(aspect, Verdict::Failed, format!("{path}/cluster holds no store's id"))
                .with_remedy("where no other controller uses this host, remove the file")
        }
    }
}

fn machine(inside: &Inside, around: &Around<'_>) -> Row {
    let aspect = Aspect::Machine;
    let Some(machine) = &inside.machine else {
        return row(aspect, Verdict::Failed, "/etc/machine-id holds no id")
            .with_remedy("as root there: systemd-machine-id-setup");
    };
    if around.twins.is_empty() {
        return ok(aspect, machine.to_string());
    }
    let names: Vec<String> = around.twins.iter().map(ToString::to_string).collect();
    row(aspect, Verdict::Failed, format!("{machine}, which {} is too", names.join(", "))).with_remedy(
        "remove one of the names; where they are two machines, one is a clone: `rm /etc/machine-id && systemd-machine-id-setup` there, then reboot",
    )
}
