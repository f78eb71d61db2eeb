//! What a ConfigRepo writes, by who has declared what.

use std::collections::{BTreeMap, BTreeSet};

use windlass_crds::configrepo::{CommitId, Manager};
use windlass_crds::document::{Declaration, parse, split};
use windlass_crds::id::{RepoName, ResourceKey};
use windlass_crds::status::ConfigRepoStatus;
use windlass_planner::configrepo::{Inputs, MOST_DELETES, Plan, Stored, Wanted, plan};

fn host(name: &str, address: &str, manager: &str) -> Declaration {
    let manager = if manager.is_empty() { String::new() } else { format!(", managedBy: {manager}") };
    let text = format!(
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {{name: {name}{manager}}}\nspec: {{address: 198.18.0.{address}}}\n"
    );
    parse(&split(&text)[0]).expect(&text)
}

/// `name=address` with `@manager` behind it, where it has one, `name=?` for what makes no sense.
fn read(words: &str) -> BTreeMap<ResourceKey, Option<Declaration>> {
    let one = |word: &str| {
        let (name, rest) = word.split_once('=').expect(word);
        let (address, manager) = rest.split_once('@').unwrap_or((rest, ""));
        let key: ResourceKey = ResourceKey::from_path(&format!("hosts/{name}")).expect(name);
        (key, (address != "?").then(|| host(name, address, manager)))
    };
    words.split_whitespace().map(one).collect()
}

/// `file:name,name file:name`.
fn inventory(words: &str) -> BTreeMap<String, BTreeSet<ResourceKey>> {
    let one = |word: &str| {
        let (file, names) = word.split_once(':').expect(word);
        let keys = names.split(',').map(|name| ResourceKey::from_path(&format!("hosts/{name}")).expect(name));
        (file.to_owned(), keys.collect())
    };
    words.split_whitespace().map(one).collect()
}

fn commit(digit: char) -> CommitId {
    digit.to_string().repeat(40).parse().expect("digits")
}

#[derive(Clone, Copy, Default)]
struct Case {
    /// What the commit declares: `name=address`, with `!` in front where it takes over. The file is `name.yaml`.
    wanted: &'static str,
    stored: &'static str,
    inventory: &'static str,
    left: &'static str,
    others: &'static [(&'static str, &'static str)],
    broken: &'static [&'static str],
    contested: &'static [&'static str],
    prune: bool,
    /// Whether this very commit was in force already.
    again: bool,
}

fn names<'a>(keys: impl Iterator<Item = &'a ResourceKey>) -> String {
    keys.map(|key| key.to_string().replace("host/", "")).collect::<Vec<_>>().join(",")
}

