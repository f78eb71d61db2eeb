//! Descriptions: a resource as a screen for people. Pure.

use jiff::Timestamp;
use windlass_crds::condition::Condition;
use windlass_crds::document::Declaration;
use windlass_crds::id::ResourceKey;
use windlass_crds::policy::{Member, fingerprint};
use windlass_crds::problem::Problem;
use windlass_crds::record::{self, Verdict};
use windlass_crds::service::{Order, Rollout, ServiceSpec, Strategy};
use windlass_crds::status::{ApprovalStatus, HostRow};
use windlass_engine::events::Event;

use crate::evidence::failure;
use crate::inventory::Resource;
use crate::outlook::outlook;
use crate::steps;
use crate::summary::{age, plain};
use crate::table::{Columns, cell, optional};
use crate::text::{LINE, cut, printable};

/// The last rollouts and events that are shown; `windlass events` has the rest.
const RECENT: usize = 5;

/// What is described, with what is known around it.
pub(crate) struct Subject<'a> {
    /// It.
    pub(crate) resource: &'a Resource,
    /// Its rollouts, the oldest first; Services only.
    pub(crate) rollouts: &'a [record::Rollout],
    /// What happened to it, the oldest first.
    pub(crate) events: &'a [Event],
    /// Everything else, where a Host is described: what runs on it.
    pub(crate) others: &'a [&'a Resource],
    /// The time that ages are counted to.
    pub(crate) now: Timestamp,
}

/// The screen.
pub(crate) fn describe(subject: &Subject<'_>) -> String {
    let resource = subject.resource;
    let mut text = format!("{}\n", resource.key);
    text += &fields(&declared(resource));
    text += &section("Conditions", &conditions(&resource.any_status().conditions, subject.now));
    match &resource.key {
        ResourceKey::Service(_) => {
            let told = resource.service_status();
            let rows = told.hosts.iter().map(|(host, row)| host_row(&host.to_string(), row, subject.now));
            text += &section("Waits for approval", &told.approval.as_ref().map(awaited).unwrap_or_default());
            text += &section("Hosts", &table(["HOST", "REVISION", "STATE", "SINCE", "MESSAGE"], rows));
            text += &section("Rollouts", &rollouts(subject));
            text += &section("Last failure", &told.failure.as_ref().map(failure).unwrap_or_default());
        }
        ResourceKey::Host(name) => text += &section("Services", &carried(&name.to_string(), subject)),
        ResourceKey::ConfigRepo(_) => {
            let told = resource.repo_status();
            let mut errors: Vec<String> =
                told.errors.iter().map(|error| cut(&printable(&error.to_string()), LINE)).collect();
            if told.more_errors > 0 {
                errors.push(format!("and {} more", told.more_errors));
            }
            text += &section("Errors", &errors);
            let owns = told.inventory.iter().map(|(file, keys)| {
                let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
                vec![file.clone(), keys.join(" ")]
            });
            text += &section("Owns", &table(["FILE", "DECLARES"], owns));
            let left: Vec<String> = told.left.iter().map(ToString::to_string).collect();
            text += &section("Declared by no file any more", &left);
        }
        ResourceKey::Policy(_) => text += &section("Members", &members(resource)),
        ResourceKey::NetworkZone(_) => {}
    }
    text += &section("Events", &events(subject));
    let outlook = outlook(resource);
    text += &format!("Next\n  Windlass: {}\n", outlook.next);
    if let Some(advice) = outlook.advice {
        text += &format!("  You: {advice}\n");
    }
    text
}

/// What waits for people to approve it, and who has by now.
fn awaited(waiting: &ApprovalStatus) -> Vec<String> {
    let ApprovalStatus { revision, plan, since, author, asked_by, approvals, missing, .. } = waiting;
    let from = waiting.from.map(|from| format!(" in place of revision {from}")).unwrap_or_default();
    let more = waiting.host_count.saturating_sub(waiting.hosts.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let hosts: Vec<String> = waiting.hosts.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("revision {revision}{from}, declared by {author}, since {since}"),
        format!("plan {plan}"),
        format!("release {}, on {}{more}", waiting.release.short(), or_none(&hosts)),
        format!("other than what is in force: {}", or_none(&waiting.fields)),
        format!("{missing} more to approve it: {}", asked_by.join(", ")),
    ];
    lines.extend(
        approvals.iter().map(|approval| format!("{} approved it at {}: {}", approval.by, approval.at, approval.reason)),
    );
    lines.iter().map(|line| cut(&printable(line), LINE)).collect()
}

