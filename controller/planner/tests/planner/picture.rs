//! How tests draw a plan and a story, for a reviewer to read.

use std::fmt::Write as _;

use windlass_crds::condition::{ConditionStatus, ConditionType};
use windlass_planner::plan::{Act, Plan, RolloutChange};
use windlass_planner::target::Aim;

use crate::world::World;

/// One plan: where to, what becomes of the rollout, then each host with what is said of it and what is done there.
pub(crate) fn draw(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = write!(text, "  {}; {}", aim(&plan.aim), rollout(&plan.rollout));
    for (word, hosts) in [("stamp", &plan.stamp), ("touch", &plan.touch)] {
        if !hosts.is_empty() {
            let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            let _ = write!(text, "; {word} {}", names.join(" "));
        }
    }
    if let Some(new) = &plan.new_revision {
        let _ = write!(text, "; record revision {}", new.number);
    }
    if plan.gone {
        text.push_str("; gone");
    }
    text.push('\n');
    for (id, row) in &plan.report.hosts {
        let acts = plan.actions.get(id).map_or(String::new(), |acts| format!(" -> {}", acts_line(acts)));
        let revision = row.revision.map_or("-".to_owned(), |revision| format!("v{revision}"));
        let message = if row.message.is_empty() { String::new() } else { format!(" ({})", row.message) };
        let _ = writeln!(text, "  {id}: {revision} {:?}{message}{acts}", row.state);
    }
    text + &said(plan)
}

/// What is said of the Service: Ready, and every other condition that is not as one would wish.
pub(crate) fn said(plan: &Plan) -> String {
    let mut text = String::new();
    for finding in &plan.report.findings {
        let worth = match finding.kind {
            ConditionType::Ready => true,
            ConditionType::Available => finding.status != ConditionStatus::True,
            _ => finding.status != ConditionStatus::False,
        };
        if worth {
            let message = if finding.message.is_empty() { String::new() } else { format!(": {}", finding.message) };
            let _ = writeln!(text, "  {}={} {}{message}", finding.kind, finding.status, finding.reason);
        }
    }
    text
}

fn acts_line(acts: &[Act]) -> String {
    let words: Vec<String> = acts
        .iter()
        .map(|act| match act {
            Act::Step(step) => step.to_string(),
            Act::Judge { .. } => "judge".to_owned(),
        })
        .collect();
    words.join(", ")
}

fn aim(aim: &Aim) -> String {
    match aim {
        Aim::Declared(revision) => format!("to v{revision}"),
        Aim::Back { to, blocked } => format!("back to v{to} from v{}", blocked.revision),
        Aim::Undone { to } => format!("undone to v{to}"),
        Aim::Nothing { blocked } => format!("stop v{}", blocked.revision),
        Aim::Stay { blocked } => format!("stay, v{} blocked", blocked.revision),
        Aim::Unknown => "nowhere yet".to_owned(),
        Aim::Removed => "off the hosts".to_owned(),
    }
}

fn rollout(change: &RolloutChange) -> String {
    match change {
        RolloutChange::Keep => "keep".to_owned(),
        RolloutChange::Open { purpose, revision, above } => {
            let to = revision.map_or(String::new(), |revision| format!(" to v{revision}"));
            format!("open {purpose:?}{to} above {above}")
        }
        RolloutChange::Close(state) => format!("close as {state:?}"),
    }
}

/// Plans for rows of hosts in the same circumstances.
pub(crate) fn table<const N: usize>(circumstances: impl Fn(World) -> World, rows: [(&str, &str); N]) -> String {
    let row = |(title, hosts): (&str, &str)| {
        let world = circumstances(World::of(hosts));
        let plan = world.plan();
        world.check(&plan);
        format!("{title}: {hosts}\n{}", draw(&plan))
    };
    rows.map(row).join("")
}

/// What happened in a world, and how it ended.
pub(crate) fn story(world: &World, end: &Plan) -> String {
    format!("{}\n=> {}", world.log.join("\n"), draw(end).trim_start())
}