/// The plan in words; and that it leaves nothing to do.
fn told(case: &Case) -> String {
    let repo: RepoName = "fleet".parse().expect("a name");
    let manager = Manager::Repo(repo.clone());
    let adopting: BTreeSet<&str> =
        case.wanted.split_whitespace().filter_map(|word| word.strip_prefix('!')?.split('=').next()).collect();
    let wanted = read(&case.wanted.replace('!', ""));
    let wanted: BTreeMap<ResourceKey, (Declaration, String)> = wanted
        .into_iter()
        .map(|(key, declaration)| {
            let file = format!("{}.yaml", key.to_string().replace("host/", ""));
            (key, (declaration.expect("sense").with_manager(Some(manager.clone())), file))
        })
        .collect();
    let mut stored = read(case.stored);
    let left = inventory(&if case.left.is_empty() { String::new() } else { format!("x:{}", case.left) });
    let mut before = ConfigRepoStatus {
        applied: Some(commit(if case.again { 'b' } else { 'a' })),
        inventory: inventory(case.inventory),
        left: left.into_values().flatten().collect(),
        ..ConfigRepoStatus::default()
    };
    let others: Vec<(RepoName, ConfigRepoStatus)> = case
        .others
        .iter()
        .map(|(name, words)| {
            (name.parse().expect(name), ConfigRepoStatus { inventory: inventory(words), ..ConfigRepoStatus::default() })
        })
        .collect();
    let contested: BTreeSet<ResourceKey> =
        case.contested.iter().map(|name| ResourceKey::from_path(&format!("hosts/{name}")).expect(name)).collect();
    let broken: BTreeSet<String> = case.broken.iter().map(|file| (*file).to_owned()).collect();
    let id = commit('b');
    let make = |stored: &BTreeMap<ResourceKey, Option<Declaration>>, before: &ConfigRepoStatus| -> Plan {
        plan(&Inputs {
            repo: &repo,
            commit: &id,
            wanted: wanted
                .iter()
                .map(|(key, (declaration, file))| {
                    let adopts = adopting.contains(names(std::iter::once(key)).as_str());
                    (key, Wanted { declaration, file, adopts })
                })
                .collect(),
            broken: &broken,
            contested: &contested,
            stored: stored
                .iter()
                .map(|(key, one)| (key, one.as_ref().map_or(Stored::Nonsense, Stored::Sound)))
                .collect(),
            others: others.iter().map(|(name, said)| (name, said)).collect(),
            before,
            prune: case.prune,
        })
    };
    let made = make(&stored, &before);
    for (key, _) in &made.puts {
        stored.insert(key.clone(), Some(wanted[key].0.clone()));
    }
    for key in &made.deletes {
        stored.remove(key);
    }
    before.inventory = made.inventory.clone();
    before.left = made.left.clone();
    before.applied = Some(id.clone());
    let again = make(&stored, &before);
    assert!(again.is_settled(), "planned again: {again:?}");
    assert_eq!((&again.inventory, &again.left), (&made.inventory, &made.left), "planned again");
    let mut words: Vec<String> =
        made.puts.iter().map(|(key, cause)| format!("{cause:?} {}", names(std::iter::once(key)))).collect();
    words.extend(made.deletes.iter().map(|key| format!("delete {}", names(std::iter::once(key)))));
    let kind = |holder: &windlass_planner::configrepo::Holder| {
        format!("{holder:?}").split('(').next().unwrap_or("").to_owned()
    };
    words.extend(
        made.conflicts.iter().map(|(key, (_, holder))| format!("{} {}", kind(holder), names(std::iter::once(key)))),
    );
    words.push(format!("has {}", names(made.inventory.values().flatten())));
    if !made.left.is_empty() {
        words.push(format!("left {}", names(made.left.iter())));
    }
    words.join("; ")
}

#[track_caller]
fn check(case: Case, expected: &str) {
    assert_eq!(told(&case), expected);
}

#[test]
fn a_commit_is_written_where_it_says_something_new() {
    check(Case { wanted: "a=1 b=2", ..Case::default() }, "Declared a; Declared b; has a,b");
    let stored = "a=1@configrepo/fleet b=2@configrepo/fleet";
    let case = |wanted| Case { wanted, stored, inventory: "a.yaml:a b.yaml:b", ..Case::default() };
    check(case("a=1 b=2"), "has a,b");
    check(case("a=1 b=3"), "Declared b; has a,b");
    check(case("a=1 b=2 c=3"), "Declared c; has a,b,c");
}

#[test]
fn what_somebody_else_changes_is_put_back() {
    let case = |stored| Case { wanted: "a=1", stored, inventory: "a.yaml:a", again: true, ..Case::default() };
    check(case("a=9"), "PutBack a; has a");
    check(case("a=1"), "PutBack a; has a");
    check(case("a=?"), "PutBack a; has a");
    check(case(""), "PutBack a; has a");
    check(case("a=9@configrepo/fleet"), "PutBack a; has a");
    check(case("a=9@people"), "Adopted a; has ");
    check(case("a=1@people"), "Adopted a; has ");
}

#[test]
fn the_first_owner_stays() {
    let case = |wanted, stored| Case { wanted, stored, ..Case::default() };
    check(case("a=1", "a=9"), "Hand a; has ");
    check(case("a=1", "a=?"), "Hand a; has ");
    check(case("a=1", "a=1"), "Declared a; has a");
    check(case("!a=1", "a=9"), "Declared a; has a");
    check(case("!a=1", "a=?"), "Declared a; has a");
    check(case("!a=1", "a=9@people"), "Declared a; has a");
    let other = |wanted, others| Case { wanted, stored: "a=9@configrepo/other", others, ..Case::default() };
    check(other("a=1", &[("other", "x.yaml:a")]), "Repo a; has ");
    check(other("!a=1", &[("other", "x.yaml:a")]), "Repo a; has ");
    // It may have written it just now, and not have told.
    check(other("a=1", &[("other", "")]), "Repo a; has ");
    check(other("a=1", &[]), "Declared a; has a");
}

