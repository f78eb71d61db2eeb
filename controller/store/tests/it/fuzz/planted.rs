//! Differences that are planted: each kind of thing that is compared, changed in one answer, must be told.

use anyhow::{Context, Result, ensure};

use super::duel::{Duel, Line};
use crate::protocol::{Answer, End, Event, EventKind, Lease, Pair, Revision, Watched};

/// Seeds in which there is a place for each kind: an ordinary run has more.
const SEEDS: u64 = 12;

/// Changes an answer where it has what is to be changed, and says whether it has.
type Plant = fn(&mut Answer) -> bool;

/// One of each kind.
const PLANTS: [(&str, Plant); 32] = [
    ("a put's revision", |answer| matches!(answer, Answer::Put { .. }) && later(answer)),
    ("a put's previous pair", |answer| match answer {
        Answer::Put { previous, .. } => previous.take().is_some(),
        _ => false,
    }),
    ("a range's revision", |answer| matches!(answer, Answer::Get { .. }) && later(answer)),
    ("a pair that is not there", |answer| pairs(answer).is_some_and(|pairs| pairs.pop().is_some())),
    ("a key", |answer| pair(answer).map(|pair| pair.key.push(b'x')).is_some()),
    ("a value", |answer| pair(answer).map(|pair| pair.value.push(b'x')).is_some()),
    ("a creation", |answer| pair(answer).is_some_and(|pair| add(&mut pair.created))),
    ("a modification", |answer| pair(answer).is_some_and(|pair| add(&mut pair.modified))),
    ("a version", |answer| pair(answer).map(|pair| pair.version += 1).is_some()),
    ("a pair's lease", |answer| pair(answer).is_some_and(|pair| pair.lease.take().is_some())),
    ("the order of pairs", |answer| {
        pairs(answer).is_some_and(|pairs| pairs.len() > 1 && pairs.first() != pairs.last() && reverse(pairs))
    }),
    ("more", |answer| match answer {
        Answer::Get { more, .. } => flip(more),
        _ => false,
    }),
    ("a count", |answer| match answer {
        Answer::Get { count, .. } => one_more(count),
        _ => false,
    }),
    ("a deletion's revision", |answer| matches!(answer, Answer::Delete { .. }) && later(answer)),
    ("how many were deleted", |answer| match answer {
        Answer::Delete { deleted, .. } => one_more(deleted),
        _ => false,
    }),
    ("what was deleted", |answer| match answer {
        Answer::Delete { previous, .. } => previous.pop().is_some(),
        _ => false,
    }),
    ("a branch", |answer| match answer {
        Answer::Txn { succeeded, .. } => flip(succeeded),
        _ => false,
    }),
    ("an answer two transactions deep", |answer| match answer {
        Answer::Txn { answers, .. } => answers.iter_mut().any(|inner| match inner {
            Answer::Txn { answers, .. } => answers.pop().is_some(),
            _ => false,
        }),
        _ => false,
    }),
    ("a compaction's revision", |answer| matches!(answer, Answer::Compact { .. }) && later(answer)),
    ("seconds of a lease", |answer| match answer {
        Answer::Grant { ttl, .. } | Answer::KeepAlive { ttl, .. } | Answer::TimeToLive { granted: ttl, .. } => {
            one_more(ttl)
        }
        _ => false,
    }),
    ("whether a lease is there", |answer| match answer {
        Answer::TimeToLive { expired, .. } => flip(expired),
        _ => false,
    }),
    ("a lease's key", |answer| match answer {
        Answer::TimeToLive { keys, .. } => keys.pop().is_some(),
        _ => false,
    }),
    ("a list of leases", |answer| match answer {
        Answer::Leases { leases, .. } => {
            leases.push(Lease(9));
            true
        }
        _ => false,
    }),
    ("a watch's id", |answer| match answer {
        Answer::Watch { id, .. } => one_more(id),
        _ => false,
    }),
    ("why a watch was refused", |answer| match answer {
        Answer::Watch { end, .. } => end.take().is_some(),
        _ => false,
    }),
    ("an event that is missing", |answer| watched(answer, |watched| watched.events.pop().is_some())),
    ("an event's kind", |answer| {
        event(answer, |event| {
            event.kind = match event.kind {
                EventKind::Put => EventKind::Delete,
                EventKind::Delete => EventKind::Put,
            };
            true
        })
    }),
    ("what was before an event", |answer| event(answer, |event| event.previous.take().is_some())),
    ("the end of a watch", |answer| watched(answer, |watched| watched.end.take().is_some())),
    ("from where there is history", |answer| {
        watched(answer, |watched| watched.end.as_mut().is_some_and(|End { compacted, .. }| add(compacted)))
    }),
    ("how far a stream is", |answer| matches!(answer, Answer::Progress { .. }) && later(answer)),
    ("an error", |answer| match answer {
        Answer::Error { message, .. } => {
            message.push('!');
            true
        }
        _ => false,
    }),
];

fn flip(flag: &mut bool) -> bool {
    *flag = !*flag;
    true
}

fn one_more(number: &mut i64) -> bool {
    *number += 1;
    true
}

fn reverse(pairs: &mut [Pair]) -> bool {
    pairs.reverse();
    true
}

fn add(revision: &mut Revision) -> bool {
    revision.0.as_mut().map(one_more).is_some()
}

fn later(answer: &mut Answer) -> bool {
    answer.revision_mut().is_some_and(add)
}

fn pairs(answer: &mut Answer) -> Option<&mut Vec<Pair>> {
    match answer {
        Answer::Get { pairs, .. } => Some(pairs),
        Answer::Txn { answers, .. } => answers.iter_mut().find_map(pairs),
        _ => None,
    }
}

fn pair(answer: &mut Answer) -> Option<&mut Pair> {
    pairs(answer)?.first_mut()
}

fn watched(answer: &mut Answer, change: impl FnMut(&mut Watched) -> bool) -> bool {
    match answer {
        Answer::Events { watches } => watches.iter_mut().any(change),
        _ => false,
    }
}

fn event(answer: &mut Answer, mut change: impl FnMut(&mut Event) -> bool) -> bool {
    watched(answer, |watched| watched.events.iter_mut().any(&mut change))
}

#[tokio::test]
async fn a_planted_difference_is_told() -> Result<()> {
    let duel = Duel::begin()?;
    let mut lines: Vec<Line> = Vec::new();
    for seed in 0..SEEDS {
        lines.extend(duel.play_seed(seed).await?);
    }
    for (what, plant) in PLANTS {
        let place = lines.iter().find_map(|line| {
            let mut line = line.clone();
            line.answers.last_mut().is_some_and(plant).then_some(line)
        });
        let line = place.with_context(|| format!("nothing was asked that tells {what}"))?;
        ensure!(line.difference().is_some(), "{what} is changed in an answer to {}, and nobody tells", line.operation);
    }
    Ok(())
}
