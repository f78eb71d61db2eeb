//! Asking hosts all the while, to know afterwards who answered what, and how many were down at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::http;

/// Between two questions to one host.
const PAUSE: Duration = Duration::from_millis(15);

/// One question, and what came of it.
#[derive(Debug, Clone)]
struct Probe {
    asked: Instant,
    answered: Instant,
    /// The version; nothing where there was no good answer.
    version: Option<String>,
}

/// Asks every host until it is told to finish.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    threads: Vec<(String, JoinHandle<Vec<Probe>>)>,
}

impl Prober {
    /// Starts asking hosts, each by its name and where its service listens.
    pub fn start(hosts: Vec<(String, SocketAddr)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |(name, address)| {
            let stop = Arc::clone(&stop);
            (name, std::thread::spawn(move || probe(address, &stop)))
        };
        let threads = hosts.into_iter().map(ask).collect();
        Self { stop, threads }
    }

    /// Stops asking, and hands out what came.
    pub fn finish(mut self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let join =
            |(name, thread): (String, JoinHandle<Vec<Probe>>)| (name, thread.join().expect("asking does not panic"));
        Answers { by_host: threads.into_iter().map(join).collect() }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn probe(address: SocketAddr, stop: &AtomicBool) -> Vec<Probe> {
    let mut probes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = http::get(address, "/").ok().filter(|answer| answer.status == 200);
        probes.push(Probe { asked, answered: Instant::now(), version: answer.map(|answer| answer.body) });
        sleep(PAUSE);
    }
    probes
}

/// Everything that hosts answered.
#[derive(Debug)]
pub struct Answers {
    by_host: BTreeMap<String, Vec<Probe>>,
}

impl Answers {
    /// The versions that a host answered with.
    pub fn versions(&self, host: &str) -> BTreeSet<&str> {
        self.by_host[host].iter().filter_map(|probe| probe.version.as_deref()).collect()
    }

    /// How often a host gave no good answer.
    pub fn failures(&self, host: &str) -> usize {
        self.by_host[host].iter().filter(|probe| probe.version.is_none()).count()
    }

    /// The most hosts that were certainly down at one time.
    ///
    /// A host was certainly down from the end of the first failed question of a run to the beginning of the last one,
    /// so that a question which took long on a busy machine proves nothing.
    pub fn most_down_at_once(&self) -> usize {
        let mut changes: Vec<(Instant, i32)> = Vec::new();
        for probes in self.by_host.values() {
            for run in probes.split(|probe| probe.version.is_some()) {
                if let [first, .., last] = run
                    && first.answered < last.asked
                {
                    changes.extend([(first.answered, 1), (last.asked, -1)]);
                }
            }
        }
        // Ends before beginnings at one instant.
        changes.sort();
        let (mut down, mut most) = (0, 0);
        for (_, change) in changes {
            down += change;
            most = most.max(down);
        }
        usize::try_from(most).expect("as many begin as end")
    }

    /// A line a host, for a failure's message.
    pub fn summary(&self) -> String {
        let mut lines = String::new();
        for (host, probes) in &self.by_host {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for probe in probes {
                *counts.entry(probe.version.as_deref().unwrap_or("no answer")).or_default() += 1;
            }
            let _ = writeln!(lines, "{host}: {counts:?}");
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each letter is a question that took 1 ms, asked every 10 ms: `x` failed.
    fn answers(hosts: [&str; 2]) -> Answers {
        let start = Instant::now();
        let at = |index: usize| start + Duration::from_millis(10) * u32::try_from(index).expect("few");
        let probes = |letters: &str| {
            letters
                .chars()
                .enumerate()
                .map(|(index, letter)| Probe {
                    asked: at(index),
                    answered: at(index) + Duration::from_millis(1),
                    version: (letter != 'x').then(|| letter.to_string()),
                })
                .collect()
        };
        Answers { by_host: BTreeMap::from([("a".to_owned(), probes(hosts[0])), ("b".to_owned(), probes(hosts[1]))]) }
    }

    #[test]
    fn hosts_that_were_down_at_once_are_counted() {
        for (hosts, most) in [
            (["1111", "1111"], 0),
            (["1xx1", "1111"], 1),
            (["1xx111", "111xx1"], 1),
            (["1xxx11", "11xxx1"], 2),
            // One failed question proves no length of time.
            (["1x11", "1x11"], 0),
        ] {
            assert_eq!(answers(hosts).most_down_at_once(), most, "{hosts:?}");
        }
    }
}
