//! Outlook: what Windlass does next by itself, and what a person can type.

use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::ResourceKey;
use windlass_crds::status::{self, ServiceStatus};

use crate::inventory::Resource;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// What Windlass does by itself.
    pub(crate) next: String,
    /// What a person can do about it.
    pub(crate) advice: Option<String>,
}

/// What comes next for a resource, by what its status says.
pub(crate) fn outlook(resource: &Resource) -> Outlook {
    let key = &resource.key;
    if !resource.is_observed() && resource.declaration().is_some_and(|read| read.is_ok()) {
        return Outlook {
            next: "the controller looks at what is declared, as soon as one runs".to_owned(),
            advice: None,
        };
    }
    Outlook { next: next(resource.reason(), &resource.service_status()), advice: advice(resource.reason(), key) }
}

/// What Windlass does next about a Service, as its `Ready` condition tells; nothing where all is well.
pub(crate) fn of_service(told: &ServiceStatus) -> Option<String> {
    let ready = status::condition(&told.conditions, ConditionType::Ready)?;
    (ready.status != ConditionStatus::True).then(|| next(ready.reason, told))
}

/// What Windlass does by itself.
fn next(reason: Reason, told: &ServiceStatus) -> String {
    let running = told.target.map_or_else(|| "what runs".to_owned(), |target| format!("revision {target}"));
    let failed = told.failure.as_ref().map(|failure| failure.revision).or(told.revision);
    let failed = failed.map_or_else(|| "what failed".to_owned(), |failed| format!("revision {failed}"));
    match reason {
        Reason::RolledBack | Reason::Aborted => {
            format!("{running} stays; {failed} is not deployed again until the source or the declaration changes")
        }
        Reason::RollingBack => format!("it goes back to {running}, host by host"),
        Reason::FirstDeployUnhealthy => {
            "it stays stopped where it was unhealthy, until the source or the declaration changes".to_owned()
        }
        Reason::Unhealthy => format!("{failed} stays where it is, and is looked at again; nothing is rolled back"),
        Reason::Undone => format!("{running} stays until something else is declared"),
        Reason::Paused => "nothing is begun on hosts until it is resumed; what runs goes on".to_owned(),
        Reason::Unconfirmed => {
            "nothing is begun on hosts until somebody says what comes next; what was confirmed before runs on"
                .to_owned()
        }
        Reason::MassUnhealthy => {
            "nothing is switched on hosts, neither on nor back, until somebody says so; what runs goes on".to_owned()
        }
        Reason::Flapping => {
            "what is changed again and again is left as it is: on a host for an hour after the first of the repairs, in the declaration until somebody says which it shall be".to_owned()
        }
        Reason::RollingOut => format!("the rollout to {running} goes on by itself"),
        Reason::HeldBack => {
            format!(
                "{running} stays where it is well; where it is not, it is not tried again until the source or the declaration changes"
            )
        }
        Reason::Baking => "it is watched until then, and goes back by itself should a host turn unhealthy".to_owned(),
        Reason::WaitingForApproval => {
            "nothing new is begun until somebody approves it; what runs goes on, and a canary goes back should a host turn unhealthy".to_owned()
        }
        Reason::Repairing | Reason::DriftFound => "what was changed on hosts is put right".to_owned(),
        Reason::StepFailed | Reason::HostUnhealthy => {
            "it is tried again by itself, after waits that grow up to 5 minutes; what serves stays".to_owned()
        }
        Reason::HostUnreachable => "the host is tried again every 10 s, and caught up once it answers".to_owned(),
        Reason::ProgressDeadlineExceeded => "it goes on trying, and rolls nothing back".to_owned(),
        Reason::Removing => "it is taken off its hosts".to_owned(),
        Reason::RemovalNeedsConfirmation => "nothing is removed until somebody confirms it".to_owned(),
        Reason::LoginRefused | Reason::HostUnsuitable | Reason::HostKeyRejected => {
            "nothing is done there; it is looked at again every 10 s".to_owned()
        }
        Reason::OwnedByAnother | Reason::DuplicateHost | Reason::PlaintextRefused | Reason::HostNotFound => {
            "nothing is done there; what runs goes on".to_owned()
        }
        Reason::SourceUnavailable | Reason::SourceInvalid | Reason::SourceUnsettled => {
            "what runs goes on; the source is looked at again at its interval".to_owned()
        }
        Reason::Converged | Reason::AsExpected | Reason::Reachable => {
            "nothing to do; it is looked at at its intervals, and what changes is put right".to_owned()
        }
        Reason::Applied => "it is asked for something new at its interval, and what others change is put back".to_owned(),
        Reason::Suspended => "nothing is taken from it, and nothing is put back".to_owned(),
        Reason::RepoUnavailable | Reason::RefNotFound | Reason::RepoInvalid => {
            "it is asked again by itself; the last commit that was good stays in force".to_owned()
        }
        Reason::UnsignedCommit | Reason::SignerNotAllowed | Reason::EmptyTree | Reason::RepoTooLarge => {
            "the commit is not taken; the last one that was good stays in force".to_owned()
        }
        Reason::NotObserved => "it is looked at as soon as a controller runs".to_owned(),
        _ => "what runs goes on; the last declaration that made sense stays in force".to_owned(),
    }
}

