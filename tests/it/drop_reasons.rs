//! The reasons a lab file may name are the engine's, all of them and in its order.

#[test]
fn a_lab_file_names_the_reasons_of_the_engine() {
    let names: Vec<&str> = engine::DropReason::ALL
        .iter()
        .map(|reason| reason.name())
        .collect();
    assert_eq!(model::DROP_REASONS, names);
}
