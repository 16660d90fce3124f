//! Operations on a lab: what they lead to, and what refuses them.
#![expect(clippy::panic, reason = "a test may panic, its functions too")]

use model::change::{self, Changed, Operation};
use model::config::{Config, Peering};
use model::topology::PeeringState;
use model::{Loaded, Source};

fn lab(profile: &str, body: &str) -> Loaded {
    let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: case\nprofile: {profile}\n{body}");
    let name = "case.vnet.yaml".to_owned();
    model::load(Source::Text { name, text }).unwrap_or_else(|errors| panic!("{errors}"))
}

fn put(from: &str, to: &str) -> Operation {
    Operation::PutPeering {
        peering: Box::new(Peering {
            name: format!("{from}-to-{to}"),
            from: from.to_owned(),
            to: to.to_owned(),
            ..Peering::default()
        }),
    }
}

fn delete(from: &str, to: &str) -> Operation {
    Operation::DeletePeering {
        vnet: from.to_owned(),
        name: format!("{from}-to-{to}"),
    }
}

fn apply(config: &Config, operations: &[Operation]) -> Changed {
    change::apply(config, operations, None).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn states(changed: &Changed) -> Vec<PeeringState> {
    changed.topology.peerings.iter().map(|it| it.state).collect()
}

const TWO: &str = "vnets: { A: { addressSpace: [10.1.0.0/16] }, B: { addressSpace: [10.2.0.0/16] } }\n";

#[test]
fn a_peering_goes_through_its_states() {
    use PeeringState::{Connected, Disconnected, Initiated};
    let start = lab("azure-2025", TWO).config;
    let one = apply(&start, &[put("A", "B")]);
    assert_eq!(states(&one), [Initiated]);
    let both = apply(&one.config, &[put("B", "A")]);
    assert_eq!(states(&both), [Connected, Connected]);
    let left = apply(&both.config, &[delete("B", "A")]);
    assert_eq!(states(&left), [Disconnected]);
    let refusal = change::apply(&left.config, &[put("B", "A")], None).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.status()),
        ("RemotePeeringIsDisconnected", 400)
    );
    let updated = apply(&left.config, &[put("A", "B")]);
    assert_eq!(states(&updated), [Initiated]);
}

#[test]
fn a_new_file_is_a_sequence_of_operations() {
    let old = lab("azure-2025", &format!("{TWO}peerings: [A <-> B]\n"));
    let new = lab(
        "azure-2025",
        &format!("{TWO}peerings: [{{ name: A-to-B, from: A, to: B }}]\n"),
    );
    let changed = change::converge(&old.config, &new.config).unwrap();
    assert_eq!(states(&changed), [PeeringState::Disconnected]);
    let back = change::converge(&changed.config, &old.config).unwrap();
    assert_eq!(states(&back), [PeeringState::Connected; 2]);
}
