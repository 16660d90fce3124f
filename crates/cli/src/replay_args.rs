//! The command line of `replay`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(override_usage = "peerlane replay [OPTIONS] <FILE> <LAB>\n       \
                            peerlane replay [OPTIONS] --generate <RATE> --from <VM> --to <VM> <LAB>")]
pub(crate) struct ReplayArgs {
    /// A pcap or pcapng file (`-`: standard input; none with --generate), and a lab file.
    #[arg(num_args = 1..=2, required = true, value_name = "FILE LAB")]
    pub(crate) operands: Vec<String>,
    /// Seed of everything random, instead of the lab's own.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Write all that happens as pcapng, with the times of the lab's clock: every packet at its ports and links, with its
    /// fate. `-`: to standard output, without the summary.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Who sends packets with a source address that nobody in the lab has, or several; without it they are skipped.
    #[arg(long, value_name = "VM")]
    pub(crate) vm: Option<String>,
    /// Send UDP datagrams instead of a file's packets: so many a second, such as 10k.
    #[arg(long, value_name = "RATE", value_parser = rate, requires_all = ["from", "to"])]
    pub(crate) generate: Option<u64>,
    /// Who sends what is generated: a VM, a network interface or an address.
    #[arg(long, value_name = "VM", requires = "generate")]
    pub(crate) from: Option<String>,
    /// Whom it is sent to.
    #[arg(long, value_name = "VM", requires = "generate")]
    pub(crate) to: Option<String>,
    /// For how long it is generated, such as 10s or 500ms.
    #[arg(long = "for", value_name = "TIME", value_parser = nanoseconds, default_value = "1s")]
    pub(crate) duration: u64,
    /// IP bytes of each generated datagram.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(48..=1500), default_value = "100")]
    pub(crate) size: u16,
}

/// Packets per second.
fn rate(text: &str) -> Result<u64, String> {
    let (number, scale) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1000),
        None => match text.strip_suffix('M') {
            Some(number) => (number, 1_000_000),
            None => (text, 1),
        },
    };
    let rate = number
        .parse::<u64>()
        .ok()
        .and_then(|rate| rate.checked_mul(scale));
    rate.filter(|rate| (1..=1_000_000_000).contains(rate))
        .ok_or_else(|| "packets per second, such as 500, 10k or 1M".to_owned())
}

fn nanoseconds(text: &str) -> Result<u64, String> {
    model::config::Time::read(text)
        .map(|time| time.0)
        .map_err(str::to_owned)
}
