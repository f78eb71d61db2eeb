//! One `sh` kept open on a host: requests go in, answers come out, and a lost connection is an answer without end.

use std::process;
use std::sync::Arc;

use bytes::Bytes;
use openssh::{Child, Session, Stdio};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use windlass_crds::digest::PayloadDigest;
use windlass_crds::step::ContactError;

use super::tally::{Open, Opened};

/// The script, as it is kept on hosts by its digest.
pub(crate) const HOST_SCRIPT: &str = include_str!("host.sh");

/// What brings the script there.
const BOOTSTRAP: &str = include_str!("bootstrap.sh");

/// Begins the script where it is already: `$1` nonce, `$2` scope, `$3` script, `$4` folder, `$5` the shell, `$6` how.
const AGAIN: &str = r#"exec 2>&1
printf 'windlass %s\n' "$1"
[ "$2" = user ] || [ "$(id -u)" = 0 ] || exec sudo -n $5 "$3" "$6" "$2" "$4" "$5"
exec $5 "$3" "$6" "$2" "$4" "$5""#;

/// The longest answer: the listing of a release of 100,000 paths, all of them damaged, is 10 MB.
const LONGEST_ANSWER: usize = 16 << 20;

/// The longest line: a drop-in list or a log line; sshd itself would carry any length.
const LONGEST_LINE: u64 = 1 << 20;

/// How many lines a login may print before ours begins (`.bashrc`, banners).
const MOST_NOISE: usize = 200;

/// What a host says of itself when its `sh` begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// `system` or `user`.
    pub(crate) scope: String,
    /// Who runs the script.
    pub(crate) user: String,
    /// The machine's id.
    pub(crate) machine: String,
    /// The boot's id.
    pub(crate) boot: String,
    /// systemd's version.
    pub(crate) systemd: String,
    /// Where Windlass keeps its files.
    pub(crate) dir: String,
}

/// What a verb answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    /// Everything before the last line.
    pub(crate) lines: Vec<String>,
    /// The verb's exit code.
    pub(crate) code: i32,
}

/// What a shell is asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// What to do.
    pub(crate) verb: &'static str,
    /// With what.
    pub(crate) arguments: Vec<String>,
}

/// How to become the script on a host.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// `auto`, `root`, `sudo` or `user`.
    pub(crate) privilege: &'static str,
    /// Where Windlass keeps its files, or `-` for the default.
    pub(crate) remote_dir: String,
    /// The shell that runs everything there.
    pub(crate) shell: String,
}

/// How a shell becomes the script.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// Nothing is known of the host.
    First(&'a Start),
    /// Another shell of this connection has said hello, so the script is there.
    Again(&'a Start, &'a Hello),
    /// The same, for one request in the session of a login of its own.
    Once(&'a Start, &'a Hello),
}

impl Way<'_> {
    /// What is run on the host.
    fn words(self, nonce: &str) -> Vec<String> {
        let digest = PayloadDigest::of(HOST_SCRIPT.as_bytes()).to_string();
        let (start, words) = match self {
            Self::First(start) => {
                let Start { privilege, remote_dir, shell } = start;
                let length = HOST_SCRIPT.len().to_string();
                // The text is an argument too, for it hands itself to sudo.
                let text = spare(BOOTSTRAP);
                let words = ["eval \"$1\"", "windlass", &text, nonce, &digest, &length, privilege, remote_dir, shell];
                (start, words.map(str::to_owned).to_vec())
            }
            Self::Again(start, hello) | Self::Once(start, hello) => {
                let how = if matches!(self, Self::Once(..)) { "once" } else { "serve" };
                let Hello { scope, dir, .. } = hello;
                let script = format!("{dir}/bin/{digest}");
                let words = [AGAIN, "windlass", nonce, scope, &script, dir, &start.shell, how];
                (start, words.map(str::to_owned).to_vec())
            }
        };
        let begin = start.shell.split(' ').chain(["-c"]).map(str::to_owned);
        begin.chain(words).collect()
    }
}

/// One `sh` on a host.
pub(crate) struct Shell {
    stdin: Box<dyn AsyncWrite + Send + Unpin>,
    stdout: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    next_id: u64,
    // Dropping it closes the channel, or ends the login.
    _way: OpenWay,
    _open: Opened,
}

