//! Evidence: what is known of why a Service is not well, told in full.

use windlass_crds::observation::HealthAnswer;
use windlass_crds::status::{Failure, HostState, ServiceStatus};

use crate::summary::plain;
use crate::text::{LINE, body, cut, printable};

/// The last lines of a log that are shown: as many as the controller records.
const LOG_LINES: usize = 20;

/// The failed revision's evidence, and each host that is not ready.
pub(crate) fn evidence(told: &ServiceStatus) -> Vec<String> {
    let mut lines = told.failure.as_ref().map(failure).unwrap_or_default();
    let ill = told.hosts.iter().filter(|(_, row)| row.state != HostState::Ready);
    lines.extend(ill.map(|(host, row)| {
        let state = format!("{host} is {}", plain(&row.state));
        if row.message.is_empty() { state } else { format!("{state}: {}", cut(&printable(&row.message), LINE)) }
    }));
    lines
}

/// Which revision failed where, how that showed, what the health endpoint answered last, and what the unit logged.
pub(crate) fn failure(failure: &Failure) -> Vec<String> {
    let Failure { revision, host, evidence } = failure;
    let mut lines = vec![format!("revision {revision} on {host}: {}", cut(&printable(&evidence.summary), LINE))];
    lines.extend(evidence.answer.as_ref().map(|answer| format!("  answer: {}", answered(answer))));
    let surplus = evidence.logs.len().saturating_sub(LOG_LINES);
    let logs = evidence.logs.iter().skip(surplus);
    lines.extend(logs.map(|line| format!("  log: {}", cut(&printable(line), LINE))));
    lines
}

fn answered(answer: &HealthAnswer) -> String {
    match answer {
        HealthAnswer::Http { status, body } if body.trim().is_empty() => format!("HTTP {status}"),
        HealthAnswer::Http { status, body: said } => format!("HTTP {status}: {}", body(said)),
        HealthAnswer::Open => "the port accepts connections".to_owned(),
        HealthAnswer::Silent { detail } => format!("none: {}", cut(&printable(detail), LINE)),
        HealthAnswer::Unknown { detail } => format!("not known: {}", cut(&printable(detail), LINE)),
    }
}

#[cfg(test)]
mod tests {
    use windlass_crds::record::Evidence;

    use super::*;

    #[test]
    fn a_failure_is_told_without_what_would_move_the_cursor() {
        let told = Failure {
            revision: windlass_crds::id::RevisionNumber(4),
            host: "web1".parse().expect("a host"),
            evidence: Evidence {
                summary: "the health endpoint answers 500".to_owned(),
                answer: Some(HealthAnswer::Http { status: 500, body: "<h1>\x1b[1;31mno database</h1>\n".to_owned() }),
                logs: (1..=25).map(|line| format!("line {line}\x1b[2J")).collect(),
            },
        };
        let lines = failure(&told);
        assert_eq!(lines[1], "  answer: HTTP 500: <h1>\\u{1b}[1;31mno database</h1>");
        assert_eq!((lines[2].as_str(), lines.len()), ("  log: line 6\\u{1b}[2J", 22));
    }
}
