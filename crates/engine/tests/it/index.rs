//! The flow table's index against std's HashMap: what was put in is found, and nothing else, at any fill.

use std::collections::HashMap;

use engine::snapshot::PortId;
use engine::table::Table;
use packet::{FlowKey, Protocol};
use proptest::prelude::*;

const CAPACITY: u32 = 1200;

fn key(number: u16) -> (PortId, FlowKey) {
    let key = FlowKey {
        source: u128::from(number / 7),
        destination: u128::from(number % 7) << 64,
        source_port: number,
        destination_port: 1,
        protocol: Protocol::UDP,
    };
    (PortId(u32::from(number % 2)), key)
}

proptest! {
    #[test]
    fn it_holds_what_a_map_holds(
        steps in prop::collection::vec((any::<bool>(), 0..3000_u16), 0..4000),
        seed in any::<u64>(),
    ) {
        let mut table = Table::new(CAPACITY, seed);
        let mut model: HashMap<u16, u32> = HashMap::new();
        for (add, number) in steps {
            let (port, key) = key(number);
            let hash = table.hash(port, &key);
            let found = table.find(hash, port, &key);
            prop_assert_eq!(found, model.get(&number).copied());
            match found {
                None if add => {
                    let slot = table.insert(hash, port, &key);
                    prop_assert_eq!(slot.is_some(), model.len() < CAPACITY as usize);
                    model.extend(slot.map(|slot| (number, slot)));
                }
                Some(slot) if !add => {
                    table.remove(slot);
                    model.remove(&number);
                }
                _ => {}
            }
            prop_assert_eq!(table.used() as usize, model.len());
        }
        for number in 0..3000 {
            let (port, key) = key(number);
            prop_assert_eq!(table.find(table.hash(port, &key), port, &key), model.get(&number).copied());
        }
    }
}

#[test]
fn the_seed_decides_the_order() {
    let hashes = |seed: u64| -> Vec<u64> {
        let table = Table::new(1, seed);
        (0..64)
            .map(|number| table.hash(key(number).0, &key(number).1))
            .collect()
    };
    assert_eq!(hashes(1), hashes(1));
    assert!(hashes(1).iter().zip(hashes(2)).all(|(one, other)| *one != other));
    // No word of the key is left out, and none cancels another.
    let base = FlowKey {
        source: 0,
        destination: 0,
        source_port: 0,
        destination_port: 0,
        protocol: Protocol(0),
    };
    let mut variants = vec![(PortId(0), base), (PortId(1), base)];
    for bit in 0..128 {
        variants.push((
            PortId(0),
            FlowKey {
                source: 1 << bit,
                ..base
            },
        ));
        variants.push((
            PortId(0),
            FlowKey {
                destination: 1 << bit,
                ..base
            },
        ));
    }
    for bit in 0..16 {
        variants.push((
            PortId(0),
            FlowKey {
                source_port: 1 << bit,
                ..base
            },
        ));
        variants.push((
            PortId(0),
            FlowKey {
                destination_port: 1 << bit,
                ..base
            },
        ));
    }
    variants.push((
        PortId(0),
        FlowKey {
            protocol: Protocol(1),
            ..base
        },
    ));
    let table = Table::new(1, 3);
    let mut hashes: Vec<u64> = variants
        .iter()
        .map(|(port, key)| table.hash(*port, key))
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), variants.len());
}