#[test]
fn what_is_gone_from_git_stays_unless_it_is_to_be_pruned() {
    let stored = "a=1@configrepo/fleet b=2@configrepo/fleet";
    let case = |wanted, prune| Case { wanted, stored, inventory: "a.yaml:a b.yaml:b", prune, ..Case::default() };
    check(case("a=1", false), "has a; left b");
    check(case("a=1", true), "delete b; has a");
    // An empty tree is a mistake of somebody's.
    check(case("", true), "has ; left a,b");
    let left = Case { left: "b", inventory: "a.yaml:a", ..case("a=1", true) };
    check(left, "delete b; has a");
    // Whoever only says that it is ours may be a copy of somebody's.
    check(Case { inventory: "", ..case("a=1", true) }, "has a");
    // Somebody has put again what no file declares.
    let again = Case { stored: "a=1@configrepo/fleet b=3", left: "b", inventory: "a.yaml:a", ..case("a=1", true) };
    check(again, "has a");
    // What cannot be read may declare it.
    check(Case { broken: &["c.yaml"], ..case("a=1", true) }, "has a; left b");
    check(Case { stored: "a=1@configrepo/fleet b=2@people", ..case("a=1", true) }, "has a");
    check(Case { stored: "a=1@configrepo/fleet b=2@configrepo/other", ..case("a=1", true) }, "has a");
}

#[test]
fn what_cannot_be_read_is_not_gone() {
    let stored = "a=1@configrepo/fleet b=2@configrepo/fleet";
    let case = Case { wanted: "a=1", stored, inventory: "a.yaml:a b.yaml:b", prune: true, ..Case::default() };
    check(Case { broken: &["b.yaml"], ..case }, "has a,b");
    let case = Case { wanted: "a=1", stored, inventory: "a.yaml:a b.yaml:b", prune: true, ..Case::default() };
    check(Case { contested: &["b"], ..case }, "has a,b");
}

/// So many gone at once are somebody's mistake: none of them is deleted.
#[test]
fn no_more_than_a_hundred_are_deleted_at_once() {
    let told_of = |gone: usize| {
        let names: Vec<String> = (0..gone).map(|number| format!("h{number:03}")).collect();
        let stored: Vec<String> = names.iter().map(|name| format!("{name}=1@configrepo/fleet")).collect();
        let stored = format!("a=1@configrepo/fleet {}", stored.join(" "));
        let inventory = format!("a.yaml:a h.yaml:{}", names.join(","));
        let case = Case { wanted: "a=1", stored: stored.leak(), inventory: inventory.leak(), ..Case::default() };
        (told(&Case { prune: true, ..case }), names.join(","))
    };
    let (most, _) = told_of(MOST_DELETES);
    assert_eq!(most.matches("delete h").count(), MOST_DELETES);
    let (too_many, names) = told_of(MOST_DELETES + 1);
    assert_eq!(too_many, format!("has a; left {names}"));
}

/// Everything else would be left behind.
#[test]
fn a_repository_never_deletes_itself() {
    let repo: RepoName = "fleet".parse().expect("a name");
    let text = "apiVersion: windlass/v1\nkind: ConfigRepo\nmetadata: {name: fleet, managedBy: configrepo/fleet}\nspec: {url: 'file:///srv/fleet', ref: main}\n";
    let itself = parse(&split(text)[0]).expect(text);
    let other = host("b", "2", "configrepo/fleet");
    let kept = host("a", "1", "configrepo/fleet");
    let (broken, contested) = (BTreeSet::new(), BTreeSet::new());
    let declared = [&itself, &other, &kept].map(|one| (one.key(), one));
    let keys: BTreeSet<ResourceKey> = declared.iter().map(|(key, _)| key.clone()).collect();
    let before = ConfigRepoStatus {
        applied: Some(commit('a')),
        inventory: [("all.yaml".to_owned(), keys)].into(),
        ..ConfigRepoStatus::default()
    };
    let wanted = kept.key();
    let made = plan(&Inputs {
        repo: &repo,
        commit: &commit('b'),
        wanted: [(&wanted, Wanted { declaration: &kept, file: "all.yaml", adopts: false })].into(),
        broken: &broken,
        contested: &contested,
        stored: declared.iter().map(|(key, one)| (key, Stored::Sound(one))).collect(),
        others: BTreeMap::new(),
        before: &before,
        prune: true,
    });
    assert_eq!((made.deletes, made.left), (vec![other.key()], [itself.key()].into()));
}
