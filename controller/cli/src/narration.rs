//! Narration: a rollout as plain lines, one for each thing that changed.

use std::collections::BTreeMap;

use windlass_crds::id::{HostId, Sequence};
use windlass_crds::status::HostRow;
use windlass_planner::plan::NEXT;

use crate::inventory::Resource;
use crate::steps;
use crate::summary::plain;
use crate::text::printable;

/// Tells what changed since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Narrator {
    rollout: Option<Sequence>,
    /// How far its canary had come.
    step: Option<String>,
    /// What was told of each, without the time: that alone is no news.
    hosts: BTreeMap<HostId, String>,
}

impl Narrator {
    /// What is new of a Service: its rollout and the step of it, then each host.
    pub(crate) fn news(&mut self, resource: &Resource) -> Vec<String> {
        let told = resource.service_status();
        let key = &resource.key;
        let mut lines = Vec::new();
        if let Some(rollout) = told.rollout.as_ref().filter(|rollout| self.rollout != Some(rollout.sequence)) {
            let purpose = plain(&rollout.purpose);
            lines.push(match told.target {
                Some(target) => format!("{key}: rollout {} ({purpose}) to revision {target}", rollout.sequence),
                None => format!("{key}: rollout {} ({purpose})", rollout.sequence),
            });
            self.rollout = Some(rollout.sequence);
        }
        let step = steps::words(key, &told);
        if let Some(step) = step.as_ref().filter(|_| self.step != step) {
            lines.push(format!("{key}: {step}"));
        }
        self.step = step;
        let hosts: BTreeMap<HostId, String> =
            told.hosts.iter().map(|(host, row)| (host.clone(), describe(row))).collect();
        for (host, row) in &hosts {
            if self.hosts.get(host) != Some(row) {
                lines.push(format!("{key}: {host} {row}"));
            }
        }
        for host in self.hosts.keys().filter(|host| !hosts.contains_key(*host)) {
            lines.push(format!("{key}: {host} is done with"));
        }
        self.hosts = hosts;
        lines
    }
}

/// `ready, revision 3`.
fn describe(row: &HostRow) -> String {
    let mut text = plain(&row.state);
    if let Some(revision) = row.revision {
        text += &format!(", revision {revision}");
    }
    // What comes next is no news: it is told when it begins.
    if !row.message.is_empty() && !row.message.starts_with(NEXT) {
        text += &format!(": {}", printable(&row.message));
    }
    text
}
