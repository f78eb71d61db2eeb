//! What a ConfigRepo has to write: what its commit declares, beside what is stored and who owns it. Pure.
//!
//! The first owner stays. Whatever somebody else has declared is left alone and told, unless the file says that it takes
//! it over; what somebody else has changed of ours is put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use windlass_crds::configrepo::{CommitId, Manager};
use windlass_crds::document::Declaration;
use windlass_crds::id::{Kind, RepoName, ResourceKey};
use windlass_crds::status::ConfigRepoStatus;

/// Something that a commit declares.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What it says, with this ConfigRepo as its manager.
    pub declaration: &'a Declaration,
    /// In which file.
    pub file: &'a str,
    /// Whether the file says that it takes over what somebody else has declared.
    pub adopts: bool,
}

/// Something that is stored.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// It makes sense.
    Sound(&'a Declaration),
    /// It makes none, and so names no manager.
    Nonsense,
}

/// What a plan is made from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Whose plan.
    pub repo: &'a RepoName,
    /// Which commit.
    pub commit: &'a CommitId,
    /// What it declares.
    pub wanted: BTreeMap<&'a ResourceKey, Wanted<'a>>,
    /// Files of it that could not be read: what they declared before stays as it is.
    pub broken: &'a BTreeSet<String>,
    /// What it declares more than once: stays as it is, too.
    pub contested: &'a BTreeSet<ResourceKey>,
    /// What is stored: everything that is wanted, owned, or says that it is ours.
    pub stored: BTreeMap<&'a ResourceKey, Stored<'a>>,
    /// The other ConfigRepos, and what is said of them.
    pub others: BTreeMap<&'a RepoName, &'a ConfigRepoStatus>,
    /// What was said of this one.
    pub before: &'a ConfigRepoStatus,
    /// Whether what is no longer declared is deleted.
    pub prune: bool,
}

/// So many resources are deleted for one commit at most: all of them at one moment, so that the brake on removals sees
/// them together.
pub const MOST_DELETES: usize = 100;

/// Why something is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It is declared for the first time, or in other words than before.
    Declared,
    /// Somebody else has changed or deleted it.
    PutBack,
}

/// Who else has declared something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Another ConfigRepo, which declares it still.
    Repo(RepoName),
    /// Somebody by hand, and it says something else.
    Hand,
    /// Somebody who has taken it over with `apply --adopt`.
    Adopted,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(name) => write!(
                out,
                "is declared by {} already; take it out there first",
                Manager::Repo(name.clone())
            ),
            Self::Hand => out.write_str(
                "is declared by hand already, in other words; a file that says `metadata.managedBy: configrepo/…` with the name of its repository takes it over",
            ),
            Self::Adopted => out.write_str(
                "was taken over with `windlass apply --adopt`; a file that says `metadata.managedBy: configrepo/…` with the name of its repository takes it back",
            ),
        }
    }
}

/// What is to be written, and what is left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What is put, what others refer to first.
    pub puts: Vec<(ResourceKey, Cause)>,
    /// What is deleted, what refers to others first.
    pub deletes: Vec<ResourceKey>,
    /// What somebody else has declared, and in which file it stands here.
    pub conflicts: BTreeMap<ResourceKey, (String, Holder)>,
    /// What is owned once that is written, by file.
    pub inventory: BTreeMap<String, BTreeSet<ResourceKey>>,
    /// What is owned and no longer declared by any file.
    pub left: BTreeSet<ResourceKey>,
    /// So many would be deleted, and are left, since that is more than may be at once.
    pub too_many: usize,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_settled(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// Where a kind stands in the order in which things are written.
fn rank(key: &ResourceKey) -> usize {
    Kind::ALL.iter().position(|kind| *kind == key.kind()).unwrap_or(usize::MAX)
}

/// Decides what is written for a commit.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let owned: BTreeSet<&ResourceKey> = inputs.before.owns().collect();
    let mut plan = Plan::default();
    for (key, wanted) in &inputs.wanted {
        match decide(inputs, &owned, key, wanted) {
            Ok(cause) => {
                plan.puts.extend(cause.map(|cause| ((*key).clone(), cause)));
                plan.inventory.entry(wanted.file.to_owned()).or_default().insert((*key).clone());
            }
            Err(holder) => {
                plan.conflicts.insert((*key).clone(), (wanted.file.to_owned(), holder));
            }
        }
    }
    leave(inputs, &owned, &mut plan);
    if plan.deletes.len() > MOST_DELETES {
        plan.too_many = plan.deletes.len();
        plan.left.extend(plan.deletes.drain(..));
    }
    plan.puts.sort_by_key(|(key, _)| rank(key));
    plan.deletes.sort_by_key(|key| std::cmp::Reverse(rank(key)));
    plan
}

