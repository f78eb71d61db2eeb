//! How long a record may become: what somebody wrote is cut, and the tails of long lists are left out and counted.
//!
//! A record shares one transaction with what it tells of, and that has a bound in bytes. Whoever asks or declares must not
//! be able to write so much that nothing can be recorded any more.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Record;
use super::edits::beginning;
use super::told::{Entry, HostOutcome, SENTENCE, What};
use crate::actor::Actor;
use crate::id::HostId;
use crate::request::Request;

/// The text of no record is longer, but for the heads of an anchor, which are bounded by their number. Enough for the
/// longest declaration (8 KiB of changes, and 16 KiB where all of it is kept) together with thirty requests, as many as a
/// commit ends, in their short form of 700 bytes.
pub const MOST_BYTES: usize = 48 * 1024;

/// What stands in a record beside its entries is shorter: a chain's name, numbers and three digests.
const FRAME: usize = 1024;

/// A declaration that is longer, as JSON, is not kept whole.
pub const LONGEST_WHOLE: usize = 16 * 1024;

/// So many bytes of one change of a declaration are told. Those of most are a tenth of that.
const CHANGES: usize = 8 * 1024;

/// So many bytes of what is wrong with a declaration are told: twenty problems, and the longest fields.
const PROBLEMS: usize = 6 * 1024;

/// So many bytes of what became of hosts are told: two hundred that are well.
const HOSTS: usize = 14 * 1024;

/// The longest path of a field, or of what is wrong.
pub(super) const PATH: usize = 200;

/// How much is kept of what somebody wrote.
#[derive(Debug, Clone, Copy)]
struct Measure {
    /// Bytes of a sentence, or of a name.
    sentence: usize,
    /// A longer signature is told by its length: one of an RSA key of 16,384 bits has less.
    signature: usize,
    /// Bytes of the hosts that a request names.
    hosts: usize,
}

const USUAL: Measure = Measure { sentence: SENTENCE, signature: 6 * 1024, hosts: 2048 };
const SHORT: Measure = Measure { sentence: 60, signature: 100, hosts: 200 };

/// What of a record is to be missed least, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Requests that came to nothing: whoever may ask can make up as many as he likes.
    Vain,
    /// Other requests.
    Request,
    /// All that changed something.
    Change,
}

impl Weight {
    const ALL: [Self; 3] = [Self::Vain, Self::Request, Self::Change];

    fn of(what: &What) -> Self {
        match what {
            What::AskedInVain { .. } => Self::Vain,
            What::Asked { .. } => Self::Request,
            What::Declared { .. }
            | What::Refused { .. }
            | What::Deleted
            | What::Approved { .. }
            | What::Accepted { .. }
            | What::Opened { .. }
            | What::Ended { .. }
            | What::Blocked { .. }
            | What::Removed
            | What::Led { .. } => Self::Change,
        }
    }
}

impl Record {
    /// Its text, as it is signed and stored. Where it would be too long, what weighs least is shortened first, and is left
    /// out and counted where that is not enough.
    ///
    /// # Panics
    /// Never: a record is always JSON.
    pub fn into_text(mut self) -> String {
        let text = |record: &Self| serde_json::to_string(record).expect("a record is always JSON");
        self.entries.iter_mut().for_each(|entry| entry.cut(USUAL));
        // Most are short, and are written out once. An anchor is long, but not by its entries.
        let whole = text(&self);
        if whole.len() <= MOST_BYTES - FRAME || size(&self.entries) <= MOST_BYTES - FRAME {
            return whole;
        }
        for weight in Weight::ALL {
            let light = self.entries.iter_mut().filter(|entry| Weight::of(&entry.what) == weight);
            light.for_each(|entry| entry.cut(SHORT));
            if size(&self.entries) <= MOST_BYTES - FRAME {
                return text(&self);
            }
        }
        self.leave_out();
        text(&self)
    }

    /// Keeps what weighs most, of that the first.
    fn leave_out(&mut self) {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|index| std::cmp::Reverse(Weight::of(&self.entries[*index].what)));
        let mut room = MOST_BYTES - FRAME;
        let fits = |index: &usize| take(&mut room, size(&self.entries[*index]));
        let kept: BTreeSet<usize> = order.into_iter().filter(fits).collect();
        self.left_out += self.entries.len() - kept.len();
        let mut index = 0..;
        self.entries.retain(|_| index.next().is_some_and(|index| kept.contains(&index)));
    }
}

