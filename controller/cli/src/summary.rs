//! Summaries: what `get` shows of each resource, as a row of a table or as a document.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_crds::condition::ConditionType;
use windlass_crds::configrepo::CommitId;
use windlass_crds::document::{API_VERSION, Declaration};
use windlass_crds::id::{Kind, ResourceKey};
use windlass_crds::status;

use crate::inventory::Resource;
use crate::table::{cell, optional};

/// How much of each resource a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detail {
    /// The columns of `-o wide` too.
    pub(crate) wide: bool,
    /// The namespace, where there may be several.
    pub(crate) namespace: bool,
    /// `service/web` instead of `web`, where there are several kinds.
    pub(crate) kind: bool,
}

/// The headings of a kind's table.
pub(crate) fn headings(kind: Kind, detail: Detail) -> Vec<String> {
    let mut headings = if detail.namespace && kind == Kind::Service { vec!["NAMESPACE"] } else { vec![] };
    headings.push("NAME");
    headings.extend(match kind {
        Kind::Service => &["READY", "STATUS", "REVISION", "SINCE"][..],
        Kind::Host => &["ADDRESS", "STATUS", "MACHINE"],
        Kind::NetworkZone => &["LOCATION", "CIDRS", "ENCRYPTION", "STATUS"],
        Kind::ConfigRepo => &["REF", "COMMIT", "OWNS", "STATUS"],
        Kind::Policy => &["NAMESPACES", "APPROVAL", "PEOPLE", "STATUS"],
    });
    if detail.wide {
        headings.extend(match kind {
            Kind::Service => &["TARGET", "RELEASE", "ROLLOUT", "HOSTS"][..],
            Kind::Host => &["USER", "SCOPE", "SYSTEMD", "LABELS"],
            Kind::NetworkZone => &[],
            Kind::ConfigRepo => &["ATTEMPTED", "ERRORS", "URL"],
            Kind::Policy => &["MEMBERS", "EXPIRY"],
        });
    }
    headings.into_iter().map(str::to_owned).collect()
}

/// A resource as a row below [`headings`].
pub(crate) fn row(resource: &Resource, detail: Detail, now: Timestamp) -> Vec<String> {
    let name = match &resource.key {
        ResourceKey::Service(key) => key.name.to_string(),
        ResourceKey::Host(name) => name.to_string(),
        ResourceKey::NetworkZone(name) => name.to_string(),
        ResourceKey::ConfigRepo(name) => name.to_string(),
        ResourceKey::Policy(name) => name.to_string(),
    };
    let kind = resource.key.kind();
    let mut row = match &resource.key {
        ResourceKey::Service(key) if detail.namespace => vec![key.namespace.to_string()],
        _ => vec![],
    };
    row.push(if detail.kind { format!("{}/{name}", kind.singular()) } else { name });
    match kind {
        Kind::Service => service_cells(&mut row, resource, detail, now),
        Kind::Host => host_cells(&mut row, resource, detail),
        Kind::NetworkZone => zone_cells(&mut row, resource),
        Kind::ConfigRepo => repo_cells(&mut row, resource, detail),
        Kind::Policy => policy_cells(&mut row, resource, detail),
    }
    row
}

fn service_cells(row: &mut Vec<String>, resource: &Resource, detail: Detail, now: Timestamp) {
    let told = resource.service_status();
    let ready = status::condition(&told.conditions, ConditionType::Ready);
    row.push(optional(resource.status.as_ref().map(|_| format!("{}/{}", told.ready, told.desired))));
    row.push(cell(&resource.reason()));
    row.push(optional(told.revision));
    row.push(optional(ready.map(|ready| age(ready.last_transition_time, now))));
    if detail.wide {
        let hosts: Vec<String> = told.hosts.keys().map(ToString::to_string).collect();
        row.push(optional(told.target));
        row.push(optional(told.release.map(|release| release.short())));
        row.push(optional(told.rollout.map(|rollout| rollout.sequence)));
        row.push(cell(&hosts.join(",")));
    }
}

fn host_cells(row: &mut Vec<String>, resource: &Resource, detail: Detail) {
    let told = resource.host_status();
    let declared = match resource.declaration() {
        Some(Ok(Declaration::Host(declared))) => Some(declared),
        _ => None,
    };
    let spec = declared.as_ref().map(|declared| &declared.spec);
    row.push(optional(spec.map(|spec| match spec.port {
        Some(port) => format!("{}:{port}", spec.address),
        None => spec.address.clone(),
    })));
    row.push(cell(&resource.reason()));
    row.push(optional(told.machine.as_ref().map(|machine| &machine.as_str()[..machine.as_str().len().min(12)])));
    if detail.wide {
        let labels = declared.as_ref().map(|declared| &declared.labels).into_iter().flatten();
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        row.push(optional(spec.and_then(|spec| spec.user.as_ref())));
        row.push(optional(told.scope.map(|scope| plain(&scope))));
        row.push(optional(told.systemd));
        row.push(cell(&labels.join(",")));
    }
}

