//! What chance does on links, over many packets on a virtual clock. Every seed was chosen once and never looked for.

use engine::Verdict;
use engine::snapshot::{Chance, Distribution, Jitter, Link, Loss};
use packet::{Burst, VnetHeader};

use crate::support::*;

const MS: u64 = 1_000_000;
const LATENCY_NS: u64 = 50 * MS;
const DEVIATION_NS: u64 = 2 * MS;
/// Far enough apart that none has to wait for the one before.
const APART_NS: u64 = 100 * MS;
/// A Kolmogorov-Smirnov statistic times the root of the sample is more than this with probability 1 %.
const KOLMOGOROV: f64 = 1.628;
/// Values of the chi-square distribution that are exceeded with probability 1 %, by degrees of freedom.
const CHI_SQUARE_1: f64 = 6.635;
const CHI_SQUARE_20: f64 = 37.566;

/// Packets of each test: a million with `scripts/test full`, which takes a minute, else a part of them.
fn many() -> usize {
    if std::env::var_os("PEERLANE_FULL").is_some() {
        1_000_000
    } else {
        100_000
    }
}

/// For each packet: how long it took; None: lost.
fn crossings(link: Link, count: usize) -> Vec<Option<u64>> {
    let mut lab = Lab::new();
    *lab.link(A_TO_HUB) = link;
    lab.publish();
    let bytes = udp(WEB_IP, NVA_IP, (1, 2));
    let (mut sent, mut arrived) = (Burst::new(1), Burst::new(1));
    let mut verdicts = Vec::new();
    let port = lab.nic(WEB).port;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        lab.now_ns += APART_NS;
        sent.clear();
        assert!(sent.push(&bytes, VnetHeader::default()));
        lab.worker
            .process(&lab.snapshot, lab.now_ns, port, &mut sent, &mut verdicts);
        let due_ns = lab.worker.next_arrival_ns();
        assert_eq!(verdicts[0] == Verdict::UnderWay, due_ns.is_some());
        if let Some(due_ns) = due_ns {
            lab.worker
                .arrive(&lab.snapshot, due_ns, &mut arrived, &mut verdicts);
            assert_eq!(arrived.length, 1);
        }
        all.push(due_ns.map(|due_ns| due_ns - lab.now_ns));
    }
    all
}

fn jittery(distribution: Distribution, correlation: f64) -> Link {
    Link {
        seed: 1,
        latency_ns: LATENCY_NS,
        jitter: Some(Jitter {
            deviation_ns: DEVIATION_NS,
            distribution,
            correlation,
        }),
        ..Link::default()
    }
}

/// Deviations from the latency in units of what was asked for.
fn delays(link: Link) -> Vec<f64> {
    let crossings = crossings(link, many()).into_iter().flatten();
    let delays = crossings.map(|ns| (ns as f64 - LATENCY_NS as f64) / DEVIATION_NS as f64);
    let delays: Vec<f64> = delays.collect();
    assert_eq!(delays.len(), many());
    delays
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}

/// Mean, standard deviation within 3 %, and a Kolmogorov-Smirnov test at 1 %.
fn assert_distributed(what: &str, distribution: Distribution, below: impl Fn(f64) -> f64) {
    let mut values = delays(jittery(distribution, 0.0));
    let (mean, deviation) = mean_and_deviation(&values);
    assert!(mean.abs() < 0.01, "{what}: mean {mean}");
    assert!((deviation - 1.0).abs() < 0.03, "{what}: deviation {deviation}");
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let distances = values.iter().enumerate().map(|(index, &value)| {
        let expected = below(value);
        let above = (index + 1) as f64 / count - expected;
        above.max(expected - index as f64 / count)
    });
    let statistic = distances.fold(0.0, f64::max) * count.sqrt();
    println!(
        "{what}: of {count}, mean {mean:.5}, deviation {deviation:.5}, Kolmogorov-Smirnov {statistic:.3}"
    );
    assert!(statistic < KOLMOGOROV, "{what}: {statistic}");
}

#[test]
fn normal_jitter_is_normal() {
    assert_distributed("normal", Distribution::Normal, |value| {
        1.0 - 0.5 * libm::erfc(value / 2.0_f64.sqrt())
    });
}

#[test]
fn uniform_jitter_is_uniform() {
    let half = 3.0_f64.sqrt();
    assert_distributed("uniform", Distribution::Uniform, |value| {
        ((value + half) / (2.0 * half)).clamp(0.0, 1.0)
    });
}

/// Of shape 5: mean 5/4, variance 5/48.
#[test]
fn pareto_jitter_is_paretian() {
    assert_distributed("pareto", Distribution::Pareto, |value| {
        let value = 1.25 + value * (5.0_f64 / 48.0).sqrt();
        1.0 - value.max(1.0).powi(-5)
    });
}