/// What a shell is reached by.
enum OpenWay {
    /// A channel of a connection.
    Channel { _child: Child<Arc<Session>> },
    /// An ssh of its own, which ends with this.
    Login { _child: tokio::process::Child },
}

/// The connection broke, or the shell ended.
fn lost(detail: &(impl ToString + ?Sized)) -> ContactError {
    ContactError::Lost { detail: detail.to_string() }
}

fn garbled(detail: &(impl ToString + ?Sized)) -> ContactError {
    let mut detail = detail.to_string();
    if let Some((end, _)) = detail.char_indices().nth(300) {
        detail.truncate(end);
    }
    ContactError::Garbled { detail }
}

/// Why no shell could be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// sshd refuses one more session on this connection.
    Refused(String),
    /// Anything else.
    Contact(ContactError),
}

impl From<ContactError> for OpenError {
    fn from(error: ContactError) -> Self {
        Self::Contact(error)
    }
}

impl Shell {
    /// Opens a channel, brings the script to the host where it is missing, and becomes it.
    pub(crate) async fn open(session: Arc<Session>, way: Way<'_>, sessions: &Open) -> Result<(Self, Hello), OpenError> {
        let nonce = nonce();
        let words = way.words(&nonce);
        let mut command = session.arc_command(words[0].clone());
        command.args(&words[1..]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Told apart from a lost connection by the caller, who can ask the master.
        let mut child = command.spawn().await.map_err(|error| OpenError::Refused(chain(&error)))?;
        let (Some(stdin), Some(stdout)) = (child.stdin().take(), child.stdout().take()) else {
            return Err(ContactError::Local { detail: "a channel without pipes".to_owned() }.into());
        };
        let way = OpenWay::Channel { _child: child };
        let mut shell = Self::over(Box::new(stdin), Box::new(stdout), way, sessions.one());
        let hello = shell.greet(&nonce).await?;
        Ok((shell, hello))
    }

    /// Logs in anew, by an `ssh` that is ready to be told what to run, and becomes the script there.
    pub(crate) async fn log_in(
        mut ssh: tokio::process::Command,
        way: Way<'_>,
        sessions: &Open,
    ) -> Result<(Self, Hello), ContactError> {
        let nonce = nonce();
        let words: Vec<String> = way.words(&nonce).iter().map(|word| quoted(word)).collect();
        let piped = process::Stdio::piped;
        ssh.arg(words.join(" ")).stdin(piped()).stdout(piped()).stderr(process::Stdio::null()).kill_on_drop(true);
        let local = |detail: String| ContactError::Local { detail };
        let mut child = ssh.spawn().map_err(|error| local(error.to_string()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(local("a login without pipes".to_owned()));
        };
        let way = OpenWay::Login { _child: child };
        let mut shell = Self::over(Box::new(stdin), Box::new(stdout), way, sessions.one());
        let hello = shell.greet(&nonce).await?;
        Ok((shell, hello))
    }

    fn over(
        stdin: Box<dyn AsyncWrite + Send + Unpin>,
        stdout: Box<dyn AsyncRead + Send + Unpin>,
        way: OpenWay,
        open: Opened,
    ) -> Self {
        Self { stdin, stdout: BufReader::new(stdout), next_id: 1, _way: way, _open: open }
    }

    /// Gets over whatever the login prints, and hears the host out.
    async fn greet(&mut self, nonce: &str) -> Result<Hello, ContactError> {
        let marker = format!("windlass {nonce}");
        let mut noise = Vec::new();
        loop {
            let Some(line) = self.line().await? else {
                return Err(match noise.is_empty() {
                    true => lost("the channel closed before the host said anything"),
                    false => ContactError::Unsuitable {
                        detail: format!("the login runs no command; it says: {}", noise.join(" / ")),
                    },
                });
            };
            // A login that prints without a line end stands in front of ours.
            if line.ends_with(&marker) {
                break;
            }
            noise.push(line);
            if noise.len() > MOST_NOISE {
                return Err(garbled(&format!("the login prints without end: {}", noise[0])));
            }
        }
        let mut said = Vec::new();
        loop {
            let Some(line) = self.line().await? else {
                return Err(garbled(&format!("the host's shell ended early: {}", said.join(" / "))));
            };
            if line == "need" {
                self.stdin.write_all(HOST_SCRIPT.as_bytes()).await.map_err(|error| lost(&error))?;
                self.stdin.flush().await.map_err(|error| lost(&error))?;
            } else if let Some(detail) = line.strip_prefix("unsuitable ") {
                let mut detail = detail.to_owned();
                for more in said {
                    detail.push_str(&format!(" ({more})"));
                }
                return Err(ContactError::Unsuitable { detail });
            } else if let Some(hello) = line.strip_prefix("hello 1 ") {
                let hello = read_hello(hello).ok_or_else(|| garbled(&line))?;
                return match self.line().await? {
                    Some(end) if end == "end 0 0" => Ok(hello),
                    other => Err(garbled(&other.unwrap_or_default())),
                };
            } else if said.len() < MOST_NOISE {
                said.push(line);
            } else {
                return Err(garbled(&said.join(" / ")));
            }
        }
    }

    /// Asks, and waits for the whole answer. After an error the shell is of no use any more.
    pub(crate) async fn call(
        &mut self,
        request: &Request,
        payload: Option<mpsc::Receiver<Bytes>>,
    ) -> Result<Answer, ContactError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut head = format!("{id} {} {}\n", request.verb, request.arguments.len());
        for argument in &request.arguments {
            if argument.chars().any(char::is_control) {
                return Err(ContactError::Local { detail: format!("{argument:?} is not a plain argument") });
            }
            head.push_str(argument);
            head.push('\n');
        }
        let Self { stdin, stdout, .. } = self;
        let send = async {
            stdin.write_all(head.as_bytes()).await?;
            if let Some(mut chunks) = payload {
                while let Some(chunk) = chunks.recv().await {
                    stdin.write_all(&chunk).await?;
                }
            }
            stdin.flush().await
        };
        let receive = read_answer(stdout, id);
        tokio::pin!(send, receive);
        // A host that refuses a payload answers before it has read all of it.
        tokio::select! {
            biased;
            answer = &mut receive => return answer,
            _ = &mut send => {}
        }
        receive.await
    }

    async fn line(&mut self) -> Result<Option<String>, ContactError> {
        read_line(&mut self.stdout).await
    }
}

/// A word as a POSIX shell reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A script without its comments and its indentation: it travels with each channel.
pub(crate) fn spare(script: &str) -> String {
    let lines = script.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// A word that no login prints by chance.
pub(crate) fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(process::id()))
}

