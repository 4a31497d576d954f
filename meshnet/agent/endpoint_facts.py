"""What follows from an endpoint alone, or from the process and the files that it names."""

from __future__ import annotations

from pathlib import Path

from meshnet.errors import UsageError
from meshnet.host import process
from meshnet.model.dataplane import EndpointRow
from meshnet.model.endpoint import Endpoint, OwnerProcess
from meshnet.model.kernel import NETNS_PREFIX, Veth


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
