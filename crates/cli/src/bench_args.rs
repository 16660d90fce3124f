//! The arguments of `bench` and of its ends.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};

use crate::args::{IoArgs, LAB_HELP};
use crate::bench::Congestion;
use crate::bench::drive::Test;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[arg(help = LAB_HELP)]
    pub(crate) lab: Option<String>,
    /// Who sends: a VM, a network interface, or `internet` [default: as in the first Allow of the lab's `tests:`].
    #[arg(long, requires = "to")]
    pub(crate) from: Option<String>,
    /// Who receives.
    #[arg(long, requires = "from")]
    pub(crate) to: Option<String>,
    /// The port that the receiver listens on, for TCP and UDP.
    #[arg(long, default_value_t = 5201, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// What to measure [default: everything].
    #[arg(long = "test", value_enum)]
    pub(crate) tests: Vec<Test>,
    /// How often each test runs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    #[command(flatten)]
    pub(crate) times: BenchTimes,
    #[command(flatten)]
    pub(crate) io: IoArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct BenchTimes {
    /// How long a run is measured.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How long it runs before.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub(crate) warm_up: f64,
}

#[derive(Debug, Args)]
pub(crate) struct BenchEndArgs {
    /// TCP's congestion control instead of the machine's, which may be one that sends no faster than it measures.
    #[arg(long, value_enum)]
    pub(crate) congestion: Option<Congestion>,
    #[command(subcommand)]
    pub(crate) end: BenchEnd,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchEnd {
    /// Receive and count, until standard input ends.
    Sink { address: SocketAddr },
    /// Run a test against a sink, and print what was measured.
    Drive {
        sink: SocketAddr,
        #[arg(value_enum)]
        test: Test,
        #[arg(long)]
        source: Option<IpAddr>,
        #[command(flatten)]
        times: BenchTimes,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0 to 3600".to_owned()),
    }
}
