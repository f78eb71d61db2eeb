//! The live view, on a real pseudoterminal: what is drawn, drawn again, and left behind.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::told;
use crate::world::World;

/// How long a test waits for the screen to show something. Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal that somebody looks at, and a binary that writes to it.
struct Terminal {
    child: Child,
    reader: JoinHandle<()>,
    controller: Arc<OwnedFd>,
    /// All that was written to it.
    written: Arc<(Mutex<String>, Condvar)>,
}

impl Terminal {
    /// Starts the binary with its stdout and stderr on a terminal of this size.
    fn start(world: &World, arguments: &[&str], rows: u16, columns: u16, variables: &[(&str, &str)]) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudoterminal");
        grantpt(&controller).expect("grantpt");
        unlockpt(&controller).expect("unlockpt");
        let name = ptsname(&controller, Vec::new()).expect("its name");
        let open = || rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("open");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("a size");
        let mut command = world.command(arguments);
        command.env("TERM", "xterm").envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().expect("the binary runs");
        // Its ends of the terminal are closed here, so that reading ends when the binary does.
        drop(command);
        let controller = Arc::new(controller);
        let written = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let mut reader = File::from(controller.try_clone().expect("a copy"));
        let told = Arc::clone(&written);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: nobody has the other end open any more.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                told.0.lock().expect("a lock").push_str(&String::from_utf8_lossy(&buffer[..count]));
                told.1.notify_all();
            }
        });
        Self { child, reader, controller, written }
    }

    /// Waits until something was written that has not been waited for before `from`, and says where it ends.
    fn wait_for(&self, text: &str, from: usize) -> usize {
        let (written, news) = &*self.written;
        let guard = written.lock().expect("a lock");
        let find = |written: &String| written[from..].find(text).map(|at| from + at + text.len());
        let (guard, _) = news.wait_timeout_while(guard, PATIENCE, |written| find(written).is_none()).expect("a lock");
        find(&guard).unwrap_or_else(|| panic!("{text:?} was not written after {from}: {:?}", *guard))
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&*self.controller, size).expect("a size");
    }

    fn interrupt(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::INT).expect("a signal");
    }

    /// All that was written, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let code = self.child.wait().expect("it ends").code();
        self.reader.join().expect("it reads to the end");
        let written = self.written.0.lock().expect("a lock").clone();
        (written, code)
    }
}

/// What a terminal shows after all this: lines, as far as the live view needs one (ECMA-48 CUU, EL, ED).
fn screen(written: &str) -> String {
    let (mut lines, mut row, mut column) = (vec![String::new()], 0_usize, 0_usize);
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends");
                let (parameter, kind) = (&rest[1..end], &rest[end..=end]);
                rest = &rest[end + 1..];
                match (kind, parameter) {
                    ("A", count) => row -= count.parse::<usize>().expect("a count"),
                    ("K", "") => lines[row] = lines[row].chars().take(column).collect(),
                    ("J", "") => {
                        lines.truncate(row + 1);
                        lines[row] = lines[row].chars().take(column).collect();
                    }
                    ("h" | "l", "?7") | ("m", _) => {}
                    other => panic!("{other:?} is not understood"),
                }
            }
            c => {
                let mut line: Vec<char> = lines[row].chars().collect();
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                lines[row] = line.into_iter().collect();
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), String::new());
    }
    lines.join("\n").trim_end().to_owned()
}

/// Without what time makes of it.
fn timeless(screen: &str) -> String {
    let word = |word: &str| {
        let plain = word.trim_end_matches(',');
        let digits = plain.trim_end_matches(['s', 'd', 'm', 'h']);
        plain.len() > digits.len() && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
    };
    let line = |line: &str| {
        let words = line.split_whitespace().map(|one| if word(one) { "TIME" } else { one });
        words.collect::<Vec<_>>().join(" ")
    };
    screen.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn rows_are_drawn_over_and_stay_at_the_end() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 0, "web1=2? web2=2. web3=2."));
    let terminal = Terminal::start(&world, &["wait", "service/web"], 24, 100, &[]);
    let mut seen = terminal.wait_for("web3", 0);
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=3? web3=2."));
    // Over the four lines of before.
    seen = terminal.wait_for("\u{1b}[4A\r", seen);
    seen = terminal.wait_for("healthy", seen);
    // A second later it is drawn again, with other times, though nothing else has changed.
    terminal.wait_for("\u{1b}[4A\r", seen);
    world.tell("web", &told::converged(generation));
    let (written, code) = terminal.end();
    insta::assert_snapshot!(timeless(&screen(&written)), @"
    service/web: rollout 12 (deploy) to revision 3, 3 of 3 hosts ready, TIME
    web1 healthy TIME revision 3
    web2 healthy TIME revision 3
    web3 healthy TIME revision 3
    service/web condition met
    ");
    assert_eq!(code, Some(0));
}

