//! Real repositories, as people make them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use windlass_crds::configrepo::{Credentials, GitRef};
use windlass_crds::service::RepoTree;

use super::*;
use crate::{ScanMode, SourceError, SourceTree, Sources};

/// A repository that somebody works in, and a follower.
struct World {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sources = Sources::open(&directory.path().join("data")).expect("a store");
        let world = Self { directory, sources };
        std::fs::create_dir(world.work()).expect("a directory");
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    fn repos(&self) -> &Repos {
        self.sources.repos().expect("on a disk")
    }

    fn copy(&self) -> PathBuf {
        self.repos().copy_of(&name())
    }

    /// Runs git as its user would; gives what it says.
    fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, "")
    }

    fn git_with(&self, arguments: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut command = Command::new("git");
        command.current_dir(self.work()).args(["-c", "user.name=Me", "-c", "user.email=me@example.com"]);
        command.args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("git");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        std::fs::write(path, text).expect("a file");
    }

    fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    fn head(&self) -> CommitId {
        self.git(&["rev-parse", "HEAD"]).parse().expect("a commit")
    }

    fn remote(&self, reference: &str) -> Remote {
        Remote {
            name: name(),
            url: format!("file://{}", self.work().display()).parse().expect("a url"),
            credentials: None,
            reference: Some(reference.parse::<GitRef>().expect("a ref")),
        }
    }

    async fn follow(&self, reference: &str, before: Option<&CommitId>) -> (CommitId, Succession) {
        let remote = self.remote(reference);
        let tip = self.repos().ask(&remote).await.expect("a tip");
        let succession = self.repos().fetch(&remote, &tip, before).await.expect("fetched");
        (tip.commit, succession)
    }

    async fn declared(&self, commit: &CommitId) -> Vec<String> {
        let path = "production".parse().expect("a path");
        let read = self.repos().declarations(&name(), commit, Some(&path)).await.expect("read");
        let mut told: Vec<String> = read.declarations.keys().map(ToString::to_string).collect();
        told.extend(read.errors.iter().map(|error| format!("[{}] {}", error.reason, error.file)));
        told
    }
}

fn name() -> RepoName {
    "fleet".parse().expect("a name")
}

fn host(name: &str) -> String {
    format!("apiVersion: windlass/v1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{address: 198.18.0.1}}\n")
}