impl Entry {
    fn cut(&mut self, measure: Measure) {
        self.who.cut(measure);
        let sentence = |text: &mut String| *text = beginning(text, measure.sentence);
        match &mut self.what {
            What::Declared { changes, more, whole, .. } => {
                *more += keep(changes, CHANGES);
                whole.take_if(|whole| size(whole) > LONGEST_WHOLE);
            }
            What::Refused { problems, more, .. } => {
                problems.iter_mut().for_each(|wrong| wrong.field = beginning(&wrong.field, PATH));
                *more += keep(problems, PROBLEMS);
            }
            What::Asked { request, more } => *more += request.cut(measure),
            What::AskedInVain { request, more, why } => {
                *more += request.as_mut().map_or(0, |request| request.cut(measure));
                sentence(why);
            }
            What::Approved { reason, .. } => reason.iter_mut().for_each(sentence),
            What::Ended { hosts, more, .. } => {
                hosts.values_mut().filter_map(|told| told.why.as_mut()).for_each(sentence);
                *more += keep_hosts(hosts);
            }
            What::Blocked { why, .. } => sentence(why),
            What::Led { name, .. } => sentence(name),
            What::Deleted | What::Accepted { .. } | What::Opened { .. } | What::Removed => {}
        }
    }
}

impl Actor {
    fn cut(&mut self, measure: Measure) {
        let sentence = |text: &mut String| *text = beginning(text, measure.sentence);
        match self {
            Self::Certificate { name } => sentence(name),
            Self::Git { repo: _, commit: _, author, signer, key } => {
                sentence(author);
                signer.iter_mut().chain(key).for_each(sentence);
            }
            Self::SshKey { name, fingerprint } => [name, fingerprint].into_iter().for_each(sentence),
            Self::Unverified { says } => says.iter_mut().for_each(sentence),
            Self::Controller => {}
        }
    }
}

impl Request {
    /// Cuts what somebody wrote into it, and says how many of the hosts that it names are left out.
    fn cut(&mut self, measure: Measure) -> usize {
        match self {
            Self::Approve { reason, says, signature, revision: _, step: _, plan: _, at: _ } => {
                reason.iter_mut().chain(says).for_each(|text| *text = beginning(text, measure.sentence));
                // Half of one proves nothing.
                let long = signature.as_mut().filter(|signature| size(signature) > measure.signature);
                long.into_iter().for_each(|signature| *signature = format!("({} bytes)", signature.len()));
                0
            }
            Self::ConfirmRemoval { hosts } => {
                let (named, mut room) = (hosts.len(), measure.hosts);
                hosts.retain(|host| take(&mut room, size(host)));
                named - hosts.len()
            }
            Self::Reconcile
            | Self::Undo { .. }
            | Self::Retry
            | Self::Restart
            | Self::Pause
            | Self::Resume
            | Self::Abort { .. }
            | Self::Adopt { .. } => 0,
        }
    }
}

/// The length of something as JSON, with what stands between it and the next.
fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len().saturating_add(1))
}

/// Takes so much of the room, where there is as much.
fn take(room: &mut usize, size: usize) -> bool {
    let rest = room.checked_sub(size);
    *room = rest.unwrap_or(*room);
    rest.is_some()
}

/// Keeps the first of a list, so many as fit, and says how many are left out.
fn keep<One: Serialize>(list: &mut Vec<One>, mut room: usize) -> usize {
    let fit = list.iter().take_while(|one| take(&mut room, size(one))).count();
    let more = list.len() - fit;
    list.truncate(fit);
    more
}

