//! One change of a hub with 500 spokes, from the declared state to tables that can be published.

mod support {
    pub(crate) mod cpu_time;
}

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use control::{Generation, compile, compile_after};
use criterion::{Criterion, criterion_group, criterion_main};
use model::change::{Operation, apply};
use model::{Loaded, Source};
use support::cpu_time::{CpuTime, criterion};

/// PEER-36: the limit of peerings of one VNet.
const SPOKES: usize = 500;

/// The hub is peered with all spokes but the last, which is peered in its own direction only.
fn lab() -> Loaded {
    let mut text =
        String::from("apiVersion: peerlane/v1\nkind: Lab\nname: hub\nprofile: azure-2025\nvnets:\n");
    let mut vms = String::from("vms:\n");
    let mut peerings = String::from("peerings:\n");
    let subnet = |name: &str, range: &str| {
        format!(
            "  {name}: {{ addressSpace: [{range}0.0/16], subnets: {{ s: {{ addressPrefix: {range}0.0/24 }} }} }}\n"
        )
    };
    text.push_str(&subnet("hub", "10.0."));
    vms.push_str("  hub-vm: { subnet: hub/s, privateIPAddress: 10.0.0.4 }\n");
    for spoke in 1..=SPOKES {
        let range = format!("{}.{}.", 10 + spoke / 256, spoke % 256);
        text.push_str(&subnet(&format!("s{spoke}"), &range));
        let _ = writeln!(
            vms,
            "  vm{spoke}: {{ subnet: s{spoke}/s, privateIPAddress: {range}0.4 }}"
        );
        let _ = match spoke {
            SPOKES => writeln!(peerings, "  - {{ name: back, from: s{spoke}, to: hub }}"),
            _ => writeln!(peerings, "  - hub <-> s{spoke}"),
        };
    }
    let name = String::from("hub.vnet.yaml");
    let text = format!("{text}{vms}{peerings}");
    match model::load(Source::Text { name, text }) {
        Ok(loaded) => loaded,
        Err(errors) => unreachable!("{errors}"),
    }
}

fn one_change(c: &mut Criterion<CpuTime>) {
    let Loaded { topology, config, .. } = lab();
    let peering = model::config::Peering {
        name: String::from("last"),
        from: String::from("hub"),
        to: format!("s{SPOKES}"),
        ..model::config::Peering::default()
    };
    let operations = [Operation::PutPeering {
        peering: Box::new(peering),
    }];
    let before = Generation::first(Arc::new(topology.clone()), compile(&topology, 1));
    let Ok(changed) = apply(&config, &operations, None) else {
        unreachable!("the hub takes a 500th peering");
    };
    let compiled = compile_after(&before.pieces, &changed.topology, 2);
    let after = before.next(Arc::new(changed.topology.clone()), compiled);
    let moved = after.snapshot.vnets.iter().filter(|vnet| vnet.generation == 2);
    assert_eq!(moved.count(), 2, "the hub and one spoke");

    let mut group = c.benchmark_group("one of 500 peerings");
    group.sample_size(20);
    group.bench_function("apply: checks", |bencher| {
        bencher.iter(|| apply(black_box(&config), &operations, None));
    });
    group.bench_function("compile all", |bencher| {
        bencher.iter(|| compile(black_box(&changed.topology), 2));
    });
    group.bench_function("compile after the one before", |bencher| {
        bencher.iter(|| compile_after(&before.pieces, black_box(&changed.topology), 2));
    });
    // The topology is the check's result and not copied by a change.
    let topology = Arc::new(changed.topology.clone());
    group.bench_function("compile and next generation", |bencher| {
        bencher.iter(|| {
            let compiled = compile_after(&before.pieces, &topology, 2);
            before.next(Arc::clone(&topology), black_box(compiled))
        });
    });
    group.finish();
}

criterion_group! { name = benches; config = criterion(); targets = one_change }
criterion_main!(benches);
