//! What systemd gets to read: the unit of a revision and its environment, made from a spec by pure functions.

use std::fmt::Write as _;
use std::time::Duration;

use windlass_crds::digest::PayloadDigest;
use windlass_crds::id::ServiceKey;
use windlass_crds::observation::Scope;
use windlass_crds::service::{Runtime, RuntimeTarget, ServiceSpec};

/// How long systemd waits before it starts a program again that has ended: short, for a health gate waits on it,
/// and long enough that a program which fails at once leaves the host its processor.
const RESTART_SECONDS: u32 = 1;

/// So much of a digest names a slot: a service has a handful of them, and nobody gains by two that are alike.
const SLOT_DIGITS: usize = 16;

/// Ports below need a capability (capabilities(7), CAP_NET_BIND_SERVICE).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Where a revision will lie, and what runs it there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Which service.
    pub(crate) service: &'a ServiceKey,
    /// Where Windlass keeps its files on the host.
    pub(crate) remote_dir: &'a str,
    /// Whose systemd.
    pub(crate) scope: Scope,
    /// The interpreter's absolute path there, where the target has one.
    pub(crate) program: Option<&'a str>,
}

/// The name of the program that runs a target's entry point; `None` where the entry point runs by itself.
pub(crate) fn interpreter(target: RuntimeTarget) -> Option<&'static str> {
    match target {
        RuntimeTarget::Python => Some("python3"),
        RuntimeTarget::Node => Some("node"),
        RuntimeTarget::Dotnet => Some("dotnet"),
        RuntimeTarget::Go | RuntimeTarget::Rust | RuntimeTarget::Generic => None,
    }
}

/// The unit file of a revision.
///
/// Revisions with the same settings have the same unit, byte by byte: it runs whatever its slot links to, so that
/// systemd has nothing to read again where only files differ. The slot is named by the digest of all that the unit
/// says, so that one with other settings never runs through the link of another.
///
/// Its first three lines say whose it is, in this order: the host reads them without starting a process.
pub(crate) fn unit(place: &Place<'_>, spec: &ServiceSpec) -> String {
    let digest = PayloadDigest::of(through(place, spec, "").as_bytes()).to_string();
    through(place, spec, &digest[..SLOT_DIGITS])
}

/// The unit that runs what a slot links to.
fn through(place: &Place<'_>, spec: &ServiceSpec, slot: &str) -> String {
    let Place { service, remote_dir, scope, program: _ } = place;
    let folder = service.folder();
    let revision_dir = format!("{remote_dir}/{folder}/live/{slot}");
    let install = match scope {
        Scope::System => "multi-user.target",
        Scope::User => "default.target",
    };
    let mut text = format!(
        "[X-Windlass]\nService={folder}\nSlot={slot}\n\n\
         [Unit]\nDescription={service}, by Windlass\nAfter=network.target\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\nType=exec\nExecStart={}\nWorkingDirectory={}\n",
        command(place, &revision_dir, &spec.runtime),
        percent(&format!("{revision_dir}/release")),
    );
    if spec.runtime.target == RuntimeTarget::Python {
        // The release is read-only, and byte code saves a tenth of a second at each start.
        let _ = writeln!(text, "Environment=PYTHONPYCACHEPREFIX=%C/windlass/{folder}/pycache");
    }
    let _ = writeln!(text, "EnvironmentFile={}", percent(&format!("{revision_dir}/env")));
    let _ = write!(
        text,
        "Restart=always\nRestartSec={RESTART_SECONDS}\nKillMode=mixed\nTimeoutStopSec={}\n\
         SyslogIdentifier={folder}\nStateDirectory=windlass/{folder}\nCacheDirectory=windlass/{folder}\n",
        seconds(spec.lifecycle.force_after.duration()),
    );
    text.push_str(&limits(&spec.runtime));
    text.push_str(&sandbox(place, spec));
    let _ = write!(text, "\n[Install]\nWantedBy={install}\n");
    text
}

/// The environment file of a revision (systemd.exec(5), EnvironmentFile=).
pub(crate) fn environment(spec: &ServiceSpec) -> String {
    let mut text = String::new();
    for (name, value) in &spec.runtime.env {
        let _ = writeln!(text, "{name}=\"{}\"", env_value(value));
    }
    if let Some(port) = spec.port() {
        let _ = writeln!(text, "PORT=\"{port}\"");
    }
    text
}

