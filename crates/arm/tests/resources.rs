//! The ARM API against a lab without packets: requests as the clients send them, and what comes back.
#![expect(clippy::panic, reason = "a test may panic, its functions too")]

use std::sync::Arc;

use arm::{Change, Error, Method, Reply, Request, View, plan_request};
use control::Generation;
use model::{Config, Source};
use serde_json::{Value, json};

const SUB: &str = "/subscriptions/00000000-0000-0000-0000-000000000000";

/// A lab, and what its daemon does with requests.
struct Service {
    config: Config,
    generation: Generation,
}

impl Service {
    fn new(body: &str) -> Self {
        let text = format!("apiVersion: peerlane/v1\nkind: Lab\nname: lab\nprofile: azure-2025\n{body}");
        let name = "lab.vnet.yaml".to_owned();
        let loaded = model::load(Source::Text { name, text }).unwrap_or_else(|errors| panic!("{errors}"));
        let compiled = control::compile(&loaded.topology, 1);
        Self {
            config: loaded.config,
            generation: Generation::first(Arc::new(loaded.topology), compiled),
        }
    }

    fn plan(&self, request: &Request) -> Result<Reply, Error> {
        let view = View {
            config: &self.config,
            generation: &self.generation,
            now: "2026-01-01T00:00:00Z",
        };
        plan_request(request, &view)
    }