/// An error and everything below it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text
}

fn read_hello(text: &str) -> Option<Hello> {
    let mut words = text.split(' ').map(str::to_owned);
    let hello = Hello {
        scope: words.next()?,
        user: words.next()?,
        machine: words.next()?,
        boot: words.next()?,
        systemd: words.next()?,
        dir: words.next()?,
    };
    (words.next().is_none() && hello.dir.starts_with('/')).then_some(hello)
}

/// One line without its end; `None` where the channel ended.
async fn read_line(stdout: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<String>, ContactError> {
    let mut bytes = Vec::new();
    (&mut *stdout).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await.map_err(|error| lost(&error))?;
    if bytes.pop() != Some(b'\n') {
        // Half a line is none: the connection ended in it.
        return if bytes.len() as u64 >= LONGEST_LINE - 1 { Err(garbled("a line without end")) } else { Ok(None) };
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

async fn read_answer(stdout: &mut (impl AsyncBufRead + Unpin), id: u64) -> Result<Answer, ContactError> {
    let mut lines = Vec::new();
    let mut total = 0;
    loop {
        let Some(line) = read_line(stdout).await? else {
            return Err(lost("the connection ended before the answer did"));
        };
        if let Some(end) = line.strip_prefix("end ") {
            let code = end.split_once(' ').and_then(|(theirs, code)| {
                let same = theirs.parse() == Ok(id);
                code.parse().ok().filter(|_| same)
            });
            return code.map(|code| Answer { lines, code }).ok_or_else(|| garbled(&line));
        }
        total += line.len();
        if total > LONGEST_ANSWER {
            return Err(garbled("an answer without end"));
        }
        lines.push(line);
    }
}