#[test]
fn a_failure_is_told_below_what_was_drawn() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 0, "web1=3? web2=2."));
    let terminal = Terminal::start(&world, &["rollout", "status", "service/web"], 24, 100, &[("NO_COLOR", "1")]);
    terminal.wait_for("web2", 0);
    world.tell("web", &told::rolled_back(generation));
    let (written, code) = terminal.end();
    assert!(!written.contains("[0m"), "{written:?}");
    insta::assert_snapshot!(timeless(&screen(&written)), @"
    service/web: rollout 12 (deploy) to revision 2, 3 of 3 hosts ready, TIME
    revision 3 was unhealthy on web1: the health endpoint answers 500 (3 looks in a row)
    web1 healthy TIME revision 2
    web2 healthy TIME revision 2
    web3 healthy TIME revision 2
    error: service/web is not Ready: RolledBack: revision 3 was unhealthy on web1: the health endpoint answers 500; went back to revision 2
    revision 3 on web1: the health endpoint answers 500 (3 looks in a row)
    answer: HTTP 500: no database
    log: Traceback (most recent call last):
    log: ConnectionRefusedError
    next: revision 2 stays; revision 3 is not deployed again until the source or the declaration changes
    hint: mend the source or the declaration and apply it; `windlass rollout retry service/web` tries the same once more
    ");
    assert_eq!(code, Some(1));
}

#[test]
fn ctrl_c_ends_the_waiting_and_nothing_else() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 0, "web1=3? web2=2."));
    let terminal = Terminal::start(&world, &["wait", "service/web"], 24, 100, &[("NO_COLOR", "1")]);
    terminal.wait_for("web2", 0);
    terminal.interrupt();
    let (written, code) = terminal.end();
    insta::assert_snapshot!(timeless(&screen(&written)), @"
    service/web: rollout 12 (deploy) to revision 3, 0 of 2 hosts ready, TIME
    web1 starting TIME revision 3
    web2 pending TIME revision 2
    interrupted: only the waiting ended; the controller goes on with service/web
    hint: `windlass rollout status service/web` follows it again
    ");
    assert_eq!(code, Some(130));
    assert_eq!(world.generation("declared/services/default/web"), generation);
    assert_eq!(world.keys("requests/"), [""; 0]);
}

#[test]
fn a_small_terminal_counts_what_it_cannot_show() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 0, "a=2. b=2. c=2. d=2. e=3? f=2."));
    let terminal = Terminal::start(&world, &["wait", "service/web"], 6, 60, &[]);
    let seen = terminal.wait_for("and 4 more: 4 pending", 0);
    // Made narrower, it begins anew below: terminals differ in what they make of the lines that are there.
    terminal.resize(20, 40);
    let end = terminal.wait_for("f   pending", seen);
    let drawn = terminal.written.0.lock().expect("a lock")[seen..end].to_owned();
    assert!(drawn.contains("service/web: rollout 12 (deploy) to rev…"), "{drawn:?}");
    terminal.interrupt();
    assert_eq!(terminal.end().1, Some(130));
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let world = World::new();
    let generation = world.declare("web");
    world.tell("web", &told::rolling(generation, 1, "web1=3+ web2=2."));
    let terminal = Terminal::start(&world, &["rollout", "status", "service/web"], 24, 100, &[("TERM", "dumb")]);
    terminal.wait_for("web2 pending, revision 2", 0);
    world.tell("web", &told::converged(generation));
    let (written, code) = terminal.end();
    assert!(!written.contains('\u{1b}'), "{written:?}");
    assert!(written.contains("service/web: web2 ready, revision 3\r\n"), "{written:?}");
    assert_eq!(code, Some(0));
}
