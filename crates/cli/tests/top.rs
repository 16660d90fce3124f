//! `top` on a terminal: what it draws, what its keys do, and that it leaves the terminal as it was.

use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Peerlane, User, two_vnets, unique, wait_for};

/// Longer than any answer takes on a busy machine.
const SOON: Duration = Duration::from_secs(20);

const ROWS: NonZero<u16> = NonZero::new(24).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();

/// `peerlane top` in a terminal of its own, and then what the terminal is like.
struct Terminal {
    script: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(peerlane: &Peerlane, lab: &str) -> Self {
        let top = peerlane.command(["top", lab]);
        let words: Vec<&str> = [top.get_program()]
            .into_iter()
            .chain(top.get_args())
            .map(|word| word.to_str().unwrap())
            .collect();
        let line = format!(
            "stty rows 24 cols 100; {}; echo CODE=$?; stty -a",
            words.join(" ")
        );
        let variables = top.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut script = Command::new("script")
            .args(["-q", "-c", &line, "/dev/null"])
            .envs(variables)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("script, of bsdutils: {error}"));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, kept) = (script.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                kept.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self { script, shown }
    }

    /// The terminal as it is by now.
    fn screen(&self) -> vt100::Screen {
        let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
        terminal.process(&self.shown.lock().unwrap());
        terminal.screen().clone()
    }

    fn shows(&self, text: &str) {
        let seen = wait_for(SOON, || self.screen().contents().contains(text));
        assert!(seen, "no {text:?} on {}", self.screen().contents());
    }

    fn press(&mut self, keys: &str) {
        self.script
            .stdin
            .as_mut()
            .unwrap()
            .write_all(keys.as_bytes())
            .unwrap();
    }

    /// It ends by itself, with this exit code, and the terminal is as it was.
    fn ends(mut self, code: i32) {
        self.shows("CODE=");
        self.shows("noflsh");
        self.script.wait().unwrap();
        let screen = self.screen();
        let contents = screen.contents();
        assert!(contents.contains(&format!("CODE={code}")), "{contents}");
        for mode in [" icanon", " echo ", " isig"] {
            assert!(
                contents.replace(['\n', ';'], " ").contains(mode),
                "no{mode}: {contents}"
            );
        }
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "{contents}");
    }
}

#[test]
fn a_terminal_shows_the_lab_and_is_left_as_it_was() {
    let peerlane = Peerlane::new(User::Caller);
    let name = unique("top");
    peerlane.up(&peerlane.file(&name, &two_vnets(&name, "")));

    let mut terminal = Terminal::start(&peerlane, &name);
    terminal.shows(&name);
    terminal.shows("b-nic");
    assert!(terminal.screen().alternate_screen());
    let ping = peerlane.exec(
        &name,
        "a",
        &["ping", "-c", "2", "-i", "0.1", "-W", "1", "10.1.0.5"],
    );
    assert_eq!(ping.code, 1, "{ping:?}");
    terminal.press("4");
    terminal.shows("NsgInbound");
    terminal.press("2");
    terminal.shows("one/one-to-two");
    terminal.press("?");
    terminal.shows("reverse the order");
    terminal.press("xq");
    terminal.ends(0);

    let mut terminal = Terminal::start(&peerlane, &name);
    terminal.shows("b-nic");
    terminal.press("\x03");
    terminal.ends(0);

    let terminal = Terminal::start(&peerlane, &name);
    terminal.shows("b-nic");
    let running = peerlane.processes();
    let top = running
        .iter()
        .find(|(_, line)| line.contains(" top ") && !line.contains("stty"))
        .unwrap_or_else(|| panic!("{running:?}"));
    let pid = rustix::process::Pid::from_raw(top.0).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    terminal.ends(0);

    // A lab that goes ends it, and the reason is not lost with the screen.
    let terminal = Terminal::start(&peerlane, &name);
    terminal.shows("b-nic");
    assert_eq!(peerlane.run(["down", &name]).code, 0);
    terminal.shows("the lab is not running");
    terminal.ends(3);
}

#[test]
fn top_wants_a_terminal() {
    let peerlane = Peerlane::new(User::Caller);
    let ran = peerlane.run(["top", "some-lab"]);
    assert!(
        ran.code == 2 && ran.stderr.contains("top needs a terminal"),
        "{ran:?}"
    );
}
