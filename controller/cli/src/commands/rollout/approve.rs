//! `windlass rollout approve`: lets what was declared come into force, or the next step of a canary begin.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use windlass_crds::approval::{self, SIGNED_FOR, Subject};
use windlass_crds::digest::PlanDigest;
use windlass_crds::id::{ResourceKey, RevisionNumber, ServiceKey};
use windlass_crds::policy::is_name;
use windlass_crds::request::Request;
use windlass_crds::status::{ApprovalStatus, ServiceStatus};
use windlass_hosts::signature;
use windlass_store::Store;

use super::super::ClientArgs;
use super::ask_and_wait;
use crate::exit::Exit;
use crate::failure::{UsageError, hinted};
use crate::first_steps;
use crate::inventory::{Inventory, Resource};
use crate::output;
use crate::resources::{self, Selection};
use crate::settling::Ending;
use crate::waiting::WaitArgs;

/// Let what was declared come into force, or the next step of a canary begin
///
/// What has to be approved before it comes into force is approved as a plan: one revision, all that its declaration
/// says, its files, and its hosts. `windlass describe` shows it. A canary's step is one step of one revision: of the one
/// that waits now, or of `--revision`. Where it does not wait any more, because something else was declared, or somebody
/// else was quicker, nothing happens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass rollout approve service/web --revision 7 --plan 1f2e3d4c5b6a --reason 'CHG-1234'
  windlass rollout approve service/web --revision 7 --reason 'CHG-1234' --sign ~/.ssh/id_ed25519
  windlass rollout approve service/web          The next step of a canary
  windlass rollout approve service/web --wait   Until it runs everywhere, or waits for a person once more")]
pub(crate) struct ApproveArgs {
    /// Which: service/web, or service web
    #[arg(value_name = "RESOURCE", required = true)]
    resource: Vec<String>,
    /// Of which revision; of the one that waits unless told
    #[arg(long, value_name = "NUMBER")]
    revision: Option<RevisionNumber>,
    /// Only this plan, as `windlass describe` shows it
    #[arg(long, value_name = "DIGEST")]
    plan: Option<String>,
    /// Why, on one line; what has to be approved to come into force needs one
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Sign it with this SSH key: a private key, or the public one of a key that the agent holds
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: &ApproveArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    let service = resources::service(&args.resource, &client.namespace)?;
    let key = ResourceKey::Service(service.clone());
    let store = client.connection.connect().await?;
    let selection = Selection::Named(vec![key.clone()]);
    let inventory = Inventory::read(&store, &selection).await?;
    first_steps::require(&store, &inventory, &selection).await?;
    let told = inventory.get(&key).map(Resource::service_status).unwrap_or_default();
    let request = match waiting(&told, args) {
        None => {
            let error = anyhow!("nothing of {key} waits for approval");
            return Err(hinted(error, format!("`windlass rollout status {key}` follows what is under way")));
        }
        Some(waiting) => {
            if let Some(wanted) = args.revision.filter(|wanted| *wanted != waiting.revision()) {
                bail!("it is revision {} of {key} that waits for approval, and not {wanted}", waiting.revision());
            }
            match waiting {
                Waiting::Step { revision, step } => step_of(args, revision, step)?,
                Waiting::Plan(plan) => of_plan(args, &store, &service, plan).await?,
            }
        }
    };
    ask_and_wait(&store, &service, &request, Ending::Approved, &args.wait).await
}

/// What waits for a person.
enum Waiting<'a> {
    /// The next step of a canary.
    Step { revision: RevisionNumber, step: u32 },
    /// What was declared.
    Plan(&'a ApprovalStatus),
}

impl Waiting<'_> {
    fn revision(&self) -> RevisionNumber {
        match self {
            Self::Step { revision, .. } => *revision,
            Self::Plan(plan) => plan.revision,
        }
    }
}

/// What waits: of two things the one that is meant. Who gives a reason, a plan or a key means what was declared.
fn waiting<'a>(told: &'a ServiceStatus, args: &ApproveArgs) -> Option<Waiting<'a>> {
    let plan = told.approval.as_ref().map(Waiting::Plan);
    let step = || {
        let canary = told.rollout.as_ref()?.canary.as_ref()?;
        canary.waiting_since?;
        Some(Waiting::Step { revision: told.target?, step: canary.step })
    };
    let meant = |waiting: &Waiting<'_>| args.revision.is_none_or(|wanted| wanted == waiting.revision());
    let plans = args.reason.is_some() || args.plan.is_some() || args.sign.is_some();
    let (first, second) = if plans { (plan, step()) } else { (step(), plan) };
    let all: Vec<Waiting<'_>> = first.into_iter().chain(second).collect();
    let found = all.iter().position(meant).or(if all.is_empty() { None } else { Some(0) })?;
    all.into_iter().nth(found)
}

fn step_of(args: &ApproveArgs, revision: RevisionNumber, step: u32) -> anyhow::Result<Request> {
    if args.plan.is_some() || args.sign.is_some() {
        let error = UsageError("--plan and --sign are for what has to be approved to come into force".into());
        return Err(hinted(error, "leave them out for the next step of a canary"));
    }
    Ok(Request::next_step(revision, Some(step)))
}

/// The approval of what was declared, signed where there is a key.
async fn of_plan(
    args: &ApproveArgs,
    store: &Store,
    service: &ServiceKey,
    waiting: &ApprovalStatus,
) -> anyhow::Result<Request> {
    let ApprovalStatus { revision, plan, author, .. } = waiting;
    let (revision, plan) = (*revision, *plan);
    check_plan(args.plan.as_deref(), plan)?;
    let Some(reason) = &args.reason else {
        return Err(hinted(UsageError("an approval says why".into()), "--reason 'CHG-1234', or one line of your own"));
    };
    approval::check_reason(reason).map_err(|error| UsageError(format!("--reason: {error}")))?;
    let at = Timestamp::now();
    let signature = match &args.sign {
        None => None,
        Some(key) => {
            let cluster = store.cluster_id().await?;
            let text = Subject { cluster: &cluster, service, revision, plan: &plan, reason, at }.text();
            Some(signature::sign(&text, SIGNED_FOR, key).await?)
        }
    };
    let says = std::env::var("USER").ok().filter(|name| signature.is_none() && is_name(name));
    output::line(format_args!("revision {revision}, declared by {author}: plan {plan}"))?;
    let at = signature.as_ref().map(|_| at);
    Ok(Request::Approve { revision, step: None, plan: Some(plan), reason: Some(reason.clone()), at, says, signature })
}

/// So many digits of a digest name it.
const ENOUGH_DIGITS: usize = 12;

fn check_plan(wanted: Option<&str>, plan: PlanDigest) -> anyhow::Result<()> {
    match wanted {
        None => Ok(()),
        Some(text) if text.len() < ENOUGH_DIGITS => {
            Err(UsageError(format!("--plan: at least {ENOUGH_DIGITS} digits of it")).into())
        }
        Some(text) if plan.to_string().starts_with(text) => Ok(()),
        Some(_) => {
            let error = anyhow!("the plan has come to be another: {plan}");
            Err(hinted(error, "look at it again with `windlass describe`, then approve it"))
        }
    }
}
