//! The screen of `top` on a terminal of the test's own.

use daemon::api::{Drop, Flow, Lateness, LinkCounters, Meter, Overview, PortCounters, PortState};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::table::{View, scaled};
use super::{App, Next, Sample, draw};

/// A port that has sent and received so many wire packets of 1,000 bytes.
fn port(vm: &str, received: u64, sent: u64) -> PortState {
    PortState {
        name: format!("{vm}-nic"),
        namespace: vm.to_owned(),
        interface: String::from("eth0"),
        offload: String::new(),
        forwarding: true,
        counters: Some(PortCounters {
            received_packets: received,
            received_bytes: received * 1000,
            sent_packets: sent,
            sent_bytes: sent * 1000,
        }),
    }
}

fn flow(port: u16, packets: u64) -> Flow {
    Flow {
        nic: String::from("web-nic"),
        direction: String::from("Outbound"),
        protocol: String::from("Tcp"),
        source: "10.0.0.4".parse().unwrap(),
        source_port: port,
        destination: "fd00:b::4".parse().unwrap(),
        destination_port: 443,
        packets,
        bytes: packets * 1000,
        idle_ms: 3400,
    }
}

/// The lab after so many times two seconds; each adds the same again.
fn late() -> Lateness {
    Lateness {
        packets: 9,
        p50_ns: 4100,
        p99_ns: 52_000,
        max_ns: 60_000,
        histogram: Vec::new(),
    }
}

fn sample(times: u64) -> Sample {
    let overview = Overview {
        name: String::from("hub-spoke"),
        at_ns: times * 2_000_000_000,
        generation: 7,
        ports: vec![
            port("web", 20 * times, 0),
            port("db", 4000 * times, 20 * times),
            PortState {
                counters: None,
                ..port("internet", 0, 0)
            },
        ],
        meter: vec![Meter {
            peering: String::from("hub/hub-to-spoke"),
            location: String::from("westus2"),
            remote_location: String::from("eastus"),
            egress_bytes: 4_000_000 * times,
            egress_packets: 4000 * times,
            ingress_bytes: 0,
            ingress_packets: 0,
        }],
        links: vec![LinkCounters {
            link: String::from("hub/hub-to-spoke"),
            packets: 4000 * times,
            bytes: 4_000_000 * times,
            lost: 20 * times,
            queue_full: 8 * times,
            waiting_packets: 17,
            late: Some(late()),
            ..LinkCounters::default()
        }],
        drops: vec![
            Drop {
                reason: String::from("NsgInbound"),
                nic: Some(String::from("db-nic")),
                packets: 10 * times,
                bytes: 840 * times,
            },
            Drop {
                reason: String::from("MalformedHeader"),
                nic: None,
                packets: 3,
                bytes: 60,
            },
        ],
        flows: 12,
        flow_capacity: 1_000_000,
        late: Some(late()),
    };
    Sample {
        overview,
        flows: vec![flow(50_000, 10 * times), flow(50_001, 4000 * times)],
    }
}

fn app() -> App {
    let mut app = App::new();
    app.take(sample(1));
    app.take(sample(2));
    app
}