fn zone_cells(row: &mut Vec<String>, resource: &Resource) {
    let spec = match resource.declaration() {
        Some(Ok(Declaration::NetworkZone(declared))) => Some(declared.spec),
        _ => None,
    };
    let spec = spec.as_ref();
    let cidrs = spec.map(|spec| spec.cidrs.iter().map(plain).collect::<Vec<_>>().join(","));
    row.push(optional(spec.map(|spec| spec.location)));
    row.push(optional(cidrs));
    row.push(optional(spec.map(|spec| plain(&spec.encryption))));
    row.push(cell(&resource.reason()));
}

fn policy_cells(row: &mut Vec<String>, resource: &Resource, detail: Detail) {
    let spec = match resource.declaration() {
        Some(Ok(Declaration::Policy(declared))) => Some(declared.spec),
        _ => None,
    };
    let spec = spec.as_ref();
    let namespaces = spec.map(|spec| spec.namespaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    row.push(optional(namespaces));
    row.push(optional(spec.map(|spec| plain(&spec.approval))));
    row.push(optional(spec.map(|spec| plain(&spec.people))));
    row.push(cell(&resource.reason()));
    if detail.wide {
        row.push(optional(spec.map(|spec| spec.members.len())));
        row.push(optional(spec.map(|spec| spec.expiry)));
    }
}

fn repo_cells(row: &mut Vec<String>, resource: &Resource, detail: Detail) {
    let told = resource.repo_status();
    let spec = match resource.declaration() {
        Some(Ok(Declaration::ConfigRepo(declared))) => Some(declared.spec),
        _ => None,
    };
    let reference = spec.as_ref().and_then(|spec| spec.reference.as_ref());
    row.push(optional(reference));
    row.push(optional(told.applied.as_ref().map(CommitId::short)));
    row.push(optional(resource.status.as_ref().map(|_| told.owns().count())));
    row.push(cell(&resource.reason()));
    if detail.wide {
        row.push(optional(told.attempted.as_ref().map(CommitId::short)));
        row.push(optional(resource.status.as_ref().map(|_| told.errors.len() + told.more_errors)));
        row.push(optional(spec.as_ref().map(|spec| &spec.url)));
    }
}

/// A value as it stands in a declaration.
pub(crate) fn plain(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

/// How long ago something was, in its one or two largest units, as kubectl does.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => format!("{minutes}m{}s", seconds % 60),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => format!("{hours}h{}m", minutes % 60),
        () if hours < 48 => format!("{hours}h"),
        () => format!("{days}d"),
    }
}

/// A resource as one document: what is declared, with its defaults, and what the controller says.
///
/// `apply` takes it back, so that `get -o yaml`, an editor and `apply -f -` go together.
pub(crate) fn document(resource: &Resource) -> Value {
    let mut document = match resource.declaration() {
        Some(Ok(declaration)) => declaration.to_json(),
        // It cannot be read, or is gone: its name is all there is; what is wrong, the status says.
        Some(Err(_)) | None => {
            let mut metadata = Map::new();
            match &resource.key {
                ResourceKey::Service(key) => {
                    metadata.insert("name".into(), key.name.to_string().into());
                    metadata.insert("namespace".into(), key.namespace.to_string().into());
                }
                ResourceKey::Host(name) => drop(metadata.insert("name".into(), name.to_string().into())),
                ResourceKey::NetworkZone(name) => drop(metadata.insert("name".into(), name.to_string().into())),
                ResourceKey::ConfigRepo(name) => drop(metadata.insert("name".into(), name.to_string().into())),
                ResourceKey::Policy(name) => drop(metadata.insert("name".into(), name.to_string().into())),
            }
            json!({"apiVersion": API_VERSION, "kind": resource.key.kind().name(), "metadata": metadata})
        }
    };
    if let Some(generation) = resource.generation() {
        document["metadata"]["generation"] = generation.0.into();
    }
    // As it stands in the store, so that what a later controller adds is not lost.
    let status = resource.status.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok());
    if let Some(status) = status {
        document["status"] = status;
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m0s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h0m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age(at(1_000_000), at(1_000_000 + seconds)), expected, "{seconds}");
        }
    }
}
