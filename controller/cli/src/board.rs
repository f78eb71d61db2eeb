//! The board: rollouts as lines, a row a host. Pure: what is known and the time in, lines out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use windlass_crds::id::{HostId, ResourceKey};
use windlass_crds::status::{HostRow, HostState, ServiceStatus};

use crate::inventory::Resource;
use crate::steps;
use crate::summary::{age, plain};
use crate::text::{cut, printable};

/// Below this width a row is still a row; a terminal that says less is not believed.
const NARROWEST: usize = 20;

/// How much room there is, and whether it may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Characters in a line.
    pub(crate) columns: usize,
    /// Lines.
    pub(crate) rows: usize,
    /// Whether colours are wanted.
    pub(crate) coloured: bool,
}

/// What is known of the Services that are shown.
#[derive(Debug, Default)]
pub(crate) struct Board {
    services: BTreeMap<ResourceKey, Shown>,
}

#[derive(Debug)]
struct Shown {
    told: ServiceStatus,
    /// Since when each row is as it is, as far as was seen here; the status knows better where it says.
    since: BTreeMap<HostId, (HostState, Timestamp)>,
    /// Whether the status is about what is asked now.
    current: bool,
}

impl Board {
    /// Takes in how a Service is now; other kinds have no rows.
    pub(crate) fn take(&mut self, resource: &Resource, now: Timestamp) {
        if !matches!(resource.key, ResourceKey::Service(_)) {
            return;
        }
        let told = resource.service_status();
        let before = self.services.remove(&resource.key).map(|shown| shown.since).unwrap_or_default();
        let since = told.hosts.iter().map(|(host, row)| {
            let seen = before.get(host).filter(|(state, _)| *state == row.state).map_or(now, |(_, since)| *since);
            (host.clone(), (row.state, row.since.unwrap_or(seen)))
        });
        let shown =
            Shown { since: since.collect(), current: resource.is_observed() && resource.requests.is_empty(), told };
        self.services.insert(resource.key.clone(), shown);
    }

    /// Shows a Service no longer.
    pub(crate) fn remove(&mut self, key: &ResourceKey) {
        self.services.remove(key);
    }

    /// Everything, in so many rows at most: each Service gets its share, and hosts at work come first.
    pub(crate) fn lines(&self, room: Room, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, (key, shown)) in self.services.iter().enumerate() {
            let left = room.rows.saturating_sub(lines.len());
            let share = left / (self.services.len() - index);
            if share == 0 {
                let more = format!("and {} more services", self.services.len() - index);
                // The last line is always theirs.
                lines.truncate(room.rows.saturating_sub(1));
                lines.push(more);
                break;
            }
            lines.extend(shown.lines(key, Room { rows: share, ..room }, now));
        }
        lines
    }

    /// One Service, whatever room it takes.
    pub(crate) fn whole(&self, key: &ResourceKey, room: Room, now: Timestamp) -> Vec<String> {
        let room = Room { rows: usize::MAX, ..room };
        self.services.get(key).map(|shown| shown.lines(key, room, now)).unwrap_or_default()
    }
}

impl Shown {
    fn lines(&self, key: &ResourceKey, room: Room, now: Timestamp) -> Vec<String> {
        let width = room.columns.max(NARROWEST);
        let mut lines = vec![cut(&self.heading(key, now), width)];
        if let Some(failure) = self.told.failure.as_ref().filter(|_| room.rows > 2) {
            let why = printable(&failure.evidence.summary);
            lines
                .push(cut(&format!("  revision {} was unhealthy on {}: {why}", failure.revision, failure.host), width));
        }
        if let Some(step) = steps::words(key, &self.told).filter(|_| self.current && room.rows > lines.len() + 1) {
            lines.push(cut(&format!("  {step}"), width));
        }
        let mut rows: Vec<(&HostId, &HostRow)> = self.told.hosts.iter().collect();
        rows.sort_by_key(|(host, row)| (rank(row.state), *host));
        let free = room.rows.saturating_sub(lines.len());
        let fits = if rows.len() <= free { rows.len() } else { free.saturating_sub(1) };
        let names = rows.iter().map(|(host, _)| host.to_string().chars().count()).max().unwrap_or(0);
        let (shown, hidden) = rows.split_at(fits);
        lines.extend(shown.iter().map(|(host, row)| self.row(host, row, names, Room { columns: width, ..room }, now)));
        if !hidden.is_empty() && free > 0 {
            lines.push(cut(&format!("  and {} more: {}", hidden.len(), counts(hidden)), width));
        }
        lines
    }