/// Two humps: half of the packets early, half late, and between them few.
#[test]
fn jitter_of_a_table_follows_the_table() {
    // Joined by lines, each of which has a fifth of all.
    let quantiles: [f64; 6] = [-1.5, -1.0, -0.5, 0.5, 1.0, 1.5];
    let (mut mean, mut square) = (0.0, 0.0);
    for line in quantiles.windows(2) {
        let (a, b) = (line[0], line[1]);
        mean += (a + b) / 10.0;
        square += (a * a + a * b + b * b) / 15.0;
    }
    let scale = (square - mean * mean).sqrt();
    let quantiles = quantiles.map(|it| (it - mean) / scale);
    assert_distributed("table", Distribution::Table(quantiles.into()), |value| {
        let parts = quantiles
            .windows(2)
            .map(|line| ((value - line[0]) / (line[1] - line[0])).clamp(0.0, 1.0));
        parts.sum::<f64>() / 5.0
    });
}

#[test]
fn correlated_jitter_is_as_wide_and_each_delay_like_the_last() {
    let values = delays(jittery(Distribution::Uniform, 0.0));
    let free = correlation(&values);
    assert!(free.abs() < 0.01, "{free}");
    let values = delays(jittery(Distribution::Normal, 0.6));
    let (_, deviation) = mean_and_deviation(&values);
    assert!((deviation - 1.0).abs() < 0.03, "{deviation}");
    let correlated = correlation(&values);
    assert!((correlated - 0.6).abs() < 0.01, "{correlated}");
}

/// Of each value and the next.
fn correlation(values: &[f64]) -> f64 {
    let (mean, deviation) = mean_and_deviation(values);
    let products = values.windows(2).map(|two| (two[0] - mean) * (two[1] - mean));
    products.sum::<f64>() / (values.len() - 1) as f64 / deviation.powi(2)
}

#[test]
fn losses_are_as_many_as_asked_for_and_know_nothing_of_each_other() {
    let link = Link {
        seed: 2,
        latency_ns: MS,
        loss: Loss::Each(Chance::new(0.01)),
        ..Link::default()
    };
    let lost: Vec<bool> = crossings(link, many()).iter().map(Option::is_none).collect();
    let (n, p) = (lost.len() as f64, 0.01);
    let count = lost.iter().filter(|lost| **lost).count() as f64;
    let chi_square = (count - n * p).powi(2) / (n * p * (1.0 - p));
    println!("1 % loss: {count} of {n}, chi-square {chi_square:.3}");
    assert!(chi_square < CHI_SQUARE_1, "{count} lost: {chi_square}");
    // Of those after a loss as many are lost.
    let after = lost.windows(2).filter(|two| two[0]);
    let (after, both) = after.fold((0.0, 0.0), |(all, both), two| {
        (all + 1.0, both + f64::from(u8::from(two[1])))
    });
    let chi_square = (both - after * p).powi(2) / (after * p * (1.0 - p));
    assert!(chi_square < CHI_SQUARE_1, "{both} of {after}: {chi_square}");
}

#[test]
fn bursts_of_losses_are_as_long_and_as_many_as_asked_for() {
    let (enter, leave) = (0.01, 0.2);
    let link = Link {
        seed: 3,
        latency_ns: MS,
        loss: Loss::Bursts {
            enter_bad: Chance::new(enter),
            leave_bad: Chance::new(leave),
            loss_bad: Chance::ALWAYS,
            loss_good: Chance::NEVER,
        },
        ..Link::default()
    };
    let lost: Vec<bool> = crossings(link, many()).iter().map(Option::is_none).collect();
    // A burst ends with a packet that passes, and so is one stay in the bad state: its length is geometric.
    let mut lengths = [0.0; 21];
    for burst in lost.split(|lost| !lost).filter(|burst| !burst.is_empty()) {
        lengths[burst.len().min(21) - 1] += 1.0;
    }
    let bursts: f64 = lengths.iter().sum();
    let chi_square: f64 = (0..21)
        .map(|index| {
            // The last class has all that are longer too.
            let ends = if index == 20 { 1.0 } else { leave };
            let expected = bursts * (1.0 - leave).powi(index) * ends;
            (lengths[index as usize] - expected).powi(2) / expected
        })
        .sum();
    println!("{bursts} bursts: chi-square of their lengths, 20 degrees of freedom, {chi_square:.3}");
    assert!(chi_square < CHI_SQUARE_20, "{chi_square}: {lengths:?}");
    // Each good packet begins one or not.
    let good = lost.iter().filter(|lost| !**lost).count() as f64;
    let expected = good * enter / (1.0 - enter);
    // Of ten thousand, or of a thousand.
    assert!(
        (bursts / expected - 1.0).abs() < 4.0 / expected.sqrt(),
        "{bursts}, not {expected}"
    );
}

#[test]
fn in_both_states_packets_are_lost_as_asked_for() {
    let link = Link {
        seed: 4,
        latency_ns: MS,
        loss: Loss::Bursts {
            enter_bad: Chance::new(0.1),
            leave_bad: Chance::new(0.3),
            loss_bad: Chance::new(0.5),
            loss_good: Chance::new(0.02),
        },
        ..Link::default()
    };
    let crossings = crossings(link, many());
    let lost = crossings.iter().filter(|it| it.is_none()).count() as f64 / many() as f64;
    // A quarter of the time is bad.
    let expected = 0.25 * 0.5 + 0.75 * 0.02;
    assert!((lost / expected - 1.0).abs() < 0.03, "{lost}, not {expected}");
}
