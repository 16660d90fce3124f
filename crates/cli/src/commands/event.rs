//! `event`: something happens to a running lab, now.

use daemon::api::{EventRequest, EventResult, EventState};
use daemon::{Client, ClientError};
use serde_json::{Value, json};

use crate::commands::counters::client;
use crate::event_args::{EventArgs, ImpairArgs, ImpairmentArgs, PeeringArgs, PrefixArgs, Verb};
use crate::failure::{Failure, Outcome, exit};
use crate::lab_ref::unanswered;
use crate::output::{Cell, Output, Tone, View};

/// Has it happen, or lists what did; either way what is known of events is shown.
pub(crate) fn event(args: &EventArgs, output: Output) -> Outcome {
    let client = client(args.lab.as_deref())?;
    let Some(verb) = &args.verb else {
        show(&client.events().map_err(unanswered)?, output)?;
        return Ok(exit::SUCCESS);
    };
    happen(&client, &wanted(verb))?;
    show_latest(&client, output)
}

/// Changes what a link does to packets.
pub(crate) fn impair(args: &ImpairArgs, output: Output) -> Outcome {
    let change = settings(&args.impairment);
    let nothing = change.as_object().is_none_or(|change| change.len() == 1);
    if nothing && !args.reset {
        return Err(Failure::usage("say what the link is to do")
            .help("such as --latency 80ms --loss 1%, --down, or --reset for what the file says"));
    }
    let client = client(args.lab.as_deref())?;
    if args.reset {
        let link = json!({ "link": args.impairment.link });
        happen(&client, &json!({ "at": "0s", "reset": link }))?;
    }
    if !nothing {
        happen(&client, &json!({ "at": "0s", "set": change }))?;
    }
    show_latest(&client, output)
}

fn happen(client: &Client, event: &Value) -> Result<(), Failure> {
    let request = EventRequest {
        text: event.to_string(),
    };
    client.event(&request).map(drop).map_err(refused)
}

fn show_latest(client: &Client, output: Output) -> Outcome {
    // Of events that happened, this is the last one.
    let events = client.events().map_err(unanswered)?;
    let happened = events
        .into_iter()
        .rfind(|event| event.state != EventResult::Pending);
    show(&happened.into_iter().collect::<Vec<_>>(), output)?;
    Ok(exit::SUCCESS)
}

/// As an entry of `events:`.
fn wanted(verb: &Verb) -> Value {
    let vm = |vm: &str| json!({ "vm": vm });
    let prefix = |args: &PrefixArgs| json!({ "site": args.site, "prefix": args.prefix });
    let (name, what) = match verb {
        Verb::Set(args) => ("set", settings(args)),
        Verb::Reset { link } => ("reset", json!({ "link": link })),
        Verb::Stop(args) => ("stop", vm(&args.vm)),
        Verb::Start(args) => ("start", vm(&args.vm)),
        Verb::Create(args) => ("create", json!({ "peering": peering(args) })),
        Verb::Delete { peering } => ("delete", json!({ "peering": peering })),
        Verb::Withdraw(args) => ("withdraw", prefix(args)),
        Verb::Announce(args) => ("announce", prefix(args)),
    };
    json!({ "at": "0s", name: what })
}

/// As the lab reads it, which says what is wrong with it.
fn settings(args: &ImpairmentArgs) -> Value {
    let mut change = serde_json::Map::new();
    change.insert("link".to_owned(), args.link.as_str().into());
    let texts = [
        ("latency", &args.latency),
        ("loss", &args.loss),
        ("rate", &args.rate),
        ("queue", &args.queue),
        ("duplicate", &args.duplicate),
        ("reorder", &args.reorder),
        ("corrupt", &args.corrupt),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            change.insert(name.to_owned(), text.as_str().into());
        }
    }
    if let Some(deviation) = &args.jitter {
        let shape = args.distribution.as_deref().unwrap_or("normal");
        change.insert(
            "jitter".to_owned(),
            json!({ "deviation": deviation, "distribution": shape }),
        );
    }
    if let Some(mtu) = args.mtu {
        change.insert("mtu".to_owned(), mtu.into());
    }
    if args.down || args.up {
        change.insert("down".to_owned(), args.down.into());
    }
    change.into()
}

fn peering(args: &PeeringArgs) -> Value {
    // Of a key GROUP/NAME the name is the second part.
    let short = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    let name = format!("{}-to-{}", short(&args.from), short(&args.to));
    json!({
        "name": args.name.clone().unwrap_or(name),
        "from": args.from,
        "to": args.to,
        "allowVirtualNetworkAccess": !args.no_access,
        "allowForwardedTraffic": args.allow_forwarded_traffic,
        "allowGatewayTransit": args.allow_gateway_transit,
        "useRemoteGateways": args.use_remote_gateways,
    })
}

fn show(events: &[EventState], output: Output) -> Result<(), Failure> {
    output.show(&events, |_| View {
        below: None,
        header: vec!["At", "Event", "State", "Generation", "Message"],
        rows: events.iter().map(row).collect(),
        text: events
            .is_empty()
            .then(|| "nothing happened, and nothing is to come".to_owned()),
    })
}

fn row(event: &EventState) -> Vec<Cell> {
    let (word, tone) = match event.state {
        EventResult::Pending => ("Pending", Tone::Faint),
        EventResult::Done => ("Done", Tone::Good),
        EventResult::Failed => ("Failed", Tone::Bad),
    };
    vec![
        event.at.as_str().into(),
        Cell::new(Tone::Strong, &event.event),
        Cell::new(tone, word),
        event
            .generation
            .map_or_else(String::new, |it| it.to_string())
            .into(),
        event.message.as_deref().unwrap_or_default().into(),
    ]
}

/// The lab is as it was.
pub(crate) fn refused(error: ClientError) -> Failure {
    let ClientError::Refused(body) = &error else {
        return unanswered(error);
    };
    let failure = match body.code.as_deref() {
        Some(code @ ("ResourceNotFound" | "ParentResourceNotFound")) => {
            Failure::not_found(format_args!("{code}: {}", body.message))
        }
        Some(code) => Failure::failed(format_args!("{code}: {}", body.message)),
        None => Failure::failed(&body.message),
    };
    match &body.help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
