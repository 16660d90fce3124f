"""Drives the ARM API of a running lab with an unmodified azure-mgmt-network, and looks at packets in between.

Wants ORIGIN, CERT, TOKEN, LAB and PEERLANE in the environment. Prints one line for each thing that holds; the first that
does not ends it.
"""

import json
import os
import subprocess
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient

SUB = "00000000-0000-0000-0000-000000000000"
ORIGIN, CERT, LAB = os.environ["ORIGIN"], os.environ["CERT"], os.environ["LAB"]
PEERLANE = os.environ["PEERLANE"]
GROUP, REGION = "clients", "eastus"


class Token:
    """The token of the lab's run directory, as it is."""

    def get_token(self, *scopes, **options):
        return AccessToken(os.environ["TOKEN"], int(time.time()) + 3600)


def client(kind):
    return kind(Token(), SUB, base_url=ORIGIN, connection_verify=CERT, polling_interval=1,
                credential_scopes=["https://management.azure.com/.default"])


NET, COMPUTE, RESOURCES = map(client, (NetworkManagementClient, ComputeManagementClient, ResourceManagementClient))


def holds(what, truth, seen=None):
    if not truth:
        raise SystemExit(f"does not hold: {what} (seen: {seen})")
    print(f"  {what}", flush=True)


def refused(code, call):
    try:
        result = call()
        if hasattr(result, "result"):
            result.result()
    except HttpResponseError as error:
        seen = error.error.code if error.error else error.message
        holds(f"refused with {error.status_code} {code}", seen == code, seen)
        return
    raise SystemExit(f"does not hold: refused with {code} (it was carried out)")


def run_in(vm, *command):
    return [PEERLANE, "exec", "--lab", LAB, vm, "--", *command]


def pings(source, address):
    done = subprocess.run(run_in(source, "ping", "-c", "1", "-W", "1", address), capture_output=True)
    return done.returncode == 0


CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], 8080), 2).close()"


def connects(source, address):
    done = subprocess.run(run_in(source, "/usr/bin/python3", "-c", CONNECT, address), capture_output=True)
    return done.returncode == 0


def subnet_id(vnet):
    return f"/subscriptions/{SUB}/resourceGroups/{GROUP}/providers/Microsoft.Network/virtualNetworks/{vnet}/subnets/app"


def create(name, net):
    NET.virtual_networks.begin_create_or_update(GROUP, name, {
        "location": REGION,
        "properties": {"addressSpace": {"addressPrefixes": [f"{net}.0.0/16"]}},
    }).result()
    NET.subnets.begin_create_or_update(GROUP, name, "app", {
        "properties": {"addressPrefix": f"{net}.1.0/24"},
    }).result()
    NET.network_security_groups.begin_create_or_update(GROUP, f"{name}-nsg", {"location": REGION}).result()
    nic = NET.network_interfaces.begin_create_or_update(GROUP, f"{name}-nic", {
        "location": REGION,
        "properties": {
            "networkSecurityGroup": {"id": NET.network_security_groups.get(GROUP, f"{name}-nsg").id},
            "ipConfigurations": [{"name": "ip", "properties": {
                "privateIPAllocationMethod": "Dynamic", "subnet": {"id": subnet_id(name)}}}],
        },
    }).result()
    COMPUTE.virtual_machines.begin_create_or_update(GROUP, f"{name}-vm", {
        "location": REGION,
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2_v5"},
            "networkProfile": {"networkInterfaces": [{"id": nic.id}]},
        },
    }).result()
    return nic.ip_configurations[0].private_ip_address


def peer(name, remote):
    return NET.virtual_network_peerings.begin_create_or_update(GROUP, name, "peering", {
        "properties": {
            "remoteVirtualNetwork": {"id": NET.virtual_networks.get(GROUP, remote).id},
            "allowVirtualNetworkAccess": True,
        },
    }).result()


def state(name):
    return NET.virtual_network_peerings.get(GROUP, name, "peering").peering_state


def next_hops(nic):
    routes = NET.network_interfaces.begin_get_effective_route_table(GROUP, nic).result().value
    return [str(route.next_hop_type) for route in routes]


