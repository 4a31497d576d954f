"""Which backends a service has, and which of them take clients."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import attrs

from meshnet.logic.service_rows import Here, healths, rows
from meshnet.logic.services import (
    NOT_READY,
    STALE,
    UNREACHABLE,
    Candidate,
    Resolver,
    World,
    exported,
)
from meshnet.logic.shares import target
from meshnet.model.endpoint import IpEntry
from meshnet.model.service import (
    Backend,
    BackendAddress,
    BackendState,
    EndpointSlice,
    Frontend,
    Protocol,
    RemoteService,
    Service,
    ServicePort,
    Sharing,
    SliceEndpoint,
    SlicePort,
)

TCP = Protocol.TCP
VIP = ip_address("100.64.0.10")
VIP6 = ip_address("fd00:100:64::10")
HERE = Here(cluster="east", node="east-1")


def at(host: str, port: int = 8080, protocol: Protocol = TCP) -> BackendAddress:
    return BackendAddress(ip_address(host), port, protocol)


def candidate(host: str, *, app: str = "web", node: str = "east-1", **more: Any) -> Candidate:
    entry = IpEntry(
        prefix=ip_network(host),
        host=None,
        identity=0,
        name=more.pop("name", "web"),
        namespace="default",
        node=node,
        named_ports=more.pop("named_ports", {}),
    )
    return Candidate(entry=entry, labels={"app": app}, **more)


def web(**changes: Any) -> Service:
    values: dict[str, Any] = {
        "namespace": "default",
        "name": "web",
        "selector": {"app": "web"},
        "ports": (ServicePort(name="", port=80, protocol=TCP, target=8080),),
    }
    return Service(**{**values, **changes})


def backends(service: Service, **world: Any) -> tuple[Backend, ...]:
    (port,) = resolve(service, **world).ports
    return port.backends


def resolve(service: Service, **world: Any) -> Any:
    values: dict[str, Any] = {"cluster": "east", "candidates": (), "slices": ()}
    return Resolver(World(**{**values, **world})).resolve(service, (VIP,))


def taken(service: Service, here: Here = HERE, **world: Any) -> list[BackendAddress]:
    """Who takes clients at the service's first frontend."""
    resolved = resolve(service, **world)
    shares = {
        port.port.name: target(service.sharing, "east", healths(port)) for port in resolved.ports
    }
    return sorted(rows(resolved, here, shares, {})[Frontend(VIP, 80, TCP)].slots)


def remote(cluster: str, *hosts: str, **changes: Any) -> RemoteService:
    told = {ip_address(host): {"": (TCP, 8080)} for host in hosts}
    values: dict[str, Any] = {
        "cluster": cluster,
        "cluster_id": 2,
        "namespace": "default",
        "name": "web",
        "backends": told,
    }
    return RemoteService(**{**values, **changes})


def test_endpoints_with_the_selectors_labels_are_backends() -> None:
    world = [candidate("10.1.0.5"), candidate("10.1.0.6", app="db"), candidate("fd00:10:1::5")]
    assert [b.at for b in backends(web(), candidates=world)] == [at("10.1.0.5"), at("fd00:10:1::5")]


def test_without_a_selector_no_endpoint_is_a_backend() -> None:
    assert backends(web(selector={}), candidates=[candidate("10.1.0.5")]) == ()


def test_endpoints_of_another_namespace_are_not() -> None:
    assert backends(web(namespace="shop"), candidates=[candidate("10.1.0.5")]) == ()


def test_a_named_target_port_is_each_backends_own() -> None:
    service = web(ports=(ServicePort(name="", port=80, protocol=TCP, target="http"),))
    world = [
        candidate("10.1.0.5", named_ports={"http": "8080/tcp"}),
        candidate("10.1.0.6", named_ports={"http": "9090/tcp"}),
        candidate("10.1.0.7", named_ports={"http": "53/udp"}),
        candidate("10.1.0.8"),
    ]
    assert [b.at for b in backends(service, candidates=world)] == [
        at("10.1.0.5", 8080),
        at("10.1.0.6", 9090),
    ]


def test_slices_name_hosts_and_their_state() -> None:
    listed = EndpointSlice(
        namespace="default",
        name="web-1",
        service="web",
        ports=(
            SlicePort(name="", port=9000, protocol=TCP),
            SlicePort(name="x", port=1, protocol=TCP),
        ),
        endpoints=(
            SliceEndpoint(addresses=(ip_address("192.0.2.1"),)),
            SliceEndpoint(addresses=(ip_address("192.0.2.2"),), ready=False, serving=False),
            SliceEndpoint(addresses=(ip_address("192.0.2.3"),), ready=False, terminating=True),
        ),
    )
    found = backends(web(selector={}), slices=[listed])
    assert [(b.at, b.state, b.reason) for b in found] == [
        (at("192.0.2.1", 9000), BackendState.ACTIVE, ""),
        (at("192.0.2.2", 9000), BackendState.UNHEALTHY, NOT_READY),
        (at("192.0.2.3", 9000), BackendState.TERMINATING, "terminating"),
    ]
    assert taken(web(selector={}), slices=[listed]) == [at("192.0.2.1", 9000)]
    eager = backends(web(selector={}, publish_not_ready=True), slices=[listed])
    assert eager[1].state is BackendState.ACTIVE