    /// `service/web: rollout 12 (deploy) to revision 3, 1 of 3 hosts ready, 12s`.
    fn heading(&self, key: &ResourceKey, now: Timestamp) -> String {
        let Some(rollout) = self.told.rollout.as_ref().filter(|_| self.current) else {
            return format!("{key}: waiting for the controller");
        };
        let to = self.told.target.map(|target| format!(" to revision {target}")).unwrap_or_default();
        format!(
            "{key}: rollout {} ({}){to}, {} of {} hosts ready, {}",
            rollout.sequence,
            plain(&rollout.purpose),
            self.told.ready,
            self.told.desired,
            age(rollout.started, now)
        )
    }

    /// `  web2   starting     3s   revision 3   the health endpoint answers 503`.
    fn row(&self, host: &HostId, row: &HostRow, names: usize, room: Room, now: Timestamp) -> String {
        let since = self.since.get(host).map_or(now, |(_, since)| *since);
        let revision = match (row.revision, row.state) {
            (Some(revision), _) => format!("revision {revision}"),
            // Nobody has looked since that began.
            (None, HostState::Working) => String::new(),
            (None, _) => "no revision".to_owned(),
        };
        let name = host.to_string();
        let before = format!("  {name:names$}   ");
        let word = format!("{:<11}", word(row.state));
        let line = format!("{before}{word} {:>6}   {revision:<12} {}", age(since, now), printable(&row.message));
        let line = cut(line.trim_end(), room.columns);
        match colour(row.state).filter(|_| room.coloured && line.starts_with(&format!("{before}{word}"))) {
            Some(colour) => {
                format!("{before}\x1b[{colour}m{word}\x1b[0m{}", &line[before.len() + word.len()..])
            }
            None => line,
        }
    }
}

/// Hosts at which something happens come first, then those that wait, then those that are done.
fn rank(state: HostState) -> u8 {
    match state {
        HostState::Unhealthy | HostState::Failed => 0,
        HostState::Working | HostState::Starting | HostState::Removing => 1,
        HostState::Drifted | HostState::Stopped | HostState::Unreachable | HostState::HeldBack => 2,
        HostState::Pending => 3,
        HostState::Ready => 4,
    }
}

/// The state as a verdict, where it is one.
fn word(state: HostState) -> String {
    match state {
        HostState::Ready => "healthy".to_owned(),
        HostState::HeldBack => "held back".to_owned(),
        other => plain(&other),
    }
}

/// The colour's parameters (ECMA-48, SGR).
fn colour(state: HostState) -> Option<&'static str> {
    match state {
        HostState::Ready => Some("32"),
        HostState::Unhealthy | HostState::Failed | HostState::Stopped => Some("31"),
        HostState::Working | HostState::Starting | HostState::Removing => Some("36"),
        HostState::Drifted | HostState::Unreachable | HostState::HeldBack => Some("33"),
        HostState::Pending => None,
    }
}

