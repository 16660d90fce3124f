//! `loadbalancers`: frontends, the backends behind them, and what health probes say.

use control::present::{self, LoadBalancerRow};
use daemon::api::HealthState;

use crate::args::LabArg;
use crate::failure::{Outcome, exit};
use crate::lab_ref::{Lab, unanswered};
use crate::output::{Cell, Output, Tone, View};

/// Every rule of every load balancer with its backends; the health of a running lab's.
pub(crate) fn load_balancers(args: &LabArg, output: Output) -> Outcome {
    let lab = Lab::open(args.lab.as_deref())?;
    let measured = match &lab.running {
        Some(client) => client.health().map_err(unanswered)?,
        None => Vec::new(),
    };
    let rows = present::load_balancers(&lab.topology, |balancer, probe, nic, ipv6| {
        let nic = &lab.topology.nics[nic.0].name;
        let found = measured.iter().find(|row| {
            row.load_balancer == balancer.name
                && row.probe == probe
                && row.nic == *nic
                && row.address.is_ipv6() == ipv6
        });
        let state = match found?.health {
            HealthState::Up => "Up",
            HealthState::Down => "Down",
            HealthState::Pending => "Pending",
        };
        Some(state.to_owned())
    });
    output.show(&rows, |_| View {
        below: None,
        header: vec![
            "Load balancer",
            "Frontend",
            "Rule",
            "Protocol",
            "Port",
            "Backend",
            "Backend port",
            "Health",
        ],
        rows: rows.iter().map(cells).collect(),
        text: rows.is_empty().then(|| "no load balancer has a rule".to_owned()),
    })?;
    Ok(exit::SUCCESS)
}

fn cells(row: &LoadBalancerRow) -> Vec<Cell> {
    let port = |port: u16| {
        if port == 0 {
            "any".to_owned()
        } else {
            port.to_string()
        }
    };
    let health = match row.health.as_deref() {
        Some("Up") => Cell::new(Tone::Good, "Up"),
        Some("Down") => Cell::new(Tone::Bad, "Down"),
        Some(other) => Cell::new(Tone::Notice, other),
        None => Cell::new(Tone::Faint, "-"),
    };
    vec![
        format!("{} ({})", row.load_balancer, row.sku).into(),
        format!("{} {}", row.frontend, row.private_ip_address).into(),
        row.rule.as_str().into(),
        row.protocol.into(),
        port(row.frontend_port).into(),
        row.backend.as_deref().unwrap_or("-").into(),
        port(row.backend_port).into(),
        health,
    ]
}