fn press(app: &mut App, keys: &str) -> Next {
    let mut next = Next::Draw;
    for letter in keys.chars() {
        let code = match letter {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            letter => KeyCode::Char(letter),
        };
        next = app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    next
}

/// What is on a screen, line by line, without blanks at their ends.
fn screen(app: &App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content.chunks(usize::from(width));
    lines
        .map(|line| {
            let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

const SCREENS: &str = "
hub-spoke  16.1 Mb/s  2.01 k pkt/s  flows 12 of 1000000  late p50 4 us p99 52 us
 1 VMs │ 2 Peerings │ 3 Links │ 4 Drops │ 5 Flows
VM                    NIC                   sent pkt/s sent bit/s▼  recv pkt/s  recv bit/s   drops/s
db                    db-nic                    2.00 k     16.0 Mb          10     80.0 kb         5
web                   web-nic                       10     80.0 kb           0         0 b         0

q quit  1-5 view  s sort  r reverse  / filter  p pause  ? help
 1 VMs │ 2 Peerings │ 3 Links │ 4 Drops │ 5 Flows
Peering                        out pkt/s  out bit/s▼    in pkt/s    in bit/s   out bytes    in bytes
hub/hub-to-spoke                  2.00 k     16.0 Mb           0         0 b     8.00 MB         0 B

q quit  1-5 view  s sort  r reverse  / filter  p pause  ? help
 1 VMs │ 2 Peerings │ 3 Links │ 4 Drops │ 5 Flows
Link                  out pkt/s  out bit/s▼   lost/s   full/s   down/s   waiting  late p50  late p99
hub/hub-to-spoke         2.00 k     16.0 Mb       10        4        0        17      4 us     52 us

q quit  1-5 view  s sort  r reverse  / filter  p pause  ? help
 1 VMs │ 2 Peerings │ 3 Links │ 4 Drops │ 5 Flows
Reason                     NIC                            pkt/s▼       bit/s     packets       bytes
NsgInbound                 db-nic                              5     3.36 kb          20     1.68 kB
MalformedHeader            -                                   0         0 b           3        60 B
q quit  1-5 view  s sort  r reverse  / filter  p pause  ? help
 1 VMs │ 2 Peerings │ 3 Links │ 4 Drops │ 5 Flows
NIC          Flow                                         sent pkt/s sent bit/s▼     packets    idle
web-nic      Tcp 10.0.0.4:50001 -> [fd00:b::4]:443            2.00 k     16.0 Mb        8000     3 s
web-nic      Tcp 10.0.0.4:50000 -> [fd00:b::4]:443                 5     40.0 kb          20     3 s
q quit  1-5 view  s sort  r reverse  / filter  p pause  ? help
";

#[test]
fn the_screen_shows_rates_between_two_samples() {
    let mut app = app();
    let mut shown = screen(&app, 100, 7);
    for view in ["2", "3", "4", "5"] {
        press(&mut app, view);
        shown.extend(screen(&app, 100, 6).into_iter().skip(1));
    }
    assert_eq!(shown.join("\n"), SCREENS.trim_matches('\n'));
}

#[test]
fn nothing_has_happened_before_there_are_two_samples() {
    let mut app = App::new();
    assert_eq!(screen(&app, 80, 5)[0], "asking ...");
    app.take(sample(5));
    assert!(screen(&app, 100, 5)[0].starts_with("hub-spoke  0 b/s  0 pkt/s"));
    // A daemon that was started again counts from zero: no rate is less than nothing.
    app.take(sample(1));
    assert!(screen(&app, 100, 5)[0].starts_with("hub-spoke  0 b/s  0 pkt/s"));
}

#[test]
fn keys_sort_filter_scroll_and_quit() {
    let mut app = app();
    let first = |app: &App| app.rows().first().map(|row| row[0].shown());
    assert_eq!(first(&app).as_deref(), Some("db"));
    press(&mut app, "r");
    assert_eq!(first(&app).as_deref(), Some("web"));
    // Sorted by the last column, then by the first.
    press(&mut app, "rsss");
    assert_eq!(app.sorted_by(), (6, true));
    press(&mut app, "s");
    assert_eq!(first(&app).as_deref(), Some("web"));
    press(&mut app, "<");
    assert_eq!(app.sorted_by(), (6, true));

    // While the filter is typed, keys are letters.
    press(&mut app, "/DBq\x08");
    assert!(app.typing);
    press(&mut app, "\x1b/DB\n");
    assert_eq!((app.typing, app.rows().len()), (false, 1));
    assert!(screen(&app, 100, 8).last().unwrap().contains("filter: DB"));
    press(&mut app, "\x1b");
    assert_eq!(app.rows().len(), 2);

    assert_eq!(press(&mut app, "\t"), Next::Ask);
    assert_eq!(app.view, View::Peerings);
    press(&mut app, "jjjjjjjj");
    assert!(
        screen(&app, 100, 4)[2].starts_with("hub/hub-to-spoke")
            || screen(&app, 100, 4)[2].starts_with("Peering")
    );
    press(&mut app, "?");
    assert!(
        screen(&app, 100, 20)
            .iter()
            .any(|line| line.contains("Ctrl-C      quit"))
    );
    press(&mut app, "x");
    assert!(!app.help);
    press(&mut app, "p");
    assert!(screen(&app, 110, 5)[0].ends_with("PAUSED"));
    assert_eq!(press(&mut app, "q"), Next::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut app, "/");
    assert_eq!(app.key(interrupt), Next::Quit);
}

#[test]
fn any_size_of_terminal_will_do() {
    let mut app = app();
    for view in ["1", "2", "3", "4", "5", "?"] {
        press(&mut app, view);
        for (width, height) in [(1, 1), (3, 2), (20, 3), (300, 100)] {
            screen(&app, width, height);
        }
    }
}

#[test]
fn numbers_have_three_digits() {
    let shown = |number| scaled(number, "b");
    assert_eq!(
        [0.0, 999.0, 999.6, 12_340.0, 123_400.0, 999_600.0, 5e9, 3e18].map(shown),
        [
            "0 b",
            "999 b",
            "1.00 kb",
            "12.3 kb",
            "123 kb",
            "1.00 Mb",
            "5.00 Gb",
            "3000000 Tb"
        ]
    );
    assert_eq!(scaled(7.0, ""), "7");
}
