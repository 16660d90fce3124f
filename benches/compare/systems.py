"""The systems compared: each joins two network namespaces, 10.0.0.4 and 10.1.0.4, by a router with the same policy.

The policy, where a system has one: flows that are known pass; a new one is matched with N deny rules, none of which
matches, and a last one that allows. Each system is a context: everything is gone when it ends.
"""

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

A, B = "10.0.0.4", "10.1.0.4"
A_GATEWAY, B_GATEWAY = "10.0.0.1", "10.1.0.1"
# As peerlane's VMs have them.
MTU, TXQUEUELEN = 1500, 4096


def run(*words, **options):
    """Runs a program; its standard output. Says what failed and how."""
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


class System:
    """What is measured: how to run a program at either end, and which processes' CPU time is the router's."""

    def __init__(self, name, label, at_a, at_b):
        self.name, self.label, self.at_a, self.at_b = name, label, at_a, at_b


def rules(count):
    """Deny rules that match nothing of the traffic: (source, destination port)."""
    return [(f"10.9.{index // 256}.{index % 256}", 10_000 + index) for index in range(count)]


class Namespaces:
    """Network namespaces of one system, by unique names."""

    def __init__(self, stack, prefix):
        self.stack, self.prefix = stack, prefix

    def add(self, name):
        full = f"{self.prefix}-{name}"
        run("ip", "netns", "add", full)
        self.stack.callback(run, "ip", "netns", "delete", full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        return full

    @staticmethod
    def veth(one, one_name, two, two_name):
        run("ip", "-n", one, "link", "add", one_name, "mtu", MTU, "txqueuelen", TXQUEUELEN, "type", "veth",
            "peer", two_name, "netns", two, "mtu", MTU, "txqueuelen", TXQUEUELEN)
        run("ip", "-n", one, "link", "set", one_name, "up")
        run("ip", "-n", two, "link", "set", two_name, "up")

    @staticmethod
    def address(namespace, device, address, gateway=None):
        run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", device)
        if gateway:
            run("ip", "-n", namespace, "route", "add", "default", "via", gateway)


def netns(name, label, a, b):
    return System(name, label, ["ip", "netns", "exec", a], ["ip", "netns", "exec", b])


@contextlib.contextmanager
def direct(prefix, name="direct", label="veth without a router"):
    """The ceiling: one veth pair."""
    with contextlib.ExitStack() as stack:
        spaces = Namespaces(stack, f"{prefix}-{name}")
        a, b = spaces.add("a"), spaces.add("b")
        spaces.veth(a, "eth0", b, "eth0")
        run("ip", "-n", a, "address", "add", f"{A}/32", "dev", "eth0")
        run("ip", "-n", b, "address", "add", f"{B}/32", "dev", "eth0")
        run("ip", "-n", a, "route", "add", B, "dev", "eth0")
        run("ip", "-n", b, "route", "add", A, "dev", "eth0")
        yield netns(name, label, a, b)


@contextlib.contextmanager
def kernel(prefix, policy=None, name="kernel", label="kernel router"):
    """A namespace that forwards between two veth pairs; with a policy, nftables with conntrack before it."""
    with contextlib.ExitStack() as stack:
        spaces = Namespaces(stack, f"{prefix}-{name}")
        a, router, b = spaces.add("a"), spaces.add("r"), spaces.add("b")
        spaces.veth(a, "eth0", router, "to-a")
        spaces.veth(b, "eth0", router, "to-b")
        spaces.address(a, "eth0", A, A_GATEWAY)
        spaces.address(b, "eth0", B, B_GATEWAY)
        spaces.address(router, "to-a", A_GATEWAY)
        spaces.address(router, "to-b", B_GATEWAY)
        run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        if policy is not None:
            lines = ["table ip bench {", "chain passing {", "type filter hook forward priority filter; policy drop;",
                     "ct state established,related accept"]
            lines += [f"ip saddr {source} tcp dport {port} drop" for source, port in rules(policy)]
            lines += ["accept", "}", "}"]
            run("ip", "netns", "exec", router, "nft", "-f", "-", input="\n".join(lines))
        yield netns(name, label, a, b)


@contextlib.contextmanager
def open_vswitch(prefix, policy=None, name="ovs", label="Open vSwitch, userspace"):
    """Its userspace datapath over the same veth pairs, with userspace TSO; routing and policy as OpenFlow rules."""
    with contextlib.ExitStack() as stack:
        spaces = Namespaces(stack, f"{prefix}-{name}")
        a, switch, b = spaces.add("a"), spaces.add("s"), spaces.add("b")
        spaces.veth(a, "eth0", switch, "to-a")
        spaces.veth(b, "eth0", switch, "to-b")
        spaces.address(a, "eth0", A, A_GATEWAY)
        spaces.address(b, "eth0", B, B_GATEWAY)
        # The router's own addresses: nobody answers for them but these entries.
        mac = "02:00:00:00:00:01"
        run("ip", "-n", a, "neigh", "add", A_GATEWAY, "lladdr", mac, "dev", "eth0")
        run("ip", "-n", b, "neigh", "add", B_GATEWAY, "lladdr", mac, "dev", "eth0")
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ovs-", dir="/run")))
        stack.callback(lambda: stop(home))
        environment = {**os.environ, **{f"OVS_{kind}DIR": str(home) for kind in ("RUN", "LOG", "DB", "SYSCONF")}}

        def ovs(*words):
            return run("ip", "netns", "exec", switch, *words, env=environment)

        database = home / "conf.db"
        run("ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema")
        socket = f"unix:{home}/db.sock"
        ovs("ovsdb-server", database, f"--remote=p{socket}", f"--pidfile={home}/ovsdb-server.pid", "--detach",
            "--no-chdir", f"--unixctl={home}/ovsdb.ctl", f"--log-file={home}/ovsdb.log", "-vconsole:off")
        def vsctl(*words):
            return ovs("ovs-vsctl", f"--db={socket}", *words)

        vsctl("--no-wait", "init")
        vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:userspace-tso-enable=true")
        ovs("ovs-vswitchd", socket, f"--pidfile={home}/ovs-vswitchd.pid", "--detach", "--no-chdir",
            f"--unixctl={home}/vswitchd.ctl", f"--log-file={home}/vswitchd.log", "-vconsole:off")
        vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure",
              "--", "add-port", "br0", "to-a", "--", "add-port", "br0", "to-b")
        port = {side: vsctl("get", "Interface", f"to-{side}", "ofport").strip() for side in "ab"}
        hardware = {side: run("ip", "netns", "exec", where, "cat", "/sys/class/net/eth0/address").strip()
                    for side, where in (("a", a), ("b", b))}
        flows = []
        hops = []
        for side, address in (("a", A), ("b", B)):
            hop = (f"mod_dl_src:{mac},mod_dl_dst:{hardware[side]},dec_ttl,output:{port[side]}")
            hops.append(f"ip,nw_dst={address},actions={hop}")
        if policy is None:
            flows += [f"table=0,priority=1,{hop}" for hop in hops]
        else:
            flows.append("table=0,priority=1,ip,actions=ct(table=1)")
            flows.append("table=1,priority=9000,ct_state=+trk+est,ip,actions=resubmit(,2)")
            flows.append("table=1,priority=9000,ct_state=+trk+rel,ip,actions=resubmit(,2)")
            flows += [f"table=1,priority={8000 - index},tcp,nw_src={source},tp_dst={port_},actions=drop"
                      for index, (source, port_) in enumerate(rules(policy))]
            flows.append("table=1,priority=1,ct_state=+trk+new,ip,actions=ct(commit),resubmit(,2)")
            flows += [f"table=2,priority=1,{hop}" for hop in hops]
        ovs("ovs-ofctl", "add-flows", f"unix:{home}/br0.mgmt", write(home / "flows", "\n".join(flows)))
        yield netns(name, label, a, b)


