//! Surveys a host over an ssh connection, and changes nothing there.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssh::{Child, ForwardType, Session, Socket, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use windlass_crds::host::Target;
use windlass_crds::step::ContactError;

use super::link::Connection;
use super::shell::{nonce, spare};
use crate::check::{Contacted, Folder, Forwarding, Inside, MissingTool, Owner, Power, Space, Survey, Systemd, asked};

/// What looks around there.
const SCRIPT: &str = include_str!("check.sh");

/// How long the look may take there: `sudo` may ask a directory server, and systemctl is given 5 s twice.
const INSIDE_DEADLINE: Duration = Duration::from_secs(20);

/// How long sshd may take to refuse, or to be refused by, a port.
const FORWARD_DEADLINE: Duration = Duration::from_secs(5);

/// How long each further session may take to be granted.
const SESSION_DEADLINE: Duration = Duration::from_secs(5);

/// The most that a look may say, in bytes; it says less than 4 KiB.
const MOST_SAID: u64 = 256 << 10;

/// tcpmux, which nobody runs: what sshd does about a closed port is as good an answer as an open one.
const NOBODYS_PORT: u16 = 1;

/// Looks at everything that can be looked at.
pub(crate) async fn survey(connection: &Connection, target: &Target, shell: &str) -> Survey {
    let session = connection.master.session();
    let forwarding = forwarding(connection).await;
    let started = seconds_now();
    let look = match open(session, &[shell_words(shell), script(target, shell)].concat()).await {
        Ok(look) => look,
        Err(detail) => {
            let inside = Err(ContactError::Refused { detail });
            return Survey { contact: Ok(Contacted { forwarding, sessions: 0, inside }) };
        }
    };
    // The look holds its own session until all are counted.
    let mut others = Vec::new();
    while others.len() + 1 < Contacted::SESSIONS {
        match open(session, &["sh", "-c", "read -r _"].map(str::to_owned)).await {
            Ok(other) => others.push(other),
            Err(_) => break,
        }
    }
    let sessions = others.len() + 1;
    let inside = match tokio::time::timeout(INSIDE_DEADLINE, hear(look, started)).await {
        Ok(inside) => inside,
        Err(_) => Err(ContactError::Timeout { seconds: INSIDE_DEADLINE.as_secs() }),
    };
    Survey { contact: Ok(Contacted { forwarding, sessions, inside }) }
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn shell_words(shell: &str) -> Vec<String> {
    shell.split(' ').map(str::to_owned).collect()
}

fn script(target: &Target, shell: &str) -> Vec<String> {
    let folder = target.remote_dir.as_deref().unwrap_or("-");
    let arguments = ["-c", "eval \"$1\"", "windlass", &spare(SCRIPT), &nonce(), asked(target), folder, shell];
    arguments.map(str::to_owned).to_vec()
}

/// A session with a command in it; what sshd says where it grants none.
async fn open(session: &Arc<Session>, command: &[String]) -> Result<Child<Arc<Session>>, String> {
    let mut child = Arc::clone(session).arc_command(command[0].clone());
    child.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    match tokio::time::timeout(SESSION_DEADLINE, child.spawn()).await {
        Ok(spawned) => spawned.map_err(|error| super::shell::chain(&error)),
        Err(_) => Err("sshd does not say whether it grants a session".to_owned()),
    }
}

/// Tries to be led on to a port of the host.
async fn forwarding(connection: &Connection) -> Forwarding {
    let unknown = |detail: String| Forwarding::Unknown { detail };
    let master = &connection.master;
    let before = master.log_length();
    let path = master.directory().join("survey");
    let _ = std::fs::remove_file(&path);
    let (here, there) = (Socket::from(path.clone()), Socket::new("127.0.0.1", NOBODYS_PORT));
    let attempt = async {
        let request = master.session().request_port_forward(ForwardType::Local, here, there);
        request.await.map_err(|error| super::shell::chain(&error))?;
        let mut stream = UnixStream::connect(&path).await.map_err(|error| error.to_string())?;
        // Whatever sshd decides, it ends the stream; before that, the master has logged why.
        let _ = stream.read(&mut [0]).await;
        Ok::<(), String>(())
    };
    match tokio::time::timeout(FORWARD_DEADLINE, attempt).await {
        Ok(Ok(())) => {
            let log = master.log_since(before);
            if log.contains("administratively prohibited") { Forwarding::Forbidden } else { Forwarding::Allowed }
        }
        Ok(Err(detail)) => unknown(detail),
        Err(_) => unknown(format!("no answer within {} s", FORWARD_DEADLINE.as_secs())),
    }
}

/// Hears a look out, and lets it go.
async fn hear(mut look: Child<Arc<Session>>, started: i64) -> Result<Inside, ContactError> {
    let lost = |detail: &str| ContactError::Lost { detail: detail.to_owned() };
    let stdout = look.stdout().take().ok_or_else(|| lost("a channel without pipes"))?;
    let mut lines = BufReader::new(stdout.take(MOST_SAID)).lines();
    let mut report = Report::default();
    let mut noise = Vec::new();
    while let Some(line) = lines.next_line().await.map_err(|error| lost(&error.to_string()))? {
        if line == "end" {
            return Ok(report.inside);
        }
        if !report.begun {
            // A login that prints without a line end stands in front of ours.
            match line.rsplit_once("windlass ") {
                Some((_, nonce)) if nonce.len() == NONCE_LENGTH => report.begun = true,
                _ => noise.push(line),
            }
            continue;
        }
        if line.starts_with("clock ") {
            report.span = (started, seconds_now());
        }
        report.line(&line);
    }
    let said = if noise.is_empty() { "nothing".to_owned() } else { noise.join(" / ") };
    match report.begun {
        false => Err(ContactError::Unsuitable { detail: format!("the login runs no command; it says: {said}") }),
        true => Err(lost("the look ended early")),
    }
}

/// How many digits the word has that ours begins with.
const NONCE_LENGTH: usize = 16;

/// What a look has said so far.
#[derive(Default)]
struct Report {
    begun: bool,
    /// Between which seconds of ours the host read its clock.
    span: (i64, i64),
    inside: Inside,
}

impl Report {
    /// Takes one line in. One that nobody knows is passed over: a look decides nothing that is acted on.
    fn line(&mut self, line: &str) {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        let inside = &mut self.inside;
        match key {
            "clock" => inside.ahead = rest.parse().map_or(0, |theirs| ahead(theirs, self.span)),
            "login" => rest.clone_into(&mut inside.login),
            "privilege" => {
                inside.power = match rest {
                    "root" => Some(Power::Root),
                    "sudo" => Some(Power::Sudo),
                    "user" => Some(Power::User),
                    _ => None,
                }
            }
            "lingers" => inside.lingers = true,
            "user-manager" => inside.user_manager = true,
            "no-bus" => inside.missing_bus = Some(rest.to_owned()),
            "no-systemd" => inside.systemd = Systemd::Absent { first: rest.to_owned() },
            "systemd" => {
                let (version, state) = rest.split_once(' ').unwrap_or((rest, ""));
                let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                let version = digits.parse().unwrap_or_default();
                inside.systemd = Systemd::Running { version, state: state.to_owned(), failed: Vec::new() };
            }
            "failed-units" => {
                if let Systemd::Running { failed, .. } = &mut inside.systemd {
                    failed.extend(rest.split_ascii_whitespace().map(str::to_owned));
                }
            }
            "missing" => {
                let (name, package) = rest.split_once(' ').unwrap_or((rest, "it"));
                let name = name.replace(':', " ");
                inside.missing.push(MissingTool { name, package: package.to_owned() });
            }
            "machine" => inside.machine = rest.parse().ok(),
            "owner" => inside.owner = rest.parse().map_or(Owner::Unreadable, Owner::Store),
            "dir" => inside.folder = Some(folder(rest)),
            "units" => inside.units = Some(folder(rest)),
            "disk" => inside.space = space(rest),
            "mount" => mount(&mut inside.folder, rest),
            "units-mount" => mount(&mut inside.units, rest),
            "writable" => allow(&mut inside.folder),
            "units-writable" => allow(&mut inside.units),
            _ => {}
        }
    }
}

/// How far a clock is ahead that showed `theirs` at some time within `span`: the least that is possible.
fn ahead(theirs: i64, span: (i64, i64)) -> i64 {
    let (earliest, latest) = span;
    if theirs > latest {
        theirs - latest
    } else if theirs < earliest {
        theirs - earliest
    } else {
        0
    }
}

fn folder(path: &str) -> Folder {
    Folder { path: path.to_owned(), mount: None, writable: false }
}

fn mount(folder: &mut Option<Folder>, options: &str) {
    if let Some(folder) = folder {
        folder.mount = Some(options.split(',').map(str::to_owned).collect());
    }
}

fn allow(folder: &mut Option<Folder>) {
    if let Some(folder) = folder {
        folder.writable = true;
    }
}

/// Free blocks, their size, free files and all files, as `stat -f` writes them.
fn space(text: &str) -> Option<Space> {
    let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [blocks, size, free, all] = numbers[..] else { return None };
    Some(Space { bytes: blocks.saturating_mul(size), files: (all > 0).then_some(free) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_no_less_than_it_must_be() {
        for (theirs, span, expected) in
            [(100, (100, 100), 0), (101, (100, 102), 0), (110, (100, 102), 8), (90, (100, 102), -10)]
        {
            assert_eq!(ahead(theirs, span), expected, "{theirs} within {span:?}");
        }
    }

    /// What the script asks for is what host.sh calls, or a host would pass the check and refuse the work.
    #[test]
    fn every_tool_that_the_host_script_demands_is_looked_for() {
        let demanded = super::super::shell::HOST_SCRIPT
            .lines()
            .find_map(|line| line.trim().strip_prefix("for tool in systemctl")?.strip_suffix("; do"))
            .expect("host.sh has a list of tools");
        for tool in demanded.split_ascii_whitespace() {
            assert!(SCRIPT.contains(&format!(" {tool}=")), "{tool}");
        }
    }
}