/// Keeps so many hosts as fit: those that are well are the least to be missed.
fn keep_hosts(hosts: &mut BTreeMap<HostId, HostOutcome>) -> usize {
    let (all, mut room) = (hosts.len(), HOSTS);
    let mut order: Vec<(&HostId, &HostOutcome)> = hosts.iter().collect();
    order.sort_by_key(|(_, told)| told.outcome.is_dull());
    let fit = order.into_iter().filter(|one| take(&mut room, size(one)));
    let kept: BTreeSet<HostId> = fit.map(|(host, _)| host.clone()).collect();
    hosts.retain(|host, _| kept.contains(host));
    all - kept.len()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::edits::edits;
    use crate::audit::{Chain, Link, Outcome, PublicKey, Standing};
    use crate::condition::Reason;
    use crate::id::{Generation, RecordNumber, RevisionNumber, Sequence};
    use crate::problem::Problem;
    use crate::record::{Purpose, RolloutState};

    /// The longest name of a host, of a Service and of a namespace.
    const NAME: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// What is longest as JSON: each of these is six bytes there.
    fn long(count: usize) -> String {
        "\u{1}".repeat(count)
    }

    fn digest<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
        "ab".repeat(32).parse().expect("a digest")
    }

    fn hosts(count: usize) -> impl Iterator<Item = HostId> {
        (0..count).map(|number| format!("{number:04}{}", &NAME[4..]).parse().expect("a name"))
    }

    /// Everybody who can have done something.
    fn actors() -> Vec<Actor> {
        vec![
            Actor::Controller,
            Actor::Certificate { name: long(2000) },
            Actor::Git {
                repo: NAME.parse().expect("a name"),
                commit: "ab".repeat(32).parse().expect("a commit"),
                author: long(2000),
                signer: Some(long(2000)),
                key: Some(long(2000)),
            },
            Actor::SshKey { name: long(2000), fingerprint: long(2000) },
            Actor::Unverified { says: Some(long(2000)) },
        ]
    }

    /// The longest requests that a store holds, of 6 KiB.
    fn requests() -> Vec<Request> {
        let approve = |reason, signature| Request::Approve {
            revision: RevisionNumber(u64::MAX),
            step: Some(u32::MAX),
            plan: Some(digest()),
            reason,
            at: Some(Timestamp::MAX),
            says: Some(long(100)),
            signature,
        };
        let known = |count| hosts(count).collect();
        vec![
            approve(Some(long(900)), None),
            approve(None, Some("s".repeat(5900))),
            approve(Some("\u{10ffff}".repeat(1500)), Some(long(10))),
            Request::ConfirmRemoval { hosts: known(90) },
            Request::ConfirmRemoval {
                hosts: [format!("{}@198.18.0.1", "u".repeat(200)).parse().expect("a login")].into(),
            },
            Request::Adopt { owner: "0123456789abcdef".parse().expect("an id") },
        ]
    }

    /// The longest of everything that can be told once.
    fn changes() -> Vec<What> {
        let fields = |value: &str| -> Value {
            let field = |number: usize| (format!("{number:04}{}", long(5000)), Value::from(value.repeat(60)));
            Value::Object((0..500).map(field).collect())
        };
        let (changes, more) = edits(&fields("\u{1}"), &fields("\u{2}"));
        let told = |host| (host, HostOutcome { outcome: Outcome::Unhealthy, why: Some(long(4000)) });
        let (generation, revision) = (Generation(u64::MAX), RevisionNumber(u64::MAX));
        let problem = |number: usize| Problem::invalid(format!("{number}{}", long(500)), "no");
        vec![
            What::Declared {
                generation,
                changes,
                more,
                first: true,
                waits: true,
                whole: Some(json!("x".repeat(LONGEST_WHOLE - 4))),
            },
            What::Refused { generation, problems: (0..40).map(problem).map(|one| (&one).into()).collect(), more: 0 },
            What::Ended {
                sequence: Sequence(u64::MAX),
                state: RolloutState::Unhealthy,
                hosts: hosts(200).map(told).collect(),
                more: 800,
            },
            What::Opened {
                sequence: Sequence(u64::MAX),
                purpose: Purpose::Rollback,
                from: Some(revision),
                to: Some(revision),
                plan: digest(),
                approved: Some(digest()),
            },
            What::Accepted {
                revision,
                release: digest(),
                spec: digest(),
                commit: Some("ab".repeat(32).parse().expect("a commit")),
            },
            What::Approved { revision, plan: digest(), reason: Some(long(4000)) },
            What::Blocked { revision, why: long(4000) },
            What::Led { name: long(4000), key: PublicKey::new([1; 32]) },
            What::Deleted,
            What::Removed,
        ]
    }

    fn record(entries: Vec<Entry>) -> Record {
        let head = crate::audit::Head { number: RecordNumber(u64::MAX), digest: digest() };
        let link = Link {
            chain: Chain::from_path(&format!("services/{NAME}/{NAME}")).expect("two labels"),
            number: RecordNumber(u64::MAX),
            previous: Some(digest()),
            pruned: Some(head),
            at: Timestamp::MAX,
            anchor: None,
        };
        let state = crate::audit::DeclaredState::InForce;
        let declared = Some(Standing { generation: Generation(u64::MAX), state, told: Some(RecordNumber(u64::MAX)) });
        Record { link, term: u64::MAX, entries, left_out: 0, declared }
    }

    /// The record as it is read back.
    #[track_caller]
    fn check(entries: Vec<Entry>) -> Record {
        let told = entries.len();
        let text = record(entries).into_text();
        assert!(text.len() <= MOST_BYTES, "{} bytes of {told} entries", text.len());
        let read: Record = serde_json::from_str(&text).expect("it reads");
        assert_eq!(read.entries.len() + read.left_out, told);
        read
    }

    #[test]
    fn whatever_is_told_a_record_is_bounded() {
        let vain = |request: Request| What::AskedInVain { request: Some(request), more: 0, why: long(4000) };
        let asked = requests().into_iter().map(|request| What::Asked { request, more: 0 });
        let all: Vec<What> = changes().into_iter().chain(asked).chain(requests().into_iter().map(vain)).collect();
        for who in actors() {
            let entry = |what: &What| Entry { who: who.clone(), what: what.clone() };
            for what in &all {
                let one = check(vec![entry(what)]);
                assert_eq!(one.left_out, 0, "one is always told");
                // As many as the requests that a commit ends.
                check(vec![entry(what); 30]);
            }
            check(all.iter().map(entry).collect());
        }
        // More of everything than there can be.
        let entry = |what: &What| Entry { who: Actor::UNKNOWN, what: what.clone() };
        check(all.iter().cycle().take(260).map(entry).collect());
    }

    #[test]
    fn thirty_requests_beside_the_longest_declaration_are_told_all() {
        let who = Actor::SshKey { name: long(2000), fingerprint: "SHA256:".to_owned() + &"a".repeat(43) };
        for request in requests() {
            let mut entries = vec![Entry { who: who.clone(), what: changes().swap_remove(0) }];
            let vain = What::AskedInVain { request: Some(request), more: 0, why: long(4000) };
            entries.extend(vec![Entry { who: who.clone(), what: vain }; 30]);
            assert_eq!(check(entries).left_out, 0);
        }
    }

    /// Nobody can make the signature of an approval go by asking much in vain.
    #[test]
    fn what_came_to_nothing_is_shortened_first() {
        let signed = Request::Approve {
            revision: RevisionNumber(2),
            step: None,
            plan: Some(digest()),
            reason: Some("fine".to_owned()),
            at: None,
            says: None,
            signature: Some("s".repeat(1640)),
        };
        let entry = |what| Entry { who: Actor::UNKNOWN, what };
        let mut entries = vec![entry(What::Asked { request: signed.clone(), more: 0 })];
        let vain = What::AskedInVain { request: Some(requests().swap_remove(1)), more: 0, why: "no".to_owned() };
        entries.extend(vec![entry(vain); 29]);
        let read = check(entries);
        assert_eq!(read.entries[0].what, What::Asked { request: signed, more: 0 });
        let What::AskedInVain { request: Some(Request::Approve { signature, .. }), .. } = &read.entries[1].what else {
            panic!("{:?}", read.entries[1]);
        };
        assert_eq!(signature.as_deref(), Some("(5900 bytes)"));
    }

    #[test]
    fn what_is_short_stays_as_it_is_and_what_is_cut_says_so() {
        let problem = Problem::new(Reason::UnknownField, "spec.x", "no");
        let what = What::Refused { generation: Generation(3), problems: vec![(&problem).into()], more: 0 };
        let says = Some("Ana".to_owned());
        let entries = vec![Entry { who: Actor::Unverified { says }, what }];
        assert_eq!(check(entries.clone()).entries, entries);
        let read = check(vec![Entry { who: Actor::UNKNOWN, what: changes().swap_remove(2) }]);
        let What::Ended { hosts, more, .. } = &read.entries[0].what else { panic!("{read:?}") };
        assert_eq!(hosts.len() + more, 1000);
        assert!(hosts.values().all(|told| told.why.as_ref().is_some_and(|why| why.ends_with('…'))));
        let read = check(vec![Entry {
            who: Actor::UNKNOWN,
            what: What::Asked { request: requests().swap_remove(3), more: 0 },
        }]);
        assert!(read.entries[0].what.to_string().ends_with(" more"), "{}", read.entries[0].what);
    }
}