/// Who is who in a Policy.
fn members(resource: &Resource) -> Vec<String> {
    let Some(Ok(Declaration::Policy(policy))) = resource.declaration() else { return Vec::new() };
    let row = |member: &Member| {
        let keys = member.ssh_keys.iter().filter_map(fingerprint);
        let certificate = member.certificate.iter().map(|name| format!("certificate {name}"));
        let known: Vec<String> = certificate.chain(keys).collect();
        let approves = if member.approves { "yes" } else { "no" };
        vec![member.name.clone(), approves.to_owned(), known.join(", ")]
    };
    table(["NAME", "APPROVES", "KNOWN BY"], policy.spec.members.iter().map(row))
}

/// Names and values, the values below each other.
fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let line = |(name, value): &(&str, String)| {
        let name = format!("{name}:");
        format!("  {name:width$} {}\n", cut(&printable(value), LINE))
    };
    fields.iter().map(line).collect()
}

/// A heading and its lines; nothing where there are none.
fn section(heading: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("{heading}\n{lines}")
}

/// Rows below headings; nothing where there is no row.
fn table<const WIDTH: usize>(headings: [&str; WIDTH], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let rows: Vec<Vec<String>> = std::iter::once(headings.map(str::to_owned).to_vec()).chain(rows).collect();
    if rows.len() < 2 {
        return Vec::new();
    }
    Columns::default().render(&rows).lines().map(str::to_owned).collect()
}