def write(path, text):
    path.write_text(text + "\n", encoding="utf-8")
    return path


def stop(home):
    """Ends the daemons by the process ids they wrote."""
    for pidfile in sorted(home.glob("*.pid"), reverse=True):
        pid = int(pidfile.read_text(encoding="utf-8"))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 15)
            for _ in range(100):
                os.kill(pid, 0)
                time.sleep(0.05)


@contextlib.contextmanager
def peerlane(prefix, binary, policy=None, options=(), name="peerlane", label="peerlane", ports="vm"):
    """Two peered VNets with a VM each, or with a VNet port each."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peerlane-bench-")))
        lab_name = f"{prefix}-{name}"
        environment = {**os.environ, "PEERLANE_STATE_DIR": str(home)}
        file = write(home / "lab.vnet.yaml", json.dumps(lab(lab_name, policy, ports)))
        run(binary, "up", file, "--detach", *options, env=environment)
        stack.callback(run, binary, "down", lab_name, env=environment)
        ends = ("a", "b") if ports == "vm" else ("one", "two")
        at = [["env", f"PEERLANE_STATE_DIR={home}", str(binary), "exec", "--lab", lab_name, end, "--"] for end in ends]
        yield System(name, label, *at)


def lab(name, policy, ports):
    """A lab file; JSON is YAML."""
    def vnet(prefix, interface):
        port = {"tun": {"interface": interface}} if ports == "vnet" else {}
        return {"addressSpace": [f"{prefix}.0.0/16"], "subnets": {"default": {"addressPrefix": f"{prefix}.0.0/24"}}, **port}

    def rule(priority, access, **fields):
        return {"priority": priority, "direction": "Inbound", "access": access, "protocol": "*",
                "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*",
                "destinationPortRange": "*", **fields}

    nic_b = {"subnet": "two/default", "privateIPAddress": B}
    text = {
        "apiVersion": "peerlane/v1", "kind": "Lab", "name": name, "profile": "azure-2025",
        "vnets": {"one": vnet("10.0", "pl-one"), "two": vnet("10.1", "pl-two")},
        "peerings": ["one <-> two"],
    }
    if policy is not None:
        denied = {f"deny-{index}": rule(100 + index, "Deny", protocol="Tcp", sourceAddressPrefix=source,
                                        destinationPortRange=str(port))
                  for index, (source, port) in enumerate(rules(policy))}
        text["networkSecurityGroups"] = {
            "policy": {"securityRules": {**denied, "allow": rule(4000, "Allow")}}}
        nic_b["networkSecurityGroup"] = "policy"
    nic_a = {"subnet": "one/default", "privateIPAddress": A}
    if ports == "vnet":
        text["networkInterfaces"] = {"a": nic_a, "b": nic_b}
    else:
        text["vms"] = {"a": nic_a, "b": nic_b}
    return text


def numbered(prefix):
    """Names for one run, so that two runs at a time do not meet."""
    return next(f"{prefix}{number}" for number in itertools.count()
                if not list(Path("/run/netns").glob(f"{prefix}{number}-*")))
