"""A resolved service as rows of the dataplane, as one node wants them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from meshnet.logic.recovery import STEPS
from meshnet.logic.services import Resolved, ResolvedPort
from meshnet.logic.shares import Health, Shares
from meshnet.logic.slots import slots
from meshnet.model.dataplane import ServiceRow
from meshnet.model.service import Backend, BackendAddress, BackendState, Frontend, Service


@attrs.frozen(kw_only=True)
class Here:
    """Where the rows are used."""

    cluster: str
    node: str


def healths(port: ResolvedPort) -> dict[str, Health]:
    """By cluster, for shares.target. One that ends counts neither way."""
    counted = [b for b in port.backends if b.state is not BackendState.TERMINATING]
    total = Counter(backend.cluster for backend in counted)
    active = Counter(b.cluster for b in counted if b.state is BackendState.ACTIVE)
    return {name: Health(active=active[name], total=total[name]) for name in total}


def rows(
    resolved: Resolved,
    here: Here,
    shares: Mapping[str, Shares],
    returning: Mapping[BackendAddress, int],
) -> dict[Frontend, ServiceRow]:
    """Args: `shares` by the port's name; `returning`: steps of logic/recovery.py."""
    service = resolved.service
    by_port = {
        port.port.name: _order(service, port, here, shares.get(port.port.name, {}), returning)
        for port in resolved.ports
    }
    found = {}
    for frontend, port in resolved.frontends():
        version = frontend.address.version
        chosen = by_port[port.port.name]
        ending = [b.at for b in port.backends if b.state is BackendState.TERMINATING]
        takers = tuple(at for at in chosen if at.address.version == version)
        leavers = frozenset(at for at in ending if at.address.version == version)
        found[frontend] = ServiceRow(
            slots=takers or tuple(sorted(leavers)),  # better one that ends than nobody
            terminating=leavers if takers else frozenset(),
            affinity_s=service.affinity_s,
        )
    return found


def _order(
    service: Service,
    port: ResolvedPort,
    here: Here,
    shares: Shares,
    returning: Mapping[BackendAddress, int],
) -> tuple[BackendAddress, ...]:
    """The slots of a port: both families, each backend as often as it is due."""
    active = [b for b in port.backends if b.state is BackendState.ACTIVE]
    if service.internal_local:
        active = _of_node(active, here)
    elif service.prefer_close:
        near = [backend for backend in active if backend.cluster == here.cluster]
        active = _of_node(active, here) or near or active
    if not service.sharing.is_global:
        shares = dict.fromkeys((backend.cluster for backend in active), 1.0)
    present = Counter(backend.cluster for backend in active)
    weights = {
        backend.at: shares.get(backend.cluster, 0.0)
        / (present[backend.cluster] if service.sharing.is_global else 1)
        * returning.get(backend.at, STEPS)
        * backend.weight
        for backend in active
    }
    return slots({at: round(weight, 9) for at, weight in weights.items()})


def _of_node(backends: Iterable[Backend], here: Here) -> list[Backend]:
    return [b for b in backends if (b.cluster, b.node) == (here.cluster, here.node)]
