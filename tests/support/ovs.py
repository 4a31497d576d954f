"""Open vSwitch's userspace datapath as a host on a lab's switch: a peer that others wrote.

    client ── p0 [br0: flows] gnv, vxl ── [br-u: 172.31.0.77] u0 ── the lab's switch

The netdev datapath routes what its tunnels send, so the underlay's addresses sit on a bridge
of its own. Its daemons live in a namespace, keep their files in one directory and are ended
by the ids they wrote there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.support.bpf import run
from tests.support.formed import SWITCH, Mesh, network_of

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
CLIENT_MAC = "02:00:00:00:0f:01"
PORT = "ovs"
"""Its port at the switch."""


@attrs.frozen
class Tunnel:
    kind: str
    """`geneve` or `vxlan`; its port has that name."""
    remote: str
    port: int
    identity: int
    """VNI of what the client sends."""
    to: tuple[str, str]
    """What travels by it: IPv4 and IPv6 destination."""


@attrs.frozen
class OpenVSwitch:
    namespace: str
    client: str
    """The namespace of a host behind it."""
    directory: Path

    def vsctl(self, *words: str) -> None:
        database = f"--db=unix:{self.directory}/db.sock"
        run(" ".join(("ovs-vsctl", "--timeout=20", database, *words)))

    def flow(self, text: str) -> None:
        run(f"ovs-ofctl add-flow unix:{self.directory}/br0.mgmt {text}")

    def add_tunnel(self, tunnel: Tunnel) -> None:
        self.vsctl(
            f"add-port br0 {tunnel.kind} -- set interface {tunnel.kind} type={tunnel.kind}"
            f" options:remote_ip={tunnel.remote} options:key=flow options:dst_port={tunnel.port}"
        )
        four, six = tunnel.to
        for match in (f"ip,nw_dst={four}", f"ipv6,ipv6_dst={six}"):
            send = f"set_field:{tunnel.identity}->tun_id,output:{tunnel.kind}"
            self.flow(f"in_port=p0,{match},actions={send}")
        self.flow(f"in_port={tunnel.kind},actions=mod_dl_dst:{CLIENT_MAC},output:p0")


@contextlib.contextmanager
def open_vswitch(
    mesh: Mesh, directory: Path, *, underlay: str, client: list[str]
) -> Iterator[OpenVSwitch]:
    """`underlay`: its address there, with the length; `client`: addresses of the host behind."""
    made = OpenVSwitch(f"ovs-{os.getpid()}", f"ovsc-{os.getpid()}", directory)
    try:
        for name in (made.namespace, made.client):
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
        _cables(mesh, made, client)
        _daemons(made)
        made.vsctl("add-br br-u -- set bridge br-u datapath_type=netdev")
        made.vsctl("add-port br-u u0")
        run(f"ip -n {made.namespace} addr add {underlay} dev br-u")
        run(f"ip -n {made.namespace} link set br-u up")
        # secure: no forwarding but by flows, or two tunnels between two switches are a loop
        made.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure")
        made.vsctl("add-port br0 p0")
        yield made
    finally:
        _end(made)
        for name in (made.namespace, made.client):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _cables(mesh: Mesh, made: OpenVSwitch, client: list[str]) -> None:
    with network_of(mesh[SWITCH]):
        run(f"ip link add {PORT} type veth peer name u0 netns {made.namespace}")
        run(f"ip link set {PORT} master {SWITCH} up")
    inner = f"ip -n {made.client}"
    run(f"ip -n {made.namespace} link set u0 up")
    run(f"ip -n {made.namespace} link add p0 type veth peer name eth0 netns {made.client}")
    run(f"ip -n {made.namespace} link set p0 up")
    run(f"{inner} link set eth0 address {CLIENT_MAC} mtu 1400 up")
    for address in client:
        family, all_of_it = ("-6", "::/0") if ":" in address else ("-4", "0.0.0.0/0")
        run(f"{inner} addr add {address} dev eth0" + (" nodad" if family == "-6" else ""))
        hop = "fe80::1" if family == "-6" else "169.254.1.1"
        run(f"{inner} {family} neigh replace {hop} lladdr 02:00:00:00:0f:02 dev eth0")
        run(f"{inner} {family} route replace {all_of_it} via {hop} dev eth0 onlink")


def _daemons(made: OpenVSwitch) -> None:
    at, environment = made.directory, {**os.environ}
    for name in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"):
        environment[name] = str(at)
    run(f"ovsdb-tool create {at}/conf.db {SCHEMA}")
    common = "--pidfile={0}/{1}.pid --unixctl={0}/{1}.ctl --log-file={0}/{1}.log --detach"
    for command in (
        f"ovsdb-server {at}/conf.db --remote=punix:{at}/db.sock {common.format(at, 'ovsdb')}",
        f"ovs-vsctl --db=unix:{at}/db.sock --no-wait init",
        f"ovs-vswitchd unix:{at}/db.sock {common.format(at, 'vswitchd')}",
    ):
        words = ["ip", "netns", "exec", made.namespace, *command.split()]
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def _end(made: OpenVSwitch) -> None:
    for name in ("vswitchd", "ovsdb"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int((made.directory / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                os.kill(pid, 0)
                time.sleep(0.05)
