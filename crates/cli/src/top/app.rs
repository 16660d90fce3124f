//! What the screen shows and what its keys do, without a terminal.

use std::cmp::Ordering;
use std::time::Duration;

use daemon::api::{Flow, Overview};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::table::{Cell, View, rows};

/// How often the daemon is asked, at most and at least.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(16));

/// What was asked at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) overview: Overview,
    /// Only where they are shown: there may be very many.
    pub(crate) flows: Vec<Flow>,
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Draw,
    /// Another view, which may need what was not asked for.
    Ask,
    Quit,
}

#[derive(Debug)]
pub(crate) struct App {
    samples: Option<(Sample, Sample)>,
    pub(crate) view: View,
    /// By view: the column, and whether the largest comes first.
    sorting: [(usize, bool); View::ALL.len()],
    pub(crate) filter: String,
    /// Keys go to the filter.
    pub(crate) typing: bool,
    pub(crate) help: bool,
    pub(crate) paused: bool,
    pub(crate) interval: Duration,
    /// Rows above the screen.
    pub(crate) scrolled: usize,
}

impl App {
    pub(crate) fn new() -> Self {
        Self {
            samples: None,
            view: View::Vms,
            sorting: View::ALL.map(|view| (view.sorted_by(), true)),
            filter: String::new(),
            typing: false,
            help: false,
            paused: false,
            interval: Duration::from_secs(1),
            scrolled: 0,
        }
    }

    /// Takes a newer sample. Rates are what lies between it and the one before.
    pub(crate) fn take(&mut self, sample: Sample) {
        let before = self.samples.take().map(|(_, latest)| latest);
        let before = before
            // Another daemon counts from zero.
            .filter(|before| before.overview.at_ns < sample.overview.at_ns)
            .unwrap_or_else(|| sample.clone());
        self.samples = Some((before, sample));
    }

    pub(crate) fn latest(&self) -> Option<&Overview> {
        self.samples.as_ref().map(|(_, latest)| &latest.overview)
    }

    /// Bits and packets per second that all NICs sent.
    pub(crate) fn total(&self) -> (f64, f64) {
        let Some((before, latest)) = &self.samples else {
            return (0.0, 0.0);
        };
        let sum = |overview: &Overview| {
            let counters = overview.ports.iter().filter_map(|port| port.counters);
            counters.fold((0, 0), |sum, counters| {
                (sum.0 + counters.received_bytes, sum.1 + counters.received_packets)
            })
        };
        let (then, now) = (sum(&before.overview), sum(&latest.overview));
        let seconds = self.seconds();
        let rate = |then: u64, now: u64| now.saturating_sub(then) as f64 / seconds;
        (rate(then.0, now.0) * 8.0, rate(then.1, now.1))
    }

    /// The rows of the view, as asked for.
    pub(crate) fn rows(&self) -> Vec<Vec<Cell>> {
        let Some((before, latest)) = &self.samples else {
            return Vec::new();
        };
        let overviews = (&before.overview, &latest.overview);
        let flows = (before.flows.as_slice(), latest.flows.as_slice());
        let mut rows = rows(self.view, overviews, flows, self.seconds());
        let wanted = self.filter.to_lowercase();
        rows.retain(|row| {
            row.iter()
                .any(|cell| matches!(cell, Cell::Text(text) if text.to_lowercase().contains(&wanted)))
        });
        let (column, largest_first) = self.sorted_by();
        // Stable: what is equal stays in the order of the lab file.
        rows.sort_by(|a, b| match (a.get(column), b.get(column)) {
            (Some(a), Some(b)) if largest_first => b.order(a),
            (Some(a), Some(b)) => a.order(b),
            _ => Ordering::Equal,
        });
        rows
    }

    pub(crate) fn sorted_by(&self) -> (usize, bool) {
        self.sorting[self.view as usize]
    }

    pub(crate) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.typing {
            return self.type_filter(key.code);
        }
        if self.help {
            // Any key leaves the help; the one that asks for it does not ask again.
            self.help = false;
            return Next::Draw;
        }
        let sorting = &mut self.sorting[self.view as usize];
        let columns = self.view.columns().len();
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s' | '>') => sorting.0 = (sorting.0 + 1) % columns,
            KeyCode::Char('<') => sorting.0 = (sorting.0 + columns - 1) % columns,
            KeyCode::Char('r') => sorting.1 = !sorting.1,
            KeyCode::Char('+') => self.interval = (self.interval * 2).min(INTERVALS.1),
            KeyCode::Char('-') => self.interval = (self.interval / 2).max(INTERVALS.0),
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled += 1,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            KeyCode::PageDown => self.scrolled += 10,
            KeyCode::Home => self.scrolled = 0,
            KeyCode::Tab | KeyCode::Right => return self.show(self.view as usize + 1),
            KeyCode::BackTab | KeyCode::Left => return self.show(self.view as usize + View::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='5') => return self.show(digit as usize - '1' as usize),
            _ => {}
        }
        Next::Draw
    }

    fn show(&mut self, view: usize) -> Next {
        self.view = View::ALL[view % View::ALL.len()];
        self.scrolled = 0;
        Next::Ask
    }

    fn type_filter(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.scrolled = 0;
        Next::Draw
    }

    fn seconds(&self) -> f64 {
        let between = self.samples.as_ref().map_or(0, |(before, latest)| {
            latest.overview.at_ns.saturating_sub(before.overview.at_ns)
        });
        // Before there are two samples nothing has happened, in whatever time.
        if between == 0 { 1.0 } else { between as f64 / 1e9 }
    }
}
