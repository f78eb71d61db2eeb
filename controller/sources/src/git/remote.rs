//! What a server has: the answer of `git ls-remote`, and which of it is wanted.

use semver::Version;
use windlass_crds::configrepo::{CommitId, ConfigRepoSpec, Credentials, GitRef, RepoUrl, Wanted, version_of};
use windlass_crds::id::RepoName;

use super::GitError;

/// A repository, how to get in, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The ConfigRepo.
    pub name: RepoName,
    /// Where it is.
    pub url: RepoUrl,
    /// How to get in.
    pub credentials: Option<Credentials>,
    /// What is wanted of it.
    pub reference: Option<GitRef>,
}

impl Remote {
    /// What a declaration says of it.
    pub fn of(name: &RepoName, spec: &ConfigRepoSpec) -> Self {
        Self {
            name: name.clone(),
            url: spec.url.clone(),
            credentials: spec.credentials.clone(),
            reference: spec.reference.clone(),
        }
    }

    pub(super) fn wanted(&self) -> Wants<'_> {
        Wants(self.reference.as_ref().map_or(Wanted::Default, GitRef::wanted))
    }
}

/// What a server has of what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// Its full name: `refs/heads/main`.
    pub reference: String,
    /// What that names: the commit, or a tag object that names it.
    pub object: CommitId,
    /// The commit.
    pub commit: CommitId,
}

/// What is wanted, as questions to a server.
#[derive(Debug)]
pub(super) struct Wants<'a>(Wanted<'a>);

impl Wants<'_> {
    /// What the server is asked for. It matches the ends of names: what comes back is looked through.
    pub(super) fn patterns(&self) -> Vec<String> {
        match &self.0 {
            Wanted::Default => vec!["HEAD".to_owned()],
            Wanted::Named(name) if name.starts_with("refs/") => vec![(*name).to_owned(), format!("{name}^{{}}")],
            Wanted::Named(name) => {
                vec![format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/tags/{name}^{{}}")]
            }
            Wanted::Range(_) => vec!["refs/tags/*".to_owned()],
        }
    }

    fn missing(&self) -> GitError {
        let wanted = match &self.0 {
            Wanted::Default => "no default branch: is it empty?".to_owned(),
            Wanted::Named(name) => format!("no branch or tag {name}"),
            Wanted::Range(range) => format!("no tag with a version in the range {range}"),
        };
        GitError::NoRef { wanted }
    }
}

/// Finds what is wanted in what a server has.
pub(super) fn choose(wants: &Wants<'_>, answer: &str) -> Result<Tip, GitError> {
    let lines = answer.lines().filter_map(|line| line.split_once('\t'));
    let refs: Vec<(&str, &str)> = lines.map(|(object, name)| (name, object)).collect();
    let find = |wanted: &str| refs.iter().find(|(name, _)| *name == wanted).map(|(_, object)| *object);
    let tip = |name: &str| -> Option<Tip> {
        let object: CommitId = find(name)?.parse().ok()?;
        let peeled = find(&format!("{name}^{{}}")).and_then(|commit| commit.parse().ok());
        Some(Tip { reference: name.to_owned(), commit: peeled.unwrap_or_else(|| object.clone()), object })
    };
    let found = match &wants.0 {
        Wanted::Default => tip("HEAD"),
        Wanted::Named(name) if name.starts_with("refs/") => tip(name),
        Wanted::Named(name) => tip(&format!("refs/heads/{name}")).or_else(|| tip(&format!("refs/tags/{name}"))),
        Wanted::Range(range) => {
            let version = |name: &str| -> Option<Version> { version_of(name.strip_prefix("refs/tags/")?) };
            let fitting = refs.iter().filter_map(|(name, _)| Some((version(name)?, *name)));
            // Of two tags with one version the name decides, so that it is the same one each time.
            let highest = fitting.filter(|(version, _)| range.matches(version)).max();
            highest.and_then(|(_, name)| tip(name))
        }
    };
    found.ok_or_else(|| wants.missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[track_caller]
    fn check(wanted: &str, refs: &[(char, &str)], expected: Option<(&str, char, char)>) {
        let answer: String = refs.iter().map(|(digit, name)| format!("{}\t{name}\n", id(*digit))).collect();
        let reference: Option<GitRef> = (!wanted.is_empty()).then(|| wanted.parse().expect(wanted));
        let wants = Wants(reference.as_ref().map_or(Wanted::Default, GitRef::wanted));
        let found = choose(&wants, &answer).ok();
        let found = found.map(|tip| (tip.reference, tip.object.to_string(), tip.commit.to_string()));
        let expected = expected.map(|(name, object, commit)| (name.to_owned(), id(object), id(commit)));
        assert_eq!(found, expected, "{wanted} of {refs:?}");
    }

    #[test]
    fn the_ref_that_is_meant_is_found() {
        let refs = [
            ('9', "HEAD"),
            ('1', "refs/heads/main"),
            ('2', "refs/remotes/x/refs/heads/main"),
            ('3', "refs/tags/main"),
            ('4', "refs/tags/v1.2.0"),
            ('5', "refs/tags/v1.2.0^{}"),
            ('6', "refs/tags/1.10.0"),
            ('7', "refs/tags/2.0.0-rc.1"),
            ('8', "refs/tags/nonsense"),
        ];
        check("", &refs, Some(("HEAD", '9', '9')));
        check("main", &refs, Some(("refs/heads/main", '1', '1')));
        check("refs/tags/main", &refs, Some(("refs/tags/main", '3', '3')));
        check("v1.2.0", &refs, Some(("refs/tags/v1.2.0", '4', '5')));
        check(">=1.2", &refs, Some(("refs/tags/1.10.0", '6', '6')));
        check("~1.2", &refs, Some(("refs/tags/v1.2.0", '4', '5')));
        check(">=3", &refs, None);
        check("gone", &refs, None);
        check("main", &[], None);
        check("main", &[('2', "refs/remotes/x/refs/heads/main")], None);
    }
}