def main():
    RESOURCES.resource_groups.create_or_update(GROUP, {"location": REGION})
    one, two = create("red", "10.1"), create("blue", "10.2")
    holds("two VNets, NSGs, NICs and VMs are made", (one, two) == ("10.1.1.4", "10.2.1.4"), (one, two))
    server = subprocess.Popen(run_in("blue-vm", "/usr/bin/python3", "-m", "http.server", "8080"),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        walk(one, two)
    finally:
        server.terminate()
    refusals()
    RESOURCES.resource_groups.begin_delete(GROUP).result()
    holds("the group goes with all that is in it", not list(NET.virtual_networks.list_all()))


def walk(one, two):
    holds("no packet passes before the VNets are peered", not pings("red-vm", two) and not connects("red-vm", two))
    peer("red", "blue")
    holds("one side is Initiated", state("red") == "Initiated", state("red"))
    holds("and nothing passes yet", not pings("red-vm", two) and not connects("red-vm", two))
    peer("blue", "red")
    states = (state("red"), state("blue"))
    holds("both are Connected when the other side is made", states == ("Connected", "Connected"), states)
    holds("ping and TCP pass from that moment, both ways",
          pings("red-vm", two) and connects("red-vm", two) and pings("blue-vm", one))
    holds("effective routes show VNetPeering", "VNetPeering" in next_hops("red-nic"), next_hops("red-nic"))
    denied(two)
    NET.virtual_network_peerings.begin_delete(GROUP, "blue", "peering").result()
    holds("the peering deleted on one side is Disconnected on the other", state("red") == "Disconnected", state("red"))
    holds("and packets stop", not pings("red-vm", two) and not connects("red-vm", two))
    refused("RemotePeeringIsDisconnected", lambda: peer("blue", "red"))


TALK = """
import socket, sys
line = socket.create_connection((sys.argv[1], 8080), 2)
line.settimeout(2)
print("open", flush=True)
sys.stdin.readline()
line.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(line.recv(12).decode(), flush=True)
"""


def denied(two):
    """A denying rule stops new connections and leaves the established one."""
    talk = subprocess.Popen(run_in("red-vm", "/usr/bin/python3", "-c", TALK, two), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    holds("a connection is open", talk.stdout.readline().strip() == "open")
    NET.security_rules.begin_create_or_update(GROUP, "blue-nsg", "deny-web", {"properties": {
        "priority": 100, "direction": "Inbound", "access": "Deny", "protocol": "Tcp",
        "sourceAddressPrefix": "*", "sourcePortRange": "*",
        "destinationAddressPrefix": "*", "destinationPortRange": "8080"}}).result()
    holds("a denying rule stops new connections", not connects("red-vm", two))
    talk.stdin.write("\n")
    talk.stdin.flush()
    answer = talk.stdout.readline().strip()
    holds("and the established one goes on", answer.startswith("HTTP/1.0 200"), answer)
    talk.wait(5)
    NET.security_rules.begin_delete(GROUP, "blue-nsg", "deny-web").result()
    holds("without the rule they connect again", connects("red-vm", two))


def refusals():
    space = {"location": REGION, "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}}}
    NET.virtual_networks.begin_create_or_update(GROUP, "same", space).result()
    refused("VnetAddressSpacesOverlap", lambda: peer("same", "red"))
    refused("InUseSubnetCannotBeDeleted", lambda: NET.subnets.begin_delete(GROUP, "red", "app"))
    refused("NicInUse", lambda: NET.network_interfaces.begin_delete(GROUP, "red-nic"))
    refused("InUseNetworkSecurityGroupCannotBeDeleted",
            lambda: NET.network_security_groups.begin_delete(GROUP, "red-nsg"))
    rule = {"properties": {"priority": 200, "direction": "Inbound", "access": "Allow", "protocol": "*",
                           "sourceAddressPrefix": "*", "sourcePortRange": "*",
                           "destinationAddressPrefix": "*", "destinationPortRange": "*"}}
    NET.security_rules.begin_create_or_update(GROUP, "red-nsg", "one", rule).result()
    refused("SecurityRuleConflict", lambda: NET.security_rules.begin_create_or_update(GROUP, "red-nsg", "two", rule))
    refused("ResourceGroupNotFound", lambda: NET.virtual_networks.get("none", "red"))
    try:
        NET.virtual_networks.get(GROUP, "none")
    except ResourceNotFoundError as error:
        holds("a VNet that is missing is ResourceNotFound", error.error.code == "ResourceNotFound", json.dumps(str(error)))


main()
