"""The eBPF dataplane of this node: the port over loader, maps and events."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meshnet.dataplane import dump, loader, rows
from meshnet.dataplane.artifact import Artifact
from meshnet.dataplane.conntrack import (
    CONNTRACK_EXPIRY,
    NAT_EXPIRY,
    SERVICE_FLOW_EXPIRY,
    FlowMap,
)
from meshnet.dataplane.events import EventRing
from meshnet.dataplane.maps import EndpointMaps, IpcacheMaps, NodeMaps, read_drops
from meshnet.dataplane.policy_maps import PolicyMaps
from meshnet.dataplane.programs import SOCKET_HOOKS, Attach
from meshnet.dataplane.schema import Sizes
from meshnet.dataplane.services import ServiceMaps, read_socket_peers
from meshnet.errors import DatapathError
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


class KernelDataplane:
    """Owns everything under one directory of bpffs, and the tcx links pinned there.

    Making one opens the pinned maps or creates them; `configure` loads programs when what
    is pinned differs, and attaches. A second one over the same directory adopts what is
    there: nothing is loaded, no packet is lost.

    Args:
        directory: in a mounted bpf file system, such as /sys/fs/bpf/meshnet.
        artifact: of `artifact.find()`, which may compile and so belongs in a thread.
        sizes: of the maps; changing them replaces maps and copies their rows.

    Raises:
        CapabilityMissing: no bpffs there, no CAP_BPF.
    """

    def __init__(self, directory: Path, artifact: Artifact, *, sizes: Sizes | None = None) -> None:
        self._directory = directory
        self._artifact = artifact
        self._sizes = sizes or Sizes()
        self._set = loader.MapSet(directory, self._sizes)
        self._links = loader.Links(directory)
        self._generation: loader.Generation | None = None
        maps = self._set.maps
        self._nodes = NodeMaps(maps["nodes"], maps["node_by_address"], maps["pod_cidrs"])
        self._ipcache = IpcacheMaps(maps["ipcache"], maps["ipcache_prefix"], self._nodes)
        self._endpoints = EndpointMaps(
            maps["endpoints"], maps["endpoints_by_address"], maps["seen_identities"]
        )
        self._services = ServiceMaps(
            services=maps["services"],
            addresses=maps["service_addresses"],
            backends=maps["backends"],
            slots=maps["backend_slots"],
            hits=maps["backend_hits"],
            clients=maps["service_affinity"],
        )
        self._conntrack = FlowMap(maps["conntrack"], CONNTRACK_EXPIRY)
        self._nat = FlowMap(maps["nat"], NAT_EXPIRY)
        self._service_flows = FlowMap(maps["service_flows"], SERVICE_FLOW_EXPIRY)
        self._policy = PolicyMaps(maps["policy"], maps["policy_classes"])
        self._events = EventRing(maps["events"])

    def configure(self, config: NodeConfig) -> None:
        """Raises VerifierRejected, CapabilityMissing; the old generation then goes on."""
        exempt = self._set.maps["unmasqueraded"]
        wanted = {rows.pack_prefix(prefix) for prefix in config.unmasqueraded}
        exempt.update_many((key, bytes(exempt.spec.value_size)) for key in wanted)
        generation = loader.load_generation(
            self._directory,
            self._artifact,
            self._set.maps,
            bytes(rows.pack_config(config)),
            self._sizes,
        )
        before, self._generation = self._generation, generation
        self._links.swap(generation.programs)
        for name, ifindex, attach in (
            ("from_underlay", config.underlay_ifindex, Attach.TCX_INGRESS),
            ("from_tunnel", config.vxlan_ifindex, Attach.TCX_INGRESS),
            ("to_tunnel", config.vxlan_ifindex, Attach.TCX_EGRESS),
        ):
            self._links.attach(name, generation.programs[name], ifindex, attach)
        if config.geneve_ifindex:
            guard = generation.programs["from_tunnel"]
            self._links.attach(GENEVE_GUARD, guard, config.geneve_ifindex, Attach.TCX_INGRESS)
        exempt.delete_many([key for key, _ in exempt.items() if key not in wanted])
        self._set.commit()
        loader.remove_generations(self._directory, keep=generation.directory)
        if before:
            before.close()

    def nodes(self) -> dict[Address, NodeRow]:
        return dict(self._nodes.rows)

    def update_nodes(self, replace: Mapping[Address, NodeRow], delete: Iterable[Address]) -> None:
        self._nodes.update(replace, delete)

    def ipcache(self) -> dict[Prefix, IpcacheRow]:
        return self._ipcache.dump()

    def update_ipcache(
        self, replace: Mapping[Prefix, IpcacheRow], delete: Iterable[Prefix]
    ) -> None:
        self._ipcache.update(replace, delete)

    def endpoints(self) -> dict[int, EndpointRow]:
        return self._endpoints.dump()

    def attach_endpoint(self, row: EndpointRow) -> None:
        generation = self._loaded(f"endpoint {row.endpoint_id}")
        self._endpoints.put(row)
        for program, attach in _ENDPOINT_HOOKS.items():
            self._links.attach(
                f"{program}-{row.ifindex}", generation.programs[program], row.ifindex, attach
            )

    def update_endpoint(self, row: EndpointRow) -> None:
        self._endpoints.put(row)

    def policy(self) -> dict[PolicyKey, int]:
        return dict(self._policy.rows)

    def policy_classes(self) -> set[int]:
        return self._policy.classes

    def write_policy(
        self, classes: Mapping[int, Iterable[PortRow]], rows: Mapping[PolicyKey, int]
    ) -> None:
        self._policy.write(classes, rows)

    def remove_policy(self, rows: Iterable[PolicyKey], classes: Iterable[int]) -> None:
        self._policy.remove(rows, classes)

    def detach_endpoint(self, ifindex: int) -> None:
        for program in _ENDPOINT_HOOKS:
            self._links.detach(f"{program}-{ifindex}")
        self._endpoints.delete(ifindex)

    def attach_sockets(self, cgroup: Path) -> None:
        generation = self._loaded("sockets")
        for name, attach in SOCKET_HOOKS.items():
            self._links.attach_cgroup(name, generation.programs[name], cgroup, attach)

    def services(self) -> dict[Frontend, ServiceRow]:
        return dict(self._services.rows)

    def update_services(
        self, replace: Mapping[Frontend, ServiceRow], delete: Iterable[Frontend]
    ) -> None:
        self._services.update(replace, delete)

    def backend_hits(self) -> dict[BackendAddress, int]:
        return self._services.hits()

    def socket_peers(self) -> list[SocketPeer]:
        return read_socket_peers(self._set.maps["socket_peers"])

    def maps(self) -> list[MapUsage]:
        return [
            dump.usage(opened, self._nodes, self._conntrack, self._events)
            for opened in self._set.maps.values()
            if opened.spec.name in dump.SHOWN
        ]

    def dump(self, name: str) -> list[dict[str, Any]]:
        return dump.dump(name, self._set.maps)

    def sweep_conntrack(self) -> int:
        return sum(each.sweep() for each in (self._conntrack, self._nat, self._service_flows))

    def drops(self) -> list[DropCount]:
        return read_drops(self._set.maps["drops"])

    def seen_identities(self) -> list[dict[str, int]]:
        return self._endpoints.seen()

    @property
    def programs(self) -> int:
        return len(self._generation.programs) if self._generation else 0

    def events_fd(self) -> int:
        return self._events.fd

    def read_events(self) -> list[DropEvent]:
        return self._events.read()

    def _loaded(self, what: str) -> loader.Generation:
        if self._generation is None:
            raise DatapathError(f"{what} cannot be attached before configure() loaded programs")
        return self._generation

    def close(self) -> None:
        self._events.close()
        self._set.close()
        if self._generation:
            self._generation.close()
            self._generation = None

    def unload(self) -> None:
        """Links first, so that no packet meets half a dataplane. What is open stays open:
        who shares this object may still read it, and a closed number would be another's."""
        for name in self._links.names():
            self._links.detach(name)
        loader.remove_generations(self._directory, keep=None)
        shutil.rmtree(self._directory / "maps", ignore_errors=True)
        shutil.rmtree(self._directory / "links", ignore_errors=True)


GENEVE_GUARD = "from_tunnel-geneve"
"""Nothing should come by that device; what does is checked like everything else."""
_ENDPOINT_HOOKS = {"from_endpoint": Attach.TCX_INGRESS, "to_endpoint": Attach.TCX_EGRESS}
