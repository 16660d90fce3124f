//! `events:`: each says when and one thing that happens; a fresh lab goes through all of them before it is accepted.

use crate::change;
use crate::config::{Config, Event};
use crate::problems::{Problems, join};

/// More would be a program, which is better written as one that calls the commands.
const MOST: usize = 1000;

/// What an event says by itself. What it needs of the lab is asked when it happens, or in [`rehearse`].
pub(crate) fn check(config: &Config, problems: &mut Problems) {
    if config.events.len() > MOST {
        let message = format!("{} events; there can be {MOST}", config.events.len());
        problems
            .error("Sim.Value", "events", message)
            .on_key()
            .help("let a program call `peerlane event` instead");
    }
    for (index, event) in config.events.iter().enumerate() {
        one(event, &join("events", &index.to_string()), problems);
    }
}

/// One event by itself.
pub(crate) fn one(event: &Event, at: &str, problems: &mut Problems) {
    let verbs = event.verbs();
    if verbs.len() != 1 && !problems.unreadable(at) {
        let message = match verbs.as_slice() {
            [] => "an event without anything that happens".to_owned(),
            several => format!("one event does one thing, not {}", several.join(" and ")),
        };
        problems
            .error("Sim.Value", at, message)
            .help("say one of set, reset, create, delete, stop, start, withdraw and announce");
    }
}

/// Lets a checked lab go through its events in order of time, as it will once it runs.
pub(crate) fn rehearse(config: &Config, problems: &mut Problems) {
    let mut order: Vec<(usize, &Event)> = config.events.iter().enumerate().collect();
    order.sort_by_key(|(_, event)| event.at.0);
    let mut state = config.clone();
    state.events.clear();
    for (index, event) in order {
        let at = join("events", &index.to_string());
        let done = change::event(&state, event).and_then(|operations| {
            // VMs and prefixes of sites are subject to no rule about the rest of the lab.
            let own = event.stop.is_some()
                || event.start.is_some()
                || event.withdraw.is_some()
                || event.announce.is_some();
            match !own {
                true => change::apply(&state, &operations, None).map(|changed| changed.config),
                false => change::stepped(&state, &operations),
            }
        });
        match done {
            Ok(next) => state = next,
            Err(refusal) => {
                // In a file it is a reference that leads nowhere.
                let code = match refusal.code {
                    "ResourceNotFound" => "InvalidResourceReference",
                    code => code,
                };
                let verb = event.verbs().first().copied().unwrap_or_default();
                let message = format!("at {}: {}", event.at, refusal.message);
                let problem = problems.error(code, join(&at, verb), message);
                if let Some(help) = refusal.help {
                    problem.help(help);
                }
            }
        }
    }
}
