//! Topology (DIAG-09): what the lab consists of, and what belongs to what.

use model::Topology;
use model::topology::{NicIndex, NsgIndex, RouteTableIndex, VnetIndex};
use schemars::JsonSchema;
use serde::Serialize;

use super::{network_id, resource_id, vnet_of};

/// The body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// Names the operation.
    pub id: String,
    /// RFC 3339.
    pub created_date_time: String,
    pub last_modified: String,
    pub resources: Vec<Resource>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Resource {
    pub name: String,
    pub id: String,
    pub location: String,
    pub associations: Vec<Association>,
}

/// What it contains, or what it is associated with.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Association {
    pub name: String,
    pub resource_id: String,
    /// `Contains` or `Associated`.
    pub association_type: &'static str,
}

/// Every VNet, subnet, VM, NIC, NSG and route table, in that order. NSGs and route tables lie in the region of their first
/// user, as they must in Azure; one without users is nobody's and left out.
#[must_use]
pub fn layout(topology: &Topology, id: String, at: String) -> Layout {
    let view = View { topology };
    let all = 0..topology.nics.len();
    let mut resources: Vec<Resource> = Vec::new();
    for index in 0..topology.vnets.len() {
        resources.push(view.vnet(VnetIndex(index)));
        resources.extend(
            topology.vnets[index]
                .subnets
                .iter()
                .map(|subnet| view.subnet(subnet.0)),
        );
    }
    resources.extend((0..topology.vms.len()).filter_map(|vm| view.vm(vm)));
    resources.extend(all.map(|nic| view.nic(NicIndex(nic))));
    resources.extend((0..topology.nsgs.len()).filter_map(|nsg| view.nsg(NsgIndex(nsg))));
    resources.extend((0..topology.route_tables.len()).filter_map(|table| view.table(RouteTableIndex(table))));
    Layout {
        id,
        created_date_time: at.clone(),
        last_modified: at,
        resources,
    }
}

/// Objects by their names and ids.
struct View<'a> {
    topology: &'a Topology,
}

impl View<'_> {
    fn resource(&self, vnet: VnetIndex, name: &str, path: &str, associations: Vec<Association>) -> Resource {
        Resource {
            name: name.to_owned(),
            id: resource_id(self.topology, vnet, path),
            location: self.topology.vnets[vnet.0].location.clone(),
            associations,
        }
    }

    fn vnet(&self, index: VnetIndex) -> Resource {
        let vnet = &self.topology.vnets[index.0];
        let subnets = vnet.subnets.iter().map(|subnet| {
            self.to(
                "Contains",
                index,
                &self.topology.subnets[subnet.0].name,
                &self.subnet_path(subnet.0),
            )
        });
        let path = format!("Microsoft.Network/virtualNetworks/{}", vnet.name);
        self.resource(index, &vnet.name, &path, subnets.collect())
    }

    fn subnet(&self, index: usize) -> Resource {
        let subnet = &self.topology.subnets[index];
        let nsg = subnet.nsg.map(|nsg| self.to_nsg(subnet.vnet, nsg));
        let table = subnet.route_table.map(|table| self.to_table(subnet.vnet, table));
        let associations = nsg.into_iter().chain(table).collect();
        self.resource(subnet.vnet, &subnet.name, &self.subnet_path(index), associations)
    }

    fn vm(&self, index: usize) -> Option<Resource> {
        let vm = &self.topology.vms[index];
        let vnet = vnet_of(self.topology, *vm.nics.first()?);
        let nics = vm.nics.iter().map(|nic| {
            let name = &self.topology.nics[nic.0].name;
            let path = format!("Microsoft.Network/networkInterfaces/{name}");
            self.to("Contains", vnet_of(self.topology, *nic), name, &path)
        });
        let path = format!("Microsoft.Compute/virtualMachines/{}", vm.name);
        Some(self.resource(vnet, &vm.name, &path, nics.collect()))
    }

    fn nic(&self, index: NicIndex) -> Resource {
        let nic = &self.topology.nics[index.0];
        let vnet = vnet_of(self.topology, index);
        let subnet = &self.topology.subnets[nic.subnet.0].name;
        let subnet = self.to("Associated", vnet, subnet, &self.subnet_path(nic.subnet.0));
        let nsg = nic.nsg.map(|nsg| self.to_nsg(vnet, nsg));
        let path = format!("Microsoft.Network/networkInterfaces/{}", nic.name);
        self.resource(
            vnet,
            &nic.name,
            &path,
            std::iter::once(subnet).chain(nsg).collect(),
        )
    }

    fn nsg(&self, index: NsgIndex) -> Option<Resource> {
        let at_subnet = self
            .topology
            .subnets
            .iter()
            .find(|subnet| subnet.nsg == Some(index));
        let at_nic = self.topology.nics.iter().position(|nic| nic.nsg == Some(index));
        let vnet = at_subnet.map(|subnet| subnet.vnet);
        let vnet = vnet.or_else(|| at_nic.map(|nic| vnet_of(self.topology, NicIndex(nic))))?;
        let name = &self.topology.nsgs[index.0].name;
        let path = format!("Microsoft.Network/networkSecurityGroups/{name}");
        Some(self.resource(vnet, name, &path, Vec::new()))
    }

    fn table(&self, index: RouteTableIndex) -> Option<Resource> {
        let user = self
            .topology
            .subnets
            .iter()
            .find(|subnet| subnet.route_table == Some(index))?;
        let name = &self.topology.route_tables[index.0].name;
        let path = format!("Microsoft.Network/routeTables/{name}");
        Some(self.resource(user.vnet, name, &path, Vec::new()))
    }

    fn subnet_path(&self, index: usize) -> String {
        let subnet = &self.topology.subnets[index];
        let vnet = &self.topology.vnets[subnet.vnet.0].name;
        format!("Microsoft.Network/virtualNetworks/{vnet}/subnets/{}", subnet.name)
    }

    fn to(&self, association_type: &'static str, vnet: VnetIndex, name: &str, path: &str) -> Association {
        Association {
            name: name.to_owned(),
            resource_id: resource_id(self.topology, vnet, path),
            association_type,
        }
    }

    fn to_nsg(&self, vnet: VnetIndex, nsg: NsgIndex) -> Association {
        let name = &self.topology.nsgs[nsg.0].name;
        let resource_id = network_id(self.topology, vnet, &format!("networkSecurityGroups/{name}"));
        Association {
            name: name.clone(),
            resource_id,
            association_type: "Associated",
        }
    }

    fn to_table(&self, vnet: VnetIndex, table: RouteTableIndex) -> Association {
        let name = &self.topology.route_tables[table.0].name;
        let resource_id = network_id(self.topology, vnet, &format!("routeTables/{name}"));
        Association {
            name: name.clone(),
            resource_id,
            association_type: "Associated",
        }
    }
}
