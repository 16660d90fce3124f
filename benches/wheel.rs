//! The heads of many queues in order of time, one out and its next one in: our timing wheel against std's heap.

mod support {
    pub(crate) mod cpu_time;
    pub(crate) mod random;
}

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::wheel::Wheel;
use support::cpu_time::{CpuTime, criterion};
use support::random::Random;

/// Packets of a run.
const PACKETS: u32 = 65_536;

/// How long after the one before the next packet of a queue arrives: about a microsecond for each queue, so that
/// all together have a million packets a second.
fn gaps_ns(queues: u32) -> Vec<u64> {
    let mut random = Random::new(u64::from(queues));
    let mut around = || u64::from(random.below(2000) * queues);
    let gaps: Vec<u64> = (0..PACKETS).map(|_| around()).collect();
    // Some of the far end of a link's latency.
    let far = *random.pick(&[30_000_000, 50_000_000]);
    gaps.iter()
        .enumerate()
        .map(|(index, gap)| if index % 64 == 0 { gap + far } else { *gap })
        .collect()
}

fn heads(criterion: &mut Criterion<CpuTime>) {
    for queues in [1, 16, 256, 4096] {
        let gaps_ns = gaps_ns(queues);
        let (mut wheel, mut heap) = (Wheel::new(), BinaryHeap::new());
        for queue in 0..queues {
            wheel.push(gaps_ns[queue as usize], queue);
            heap.push(Reverse((gaps_ns[queue as usize], queue)));
        }
        for gap_ns in &gaps_ns {
            let next = wheel.pop(u64::MAX);
            assert_eq!(next, heap.pop().map(|Reverse(head)| head));
            if let Some((at_ns, queue)) = next {
                wheel.push(at_ns + gap_ns, queue);
                heap.push(Reverse((at_ns + gap_ns, queue)));
            }
        }
        let mut group = criterion.benchmark_group(format!("heads of {queues} queues"));
        group
            .throughput(Throughput::Elements(u64::from(PACKETS)))
            .sample_size(20);
        group.bench_function("Wheel", |bencher| {
            bencher.iter(|| {
                for gap_ns in &gaps_ns {
                    if let Some((at_ns, queue)) = wheel.pop(u64::MAX) {
                        black_box(wheel.next_ns());
                        wheel.push(at_ns + gap_ns, queue);
                    }
                }
            });
        });
        group.bench_function("BinaryHeap", |bencher| {
            bencher.iter(|| {
                for gap_ns in &gaps_ns {
                    if let Some(Reverse((at_ns, queue))) = heap.pop() {
                        black_box(heap.peek());
                        heap.push(Reverse((at_ns + gap_ns, queue)));
                    }
                }
            });
        });
        group.finish();
    }
}

criterion_group! { name = benches; config = criterion(); targets = heads }
criterion_main!(benches);