/// `30 pending, 7 healthy`.
fn counts(rows: &[(&HostId, &HostRow)]) -> String {
    let mut counts: BTreeMap<(u8, HostState), usize> = BTreeMap::new();
    for (_, row) in rows {
        *counts.entry((rank(row.state), row.state)).or_default() += 1;
    }
    let words = counts.iter().map(|((_, state), count)| format!("{count} {}", word(*state)));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use windlass_crds::id::{Generation, RevisionNumber, Sequence};
    use windlass_crds::record::{Evidence, Purpose, RolloutState};
    use windlass_crds::status::{CanaryStatus, Failure, RolloutStatus};
    use windlass_store::{Entry, Key, StoreRevision};

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    /// A Service whose rollout began at second 0; each host is `name=revision state message`.
    fn resource(name: &str, rows: &[&str], change: impl FnOnce(&mut ServiceStatus)) -> Resource {
        let row = |text: &&str| {
            let mut words = text.splitn(3, ' ');
            let (host, revision) = words.next().and_then(|word| word.split_once('=')).expect("host=revision");
            let state = serde_json::from_value(words.next().expect("a state").into()).expect("a state");
            let message = words.next().unwrap_or_default().to_owned();
            let revision = revision.parse().ok().map(RevisionNumber);
            (host.parse().expect(host), HostRow { revision, state, message, since: None })
        };
        let mut told = ServiceStatus {
            observed_generation: Generation(1),
            revision: Some(RevisionNumber(3)),
            target: Some(RevisionNumber(3)),
            rollout: Some(RolloutStatus {
                sequence: Sequence(12),
                purpose: Purpose::Deploy,
                state: RolloutState::Active,
                started: second(0),
                canary: None,
            }),
            desired: u32::try_from(rows.len()).expect("few"),
            hosts: rows.iter().map(row).collect(),
            ..ServiceStatus::default()
        };
        change(&mut told);
        let key = ResourceKey::from_path(&format!("services/default/{name}")).expect(name);
        let entry = Entry {
            key: Key::Status(key.clone()),
            value: serde_json::to_vec(&told).expect("JSON"),
            mod_revision: StoreRevision(2),
            create_revision: StoreRevision(2),
            version: 1,
            lease: None,
        };
        Resource { status: Some(entry), ..Resource::new(key) }
    }

    fn show(board: &Board, columns: usize, rows: usize, at: i64) -> String {
        let lines = board.lines(Room { columns, rows, coloured: false }, second(at));
        assert!(lines.len() <= rows, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:#?}");
        lines.join("\n")
    }

    const FLEET: [&str; 6] = [
        "a=3 ready",
        "b=2 pending",
        "c=3 starting the health endpoint answers 503, and this goes on for longer than a line",
        "d=3 unhealthy \u{1b}[2Jno answer",
        "e= unreachable no answer within 10 s",
        "fritz.example.com= working activate 3, verdict on 3, confirm 3",
    ];

    #[test]
    fn each_host_has_a_row_and_those_at_work_come_first() {
        let mut board = Board::default();
        board.take(&resource("web", &FLEET, |told| told.ready = 1), second(3));
        insta::assert_snapshot!(show(&board, 80, 20, 75), @r"
        service/web: rollout 12 (deploy) to revision 3, 1 of 6 hosts ready, 75s
          d                   unhealthy      72s   revision 3   \u{1b}[2Jno answer
          c                   starting       72s   revision 3   the health endpoint ans…
          fritz.example.com   working        72s                activate 3, verdict on …
          e                   unreachable    72s   no revision  no answer within 10 s
          b                   pending        72s   revision 2
          a                   healthy        72s   revision 3
        ");
        // How long a row is as it is counts from when it was seen so.
        let mut later = FLEET;
        later[1] = "b= working stage 3";
        board.take(&resource("web", &later, |told| told.ready = 1), second(70));
        insta::assert_snapshot!(show(&board, 80, 20, 75), @r"
        service/web: rollout 12 (deploy) to revision 3, 1 of 6 hosts ready, 75s
          d                   unhealthy      72s   revision 3   \u{1b}[2Jno answer
          b                   working         5s                stage 3
          c                   starting       72s   revision 3   the health endpoint ans…
          fritz.example.com   working        72s                activate 3, verdict on …
          e                   unreachable    72s   no revision  no answer within 10 s
          a                   healthy        72s   revision 3
        ");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut board = Board::default();
        let many: Vec<String> =
            (1..=40).map(|host| format!("h{host}=2 {}", if host > 38 { "working" } else { "pending" })).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        board.take(&resource("web", &many, |_| {}), second(0));
        insta::assert_snapshot!(show(&board, 60, 5, 8), @"
        service/web: rollout 12 (deploy) to revision 3, 0 of 40 hos…
          h39   working         8s   revision 2
          h40   working         8s   revision 2
          h1    pending         8s   revision 2
          and 37 more: 37 pending
        ");
        board.take(&resource("api", &["a=3 ready"], |told| told.ready = 1), second(0));
        insta::assert_snapshot!(show(&board, 40, 7, 8), @"
        service/api: rollout 12 (deploy) to rev…
          a   healthy         8s   revision 3
        service/web: rollout 12 (deploy) to rev…
          h39   working         8s   revision 2
          h40   working         8s   revision 2
          h1    pending         8s   revision 2
          and 37 more: 37 pending
        ");
        insta::assert_snapshot!(show(&board, 30, 1, 8), @"
        and 2 more services
        ");
        insta::assert_snapshot!(show(&board, 30, 2, 8), @"
        service/api: rollout 12 (depl…
        service/web: rollout 12 (depl…
        ");
    }

    #[test]
    fn a_failure_stands_above_the_hosts() {
        let mut board = Board::default();
        let gone_back = |told: &mut ServiceStatus| {
            told.target = Some(RevisionNumber(2));
            told.failure = Some(Failure {
                revision: RevisionNumber(3),
                host: "a".parse().expect("a host"),
                evidence: Evidence {
                    summary: "the health endpoint answers 500".to_owned(),
                    answer: None,
                    logs: vec![],
                },
            });
        };
        board.take(&resource("web", &["a=2 starting", "b=2 ready"], gone_back), second(0));
        insta::assert_snapshot!(show(&board, 80, 20, 4), @"
        service/web: rollout 12 (deploy) to revision 2, 0 of 2 hosts ready, 4s
          revision 3 was unhealthy on a: the health endpoint answers 500
          a   starting        4s   revision 2
          b   healthy         4s   revision 2
        ");
        let mut asked = resource("web", &["a=3 ready"], |_| {});
        asked.requests.insert("1-reconcile".parse().expect("an id"));
        board.take(&asked, second(0));
        insta::assert_snapshot!(show(&board, 80, 20, 4), @"
        service/web: waiting for the controller
          a   healthy         4s   revision 3
        ");
    }

    #[test]
    fn the_step_of_a_canary_stands_above_the_hosts() {
        let mut board = Board::default();
        let canary = |baking_until, waiting_since| {
            move |told: &mut ServiceStatus| {
                let rollout = told.rollout.as_mut().expect("a rollout");
                rollout.canary = Some(CanaryStatus { step: 1, steps: 3, baking_until, waiting_since });
            }
        };
        let hosts = ["a=3 ready", "b=2 heldBack it was bad here"];
        for (baking, waiting) in [(None, None), (Some(second(90)), None), (None, Some(second(90)))] {
            board.take(&resource("web", &hosts, canary(baking, waiting)), second(0));
            board.take(&resource("web", &hosts, canary(baking, waiting)), second(0));
            let lines = board.lines(Room { columns: 100, rows: 20, coloured: false }, second(4));
            insta::allow_duplicates! {
                assert_eq!(lines.len(), 4, "{lines:#?}");
            }
            let expected = match (baking, waiting) {
                (None, None) => "  step 1 of 3",
                (Some(_), _) => "  step 1 of 3 has to stay healthy until 1970-01-12T13:48:10Z",
                (None, Some(_)) => {
                    "  step 1 of 3 waits since 1970-01-12T13:48:10Z for `windlass rollout approve service/web --revision 3`"
                }
            };
            assert_eq!(lines[1], cut(expected, 100));
            assert!(lines[2].contains("b   held back"), "{lines:#?}");
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let mut board = Board::default();
        board.take(&resource("web", &FLEET, |_| {}), second(0));
        for columns in [20, 24, 30, 80] {
            let room = Room { columns, rows: 20, coloured: true };
            let coloured = board.lines(room, second(9)).join("\n");
            let mut plain = coloured.replace("\u{1b}[0m", "");
            for colour in ["31", "32", "33", "36"] {
                plain = plain.replace(&format!("\u{1b}[{colour}m"), "");
            }
            assert_eq!(plain, show(&board, columns, 20, 9));
            assert_eq!(coloured.contains('\u{1b}'), columns >= 80, "{columns}: {coloured}");
        }
    }
}
