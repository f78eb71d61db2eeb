//! How tests write a fleet: `a=v1+ b=v2? c=-`.
//!
//! A host is `name=` and then, without spaces:
//! - `-` when nothing of the service is there, or `vN`: the unit is that of revision N;
//! - one of `+` confirmed, up; `x` confirmed, the unit has failed since; `y` confirmed, crashes again and again; `?`
//!   switched to, up, unjudged; `!` switched to, unjudged, crashes again and again; `h` half switched: the record says
//!   only that it was begun; `o` switched to, and stopped by us;
//! - `gN` the last confirmed revision is N, where that is not what the sign before says;
//! - `sN` revision N is staged there too; `u` nothing is staged, not even what the unit names;
//! - drift: `%u` unit changed, `%d` drop-in, `%f` files, `%r` the revision's own files, `%e` not enabled,
//!   `%s` stopped, `%w` another file in place of the unit, `%a` no unit file any more, `%l` needs a reload;
//! - `@N` under sequence N were the switch and the confirmation done, and the host has seen nothing higher; else 5;
//!   `^N` it has seen N;
//! - the way there: `~` out of reach, `*` busy and down by it, `.` busy, `o` stopped, `#` belongs to another store,
//!   `0` not looked at;
//! - the placement: `-` at the end not (any more) chosen, `R` refused by the plaintext rule;
//! - `i` its health endpoint answers badly; `=NAME` the same machine as NAME.

use windlass_crds::condition::Reason;
use windlass_crds::id::{RevisionNumber, Sequence};
use windlass_crds::observation::{Drift, StepState, UnitFile};
use windlass_crds::step::Verb;
use windlass_planner::input::{Activity, Complaint, Health, Placement};

use crate::machine::{Errand, Link, Machine};
use crate::world::release;

/// The sequence that hosts of a table have seen, unless they say another.
pub(crate) const SEEN: u64 = 5;

/// Files of a revision: 1 is `A`.
pub(crate) fn letter(revision: u64) -> char {
    char::from(b'A' + u8::try_from(revision).expect("few revisions") - 1)
}

/// Reads hosts.
pub(crate) fn hosts(text: &str) -> Vec<(String, Machine)> {
    text.split_whitespace()
        .map(|word| {
            let (name, signs) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} has no `=`"));
            (name.to_owned(), host(name, signs))
        })
        .collect()
}

fn host(name: &str, signs: &str) -> Machine {
    let mut machine = Machine::new(name);
    let mut signs = Signs(signs);
    let unit = if signs.take('v') { Some(signs.digit()) } else { None };
    if unit.is_none() {
        assert!(signs.take('-'), "{name}: neither `-` nor `vN`");
        machine.seen.sequence = Sequence(SEEN);
    }
    if let Some(unit) = unit {
        machine.seen.unit = UnitFile::Revision(RevisionNumber(unit));
        machine.hold(unit, release(letter(unit)));
        machine.start();
        machine.seen.run.enabled = true;
        let at = |signs: &mut Signs<'_>| if signs.take('@') { signs.number() } else { SEEN };
        let sign = signs.next();
        let good = if signs.take('g') { Some(signs.digit()) } else { None };
        let sequence = at(&mut signs);
        machine.seen.sequence = Sequence(sequence);
        run(&mut machine, unit, sign, good, sequence);
    }
    while let Some(sign) = signs.peek() {
        signs.next();
        mark(&mut machine, sign, &mut signs);
    }
    machine
}

