"""The port to the eBPF dataplane.

Two implementations: `kernel.KernelDataplane` (bpf(2)) and `memory.MemoryDataplane`, which
understands what is applied and can say what would happen to a packet. Calls are
system calls of microseconds and are made from the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from meshnet.model.addressing import Address, Prefix
from meshnet.model.dataplane import (
    DropCount,
    DropEvent,
    EndpointRow,
    IpcacheRow,
    MapUsage,
    NodeConfig,
    NodeRow,
    PolicyKey,
    ServiceRow,
)
from meshnet.model.ruling import PortRow
from meshnet.model.service import BackendAddress, Frontend, SocketPeer


class Dataplane(Protocol):
    def configure(self, config: NodeConfig) -> None:
        """Write the node's constants and attach the node's own hooks (underlay, vxlan).
        Repeating it with the same constants changes nothing and loses no packet."""

    def nodes(self) -> dict[Address, NodeRow]: ...

    def update_nodes(self, replace: Mapping[Address, NodeRow], delete: Iterable[Address]) -> None:
        """Rows keep their index as long as they exist; ipcache rows point to it."""

    def ipcache(self) -> dict[Prefix, IpcacheRow]: ...

    def update_ipcache(
        self, replace: Mapping[Prefix, IpcacheRow], delete: Iterable[Prefix]
    ) -> None:
        """Batched. A row whose node is unknown gets node index 0: not tunnelled."""

    def endpoints(self) -> dict[int, EndpointRow]:
        """By ifindex."""

    def attach_endpoint(self, row: EndpointRow) -> None:
        """Rows first, then the hooks. Repeating it replaces the rows."""

    def update_endpoint(self, row: EndpointRow) -> None:
        """Rows alone, of an endpoint that is attached: one write each, nothing in between."""

    def detach_endpoint(self, ifindex: int) -> None:
        """Hooks and rows; what is absent is not an error."""

    def attach_sockets(self, cgroup: Path) -> None:
        """Serve the sockets of a cgroup (v2) and of those below it: connect() and sendmsg() to
        a frontend go to a backend. Repeating it changes nothing."""

    def services(self) -> dict[Frontend, ServiceRow]: ...

    def update_services(
        self, replace: Mapping[Frontend, ServiceRow], delete: Iterable[Frontend]
    ) -> None:
        """One service at a time, each from its old backends to its new ones at once."""

    def backend_hits(self) -> dict[BackendAddress, int]:
        """How many clients each backend was given since it is one."""

    def socket_peers(self) -> list[SocketPeer]:
        """Sockets that were given a backend, as far as they are remembered. It belongs in a
        thread: it reads a whole map, 0.2 s for a full one."""

    def policy(self) -> dict[PolicyKey, int]:
        """Every row of the policy map -> its class, whoever wrote it."""

    def policy_classes(self) -> set[int]:
        """The classes that have rows."""

    def write_policy(
        self, classes: Mapping[int, Iterable[PortRow]], rows: Mapping[PolicyKey, int]
    ) -> None:
        """New classes, whole, then rows that may name them. Raises MapFull: nothing of it is
        there."""

    def remove_policy(self, rows: Iterable[PolicyKey], classes: Iterable[int]) -> None:
        """Rows, then classes; what is absent is not an error."""

    def maps(self) -> list[MapUsage]: ...

    def dump(self, name: str) -> list[dict[str, Any]]:
        """Every row of a map with named fields, addresses as text. Raises NotFound."""

    def sweep_conntrack(self) -> int:
        """Take out flows that are over, translated ones too, and count the others for `maps`.
        It belongs in a thread: it reads three whole maps, 0.1 s for a full one."""

    def drops(self) -> list[DropCount]:
        """Counters that are not zero, by reason and direction."""

    def seen_identities(self) -> list[dict[str, int]]:
        """`{"endpoint_id", "identity", "packets"}` for what endpoints here received."""

    @property
    def programs(self) -> int:
        """How many programs are loaded."""

    def events_fd(self) -> int:
        """Readable when there are drop events."""

    def read_events(self) -> list[DropEvent]: ...

    def close(self) -> None:
        """Close our file descriptors. Pins stay: packets go on."""

    def unload(self) -> None:
        """Take every pin, link and hook of this node away."""
