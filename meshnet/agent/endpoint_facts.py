"""What follows from an endpoint alone, or from the process and the files that it names."""

from __future__ import annotations

from pathlib import Path

import attrs

from meshnet.agent.local import GATEWAY_MAC, LocalNode
from meshnet.errors import UsageError
from meshnet.host import process
from meshnet.model.dataplane import EndpointRow
from meshnet.model.endpoint import Endpoint, OwnerProcess
from meshnet.model.identity import check_user_label
from meshnet.model.kernel import NETNS_PREFIX, Veth, VethSpec

Labels = dict[str, str | None]


@attrs.frozen(kw_only=True)
class EndpointRequest:
    """What a caller asks for; Endpoint adds what the node decides."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] = attrs.field(factory=dict)
    ports: dict[str, str] = attrs.field(factory=dict)
    netns: str | None = None
    """None: the agent makes one."""
    ifname: str = "eth0"
    owner_pid: int | None = None


def check(request: EndpointRequest) -> None:
    """Raises InvalidLabel, UsageError: what can be told before anything is made."""
    for key, value in request.labels.items():
        check_user_label(key, value)
    if request.netns is not None and not Path(request.netns).exists():
        raise UsageError(f"network namespace {request.netns} does not exist")


def veth_spec(endpoint: Endpoint, local: LocalNode, route_mtu: int) -> VethSpec:
    return VethSpec(
        host_ifname=endpoint.host_ifname,
        host_mac=GATEWAY_MAC,
        netns=endpoint.netns,
        ifname=endpoint.ifname,
        addresses=endpoint.addresses,
        gateways=local.gateways,
        mtu=local.device_mtu(local.underlay.mtu),
        route_mtu=route_mtu,
    )


def row_of(endpoint: Endpoint, veth: Veth) -> EndpointRow:
    return EndpointRow(
        ifindex=veth.ifindex,
        endpoint_id=endpoint.id,
        identity=endpoint.identity,
        addresses=endpoint.addresses,
        mac=veth.mac,
    )


def owner_of(pid: int) -> OwnerProcess:
    start_time = process.start_time(pid)
    if start_time is None:
        raise UsageError(f"process {pid} has ended already, so no endpoint can live with it")
    return OwnerProcess(pid=pid, start_time=start_time)


def is_alive(endpoint: Endpoint) -> bool:
    owner = endpoint.owner
    if owner is not None and process.start_time(owner.pid) != owner.start_time:
        return False
    return bool(endpoint.netns) and Path(endpoint.netns).exists()


def netns_name(endpoint: Endpoint) -> str:
    # A dot is in neither name: with a dash, a-b/c and a/b-c would share one.
    return f"{NETNS_PREFIX}{endpoint.namespace}.{endpoint.name}"


def label_of(endpoint: Endpoint) -> str:
    return f"{endpoint.namespace}/{endpoint.name}"


def amended(endpoint: Endpoint, labels: Labels, audit: bool | None) -> Endpoint:
    """With other labels (None: that one goes), or audited; `audit` None: as before."""
    merged = endpoint.labels | labels
    kept = {key: value for key, value in merged.items() if value is not None}
    for key, value in kept.items():
        check_user_label(key, value)
    return attrs.evolve(endpoint, labels=kept, audit=endpoint.audit if audit is None else audit)
