//! `up`, `serve`, `down`, `list`: labs that run.

use std::net::SocketAddr;
use std::path::Path;

use daemon::{Listen, Running, Style, UpOptions, Waiting};
use engine::WorkerOptions;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{Io, LabArg, RestartArgs, ServeArgs, StyleArgs, UpArgs};
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::{self, Lab, LabRef};
use crate::output::{Cell, Output, Tone, View, say};

/// One worker leaves the other core of a small machine to the programs in the lab.
const WORKERS: usize = 1;

/// The line of `up`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Announcement {
    name: String,
    state: &'static str,
    /// Where the ARM API is, with `--listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
}

impl Announcement {
    fn of(running: &Running) -> Self {
        Self {
            name: running.name.clone(),
            state: "Running",
            listen: running.listen.map(|address| format!("https://{address}")),
        }
    }
}

/// The line of `down`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Farewell {
    name: String,
    state: &'static str,
}

/// One line of `list`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct ListedLab {
    name: String,
    /// `Running`, or `Orphaned`: the daemon is gone and the programs still run.
    state: String,
    pid: u32,
    file: String,
    socket: String,
}

/// What the daemon needs to bring a lab up.
pub(crate) fn options(lab: Lab, io: Io) -> UpOptions {
    UpOptions {
        file: lab
            .path
            .map_or_else(|| "-".to_owned(), |path| path.display().to_string()),
        text: lab.text,
        topology: lab.topology,
        detach: true,
        io: match io {
            Io::Auto => daemon::Io::Vnet,
            Io::Plain => daemon::Io::Plain,
        },
        workers: WORKERS,
        waiting: Waiting::Sleep,
        cpu: None,
        under_way_bytes: WorkerOptions::default().under_way_bytes,
        allow_host: false,
        listen: None,
    }
}

/// Brings a lab up; in front it returns when the lab is down again.
pub(crate) fn up(args: &UpArgs, output: Output) -> Outcome {
    if let LabRef::Running(name) = LabRef::parse(Some(&args.file))
        && !Path::new(&args.file).exists()
    {
        return resume(&name, args, output);
    }
    let lab = Lab::from_file(&args.file)?;
    let options = UpOptions {
        detach: args.detach,
        allow_host: args.allow_host,
        waiting: if args.spin { Waiting::Spin } else { Waiting::Sleep },
        cpu: args.cpu,
        under_way_bytes: args.link_memory,
        listen: args.listen.map(|address| listen(address, args.style)),
        ..options(lab, args.io.io)
    };
    begin(&options, output)
}

/// Brings an empty lab up, for clients of the ARM API.
pub(crate) fn serve(args: &ServeArgs, output: Output) -> Outcome {
    // Strings of JSON are strings of YAML, whatever is in them.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (name, profile) = (quoted(&args.name), quoted(&args.profile));
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: {name}\nprofile: {profile}\n");
    let options = UpOptions {
        detach: args.detach,
        listen: Some(listen(args.listen, args.style)),
        ..options(Lab::from_text("<serve>", text)?, args.io.io)
    };
    begin(&options, output)
}

fn listen(address: SocketAddr, style: StyleArgs) -> Listen {
    Listen {
        address,
        style: if style.polling {
            Style::Polling
        } else {
            Style::Synchronous
        },
    }
}

fn begin(options: &UpOptions, output: Output) -> Outcome {
    let announce = |running: &Running| {
        for note in &running.notes {
            say(format_args!("note: {note}"));
        }
        let line = Announcement::of(running);
        let said = output.show_line(&line, |palette| {
            let hint = if options.detach {
                format!("peerlane down {}", running.name)
            } else {
                "Ctrl-C".to_owned()
            };
            format!(
                "{} is {}; {hint} takes it down",
                running.name,
                palette.paint(Tone::Good, "running")
            )
        });
        if let Err(failure) = said {
            say(failure);
        }
    };
    daemon::up(options, announce).map_err(lab_ref::not_up)?;
    Ok(exit::SUCCESS)
}

/// Goes on with a lab whose daemon ended.
fn resume(name: &str, args: &UpArgs, output: Output) -> Outcome {
    if !daemon::list()
        .map_err(lab_ref::not_up)?
        .iter()
        .any(|lab| lab.name == name)
    {
        return Err(
            Failure::not_found(format_args!("there is no file {name}, and no lab of this name"))
                .help("a lab file ends in .vnet.yaml; `peerlane list` names the labs"),
        );
    }
    if !args.detach {
        return Err(
            Failure::usage("a lab whose daemon ended goes on in the background").help("say --detach"),
        );
    }
    let running = daemon::resume(name).map_err(lab_ref::not_up)?;
    announce(&running, output)
}

/// Puts this program in place of a lab's daemon.
pub(crate) fn restart(args: &RestartArgs, output: Output) -> Outcome {
    let listed = lab_ref::running(&LabRef::parse(args.lab.as_deref()))?;
    let running = daemon::restart(&listed.name).map_err(lab_ref::not_up)?;
    announce(&running, output)
}

fn announce(running: &Running, output: Output) -> Outcome {
    for note in &running.notes {
        say(format_args!("note: {note}"));
    }
    let line = Announcement::of(running);
    output.show_line(&line, |palette| {
        format!("{} is {}", running.name, palette.paint(Tone::Good, "running"))
    })?;
    Ok(exit::SUCCESS)
}

/// Takes a lab down.
pub(crate) fn down(args: &LabArg, output: Output) -> Outcome {
    let listed = lab_ref::running(&LabRef::parse(args.lab.as_deref()))?;
    daemon::down(&listed.name).map_err(lab_ref::not_up)?;
    let line = Farewell {
        name: listed.name,
        state: "Down",
    };
    output.show_line(&line, |_| format!("{} is down", line.name))?;
    Ok(exit::SUCCESS)
}

/// Lists the labs; what dead ones left behind goes on the way.
pub(crate) fn list(output: Output) -> Outcome {
    let labs: Vec<ListedLab> = daemon::list()
        .map_err(lab_ref::not_up)?
        .into_iter()
        .map(|lab| ListedLab {
            name: lab.name,
            state: format!("{:?}", lab.state),
            pid: lab.pid,
            file: lab.file,
            socket: lab.socket.display().to_string(),
        })
        .collect();
    output.show(&labs, |_| View {
        header: vec!["Name", "State", "Pid", "File", "Socket"],
        rows: labs.iter().map(row).collect(),
        ..View::default()
    })?;
    Ok(exit::SUCCESS)
}

fn row(lab: &ListedLab) -> Vec<Cell> {
    let tone = if lab.state == "Running" {
        Tone::Good
    } else {
        Tone::Notice
    };
    vec![
        Cell::new(Tone::Strong, &lab.name),
        Cell::new(tone, &lab.state),
        u64::from(lab.pid).into(),
        lab.file.as_str().into(),
        lab.socket.as_str().into(),
    ]
}