/// What a person can do.
pub(crate) fn advice(reason: Reason, key: &ResourceKey) -> Option<String> {
    Some(match reason {
        Reason::RolledBack | Reason::Unhealthy | Reason::FirstDeployUnhealthy | Reason::Aborted | Reason::HeldBack => {
            format!(
                "mend the source or the declaration and apply it; `windlass rollout retry {key}` tries the same once more"
            )
        }
        Reason::Undone => format!("`windlass rollout retry {key}` goes forward again"),
        Reason::Paused => format!("`windlass rollout resume {key}` lets it go on"),
        Reason::Unconfirmed => format!(
            "see on the host what keeps SSH from it once this runs, and declare something else; `windlass rollout resume {key}` tries the same once more, `windlass rollout undo {key}` goes back everywhere"
        ),
        Reason::Flapping => {
            format!("find out who changes it; `windlass rollout resume {key}` goes by what is declared once more")
        }
        Reason::MassUnhealthy => format!(
            "find out what those hosts have in common that Windlass did not do; then `windlass rollout resume {key}` lets it go on, or `windlass rollout undo {key}` goes back"
        ),
        Reason::WaitingForApproval => {
            format!(
                "look at what it says, then `windlass rollout approve {key}`; who does not want it declares something else, or, of a canary, `windlass rollout abort {key}`"
            )
        }
        Reason::Baking => {
            format!("`windlass rollout status {key}` follows it; `windlass rollout abort {key}` goes back")
        }
        Reason::RemovalNeedsConfirmation => format!("`windlass confirm-removal {key}` lets it go on"),
        Reason::RollingOut | Reason::RollingBack | Reason::Repairing => {
            format!("`windlass rollout status {key}` follows it")
        }
        Reason::StepFailed | Reason::HostUnhealthy | Reason::SourceUnavailable | Reason::SourceUnsettled => {
            format!("`windlass reconcile {key} --wait` tries it now")
        }
        Reason::LoginRefused | Reason::HostUnsuitable | Reason::HostKeyRejected | Reason::HostUnreachable => {
            format!("`windlass host check {}` says what is missing there", host_name(key))
        }
        Reason::Suspended => "take `suspend: true` out of its declaration to let it go on".to_owned(),
        Reason::RepoUnavailable | Reason::RefNotFound | Reason::RepoInvalid => {
            format!("`windlass reconcile {key} --wait` asks it now")
        }
        Reason::UnsignedCommit | Reason::SignerNotAllowed | Reason::EmptyTree | Reason::RepoTooLarge => {
            "mend it in the repository and push".to_owned()
        }
        Reason::Conflict => {
            "decide who declares it: one repository, or people with `windlass apply --adopt`".to_owned()
        }
        Reason::OwnedByAnother => format!("`windlass host adopt {}` takes the host over", host_name(key)),
        Reason::HostNotFound | Reason::NoHosts => {
            "declare the host, or give a declared one the label: `windlass get hosts -o wide`".to_owned()
        }
        Reason::Converged
        | Reason::Applied
        | Reason::AsExpected
        | Reason::Reachable
        | Reason::Removing
        | Reason::NotObserved
        | Reason::ProgressDeadlineExceeded
        | Reason::DriftFound => return None,
        _ => "mend what it says and `windlass apply -f FILE` again".to_owned(),
    })
}

/// What to type for a host: its name, or where the message is about a Service, which names the host, what stands for it.
fn host_name(key: &ResourceKey) -> String {
    match key {
        ResourceKey::Host(name) => name.to_string(),
        ResourceKey::Service(_) | ResourceKey::NetworkZone(_) | ResourceKey::ConfigRepo(_) | ResourceKey::Policy(_) => {
            "NAME".to_owned()
        }
    }
}