#[tokio::test]
async fn a_branch_is_followed_and_a_rewritten_one_is_told() {
    let world = World::new();
    world.put("production/a.yaml", &host("a"));
    let first = world.commit("one");
    assert_eq!(world.follow("main", None).await, (first.clone(), Succession::Follows));
    assert_eq!(world.declared(&first).await, ["host/a"]);
    assert!(world.repos().has(&name(), &first).await);

    world.put("production/b.json", &serde_json_of(&host("b")));
    let second = world.commit("two");
    assert!(!world.repos().has(&name(), &second).await);
    assert_eq!(world.follow("main", Some(&first)).await, (second.clone(), Succession::Follows));
    assert_eq!(world.declared(&second).await, ["host/a", "host/b"]);
    world.repos().keep(&name(), &second).await.expect("kept");
    // As little as possible came: no history.
    let copy = world.repos().copy_of(&name());
    let in_copy = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("--git-dir").arg(&copy).args(arguments).output();
        String::from_utf8(output.expect("git runs").stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(in_copy(&["rev-parse", "--is-shallow-repository"]), "true");
    assert_eq!(in_copy(&["rev-list", "--count", second.as_str()]), "1");

    // Several at once.
    for number in 0..5 {
        world.put("production/c.yaml", &host(&format!("c{number}")));
        world.commit("more");
    }
    let (third, succession) = world.follow("main", Some(&second)).await;
    assert_eq!(succession, Succession::Follows);

    // Back to the first, and on from there: the branch was rewritten.
    world.git(&["reset", "--quiet", "--hard", first.as_str()]);
    world.put("production/d.yaml", &host("d"));
    let other = world.commit("other");
    assert_eq!(world.follow("main", Some(&third)).await, (other.clone(), Succession::Unrelated));
    assert_eq!(world.declared(&other).await, ["host/a", "host/d"]);
    // What was in force is still there.
    assert_eq!(world.declared(&second).await, ["host/a", "host/b"]);
}

fn serde_json_of(yaml: &str) -> String {
    let documents = windlass_crds::document::split(yaml);
    windlass_crds::document::parse(&documents[0]).expect("good").to_json().to_string()
}

#[tokio::test]
async fn tags_are_followed_by_name_and_by_range() {
    let world = World::new();
    world.put("production/a.yaml", &host("a"));
    let old = world.commit("one");
    world.git(&["tag", "v1.0.0"]);
    world.put("production/b.yaml", &host("b"));
    let new = world.commit("two");
    world.git(&["tag", "-a", "-m", "two", "v1.2.0"]);
    world.commit("three");
    for (reference, commit) in [("v1.0.0", &old), ("v1.2.0", &new), (">=1.0", &new), ("~1.0", &old)] {
        assert_eq!(world.follow(reference, None).await.0, *commit, "{reference}");
        assert!(world.declared(commit).await.contains(&"host/a".to_owned()));
    }
    for (reference, says) in [("gone", "no branch or tag gone"), (">=2", "no tag with a version in the range >=2")] {
        let error = world.repos().ask(&world.remote(reference)).await.expect_err(reference);
        assert!(matches!(error, GitError::NoRef { .. }) && error.to_string().ends_with(says), "{error}");
    }
    std::fs::rename(world.work(), world.directory.path().join("away")).expect("moved");
    let away = world.repos().ask(&world.remote("main")).await.expect_err("it is away");
    assert!(matches!(away, GitError::Away { .. }), "{away:?}");
}

#[tokio::test]
async fn a_damaged_copy_is_made_anew() {
    let world = World::new();
    world.put("production/a.yaml", &host("a"));
    let first = world.commit("one");
    world.follow("main", None).await;
    let pack =
        files_in(&world.copy().join("objects/pack")).find(|path| path.extension().is_some_and(|end| end == "pack"));
    let objects = pack.is_some();
    // Half a clone: what a fetch that was killed leaves, and an object that a dying disk has spoiled.
    std::fs::write(world.copy().join("objects/pack/tmp_pack_123"), "half").expect("written");
    std::fs::write(world.copy().join("shallow.lock"), "").expect("written");
    world.follow("main", None).await;
    assert!(!world.copy().join("objects/pack/tmp_pack_123").exists());
    let mut spoiled = 0;
    let mut pending = vec![world.copy().join("objects")];
    while let Some(directory) = pending.pop() {
        for path in files_in(&directory) {
            if path.is_dir() {
                pending.push(path);
            } else {
                std::fs::remove_file(&path).expect("removed");
                std::fs::write(&path, "spoiled").expect("spoiled");
                spoiled += 1;
            }
        }
    }
    assert!(spoiled > 0 && (objects || spoiled > 2));
    assert!(!world.repos().has(&name(), &first).await);
    assert_eq!(world.follow("main", None).await.0, first);
    assert_eq!(world.declared(&first).await, ["host/a"]);
}

#[tokio::test]
async fn only_commits_of_allowed_signers_are_taken() {
    let world = World::new();
    let key = |file: &str| {
        let path = world.directory.path().join(file);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
        assert!(made.expect("ssh-keygen").success());
        path
    };
    let (ours, theirs) = (key("ours"), key("theirs"));
    let public = std::fs::read_to_string(ours.with_extension("pub")).expect("a key");
    let signers = world.directory.path().join("signers");
    std::fs::write(&signers, format!("me@example.com {public}")).expect("written");
    let signed = |key: Option<&Path>, message: &str| {
        world.put("production/a.yaml", &host(message));
        world.git(&["add", "--all"]);
        match key {
            Some(key) => {
                let key = format!("user.signingkey={}", key.display());
                world.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "--quiet", "-S", "-m", message])
            }
            None => world.git(&["commit", "--quiet", "-m", message]),
        };
        world.head()
    };
    let verify = async |commit: &CommitId| {
        world.follow("main", None).await;
        world.repos().verify(&name(), commit, signers.to_str().expect("UTF-8")).await
    };
    let good = signed(Some(&ours), "good");
    let signer = verify(&good).await.expect("signed");
    assert_eq!(signer.name, "me@example.com");
    assert!(signer.key.starts_with("SHA256:"), "{signer:?}");
    let unsigned = signed(None, "unsigned");
    assert!(matches!(verify(&unsigned).await, Err(GitError::Unsigned { .. })));
    let other = signed(Some(&theirs), "other");
    let refused = verify(&other).await.expect_err("signed by another");
    assert!(matches!(&refused, GitError::Signer { why, .. } if why.contains("SHA256:")), "{refused:?}");
    // The signature of one commit under the text of another.
    let text = world.git(&["cat-file", "commit", good.as_str()]).replace("\n\ngood", "\n\nevil");
    let forged = world.git_with(&["hash-object", "-t", "commit", "-w", "--stdin"], &format!("{text}\n"));
    world.git(&["reset", "--quiet", "--hard", &forged]);
    let refused = verify(&world.head()).await.expect_err("forged");
    assert!(matches!(refused, GitError::Signer { .. }), "{refused:?}");
    let missing = world.repos().verify(&name(), &good, "/nowhere/signers").await.expect_err("no list");
    assert!(matches!(missing, GitError::Credentials { .. }), "{missing:?}");
}

