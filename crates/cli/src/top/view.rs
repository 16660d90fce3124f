//! How the screen looks.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table, Tabs};

use super::app::App;
use super::table::{Cell, View, scaled};

const KEYS: &str = "q quit  1-5 view  s sort  r reverse  / filter  p pause  ? help";

const HELP: &[&str] = &[
    "1 2 3 4 5, Tab VMs, peerings, links, drops, flows",
    "s > <          sort by the next or previous column",
    "r              reverse the order",
    "/              filter rows by a name; Enter keeps it, Esc clears it",
    "Up Down PgUp PgDn Home   scroll",
    "p              pause, and go on",
    "+ -            ask half as often, twice as often",
    "q, Ctrl-C      quit",
    "",
    "Packets are wire packets, bits those of IP. \"sent\" and \"recv\" are",
    "the NIC's own view. Late: how much after their time packets on links",
    "arrived, since the daemon started.",
];

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) {
    let areas: [Rect; 4] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head(app)), areas[0]);
    let titles = View::ALL
        .iter()
        .zip(1..)
        .map(|(view, key)| format!("{key} {}", view.title()));
    let tabs = Tabs::new(titles)
        .select(app.view as usize)
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_widget(tabs, areas[1]);
    draw_table(frame, app, areas[2]);
    frame.render_widget(Paragraph::new(foot(app)), areas[3]);
    if app.help {
        draw_help(frame);
    }
}

/// The lab as a whole.
fn head(app: &App) -> Line<'static> {
    let Some(latest) = app.latest() else {
        return Line::from("asking ...");
    };
    let (bits, packets) = app.total();
    let mut text = format!(
        "{}  {}/s  {} pkt/s  flows {} of {}",
        latest.name,
        scaled(bits, "b"),
        scaled(packets, ""),
        latest.flows,
        latest.flow_capacity,
    );
    if let Some(late) = &latest.late {
        let micros = |ns: u64| scaled(ns as f64 / 1000.0, "");
        text += &format!(
            "  late p50 {} us p99 {} us",
            micros(late.p50_ns),
            micros(late.p99_ns)
        );
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled(text, bold)];
    if app.paused {
        spans.push(Span::styled("  PAUSED", bold));
    }
    Line::from(spans)
}

fn foot(app: &App) -> Line<'static> {
    match (app.typing, app.filter.as_str()) {
        (true, filter) => Line::from(format!("filter: {filter}_")),
        (false, "") => Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)),
        (false, filter) => Line::from(format!("filter: {filter}  (Esc clears it)  {KEYS}")),
    }
}

fn draw_table(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let columns = app.view.columns();
    let rows = app.rows();
    let room = usize::from(area.height.saturating_sub(1));
    // Never past the end.
    let first = app.scrolled.min(rows.len().saturating_sub(room));
    let (sorted, largest_first) = app.sorted_by();
    let is_text = |index: usize| {
        rows.first()
            .is_some_and(|row| matches!(row[index], Cell::Text(_)))
    };
    let header = columns.iter().enumerate().map(|(index, (title, _))| {
        let mark = match (index == sorted, largest_first) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        aligned(format!("{title}{mark}"), is_text(index) || rows.is_empty())
    });
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    let widths = columns.iter().enumerate().map(|(index, (_, width))| {
        if is_text(index) || rows.is_empty() {
            Constraint::Min(*width)
        } else {
            Constraint::Length(*width + 1)
        }
    });
    let shown = rows.iter().skip(first).take(room).map(|row| {
        Row::new(
            row.iter()
                .map(|cell| aligned(cell.shown(), matches!(cell, Cell::Text(_)))),
        )
    });
    let table = Table::new(shown, widths).header(header).column_spacing(1);
    frame.render_widget(table, area);
}

fn aligned(text: String, left: bool) -> Line<'static> {
    Line::from(text).alignment(if left { Alignment::Left } else { Alignment::Right })
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let width = area.width.min(76);
    let height = area.height.min(HELP.len() as u16 + 2);
    let over = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Clear, over);
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" Keys ")),
        over,
    );
}
