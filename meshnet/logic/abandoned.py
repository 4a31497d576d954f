"""Which datagram sockets talk to a backend that is gone.

A connected datagram socket never asks again, and nobody tells it: what it sends is lost for
ever. A backend that ends goes on with the clients it has; one that is only not preferred any
more (by affinity, weights, order of clusters) works as before. Both are no reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshnet.logic.services import Resolved
from meshnet.model.service import (
    BackendAddress,
    BackendState,
    Frontend,
    Protocol,
    SocketPeer,
)

Living = Mapping[Frontend, frozenset[BackendAddress]]


def living(services: Iterable[Resolved]) -> Living:
    """Of each datagram frontend, the backends that its clients may go on with."""
    found: dict[Frontend, frozenset[BackendAddress]] = {}
    for resolved in services:
        usable = {
            port.port.name: frozenset(
                backend.at
                for backend in port.backends
                if backend.state is not BackendState.UNHEALTHY
            )
            for port in resolved.ports
            if port.port.protocol is Protocol.UDP
        }
        for frontend, port in resolved.frontends():
            if frontend.protocol is Protocol.UDP:
                found.setdefault(frontend, usable[port.port.name])
    return found


def left(before: Living, now: Living) -> dict[Frontend, frozenset[BackendAddress]]:
    """Who was there and is not any more; frontends that lost nobody are left out."""
    return {
        frontend: gone
        for frontend, backends in before.items()
        if (gone := backends - now.get(frontend, frozenset()))
    }


def abandoned(peers: Iterable[SocketPeer], gone: Living, now: Living) -> dict[int, BackendAddress]:
    """Sockets that asked for a frontend and were given one that is gone from it and not back."""
    return {
        peer.cookie: peer.backend
        for peer in peers
        if peer.backend in gone.get(peer.frontend, ())
        and peer.backend not in now.get(peer.frontend, ())
    }