#[tokio::test]
async fn a_directory_of_a_commit_is_the_release_that_the_directory_is() {
    let world = World::new();
    world.put("apps/web/server.py", "print(1)\n");
    world.put("apps/web/lib/a.txt", "a\n");
    world.put("apps/web/secret.env", "no\n");
    world.put("apps/web/run", "#!/bin/sh\n");
    symlink("lib/a.txt", world.work().join("apps/web/link")).expect("a link");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(world.work().join("apps/web/run"), std::fs::Permissions::from_mode(0o755))
        .expect("a mode");
    world.commit("one");
    world.follow("main", None).await;
    let tree: TreeId = world.git(&["rev-parse", "HEAD:apps/web"]).parse().expect("a tree");
    let of =
        |tree: &TreeId| RepoTree { name: name(), path: Some("apps/web".parse().expect("a path")), tree: tree.clone() };
    let exclude = vec!["*.env".to_owned()];
    let read = world.sources.repo_release(&of(&tree), &[], &exclude).await.expect("a release");
    let root = world.work().join("apps/web");
    let directory = SourceTree { root, include: Vec::new(), exclude: exclude.clone() };
    let scanned = world.sources.release(&directory, ScanMode::Ask, None).await.expect("a release");
    assert_eq!(read.manifest, scanned.manifest);
    assert_eq!(read.digest, scanned.digest);
    assert_eq!(read.manifest.entries.len(), 4);
    assert!(world.sources.is_whole(&read.manifest).await);

    // A link that leads out, and one that leads nowhere.
    for (target, leaves) in [("../../etc/passwd", true), ("/etc/passwd", true), ("gone", false)] {
        let link = world.work().join("apps/web/bad");
        let _ = std::fs::remove_file(&link);
        symlink(target, &link).expect("a link");
        world.commit("bad");
        world.follow("main", None).await;
        let tree: TreeId = world.git(&["rev-parse", "HEAD:apps/web"]).parse().expect("a tree");
        let refused = world.sources.repo_release(&of(&tree), &[], &exclude).await.expect_err(target);
        assert_eq!(matches!(refused, SourceError::LeavesTree { .. }), leaves, "{target}: {refused:?}");
        assert_eq!(matches!(refused, SourceError::Dangling { .. }), !leaves, "{target}: {refused:?}");
    }
    let unknown: TreeId = "0123456789".repeat(4).parse().expect("digits");
    let missing = world.sources.repo_release(&of(&unknown), &[], &[]).await.expect_err("it is not there");
    assert!(matches!(missing, SourceError::Repo { .. }), "{missing:?}");
}

/// A commit that is nowhere here.
fn commit_of_another() -> String {
    "1".repeat(40)
}

