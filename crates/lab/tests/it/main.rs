//! Namespaces and processes for real: every case runs in a process of its own, as root and as an ordinary user.
//!
//! A case may enter namespaces and panic as it likes: the runner takes down what it leaves and then looks for leaks.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bring_up;
mod exec;
mod keeper;
mod network;
mod routes;
mod run_dir;
mod runner;
mod tun;

use std::process::ExitCode;

/// Who a case runs as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    Root,
    /// uid 65534.
    User,
}

type Case = (&'static str, &'static [As], fn());

const BOTH: &[As] = &[As::Root, As::User];
const ROOT: &[As] = &[As::Root];

const CASES: &[Case] = &[
    ("keeper_holds_everything", BOTH, keeper::holds_everything),
    ("keeper_holds_hundreds", BOTH, keeper::holds_hundreds),
    ("keeper_outlives_the_daemon", BOTH, keeper::outlives_the_daemon),
    ("keeper_death_ends_programs", BOTH, keeper::death_ends_programs),
    ("keeper_ignores_signals", BOTH, keeper::ignores_signals),
    (
        "keeper_bears_hostile_clients",
        BOTH,
        keeper::bears_hostile_clients,
    ),
    (
        "keeper_leaks_nothing_into_programs",
        BOTH,
        keeper::leaks_nothing_into_programs,
    ),
    ("keeper_releases_a_namespace", BOTH, keeper::releases_a_namespace),
    ("keeper_shuts_others_out", ROOT, keeper::shuts_others_out),
    (
        "down_ends_a_daemon_that_will_not",
        BOTH,
        keeper::down_ends_a_daemon_that_will_not,
    ),
    (
        "vm_is_what_the_contract_says",
        BOTH,
        network::vm_is_what_the_contract_says,
    ),
    (
        "vm_sends_nothing_by_itself",
        BOTH,
        network::vm_sends_nothing_by_itself,
    ),
    (
        "vnet_port_sends_through_the_tun",
        BOTH,
        network::vnet_port_sends_through_the_tun,
    ),
    (
        "existing_namespace_is_given_back",
        ROOT,
        network::existing_namespace_is_given_back,
    ),
    (
        "site_answers_for_its_prefixes",
        BOTH,
        routes::site_answers_for_its_prefixes,
    ),
    (
        "a_table_is_watched_from_outside",
        BOTH,
        routes::a_table_is_watched_from_outside,
    ),
    ("exec_passes_exit_codes", BOTH, exec::passes_exit_codes),
    ("exec_is_inside", BOTH, exec::is_inside),
    ("exec_passes_signals", BOTH, exec::passes_signals),
    ("exec_keeps_job_control", BOTH, exec::keeps_job_control),
    ("run_dir_is_safe", BOTH, run_dir::is_safe),
    ("run_dir_tells_who_lives", BOTH, run_dir::tells_who_lives),
    ("run_dir_bears_races", BOTH, run_dir::bears_races),
    ("names_are_ours_alone", ROOT, run_dir::names_are_ours_alone),
    ("privileges_are_tried", BOTH, run_dir::privileges_are_tried),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let first = arguments
        .first()
        .and_then(|first| first.to_str())
        .unwrap_or_default();
    match first {
        // One word alone chooses cases.
        "keeper" if arguments.len() == 3 => lab::keeper::main(&arguments[1..]),
        "daemon" if arguments.len() == 2 => bring_up::daemon(&arguments[1]),
        "exec" => exec::main(&arguments[1], &arguments[2], &arguments[3..]),
        "case" => runner::case(&arguments[1]),
        _ => runner::run(&arguments),
    }
}