fn run(machine: &mut Machine, unit: u64, sign: char, good: Option<u64>, sequence: u64) {
    let state = if sign == 'h' { StepState::Begun } else { StepState::Ok };
    machine.note(Verb::Activate, sequence, unit, state);
    machine.seen.good = good.map(RevisionNumber);
    if let Some(good) = good {
        machine.hold(good, release(letter(good)));
    }
    match sign {
        '+' | 'x' | 'y' => {
            machine.seen.good = Some(RevisionNumber(good.unwrap_or(unit)));
            machine.confirmed = true;
            machine.note(Verb::Confirm, sequence, good.unwrap_or(unit), StepState::Ok);
        }
        '?' | '!' | 'h' | 'o' => {}
        other => panic!("{other:?} is no sign of how a unit runs"),
    }
    match sign {
        'x' => machine.crash(),
        'y' | '!' => machine.crash_again_and_again(),
        'o' => {
            machine.stop();
            machine.note(Verb::Stop, sequence + 1, 0, StepState::Ok);
            machine.seen.sequence = Sequence(sequence + 1);
        }
        _ => {}
    }
}

fn mark(machine: &mut Machine, sign: char, signs: &mut Signs<'_>) {
    let busy = |activity| Some(Errand { acts: Vec::new(), sequence: Sequence(SEEN), activity });
    match sign {
        's' => {
            let staged = signs.digit();
            machine.hold(staged, release(letter(staged)));
        }
        'u' => {
            machine.seen.revisions.clear();
            machine.seen.releases.clear();
        }
        '%' => drift(machine, signs.next()),
        '^' => machine.seen.sequence = Sequence(signs.number()),
        '~' => machine.link = Link::Cut,
        '#' => machine.link = Link::Foreign,
        '0' => machine.link = Link::Dark,
        '*' => machine.errand = busy(Activity::Disruptive),
        '.' => machine.errand = busy(Activity::Quiet),
        '-' => machine.placement = Placement::Unplaced,
        'R' => {
            let message = "http is plaintext, and 192.0.2.1 is remote".to_owned();
            machine.placement = Placement::Refused(Complaint { reason: Reason::PlaintextRefused, message });
            machine.link = Link::Dark;
        }
        'i' => machine.health = Health::Ill("the health endpoint answers 500".to_owned()),
        '=' => {
            let twin = Machine::new(&signs.rest());
            (machine.id, machine.boot) = (twin.id, twin.boot);
        }
        other => panic!("{other:?} is no sign"),
    }
}

/// Somebody changes something on a host.
pub(crate) fn drift(machine: &mut Machine, sign: char) {
    let unit = machine.seen.unit.revision().expect("only what is there drifts");
    let found = match sign {
        'u' => {
            machine.seen.unit = UnitFile::Changed(unit);
            Drift::UnitChanged
        }
        'd' => Drift::DropIn { paths: vec!["/etc/systemd/system/x.d/a.conf".to_owned()] },
        'f' => Drift::FilesChanged { paths: vec!["server.py".to_owned()] },
        'r' => Drift::RevisionChanged,
        'e' => {
            machine.seen.run.enabled = false;
            Drift::NotEnabled
        }
        's' => {
            machine.stop();
            return;
        }
        'w' => {
            machine.seen.unit = UnitFile::Foreign;
            Drift::UnitChanged
        }
        'a' => {
            machine.seen.unit = UnitFile::Absent;
            return;
        }
        'l' => {
            machine.seen.run.needs_reload = true;
            return;
        }
        other => panic!("%{other} is no drift"),
    };
    machine.seen.drift.insert(found);
}

struct Signs<'a>(&'a str);

impl Signs<'_> {
    fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    fn next(&mut self) -> char {
        let sign = self.peek().expect("another sign");
        self.0 = &self.0[sign.len_utf8()..];
        sign
    }

    fn take(&mut self, sign: char) -> bool {
        let there = self.peek() == Some(sign);
        if there {
            self.next();
        }
        there
    }

    /// A revision has one digit, so that a sign may be one too.
    fn digit(&mut self) -> u64 {
        let digit = self.next().to_digit(10).expect("the number of a revision");
        u64::from(digit)
    }

    fn number(&mut self) -> u64 {
        let end = self.0.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(self.0.len());
        let number = self.0[..end].parse().unwrap_or_else(|_| panic!("a number is missing before {:?}", self.0));
        self.0 = &self.0[end..];
        number
    }

    fn rest(&mut self) -> String {
        std::mem::take(&mut self.0).to_owned()
    }
}
