//! `top`: asks the daemon, draws, and takes keys, until it is told to quit.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::Client;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::args::LabArg;
use crate::commands::counters;
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref;
use crate::top::{App, Next, Sample, View, draw};

/// How long a key or a signal waits at most.
const TICK: Duration = Duration::from_millis(100);

pub(crate) fn top(args: &LabArg) -> Outcome {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::usage("top needs a terminal")
            .help("`peerlane drops`, `flows` and `meter` say the same to a program, with `-o json`"));
    }
    let client = counters::client(args.lab.as_deref())?;
    let broken = |error: io::Error| Failure::failed(format_args!("the terminal does not work: {error}"));
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(broken)?;
    }
    // It also sees to it that a panic leaves the terminal as it was.
    let mut terminal = ratatui::try_init().map_err(broken)?;
    let shown = show(&mut terminal, &client, &ended);
    let restored = ratatui::try_restore();
    shown?;
    restored.map_err(broken)?;
    Ok(exit::SUCCESS)
}

fn show(terminal: &mut DefaultTerminal, client: &Client, ended: &AtomicBool) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::failed(format_args!("the terminal does not work: {error}"));
    let mut app = App::new();
    let mut asked = None;
    while !ended.load(Ordering::Relaxed) {
        let due = asked.is_none_or(|asked: Instant| asked.elapsed() >= app.interval);
        if due && !(app.paused && app.latest().is_some()) {
            app.take(sample(client, app.view)?);
            asked = Some(Instant::now());
        }
        terminal.draw(|frame| draw(frame, &app)).map_err(broken)?;
        if !event::poll(TICK).map_err(broken)? {
            continue;
        }
        match event::read().map_err(broken)? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match app.key(key) {
                Next::Quit => return Ok(()),
                Next::Ask => asked = None,
                Next::Draw => {}
            },
            _ => {}
        }
    }
    Ok(())
}

fn sample(client: &Client, view: View) -> Result<Sample, Failure> {
    Ok(Sample {
        overview: client.overview().map_err(lab_ref::unanswered)?,
        flows: match view {
            View::Flows => client.flows().map_err(lab_ref::unanswered)?,
            _ => Vec::new(),
        },
    })
}