/// Whether and why a declaration is put; or who else has it.
fn decide(
    inputs: &Inputs<'_>,
    owned: &BTreeSet<&ResourceKey>,
    key: &ResourceKey,
    wanted: &Wanted<'_>,
) -> Result<Option<Cause>, Holder> {
    let ours = owned.contains(key);
    // Only where this very commit was in force already is it somebody else's doing that it is not so any more.
    let again = inputs.before.applied.as_ref() == Some(inputs.commit) && inputs.before.declares(key);
    let put = Some(if again { Cause::PutBack } else { Cause::Declared });
    let stored = match inputs.stored.get(key) {
        None => return Ok(put),
        Some(Stored::Nonsense) if ours => return Ok(put),
        Some(Stored::Nonsense) => return if wanted.adopts { Ok(put) } else { Err(Holder::Hand) },
        Some(Stored::Sound(stored)) => *stored,
    };
    if stored == wanted.declaration {
        return Ok(None);
    }
    match stored.managed_by() {
        Some(Manager::Repo(repo)) if repo == inputs.repo => Ok(put),
        Some(Manager::Repo(repo)) if still_has(inputs, repo, key) => Err(Holder::Repo(repo.clone())),
        // It has let go of it.
        Some(Manager::Repo(_)) => Ok(put),
        Some(Manager::People) => {
            if wanted.adopts {
                Ok(put)
            } else {
                Err(Holder::Adopted)
            }
        }
        // Whoever puts a declaration by hand names no manager: that is how a change behind our back shows.
        None if ours => Ok(put),
        None if wanted.adopts || stored.clone().with_manager(None) == wanted.declaration.clone().with_manager(None) => {
            Ok(put)
        }
        None => Err(Holder::Hand),
    }
}

/// Whether another ConfigRepo still declares something that says it is that one's.
fn still_has(inputs: &Inputs<'_>, repo: &RepoName, key: &ResourceKey) -> bool {
    inputs.others.get(repo).is_some_and(|said| {
        // What it has just written, it has not told yet.
        said.declares(key) || !said.left.contains(key)
    })
}

/// What is ours, and no longer declared.
fn leave(inputs: &Inputs<'_>, owned: &BTreeSet<&ResourceKey>, plan: &mut Plan) {
    let file_of = |key: &ResourceKey| {
        inputs.before.inventory.iter().find(|(_, keys)| keys.contains(key)).map(|(file, _)| file.clone())
    };
    for (key, stored) in &inputs.stored {
        if inputs.wanted.contains_key(*key) {
            continue;
        }
        let ours = match stored {
            Stored::Sound(declaration) => match declaration.managed_by() {
                // That it says so is not enough: anybody may copy what is stored under another name. What is written is
                // told before.
                Some(Manager::Repo(repo)) => repo == inputs.repo && owned.contains(*key),
                Some(Manager::People) => false,
                // Whoever puts again what no file declares any more has it.
                None => inputs.before.declares(key),
            },
            Stored::Nonsense => owned.contains(*key),
        };
        if !ours {
            continue;
        }
        let file = file_of(key).filter(|file| inputs.broken.contains(file) || inputs.contested.contains(*key));
        if let Some(file) = file {
            plan.inventory.entry(file).or_default().insert((*key).clone());
        } else if inputs.contested.contains(*key)
            || !inputs.prune
            || inputs.wanted.is_empty()
            // What a file that cannot be read declares is not known: it may have come from another one.
            || !inputs.broken.is_empty()
            || is_itself(inputs, key)
        {
            plan.left.insert((*key).clone());
        } else {
            plan.deletes.push((*key).clone());
        }
    }
}

/// A repository that deletes its own ConfigRepo would leave everything else behind.
fn is_itself(inputs: &Inputs<'_>, key: &ResourceKey) -> bool {
    matches!(key, ResourceKey::ConfigRepo(name) if name == inputs.repo)
}