    fn ask(&mut self, method: Method, path: &str, body: Value) -> Result<(u16, Value), Error> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = if path.starts_with("/subscriptions") {
            path.to_owned()
        } else {
            format!("{SUB}/resourceGroups/{path}")
        };
        let query = query
            .split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = Request {
            method,
            path: path
                .split('/')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect(),
            query: query.into_iter().collect(),
            body,
            principal: None,
            origin: "https://127.0.0.1:8943".to_owned(),
        };
        match self.plan(&request)? {
            Reply::Answer(answer) => Ok((answer.status, answer.body.unwrap_or_default())),
            Reply::Probe(_) => Ok((0, Value::Null)),
            Reply::Change(change) => self.change(change, &request),
        }
    }

    fn change(&mut self, change: Change, request: &Request) -> Result<(u16, Value), Error> {
        let changed = model::change::apply(&self.config, &change.operations, None)?;
        let compiled = control::compile(&changed.topology, 1);
        self.generation = self.generation.next(Arc::new(changed.topology), compiled);
        self.config = changed.config;
        let Some(path) = change.show else {
            return Ok((change.status, Value::Null));
        };
        let get = Request {
            method: Method::Get,
            path,
            body: Value::Null,
            query: Vec::new(),
            ..request.clone()
        };
        match self.plan(&get)? {
            Reply::Answer(answer) => Ok((change.status, answer.body.unwrap_or_default())),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, path: &str, body: Value) -> Value {
        match self.ask(Method::Put, path, body) {
            Ok((200 | 201, body)) => body,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn get(&mut self, path: &str) -> Value {
        match self.ask(Method::Get, path, Value::Null) {
            Ok((200, body)) => body,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn delete(&mut self, path: &str) {
        self.ask(Method::Delete, path, Value::Null)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// The status and the code of a refusal.
    fn refused(&mut self, method: Method, path: &str, body: Value) -> (u16, String) {
        match self.ask(method, path, body) {
            Err(error) => (error.status, error.code),
            other => panic!("{path}: {other:?}"),
        }
    }
}

fn net(kind: &str) -> String {
    format!("g/providers/Microsoft.Network/{kind}")
}

fn id(path: &str) -> Value {
    json!({ "id": format!("{SUB}/resourceGroups/{path}") })
}

/// A group with two VNets, each with a subnet.
fn two_vnets() -> Service {
    let mut service = Service::new("location: eastus\nresources: { g: { location: eastus } }\n");
    for (name, net) in [("v1", "10.1"), ("v2", "10.2")] {
        let body = json!({ "location": "East US", "tags": { "a": "b" }, "properties": {
            "addressSpace": { "addressPrefixes": [format!("{net}.0.0/16")] },
            "dhcpOptions": { "dnsServers": ["10.1.0.9"] },
            "subnets": [{ "name": "s", "properties": { "addressPrefix": format!("{net}.0.0/24") } }] } });
        service.put(&self::net(&format!("virtualNetworks/{name}")), body);
    }
    service
}

fn peering(to: &str) -> Value {
    json!({ "properties": { "remoteVirtualNetwork": id(&net(&format!("virtualNetworks/{to}"))),
        "allowVirtualNetworkAccess": true, "peeringState": "Connected", "id": null } })
}

fn nic(service: &mut Service, name: &str, vnet: &str) -> Value {
    let body = json!({ "location": "eastus", "properties": { "ipConfigurations": [{ "name": "ip", "properties": {
        "privateIPAllocationMethod": "Dynamic", "subnet": id(&net(&format!("virtualNetworks/{vnet}/subnets/s"))) } }] } });
    service.put(&net(&format!("networkInterfaces/{name}")), body)
}

fn vm(service: &mut Service, name: &str, nic: &str) -> Value {
    let body = json!({ "location": "eastus", "properties": {
        "hardwareProfile": { "vmSize": "Standard_D2_v5" },
        "osProfile": { "computerName": name, "adminUsername": "u", "adminPassword": "secret!" },
        "networkProfile": { "networkInterfaces": [id(&net(&format!("networkInterfaces/{nic}")))] } } });
    service.put(
        &format!("g/providers/Microsoft.Compute/virtualMachines/{name}"),
        body,
    )
}

#[test]
fn a_vnet_comes_back_as_the_service_writes_it() {
    let mut service = two_vnets();
    let body = service.get("G/Providers/microsoft.network/VIRTUALNETWORKS/V1");
    assert_eq!(body["name"], "v1");
    assert_eq!(
        body["id"],
        format!("{SUB}/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v1")
    );
    assert_eq!(body["type"], "Microsoft.Network/virtualNetworks");
    assert_eq!(body["location"], "eastus");
    assert_eq!(body["tags"], json!({ "a": "b" }));
    assert_eq!(body["properties"]["provisioningState"], "Succeeded");
    assert_eq!(body["properties"]["dhcpOptions"]["dnsServers"][0], "10.1.0.9");
    let subnet = &body["properties"]["subnets"][0];
    assert_eq!(subnet["type"], "Microsoft.Network/virtualNetworks/subnets");
    assert_eq!(subnet["etag"], body["etag"]);
    assert_eq!(*subnet, service.get(&net("virtualNetworks/v1/subnets/s")));
    // A PUT without subnets keeps them; what a read gave back changes nothing.
    let again = service.put(&net("virtualNetworks/v1"), body.clone());
    assert_eq!(again, body);
    let mut without = body.clone();
    without["properties"].as_object_mut().unwrap().remove("subnets");
    assert_eq!(
        service.put(&net("virtualNetworks/v1"), without)["properties"]["subnets"][0]["name"],
        "s"
    );
    let list = service.get(&format!("{SUB}/providers/Microsoft.Network/virtualNetworks"));
    assert_eq!(list["value"].as_array().map(Vec::len), Some(2));
    let tagged = service.ask(
        Method::Patch,
        &net("virtualNetworks/v1"),
        json!({ "tags": { "x": "y" } }),
    );
    let tagged = tagged.unwrap().1;
    assert_eq!(tagged["tags"], json!({ "x": "y" }));
    assert_ne!(tagged["etag"], body["etag"]);
    assert_eq!(service.config.resources.len(), 3);
}

/// Shows: PEER-03, PEER-04, PEER-05, PEER-06, PEER-08, PEER-16, PEER-17.
#[test]
fn peerings_go_through_their_states_by_requests() {
    let mut service = two_vnets();
    let [one, two] = ["v1", "v2"].map(|v| net(&format!("virtualNetworks/{v}/virtualNetworkPeerings/p")));
    let first = service.put(&one, peering("v2"));
    assert_eq!(first["properties"]["peeringState"], "Initiated");
    assert_eq!(
        service.put(&two, peering("v1"))["properties"]["peeringState"],
        "Connected"
    );
    let first = service.get(&one);
    assert_eq!(first["properties"]["peeringState"], "Connected");
    assert_eq!(first["properties"]["peeringSyncLevel"], "FullyInSync");
    assert_eq!(
        first["properties"]["remoteAddressSpace"]["addressPrefixes"],
        json!(["10.2.0.0/16"])
    );
    assert_eq!(
        first["properties"]["resourceGuid"],
        service.get(&two)["properties"]["resourceGuid"]
    );
    // The space of v2 grows: v2's own peering says so, v1's is to be synchronised.
    let mut grown = service.get(&net("virtualNetworks/v2"));
    grown["properties"]["addressSpace"]["addressPrefixes"] = json!(["10.2.0.0/16", "10.12.0.0/16"]);
    service.put(&net("virtualNetworks/v2"), grown);
    assert_eq!(
        service.get(&two)["properties"]["peeringSyncLevel"],
        "RemoteNotInSync"
    );
    assert_eq!(
        service.get(&one)["properties"]["peeringSyncLevel"],
        "LocalNotInSync"
    );
    let synced = service.put(&format!("{one}?syncRemoteAddressSpace=true"), peering("v2"));
    assert_eq!(synced["properties"]["peeringSyncLevel"], "FullyInSync");
    assert_eq!(
        synced["properties"]["remoteAddressSpace"]["addressPrefixes"][1],
        "10.12.0.0/16"
    );
    service.delete(&two);
    assert_eq!(service.get(&one)["properties"]["peeringState"], "Disconnected");
    let (status, code) = service.refused(Method::Put, &two, peering("v1"));
    assert_eq!((status, code.as_str()), (400, "RemotePeeringIsDisconnected"));
    assert_eq!(
        service.put(&one, peering("v2"))["properties"]["peeringState"],
        "Initiated"
    );
    service.delete(&one);
    assert_eq!(
        service.refused(Method::Get, &one, Value::Null),
        (404, "NotFound".to_owned())
    );
}

#[test]
fn a_vm_has_the_nics_its_body_names_and_leaves_them_behind() {
    let mut service = two_vnets();
    let made = nic(&mut service, "n1", "v1");
    let ip = &made["properties"]["ipConfigurations"][0];
    assert_eq!(
        (&ip["name"], &ip["properties"]["privateIPAddress"]),
        (&json!("ip"), &json!("10.1.0.4"))
    );
    assert_eq!(service.generation.topology.nics.len(), 0);
    let effective = net("networkInterfaces/n1/effectiveRouteTable");
    assert_eq!(
        service.refused(Method::Post, &effective, Value::Null).1,
        "Sim.ROUTE-39"
    );
    let body = vm(&mut service, "web", "n1");
    assert_eq!(body["properties"]["hardwareProfile"]["vmSize"], "Standard_D2_v5");
    assert!(!body.to_string().contains("secret"), "{body}");
    assert!(!model::export(&service.config).unwrap().contains("secret"));
    assert_eq!(service.generation.topology.vms[0].name, "web");
    let attached = service.get(&net("networkInterfaces/n1"));
    assert!(
        attached["properties"]["virtualMachine"]["id"]
            .as_str()
            .unwrap()
            .ends_with("virtualMachines/web")
    );
    assert_eq!(
        service
            .refused(Method::Delete, &net("networkInterfaces/n1"), Value::Null)
            .1,
        "NicInUse"
    );
    let (_, routes) = service.ask(Method::Post, &effective, Value::Null).unwrap();
    assert_eq!(routes["value"][0]["nextHopType"], "VnetLocal");
    let expanded = service.get("g/providers/Microsoft.Compute/virtualMachines/web?$expand=instanceView");
    assert_eq!(
        expanded["properties"]["instanceView"]["statuses"][1]["code"],
        "PowerState/running"
    );
    // A second NIC gets the next address; a group of the subnet is in use.
    nic(&mut service, "n2", "v1");
    let (status, code) = service.refused(Method::Delete, &net("virtualNetworks/v1/subnets/s"), Value::Null);
    assert_eq!((status, code.as_str()), (400, "InUseSubnetCannotBeDeleted"));
    service.delete("g/providers/Microsoft.Compute/virtualMachines/web");
    assert_eq!(service.generation.topology.vms.len(), 0);
    let left = service.get(&net("networkInterfaces/n1"));
    assert_eq!(
        left["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"],
        "10.1.0.4"
    );
    service.delete(&net("networkInterfaces/n1"));
    service.delete(&net("networkInterfaces/n2"));
    service.delete(&net("virtualNetworks/v1"));
    let left: Vec<&String> = service.config.resources.keys().collect();
    assert_eq!(left, ["g", "g/Microsoft.Network/virtualNetworks/v2"]);
}

#[test]
fn rules_and_routes_change_one_by_one() {
    let mut service = two_vnets();
    service.put(&net("networkSecurityGroups/nsg"), json!({ "location": "eastus" }));
    let rule = json!({ "properties": { "priority": 100, "direction": "inbound", "access": "deny", "protocol": "TCP",
        "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "80" } });
    let made = service.put(&net("networkSecurityGroups/nsg/securityRules/no"), rule.clone());
    assert_eq!(made["properties"]["protocol"], "Tcp");
    let body = service.get(&net("networkSecurityGroups/nsg"));
    assert_eq!(
        body["properties"]["defaultSecurityRules"]
            .as_array()
            .map(Vec::len),
        Some(6)
    );
    let twice = service.refused(
        Method::Put,
        &net("networkSecurityGroups/nsg/securityRules/other"),
        rule,
    );
    assert_eq!(twice, (400, "SecurityRuleConflict".to_owned()));
    service.put(&net("routeTables/rt"), json!({ "location": "eastus" }));
    let route = json!({ "properties": { "addressPrefix": "10.9.0.0/16", "nextHopType": "VirtualAppliance",
        "nextHopIpAddress": "10.1.0.5" } });
    service.put(&net("routeTables/rt/routes/r"), route);
    let subnet = json!({ "properties": { "addressPrefix": "10.1.0.0/24",
        "networkSecurityGroup": id(&net("networkSecurityGroups/nsg")), "routeTable": id(&net("routeTables/rt")) } });
    let subnet = service.put(&net("virtualNetworks/v1/subnets/s"), subnet);
    assert!(
        subnet["properties"]["routeTable"]["id"]
            .as_str()
            .unwrap()
            .ends_with("routeTables/rt")
    );
    assert_eq!(
        service
            .refused(Method::Delete, &net("routeTables/rt"), Value::Null)
            .1,
        "InUseRouteTableCannotBeDeleted"
    );
    assert_eq!(
        service
            .refused(Method::Delete, &net("networkSecurityGroups/nsg"), Value::Null)
            .1,
        "InUseNetworkSecurityGroupCannotBeDeleted"
    );
    service.delete(&net("networkSecurityGroups/nsg/securityRules/no"));
    let body = service.get(&net("networkSecurityGroups/nsg"));
    assert_eq!(body["properties"]["securityRules"], json!([]));
    assert!(
        body["properties"]["subnets"][0]["id"]
            .as_str()
            .unwrap()
            .ends_with("v1/subnets/s")
    );
}

#[test]
fn refusals_have_the_codes_of_the_service() {
    let mut service = two_vnets();
    let vnet = |space: &str, subnet: &str| {
        json!({ "location": "eastus", "properties": { "addressSpace": { "addressPrefixes": [space] },
            "subnets": [{ "name": "s", "properties": { "addressPrefix": subnet } }] } })
    };
    let p = |v: &str| net(&format!("virtualNetworks/{v}/virtualNetworkPeerings/p"));
    service.put(&net("virtualNetworks/same"), vnet("10.1.0.0/16", "10.1.0.0/24"));
    let table = [
        (
            Method::Get,
            net("virtualNetworks/none"),
            Value::Null,
            404,
            "ResourceNotFound",
        ),
        (
            Method::Get,
            "none/providers/Microsoft.Network/virtualNetworks/v1".into(),
            Value::Null,
            404,
            "ResourceGroupNotFound",
        ),
        (
            Method::Put,
            net("virtualNetworks/none/subnets/s"),
            json!({}),
            404,
            "ParentResourceNotFound",
        ),
        (
            Method::Put,
            net("virtualNetworks/x"),
            vnet("10.3.0.0/16", "10.3.0.0/30"),
            400,
            "NetcfgInvalidSubnet",
        ),
        (
            Method::Put,
            net("virtualNetworks/x"),
            vnet("10.3.0.0", "10.3.0.0/24"),
            400,
            "InvalidRequestContent",
        ),
        (
            Method::Put,
            net("virtualNetworks/v1"),
            json!({ "location": "westus" }),
            409,
            "InvalidResourceLocation",
        ),
        (
            Method::Put,
            p("v1"),
            peering("same"),
            400,
            "VnetAddressSpacesOverlap",
        ),
        (
            Method::Put,
            p("v1"),
            peering("none"),
            400,
            "InvalidResourceReference",
        ),
        (
            Method::Get,
            "g/providers/Microsoft.Network/flyingSaucers/x".into(),
            Value::Null,
            404,
            "InvalidResourceType",
        ),
        (
            Method::Put,
            net("networkInterfaces/n"),
            json!({ "properties": {} }),
            400,
            "InvalidRequestContent",
        ),
        (
            Method::Post,
            net("virtualNetworks/v1"),
            Value::Null,
            405,
            "MethodNotAllowed",
        ),
    ];
    for (method, path, body, status, code) in table {
        assert_eq!(
            service.refused(method, &path, body),
            (status, code.to_owned()),
            "{path}"
        );
    }
    let mut static_nic = |address: &str| {
        let body = json!({ "location": "eastus", "properties": { "ipConfigurations": [{ "name": "ip", "properties": {
            "privateIPAllocationMethod": "Static", "privateIPAddress": address,
            "subnet": id(&net("virtualNetworks/v1/subnets/s")) } }] } });
        service.ask(
            Method::Put,
            &net(&format!("networkInterfaces/n{}", address.replace('.', ""))),
            body,
        )
    };
    static_nic("10.1.0.4").unwrap();
    assert_eq!(
        static_nic("10.1.0.1").unwrap_err().code,
        "PrivateIPAddressInReservedRange"
    );
    assert_eq!(
        static_nic("10.2.0.9").unwrap_err().code,
        "PrivateIPAddressNotInSubnet"
    );
    let missing = net("virtualNetworks/none");
    assert_eq!(service.ask(Method::Delete, &missing, Value::Null).unwrap().0, 204);
}

#[test]
fn diagnostics_answer_from_the_tables() {
    let mut service = two_vnets();
    for (name, vnet) in [("n1", "v1"), ("n2", "v2")] {
        nic(&mut service, name, vnet);
        vm(&mut service, &format!("vm{name}"), name);
    }
    let watcher = "NetworkWatcherRG/providers/Microsoft.Network/networkWatchers/NetworkWatcher_eastus";
    let list = service.get(&format!("{SUB}/providers/Microsoft.Network/networkWatchers"));
    assert_eq!(list["value"][0]["location"], "eastus");
    let target = id("g/providers/Microsoft.Compute/virtualMachines/vmn1")["id"].clone();
    let hop = json!({ "targetResourceId": target, "sourceIPAddress": "10.1.0.4", "destinationIPAddress": "10.2.0.4" });
    let (_, none) = service
        .ask(Method::Post, &format!("{watcher}/nextHop"), hop.clone())
        .unwrap();
    assert_eq!(none["nextHopType"], "None");
    for (from, to) in [("v1", "v2"), ("v2", "v1")] {
        service.put(
            &net(&format!("virtualNetworks/{from}/virtualNetworkPeerings/p")),
            peering(to),
        );
    }
    let (_, peered) = service
        .ask(Method::Post, &format!("{watcher}/nextHop"), hop)
        .unwrap();
    assert_eq!(
        (&peered["nextHopType"], &peered["routeTableId"]),
        (&json!("VnetPeering"), &json!("System Route"))
    );
    let flow = json!({ "targetResourceId": target, "direction": "Outbound", "protocol": "TCP", "localPort": "*",
        "remotePort": "80", "localIPAddress": "10.1.0.4", "remoteIPAddress": "10.2.0.4" });
    let (_, verdict) = service
        .ask(Method::Post, &format!("{watcher}/ipFlowVerify"), flow)
        .unwrap();
    assert_eq!(verdict["access"], "Allow");
    let (_, layout) = service
        .ask(
            Method::Post,
            &format!("{watcher}/topology"),
            json!({ "targetResourceGroupName": "G" }),
        )
        .unwrap();
    let names: Vec<&Value> = layout["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert!(
        names.contains(&&json!("vmn1")) && names.contains(&&json!("v2")),
        "{names:?}"
    );
    let check =
        json!({ "source": { "resourceId": target }, "destination": { "address": "10.2.0.4", "port": 22 } });
    let (status, _) = service
        .ask(Method::Post, &format!("{watcher}/connectivityCheck"), check)
        .unwrap();
    assert_eq!(status, 0, "real packets are asked for");
}

#[test]
fn public_addresses_balancers_and_what_does_nothing() {
    let mut service = two_vnets();
    let pip = service.put(
        &net("publicIPAddresses/pip"),
        json!({ "location": "eastus", "sku": { "name": "Standard" } }),
    );
    assert_eq!(
        (&pip["properties"]["ipAddress"], &pip["sku"]["name"]),
        (&json!("203.0.113.1"), &json!("Standard"))
    );
    let pool = id(&net("loadBalancers/lb/backendAddressPools/be"));
    let subnet = id(&net("virtualNetworks/v1/subnets/s"));
    let balancer = json!({ "location": "eastus", "sku": { "name": "Standard" }, "properties": {
        "frontendIPConfigurations": [{ "name": "fe", "properties": { "subnet": subnet } }],
        "backendAddressPools": [{ "name": "be" }],
        "probes": [{ "name": "p", "properties": { "protocol": "tcp", "port": 22 } }],
        "loadBalancingRules": [{ "name": "r", "properties": { "protocol": "All", "frontendPort": 0, "backendPort": 0,
            "frontendIPConfiguration": id(&net("loadBalancers/lb/frontendIPConfigurations/fe")),
            "backendAddressPool": pool, "probe": id(&net("loadBalancers/lb/probes/p")) } }] } });
    let made = service.put(&net("loadBalancers/lb"), balancer);
    assert_eq!(
        made["properties"]["frontendIPConfigurations"][0]["properties"]["privateIPAddress"],
        "10.1.0.4"
    );
    let body = json!({ "location": "eastus", "properties": { "ipConfigurations": [{ "name": "ip", "properties": {
        "subnet": subnet, "publicIPAddress": pip, "loadBalancerBackendAddressPools": [pool] } }] } });
    let made = service.put(&net("networkInterfaces/n"), body);
    let ip = &made["properties"]["ipConfigurations"][0]["properties"];
    assert!(
        ip["publicIPAddress"]["id"].as_str().unwrap().ends_with("/pip"),
        "{ip}"
    );
    assert_eq!(service.config.load_balancers["lb"].backend_pools["be"], ["n"]);
    assert_eq!(service.put(&net("networkInterfaces/n"), made.clone()), made);
    let in_use = service.refused(Method::Delete, &net("publicIPAddresses/pip"), Value::Null);
    assert_eq!(in_use.1, "PublicIPAddressCannotBeDeleted");
    let whole = service.get(&net("loadBalancers/lb"));
    assert_eq!(service.put(&net("loadBalancers/lb"), whole.clone()), whole);
    let idle = service.put(
        &net("natGateways/nat"),
        json!({ "location": "eastus", "properties": { "x": 1 } }),
    );
    assert!(
        idle["peerlane"]["note"]
            .as_str()
            .unwrap()
            .contains("does nothing"),
        "{idle}"
    );
    assert_eq!(idle["properties"]["x"], 1);
    service.delete(&net("networkInterfaces/n"));
    assert_eq!(
        service.config.load_balancers["lb"].backend_pools["be"],
        Vec::<String>::new()
    );
}

#[test]
fn a_gateway_a_site_and_their_connection() {
    let mut service = two_vnets();
    service.put(
        &net("virtualNetworks/v1/subnets/GatewaySubnet"),
        json!({ "properties": { "addressPrefix": "10.1.255.0/27" } }),
    );
    let pip = service.put(&net("publicIPAddresses/pip"), json!({ "location": "eastus" }));
    let gateway = json!({ "location": "eastus", "properties": { "gatewayType": "Vpn", "vpnType": "RouteBased",
        "sku": { "name": "VpnGw1" }, "ipConfigurations": [{ "name": "default", "properties": {
            "subnet": id(&net("virtualNetworks/v1/subnets/GatewaySubnet")), "publicIPAddress": { "id": pip["id"] } } }] } });
    let made = service.put(&net("virtualNetworkGateways/gw"), gateway);
    assert_eq!(made["properties"]["bgpSettings"]["asn"], 65515);
    assert_eq!(service.put(&net("virtualNetworkGateways/gw"), made.clone()), made);
    let site = json!({ "location": "eastus", "properties": { "gatewayIpAddress": "198.51.100.9",
        "localNetworkAddressSpace": { "addressPrefixes": ["192.168.10.0/24"] } } });
    let made = service.put(&net("localNetworkGateways/dc"), site);
    assert_eq!(made["properties"]["gatewayIpAddress"], "198.51.100.9");
    let connection = json!({ "location": "eastus", "properties": { "connectionType": "IPSec", "sharedKey": "k3y",
        "virtualNetworkGateway1": id(&net("virtualNetworkGateways/gw")),
        "localNetworkGateway2": id(&net("localNetworkGateways/dc")) } });
    let made = service.put(&net("connections/c"), connection);
    assert_eq!(made["properties"]["connectionType"], "IPsec");
    assert!(!model::export(&service.config).unwrap().contains("k3y"));
    assert_eq!(service.generation.topology.connections.len(), 1);
    assert!(
        service
            .refused(Method::Delete, &net("virtualNetworkGateways/gw"), Value::Null)
            .0
            >= 400
    );
    for path in [
        "connections/c",
        "virtualNetworkGateways/gw",
        "localNetworkGateways/dc",
    ] {
        service.delete(&net(path));
    }
    assert_eq!(service.generation.topology.gateways.len(), 0);
}