/// What a user wrote, or what is wrong with it.
fn declared(resource: &Resource) -> Vec<(&'static str, String)> {
    let mut fields = match resource.declaration() {
        None => vec![("Declared", "no; it is being removed".to_owned())],
        // What is shown below its first line is an excerpt, which `windlass apply` shows with the place.
        Some(Err(problems)) => {
            let first = |problem: &Problem| problem.to_string().lines().next().unwrap_or_default().to_owned();
            problems.iter().map(|problem| ("Refused", first(problem))).collect()
        }
        Some(Ok(Declaration::Service(service))) => service_fields(&service.spec),
        Some(Ok(Declaration::Host(host))) => {
            let spec = &host.spec;
            let user = spec.user.clone().unwrap_or_else(|| "the controller's own user name".to_owned());
            let port = spec.port.map(|port| format!(":{port}")).unwrap_or_default();
            let keys = match spec.host_keys.len() {
                0 => "none pinned; known_hosts decides".to_owned(),
                count => format!("{count} pinned"),
            };
            let labels = host.labels.iter().map(|(name, value)| format!("{name}={value}"));
            vec![
                ("Address", format!("{}{port}", spec.address)),
                ("User", user),
                ("Host keys", keys),
                ("Labels", or_none(&labels.collect::<Vec<_>>())),
            ]
        }
        Some(Ok(Declaration::ConfigRepo(repo))) => {
            let spec = &repo.spec;
            let reference =
                spec.reference.as_ref().map_or_else(|| "the default branch".to_owned(), ToString::to_string);
            let path = spec.path.as_ref().map_or_else(|| "all of it".to_owned(), ToString::to_string);
            let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
            vec![
                ("URL", spec.url.to_string()),
                ("Ref", reference),
                ("Path", path),
                ("Interval", spec.interval.to_string()),
                ("Prune", yes(spec.prune)),
                ("Suspended", yes(spec.suspend)),
                ("Signed", yes(spec.verify.is_some())),
            ]
        }
        Some(Ok(Declaration::Policy(policy))) => vec![
            ("Namespaces", policy.spec.namespaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            ("Approval", plain(&policy.spec.approval)),
            ("People", plain(&policy.spec.people)),
            ("Expiry", policy.spec.expiry.to_string()),
        ],
        Some(Ok(Declaration::NetworkZone(zone))) => vec![
            ("Location", zone.spec.location.to_string()),
            ("CIDRs", zone.spec.cidrs.iter().map(plain).collect::<Vec<_>>().join(", ")),
            ("Encryption", plain(&zone.spec.encryption)),
        ],
    };
    if let Some(generation) = resource.generation() {
        let seen = if resource.is_observed() { "" } else { "; the controller has not looked at it yet" };
        fields.push(("Generation", format!("{generation}{seen}")));
    }
    match &resource.key {
        ResourceKey::Service(_) => {
            let told = resource.service_status();
            let target = told.target.filter(|target| Some(*target) != told.revision);
            let target = target.map(|target| format!("; hosts are brought to {target}")).unwrap_or_default();
            fields.extend(told.revision.map(|revision| ("Revision", format!("{revision}{target}"))));
            fields.extend(told.release.map(|release| ("Release", release.short())));
            fields.push(("Ready", format!("{} of {} hosts", told.ready, told.desired)));
            fields.extend(steps::words(&resource.key, &told).map(|step| ("Canary", step)));
        }
        ResourceKey::Host(_) => {
            let told = resource.host_status();
            fields.extend(told.machine.map(|machine| ("Machine", machine.to_string())));
            let systemd = told.systemd.map(|version| format!(" {version}")).unwrap_or_default();
            fields.extend(told.scope.map(|scope| ("systemd", format!("{}{systemd}", plain(&scope)))));
        }
        ResourceKey::ConfigRepo(_) => {
            let told = resource.repo_status();
            let from = told.reference.map(|reference| format!(", from {reference}")).unwrap_or_default();
            let by = told.signer.map(|signer| format!(", signed by {signer}")).unwrap_or_default();
            let attempted = told.attempted.filter(|commit| Some(commit) != told.applied.as_ref());
            fields.extend(told.applied.map(|commit| ("In force", format!("{commit}{from}{by}"))));
            fields.extend(attempted.map(|commit| ("Attempted", commit.to_string())));
        }
        ResourceKey::NetworkZone(_) | ResourceKey::Policy(_) => {}
    }
    if let Some(Ok(declaration)) = resource.declaration()
        && let Some(manager) = declaration.managed_by()
    {
        fields.push(("Managed by", manager.to_string()));
    }
    fields
}

fn service_fields(spec: &ServiceSpec) -> Vec<(&'static str, String)> {
    let hosts = spec.placement.hosts.iter().map(ToString::to_string);
    let labels = spec.placement.selector.iter().map(|(name, value)| format!("{name}={value}"));
    let source = spec.source.path.clone().or_else(|| spec.source.git.as_ref().map(|git| git.url.clone()));
    let source = source.or_else(|| spec.source.repo.as_ref().map(ToString::to_string));
    let command = std::iter::once(spec.runtime.entry_point.to_string()).chain(spec.runtime.args.iter().cloned());
    let port = spec.network.as_ref().map(|network| {
        let transport = network.transport.map_or_else(|| "the zone's transport".to_owned(), |how| how.to_string());
        format!("{}, {transport}", network.port)
    });
    let health = spec
        .health
        .as_ref()
        .map_or_else(|| "runs for 10 s without a restart, and owns its port".to_owned(), plain_brief);
    let interval = &spec.source.change_detection.interval;
    vec![
        ("Placement", or_none(&hosts.chain(labels).collect::<Vec<_>>())),
        ("Source", format!("{}, looked at every {interval}", source.unwrap_or_default())),
        ("Runs", format!("{}: {}", plain(&spec.runtime.target), command.collect::<Vec<_>>().join(" "))),
        ("Port", port.unwrap_or_else(|| "none".to_owned())),
        ("Healthy", health),
        ("Rollout", manner(&spec.rollout)),
    ]
}

/// `canary of 1, 25%, each watched for 1m, at most 1 unavailable, well for 5s`.
fn manner(rollout: &Rollout) -> String {
    let mut words = vec![plain(&rollout.strategy)];
    if let Some(canary) = rollout.canary.as_ref().filter(|_| rollout.strategy == Strategy::Canary) {
        let steps: Vec<String> = canary.steps.iter().map(plain).collect();
        words[0] += &format!(" of {}", steps.join(", "));
        words.extend(canary.bake.map(|bake| format!("each watched for {bake}")));
        if canary.needs_approval() {
            words.push("each step approved by a person".to_owned());
        }
    }
    if rollout.order != Order::Name {
        words.push(format!("by {}", plain(&rollout.order)));
    }
    if rollout.strategy != Strategy::AllAtOnce {
        words.push(format!("at most {} unavailable", plain(&rollout.max_unavailable)));
    }
    if rollout.max_failures > 0 {
        words.push(format!("{} may fail", rollout.max_failures));
    }
    words.push(format!("well for {}", rollout.min_healthy_time));
    words.join(", ")
}

/// `interval: 5s, endpoint: /healthz`: the fields of a part of a declaration that are plain values.
fn plain_brief(part: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(part).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    let fields = fields.filter(|(_, value)| !value.is_object() && !value.is_array());
    fields.map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(", ")
}

fn or_none(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn conditions(conditions: &[Condition], now: Timestamp) -> Vec<String> {
    let rows = conditions.iter().map(|condition| {
        vec![
            condition.kind.to_string(),
            condition.status.to_string(),
            age(condition.last_transition_time, now),
            condition.reason.to_string(),
            cell(&printable(&condition.message.replace('\n', "; "))),
        ]
    });
    table(["CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"], rows)
}

fn host_row(host: &str, row: &HostRow, now: Timestamp) -> Vec<String> {
    let HostRow { revision, state, message, since } = row;
    vec![
        cell(&host),
        optional(*revision),
        plain(state),
        optional(since.map(|since| age(since, now))),
        cell(&cut(&printable(message), LINE)),
    ]
}

/// The last rollouts, and of each what went wrong where.
fn rollouts(subject: &Subject<'_>) -> Vec<String> {
    let recent = subject.rollouts.iter().skip(subject.rollouts.len().saturating_sub(RECENT));
    let rows = recent.map(|rollout| {
        let unhealthy = rollout.verdicts.iter().filter_map(|(host, verdict)| match verdict {
            Verdict::Unhealthy { .. } => Some(format!("unhealthy on {host}")),
            Verdict::Healthy => None,
        });
        let failed = rollout
            .failures
            .iter()
            .map(|(host, failure)| cut(&printable(&format!("{} on {host}: {}", failure.step, failure.error)), LINE));
        let told: Vec<String> = unhealthy.chain(failed).collect();
        vec![
            rollout.sequence.to_string(),
            plain(&rollout.purpose),
            optional(rollout.revision),
            plain(&rollout.state),
            age(rollout.started, subject.now),
            age(rollout.started, rollout.progressed),
            cell(&told.join("; ")),
        ]
    });
    table(["ROLLOUT", "PURPOSE", "REVISION", "STATE", "BEGAN", "TOOK", "MESSAGE"], rows)
}

/// The Services that a Host carries or should carry.
fn carried(name: &str, subject: &Subject<'_>) -> Vec<String> {
    let rows = subject.others.iter().filter_map(|other| {
        let told = other.service_status();
        let row = told.hosts.iter().find(|(host, _)| host.to_string() == name).map(|(_, row)| row)?;
        Some(host_row(&other.key.to_string(), row, subject.now))
    });
    table(["SERVICE", "REVISION", "STATE", "SINCE", "MESSAGE"], rows)
}

fn events(subject: &Subject<'_>) -> Vec<String> {
    let recent = subject.events.iter().skip(subject.events.len().saturating_sub(RECENT));
    let rows = recent.map(|event| {
        let message = printable(&event.message.replace('\n', "; "));
        vec![age(event.time, subject.now), event.reason.to_string(), cell(&cut(&message, LINE))]
    });
    table(["AGE", "REASON", "MESSAGE"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_told_in_one_line() {
        let told = |text: &str| manner(&serde_json::from_str(text).expect(text));
        for (text, expected) in [
            ("{}", "rolling, at most 1 unavailable, well for 5s"),
            (
                r#"{"maxUnavailable": "25%", "maxFailures": 2, "order": "label:rack"}"#,
                "rolling, by label:rack, at most 25% unavailable, 2 may fail, well for 5s",
            ),
            (r#"{"strategy": "allAtOnce", "maxUnavailable": 2}"#, "allAtOnce, well for 5s"),
            (
                r#"{"strategy": "canary", "canary": {"steps": [1, "25%"], "bake": "60s", "promotion": "approved"}}"#,
                "canary of 1, 25%, each watched for 1m, each step approved by a person, at most 1 unavailable, well for 5s",
            ),
            (r#"{"canary": {"steps": [1]}}"#, "rolling, at most 1 unavailable, well for 5s"),
        ] {
            assert_eq!(told(text), expected);
        }
    }
}