/// The command line of `ExecStart=`, each word quoted.
fn command(place: &Place<'_>, revision_dir: &str, runtime: &Runtime) -> String {
    let entry = format!("{revision_dir}/release/{}", runtime.entry_point);
    let mut line = match place.program {
        Some(program) => {
            let unbuffered = if runtime.target == RuntimeTarget::Python { " -u" } else { "" };
            format!("{}{unbuffered} {}", quoted(program), dollar(&quoted(&entry)))
        }
        // systemd puts no variables into the path of the program itself.
        None => quoted(&entry),
    };
    for argument in &runtime.args {
        line.push(' ');
        line.push_str(&dollar(&quoted(argument)));
    }
    line
}

/// A word of a command line, in double quotes (systemd.syntax(7), quoting; systemd.unit(5), specifiers).
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for character in word.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '%' => text.push_str("%%"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            control if control.is_ascii_control() => {
                let _ = write!(text, "\\x{:02x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Keeps systemd from putting variables in (systemd.service(5), command lines).
fn dollar(text: &str) -> String {
    text.replace('$', "$$")
}

/// Keeps systemd from putting specifiers in.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

/// A value between double quotes in an environment file: four characters are escaped, line ends stand for themselves.
fn env_value(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '`' | '$') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// A time span for systemd.
fn seconds(span: Duration) -> String {
    // 0 would mean no limit at all.
    format!("{}ms", span.as_millis().max(1))
}

/// What it may use at most (systemd.resource-control(5)).
fn limits(runtime: &Runtime) -> String {
    let mut text = String::new();
    let Some(limits) = &runtime.limits else { return text };
    if let Some(memory) = &limits.memory {
        let _ = writeln!(text, "MemoryMax={memory}");
    }
    if let Some(percent) = limits.cpu.as_deref().and_then(|cores| cores.parse::<f64>().ok()) {
        let _ = writeln!(text, "CPUQuota={:.0}%", (percent * 100.0).max(1.0));
    }
    if let Some(tasks) = limits.tasks {
        let _ = writeln!(text, "TasksMax={tasks}");
    }
    text
}

/// What a unit of any scope is kept from: filters of system calls, which need no privilege.
const FILTERS: &str = "NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
";

/// What a unit in system scope is kept from besides; in user scope these fail or are silently ignored.
const WALLS: &str = "PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
UMask=0027
";

/// What keeps the program in its place.
fn sandbox(place: &Place<'_>, spec: &ServiceSpec) -> String {
    if place.scope == Scope::User {
        return FILTERS.to_owned();
    }
    let lies_in = |folders: &[&str]| folders.iter().any(|folder| place.remote_dir.starts_with(folder));
    let mut text = match &spec.runtime.user {
        Some(user) => format!("User={user}\n"),
        None => "DynamicUser=yes\n".to_owned(),
    };
    // Neither may hide the release itself.
    let _ = writeln!(text, "PrivateTmp={}", if lies_in(&["/tmp/", "/var/tmp/"]) { "no" } else { "yes" });
    let at_home = lies_in(&["/home/", "/root/", "/run/user/"]);
    let _ = writeln!(text, "ProtectHome={}", if at_home { "read-only" } else { "yes" });
    let capability = match spec.port() {
        Some(port) if port.get() < FIRST_UNPRIVILEGED_PORT => "CAP_NET_BIND_SERVICE",
        _ => "",
    };
    let _ = write!(text, "CapabilityBoundingSet={capability}\nAmbientCapabilities={capability}\n");
    text.push_str(WALLS);
    text.push_str(FILTERS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &serde_json::Value) -> ServiceSpec {
        let mut all = serde_json::json!({
            "placement": { "hosts": ["web1"] },
            "source": { "path": "/srv/web" },
            "runtime": { "target": "python", "entryPoint": "server.py" },
        });
        for (key, value) in json.as_object().expect("an object") {
            all[key] = value.clone();
        }
        serde_json::from_value(all).expect("a spec")
    }

    fn render(scope: Scope, remote_dir: &str, program: Option<&str>, spec: &ServiceSpec) -> String {
        let service = "default/web".parse().expect("a service");
        unit(&Place { service: &service, remote_dir, scope, program }, spec)
    }

    #[test]
    fn a_unit_in_system_scope() {
        let spec = spec(&serde_json::json!({
            "runtime": {
                "target": "python", "entryPoint": "bin/server.py", "args": ["--name=a b", "50%", "$HOME"],
                "limits": { "memory": "256M", "cpu": "1.5", "tasks": 40 },
            },
            "network": { "port": 8080 },
            "lifecycle": { "forceAfter": "2s" },
        }));
        let text = render(Scope::System, "/opt/windlass", Some("/usr/bin/python3"), &spec);
        let slot = text.lines().nth(2).and_then(|line| line.strip_prefix("Slot=")).expect("a slot");
        let expected = r#"[X-Windlass]
Service=default.web
Slot=SLOT

[Unit]
Description=default/web, by Windlass
After=network.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart="/usr/bin/python3" -u "/opt/windlass/default.web/live/SLOT/release/bin/server.py" "--name=a b" "50%%" "$$HOME"
WorkingDirectory=/opt/windlass/default.web/live/SLOT/release
Environment=PYTHONPYCACHEPREFIX=%C/windlass/default.web/pycache
EnvironmentFile=/opt/windlass/default.web/live/SLOT/env
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec=2000ms
SyslogIdentifier=default.web
StateDirectory=windlass/default.web
CacheDirectory=windlass/default.web
MemoryMax=256M
CPUQuota=150%
TasksMax=40
DynamicUser=yes
PrivateTmp=yes
ProtectHome=yes
CapabilityBoundingSet=
AmbientCapabilities=
"#;
        let expected = format!("{expected}{WALLS}{FILTERS}\n[Install]\nWantedBy=multi-user.target\n");
        assert_eq!(text, expected.replace("SLOT", slot));
        assert_eq!(slot.len(), SLOT_DIGITS);
    }

    #[test]
    fn a_slot_is_shared_by_what_systemd_need_not_tell_apart() {
        let slot = |json: &serde_json::Value| {
            let text = render(Scope::System, "/opt/windlass", Some("/usr/bin/python3"), &spec(json));
            text.lines().nth(2).expect("a slot").to_owned()
        };
        let port = |port: u16| serde_json::json!({ "network": { "port": port } });
        let stop = serde_json::json!({ "network": { "port": 8080 }, "lifecycle": { "forceAfter": "2s" } });
        // The port is in the environment, which lies beside the files.
        assert_eq!(slot(&port(8080)), slot(&port(8081)));
        assert_ne!(slot(&port(8080)), slot(&port(80)));
        assert_ne!(slot(&port(8080)), slot(&stop));
    }

    #[test]
    fn a_unit_in_user_scope() {
        let spec = spec(&serde_json::json!({ "runtime": { "target": "generic", "entryPoint": "a $b" } }));
        let text = render(Scope::User, "/home/app/.local/share/windlass", None, &spec);
        let slot = text.lines().nth(2).and_then(|line| line.strip_prefix("Slot=")).expect("a slot");
        let command = format!("ExecStart=\"/home/app/.local/share/windlass/default.web/live/{slot}/release/a $b\"\n");
        assert!(text.contains(&command), "{text}");
        assert!(text.ends_with("\n[Install]\nWantedBy=default.target\n"), "{text}");
        for absent in ["DynamicUser", "ProtectSystem", "PrivateTmp", "CapabilityBoundingSet"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn what_hides_the_release_is_left_out() {
        let spec = spec(&serde_json::json!({ "network": { "port": 80 } }));
        let text = render(Scope::System, "/home/deploy/windlass", Some("/usr/bin/python3"), &spec);
        assert!(text.contains("ProtectHome=read-only\n"), "{text}");
        assert!(text.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"), "{text}");
        let text = render(Scope::System, "/var/tmp/windlass", Some("/usr/bin/python3"), &spec);
        assert!(text.contains("PrivateTmp=no\n"), "{text}");
    }

    #[test]
    fn an_environment_escapes_what_a_file_of_it_must() {
        let spec = spec(&serde_json::json!({
            "runtime": { "target": "python", "entryPoint": "x", "env": { "A": "\"q\" $x `y` \\ %n\nnext", "B": "" } },
            "network": { "port": 8080 },
        }));
        assert_eq!(environment(&spec), "A=\"\\\"q\\\" \\$x \\`y\\` \\\\ %n\nnext\"\nB=\"\"\nPORT=\"8080\"\n");
    }
}