#[tokio::test]
async fn no_path_of_a_repository_reaches_the_disk() {
    let world = World::new();
    let blob = world.git_with(&["hash-object", "-w", "--stdin"], &host("evil"));
    // `git mktree` makes no such tree; who means harm has his own tools.
    let raw = |name: &str, id: &str, mode: &str| -> Vec<u8> {
        let bytes = (0..40).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("digits"));
        format!("{mode} {name}\0").into_bytes().into_iter().chain(bytes).collect()
    };
    let write = |entry: Vec<u8>| -> String {
        let file = world.directory.path().join("entry");
        std::fs::write(&file, entry).expect("written");
        world.git(&["hash-object", "-t", "tree", "-w", "--literally", file.to_str().expect("UTF-8")])
    };
    let inner = write(raw("evil.yaml", &blob, "100644"));
    let up = write(raw("..", &inner, "40000"));
    let production = write(raw("production", &up, "40000"));
    let commit = world.git(&["commit-tree", "-m", "evil", &production]);
    world.git(&["update-ref", "refs/heads/main", &commit]);
    let (commit, _) = world.follow("main", None).await;
    assert_eq!(world.declared(&commit).await, ["[LeavesTree] production/../evil.yaml"]);
    let release = RepoTree { name: name(), path: None, tree: up.parse().expect("a tree") };
    let refused = world.sources.repo_release(&release, &[], &[]).await.expect_err("no release");
    assert!(matches!(refused, SourceError::Name { .. }), "{refused:?}");

    // Another repository in the place of a file has no contents here.
    let nested = write(raw("nested", &commit_of_another(), "160000"));
    let release = RepoTree { name: name(), path: None, tree: nested.parse().expect("a tree") };
    let commit = world.git(&["commit-tree", "-m", "nested", &write(raw("production", &nested, "40000"))]);
    world.git(&["update-ref", "refs/heads/main", &commit]);
    world.follow("main", None).await;
    let refused = world.sources.repo_release(&release, &[], &[]).await.expect_err("no release");
    assert!(matches!(refused, SourceError::Special { .. }), "{refused:?}");

    // A link in the place of a declaration is told, and not followed.
    let link = world.git_with(&["hash-object", "-w", "--stdin"], "/etc/hostname");
    let production = write(raw("production", &write(raw("a.yaml", &link, "120000")), "40000"));
    let commit = world.git(&["commit-tree", "-m", "link", &production]);
    world.git(&["update-ref", "refs/heads/main", &commit]);
    let (commit, _) = world.follow("main", None).await;
    assert_eq!(world.declared(&commit).await, ["[LeavesTree] production/a.yaml"]);
}

#[tokio::test]
async fn a_large_file_is_told_and_not_read() {
    let world = World::new();
    world.put("production/a.yaml", &host("a"));
    world.put("production/large.yaml", &"# data\n".repeat(1 << 20));
    let commit = world.commit("large");
    world.follow("main", None).await;
    assert_eq!(world.declared(&commit).await, ["host/a", "[TooLarge] production/large.yaml"]);
}

/// The secret is in git's environment, and nowhere else; and what is guarded is guarded.
#[test]
fn a_password_stands_in_no_command_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // PATH is in every environment, and its value in no command line of ours.
    let remote = Remote {
        name: name(),
        url: "https://127.0.0.1:1/fleet.git".parse().expect("a url"),
        credentials: Some(Credentials {
            user: Some("me".to_owned()),
            password_env: Some("PATH".to_owned()),
            ..Credentials::default()
        }),
        reference: None,
    };
    let access = Access::of(&remote, directory.path()).expect("access");
    let command = Git::reaching(&access, None).command(&["ls-remote", "--", remote.url.as_str()]);
    let secret = std::env::var("PATH").expect("a PATH");
    let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    assert!(!words.iter().any(|word| word.contains(&secret)), "{words:?}");
    let variables: Vec<_> =
        command.get_envs().filter(|(_, value)| value.is_some_and(|value| value == secret.as_str())).collect();
    assert!(variables.iter().any(|(name, _)| *name == "WINDLASS_GIT_PASSWORD"), "{variables:?}");
    for guard in
        ["protocol.allow=never", "protocol.https.allow=always", "core.hooksPath=/dev/null", "http.sslVerify=true"]
    {
        assert!(words.iter().any(|word| word == guard), "{guard} is not in {words:?}");
    }
    assert!(!words.iter().any(|word| word == "protocol.file.allow=always"), "{words:?}");
    let missing = Credentials {
        user: Some("me".to_owned()),
        password_env: Some("WINDLASS_NOT_SET".to_owned()),
        ..Credentials::default()
    };
    let missing = Access::of(&Remote { credentials: Some(missing), ..remote }, directory.path());
    assert!(matches!(missing, Err(GitError::Credentials { .. })), "{missing:?}");
}

/// An address that would be an option or a program is none in the first place; here it is shown that what a server
/// says about other addresses leads nowhere either.
#[tokio::test]
async fn other_ways_than_the_declared_one_are_shut() {
    let world = World::new();
    world.put("production/a.yaml", &host("a"));
    world.commit("one");
    let remote = Remote { url: "https://127.0.0.1:1/x".parse().expect("a url"), ..world.remote("main") };
    let access = Access::of(&remote, world.directory.path()).expect("access");
    let file = format!("file://{}", world.work().display());
    let refused = Git::reaching(&access, None).run(&["ls-remote", "--", &file], ASK).await.expect_err("shut");
    assert!(refused.to_string().contains("not allowed"), "{refused}");
}
