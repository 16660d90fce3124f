//! Application security groups: they have a name and nothing else.

use model::change::Operation;

use super::kinds::{ASGS, By, Kind, NETWORK};

pub(super) const KIND: Kind = Kind {
    provider: NETWORK,
    name: ASGS,
    owned: &[],
    children: &[],
    carried_out: By::Model {
        keys: |lab| lab.config.application_security_groups.keys().cloned().collect(),
        show: |_, _| serde_json::Map::new(),
        put: |_, target, _| {
            Ok(vec![Operation::PutAsg {
                name: target.key.clone(),
            }])
        },
        delete: |_, key| Ok(vec![Operation::DeleteAsg { name: key.to_owned() }]),
    },
};
