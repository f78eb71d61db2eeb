//! Each command as its user meets it: a success, something refused, and nothing there.
//!
//! The commands are those of the program's own help, so that a new one without its three cases fails.

use std::path::Path;

use windlass_crds::condition::{ConditionStatus, ConditionType, Reason};
use windlass_crds::id::Generation;
use windlass_crds::status::HostStatus;

use crate::rollout::with_history;
use crate::told;
use crate::world::{World, service};

/// How a case is shown.
#[derive(Debug, Clone, Copy)]
enum Case {
    /// By a snapshot of what these arguments, behind the command, come to.
    Shown(&'static str),
    /// By another test, which has what it takes: a file from the repository's root, and a function in it.
    Elsewhere(&'static str, &'static str),
}

/// A command and its cases.
struct Row {
    command: &'static str,
    success: Case,
    refused: Case,
    nothing: Case,
}

const fn row(command: &'static str, success: Case, refused: Case, nothing: Case) -> Row {
    Row { command, success, refused, nothing }
}

use Case::{Elsewhere, Shown};

const WEB: Case = Shown("service/web");
const COPY: Case =
    Elsewhere("controller/cli/tests/it/embedded.rs", "a_copy_that_is_taken_while_it_runs_makes_the_same_store_again");
const TRAIL: Case =
    Elsewhere("controller/cli/tests/it/audit.rs", "the_trail_names_who_did_it_and_whoever_tampers_with_it_is_found");
const HOST: Case = Shown("host/web1");

static ROWS: [Row; 35] = [
    row(
        "serve",
        Elsewhere("controller/cli/tests/it/serve.rs", "a_json_log_is_one_object_a_line"),
        Shown("--store embedded"),
        Elsewhere("e2e/tests/it/bad_starts.rs", "a_controller_waits_for_etcd_and_then_works"),
    ),
    row("apply", Shown("-f web.yaml"), Shown("-f bad.yaml"), Shown("-f web.yaml")),
    row("diff", Shown("-f web.yaml"), Shown("-f bad.yaml"), WEB),
    row("plan", Elsewhere("e2e/tests/it/deploy.rs", "three_hosts_by_commands"), Shown("-f bad.yaml"), WEB),
    row("get", Shown(""), Shown("pods"), Shown("")),
    row("describe", HOST, Shown("services"), WEB),
    row("events", Shown("service/web"), Shown("pods"), Shown("")),
    row("audit list", TRAIL, Shown("--kind pods"), Shown("")),
    row("audit verify", TRAIL, Shown("--trust nowhere.pub"), Shown("--data-dir data")),
    row("audit head", TRAIL, Shown("web"), Shown("")),
    row("audit key", TRAIL, Shown("web"), Shown("--data-dir data")),
    row("wait", WEB, Shown("service/web --for condition=Happy"), Shown("service/web --timeout 5s")),
    row("reconcile", WEB, Shown("service/web --timeout 5s"), WEB),
    row("delete", WEB, Shown(""), WEB),
    row("confirm-removal", Shown("--all"), Shown("service/web --all"), Shown("")),
    row("rollout status", WEB, HOST, WEB),
    row("rollout history", WEB, HOST, WEB),
    row("rollout undo", WEB, Shown("service/web --to-revision 99"), WEB),
    row("rollout retry", WEB, HOST, WEB),
    row("rollout restart", WEB, HOST, WEB),
    row("rollout pause", WEB, HOST, WEB),
    row("rollout resume", WEB, HOST, WEB),
    row(
        "rollout approve",
        Elsewhere("controller/cli/tests/it/rollout.rs", "approve_names_the_revision_and_the_step_that_wait"),
        WEB,
        WEB,
    ),
    row("rollout abort", WEB, HOST, WEB),
    row(
        "host add",
        Elsewhere("e2e/tests/it/host_commands.rs", "a_machine_is_added_once_its_key_is_known"),
        Shown("web1 --address deploy@127.0.0.1"),
        Shown("web1 --address deploy@127.0.0.1 --port 1 --fingerprint SHA256:none"),
    ),
    row(
        "host check",
        Elsewhere("e2e/tests/it/host_commands.rs", "hosts_are_checked_side_by_side"),
        Shown("service/web"),
        Shown(""),
    ),
    row("host adopt", Shown("web1 --yes"), Shown("Web1"), Shown("web1 --yes")),
    row(
        "store status",
        COPY,
        Shown("--user ana"),
        Elsewhere("controller/cli/tests/it/connection.rs", "without_a_store_each_command_says_what_to_start"),
    ),
    row("store backup", COPY, Shown("copy"), Shown("")),
    row("store restore", COPY, Shown("web.yaml"), Shown("nowhere --old-store-is-dead --data-dir data")),
    row(
        "store migrate",
        Elsewhere("controller/cli/tests/it/embedded.rs", "a_store_is_moved_into_an_etcd_whole_and_used_no_more"),
        Shown(""),
        Shown("--to http://127.0.0.1:1 --data-dir data"),
    ),
    row(
        "store certificate",
        Elsewhere(
            "controller/cli/tests/it/embedded.rs",
            "somebody_with_a_certificate_declares_and_their_commands_work",
        ),
        Shown("Ana"),
        Shown("ana --data-dir data"),
    ),
    row(
        "env",
        Elsewhere(
            "controller/cli/tests/it/embedded.rs",
            "a_controller_carries_its_own_store_and_commands_and_etcdctl_find_it",
        ),
        Shown("--user ana"),
        // Where there is no store, it says where one would be.
        Elsewhere("controller/cli/src/commands/env.rs", "a_shell_reads_what_was_meant"),
    ),
    row(
        "completion",
        Elsewhere("controller/cli/tests/it/describe.rs", "completions_are_made_for_each_shell"),
        Shown("tcsh"),
        // It asks no store, so there is nothing that could be missing but its argument.
        Shown(""),
    ),
    row(
        "help",
        Shown("completion"),
        Shown("frobnicate"),
        Elsewhere("controller/cli/tests/it/words.rs", "every_command_has_help_with_examples"),
    ),
];

/// The names of all commands, as help tells them: `rollout undo`.
pub(crate) fn commands(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(above) = open.pop() {
        let words: Vec<&str> = above.split_whitespace().chain(["-h"]).collect();
        let shown = world.run(&words);
        let below = shown.split_once("\nCommands:\n").map(|(_, rest)| rest.lines().take_while(|line| !line.is_empty()));
        let Some(below) = below else {
            found.push(above);
            continue;
        };
        // What continues the line before stands further to the right.
        let names = below.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
        let names = names.filter_map(|line| line.split_whitespace().next());
        // `help` is every group's, and the same everywhere.
        open.extend(names.filter(|name| above.is_empty() || *name != "help").map(|name| format!("{above} {name}")));
    }
    found.into_iter().map(|command| command.trim().to_owned()).collect()
}

/// A store in which there is something for each command, with the files that the table names.
fn something() -> World {
    use ConditionStatus::{False, True};
    let world = with_history();
    world.put(
        "declared/hosts/web1",
        "apiVersion: windlass/v1\nkind: Host\nmetadata: {name: web1}\nspec: {address: 198.18.0.11}\n",
    );
    let owned = HostStatus {
        observed_generation: Generation(world.generation("declared/hosts/web1")),
        conditions: vec![
            told::condition(ConditionType::Ready, False, Reason::OwnedByAnother, "it is another store's"),
            told::condition(ConditionType::Stalled, True, Reason::OwnedByAnother, "it is another store's"),
        ],
        owner: Some("feedfacefeedface".parse().expect("an id")),
        ..HostStatus::default()
    };
    world.put("status/hosts/web1", &serde_json::to_string(&owned).expect("JSON"));
    let generation = world.declare("old");
    world.tell("old", &told::stalled(generation, "web1=3+ web2=3-", Reason::RemovalNeedsConfirmation, "waits"));
    world.happen(15, "service/web", Reason::Converged, "revision 11 runs on 3 of 3 hosts");
    with_files(world)
}

fn with_files(world: World) -> World {
    world.file("web.yaml", &service("web"));
    world.file("bad.yaml", &service("web").replace("target:", "targets:"));
    world
}

/// What a case comes to in a world, which is made for it; nothing where another test shows it.
fn show(world: impl FnOnce() -> World, command: &str, case: Case) -> String {
    match case {
        Shown(arguments) => {
            let world = world();
            let words: Vec<&str> = command.split(' ').chain(arguments.split_whitespace()).collect();
            let shown = world.run(&words);
            assert!(!shown.contains("panicked"), "{words:?}: {shown}");
            format!("$ windlass {}\n{shown}\n", words.join(" "))
        }
        Elsewhere(file, function) => {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(text.contains(&format!("fn {function}(")), "{file} has no {function}");
            format!("shown by {function} in {file}\n")
        }
    }
}

#[test]
fn each_command_has_its_three_cases() {
    let world = World::empty();
    let mut wanted = commands(&world);
    let mut have: Vec<String> = ROWS.iter().map(|row| row.command.to_owned()).collect();
    wanted.sort();
    have.sort();
    assert_eq!(have, wanted, "a row for each command, and none for what is none");
}

/// A refusal never exits with 0, and a success never with anything else.
fn show_rows(rows: &[Row]) {
    for Row { command, success, refused, nothing } in rows {
        let success = show(something, command, *success);
        let refused = show(something, command, *refused);
        let nothing = show(|| with_files(World::empty()), command, *nothing);
        assert!(!success.contains("-- exit") || success.ends_with("-- exit 0\n"), "{success}");
        assert!(!refused.ends_with("-- exit 0\n"), "{refused}");
        let text = format!("Success:\n{success}\nRefused:\n{refused}\nNothing there:\n{nothing}");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(command.replace(' ', "-"), text);
        });
    }
}

/// Each row has stores of its own, which take seconds to start: a part of the table a test.
fn part(number: usize) -> &'static [Row] {
    let parts = 4;
    &ROWS[ROWS.len() * number / parts..ROWS.len() * (number + 1) / parts]
}

#[test]
fn each_command_shows_its_three_cases_a() {
    show_rows(part(0));
}

#[test]
fn each_command_shows_its_three_cases_b() {
    show_rows(part(1));
}

#[test]
fn each_command_shows_its_three_cases_c() {
    show_rows(part(2));
}

#[test]
fn each_command_shows_its_three_cases_d() {
    show_rows(part(3));
}