def test_when_nobody_else_is_left_one_that_ends_takes_clients() -> None:
    listed = EndpointSlice(
        namespace="default",
        name="web-1",
        service="web",
        ports=(SlicePort(name="", port=9000, protocol=TCP),),
        endpoints=(SliceEndpoint(addresses=(ip_address("192.0.2.3"),), terminating=True),),
    )
    assert taken(web(selector={}), slices=[listed]) == [at("192.0.2.3", 9000)]


def test_why_a_backend_is_out_is_told() -> None:
    world = [
        candidate("10.1.0.5", stale=True),
        candidate("10.1.0.6", node="east-2"),
        candidate("10.1.0.7"),
        candidate("10.1.0.8"),
    ]
    found = backends(
        web(),
        candidates=world,
        unreachable=frozenset({("east", "east-2")}),
        failing={at("10.1.0.7"): "TCP: connection refused"},
    )
    assert [b.reason for b in found] == [STALE, UNREACHABLE, "TCP: connection refused", ""]


def test_internal_local_keeps_to_the_clients_node() -> None:
    world = [candidate("10.1.0.5"), candidate("10.1.0.6", node="east-2")]
    service = web(internal_local=True)
    assert taken(service, candidates=world) == [at("10.1.0.5")]
    assert taken(service, Here(cluster="east", node="east-3"), candidates=world) == []


def test_prefer_close_goes_further_when_nobody_is_near() -> None:
    world = [candidate("10.1.0.5"), candidate("10.1.0.6", node="east-2")]
    service = web(prefer_close=True)
    assert taken(service, candidates=world) == [at("10.1.0.5")]
    assert len(taken(service, Here(cluster="east", node="east-3"), candidates=world)) == 2


def test_only_a_global_service_has_backends_elsewhere() -> None:
    world = {"candidates": [candidate("10.1.0.5")], "remotes": [remote("west", "10.2.0.5")]}
    assert [b.cluster for b in backends(web(), **world)] == ["east"]
    shared = web(sharing=Sharing(is_global=True))
    assert [b.cluster for b in backends(shared, **world)] == ["east", "west"]
    assert taken(shared, **world) == [at("10.1.0.5"), at("10.2.0.5")]


def test_what_a_cluster_does_not_share_is_not_used() -> None:
    shared = web(sharing=Sharing(is_global=True))
    hidden = remote("west", "10.2.0.5", shared=False)
    assert backends(shared, remotes=[hidden]) == ()


def test_ports_of_other_clusters_are_matched_by_name_and_protocol() -> None:
    told = {ip_address("10.2.0.5"): {"http": (TCP, 8080), "": (Protocol.UDP, 53)}}
    shared = web(sharing=Sharing(is_global=True))
    assert backends(shared, remotes=[remote("west", backends=told)]) == ()


def test_a_node_elsewhere_that_does_not_answer_takes_its_backends_out() -> None:
    shared = web(sharing=Sharing(is_global=True))
    world = {
        "candidates": [candidate("10.1.0.5")],
        "remotes": [remote("west", "10.2.0.5")],
        "owners": {ip_address("10.2.0.5"): ("west", "west-1")},
        "unreachable": frozenset({("west", "west-1")}),
    }
    assert taken(shared, **world) == [at("10.1.0.5")]


def test_what_is_exported_are_the_backends_here_that_work() -> None:
    shared = web(sharing=Sharing(is_global=True))
    world = {
        "candidates": [candidate("10.1.0.5"), candidate("10.1.0.6", stale=True)],
        "remotes": [remote("west", "10.2.0.5")],
    }
    told = exported(shared, resolve(shared, **world), cluster="east", cluster_id=1)
    assert told is not None
    assert told.backends == {ip_address("10.1.0.5"): {"": (TCP, 8080)}}
    assert told.frontends == {VIP: {"": (TCP, 80)}}
    for sharing in (Sharing(), Sharing(is_global=True, shared=False)):
        private = attrs.evolve(shared, sharing=sharing)
        assert exported(private, resolve(private), cluster="east", cluster_id=1) is None


def test_frontends_and_backends_are_of_one_family() -> None:
    world = [candidate("10.1.0.5"), candidate("fd00:10:1::5")]
    resolver = Resolver(World(cluster="east", candidates=world, slices=()))
    resolved = resolver.resolve(web(families=(4, 6)), (VIP, VIP6))
    found = rows(resolved, HERE, {"": {"east": 1.0}}, {})
    assert {str(f.address): [str(s.address) for s in row.slots] for f, row in found.items()} == {
        str(VIP): ["10.1.0.5"],
        str(VIP6): ["fd00:10:1::5"],
    }


def test_a_backend_on_its_way_back_has_fewer_slots() -> None:
    resolved = resolve(web(), candidates=[candidate("10.1.0.5"), candidate("10.1.0.6")])
    row = rows(resolved, HERE, {}, {at("10.1.0.6"): 2})[Frontend(VIP, 80, TCP)]
    assert (row.slots.count(at("10.1.0.5")), row.slots.count(at("10.1.0.6"))) == (5, 1)
