"""Services at the socket: real clients in a cgroup, real servers, no packet translated."""

from __future__ import annotations

import asyncio
import errno
import select
import subprocess
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from meshnet.dataplane.kernel import KernelDataplane
from meshnet.dataplane.schema import Sizes
from meshnet.errors import MapFull
from meshnet.logic.abandoned import abandoned
from meshnet.model.dataplane import ServiceRow
from meshnet.model.service import Frontend, Protocol
from meshnet.netlink.sockets import destroy_datagram
from tests.support.bpf import Node, built, run
from tests.support.sockets import Group, cgroup, servers

pytestmark = pytest.mark.bpf

V4, V6 = "100.64.0.10", "fd00:100:64::10"
ONE, TWO = ("127.0.0.2", 8080), ("127.0.0.3", 8081)
ONE_V6 = ("fd00::2", 8080)
KINDS = ("tcp", "udp", "connected-udp")


def at(host: str, port: int, protocol: Protocol) -> Frontend:
    return Frontend(ip_address(host), port, protocol)


def both(host: str, port: int, row: dict[Protocol, ServiceRow]) -> dict[Frontend, ServiceRow]:
    return {at(host, port, protocol): row[protocol] for protocol in Protocol}


def serve(
    node: Node, host: str, *backends: tuple[str, int], affinity_s: int = 0
) -> dict[Frontend, ServiceRow]:
    """The service at port 80 of that address, for TCP and UDP."""
    rows = {
        at(host, 80, protocol): ServiceRow(
            slots=tuple(at(*backend, protocol) for backend in backends), affinity_s=affinity_s
        )
        for protocol in Protocol
    }
    node.dataplane.update_services(rows, ())
    return rows


@pytest.fixture
def group(east: Node) -> Iterator[Group]:
    """A cgroup that the node serves, beside servers at three addresses."""
    run("ip addr add fd00::2/128 dev lo nodad")
    with cgroup() as made, servers({"one": ONE, "two": TWO, "one-v6": ONE_V6}):
        east.dataplane.attach_sockets(made.path)
        yield made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vip", "name"), [(V4, "one"), (V6, "one-v6")])
def test_a_client_talks_to_a_backend_and_sees_the_frontend(
    east: Node, group: Group, kind: str, vip: str, name: str
) -> None:
    serve(east, vip, ONE if vip == V4 else ONE_V6)

    assert group.ask(kind, vip, 80) == (vip, 80, name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ipv6_socket_that_talks_ipv4_is_served_too(east: Node, group: Group, kind: str) -> None:
    serve(east, V4, ONE)

    assert group.ask(kind, f"::ffff:{V4}", 80) == (f"::ffff:{V4}", 80, "one")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_service_is_left_alone(east: Node, group: Group, kind: str) -> None:
    serve(east, V4, TWO)

    assert group.ask(kind, *ONE) == (*ONE, "one")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_backend_the_client_is_refused_at_once(
    east: Node, group: Group, kind: str
) -> None:
    serve(east, V4)

    where, number, _ = group.ask(kind, V4, 80)
    assert (where, number) == ("error", errno.ECONNREFUSED)


def test_connections_are_spread_by_weight(east: Node, group: Group) -> None:
    serve(east, V4, ONE, ONE, ONE, TWO)

    taken = Counter(name for _, _, name in group.ask_often("tcp", V4, 80, 400))

    assert 240 <= taken["one"] <= 350  # 300 expected, 7 standard deviations
    assert taken["one"] + taken["two"] == 400
    hits = east.dataplane.backend_hits()
    assert hits[at(*ONE, Protocol.TCP)] == taken["one"]
    assert hits[at(*TWO, Protocol.TCP)] == taken["two"]


def test_a_datagram_socket_stays_with_its_backend(east: Node, group: Group) -> None:
    serve(east, V4, ONE, TWO)

    for _ in range(8):
        assert len(set(group.ask_often("udp", V4, 80, 20))) == 1


def test_with_affinity_all_connections_of_a_client_have_one_backend(
    east: Node, group: Group
) -> None:
    serve(east, V4, ONE, TWO, affinity_s=60)

    assert len(set(group.ask_often("tcp", V4, 80, 30))) == 1
    assert len(east.dataplane.dump("service_affinity")) == 1


def test_a_client_is_not_kept_at_a_backend_that_left_its_service_for_another(
    east: Node, group: Group
) -> None:
    other = "100.64.0.11"
    for vip in (V4, other):
        serve(east, vip, ONE, affinity_s=60)
        assert group.ask("tcp", vip, 80)[2] == "one"
        group.ask("udp", vip, 80)
    assert len(east.dataplane.dump("service_affinity")) == 4

    serve(east, V4, TWO, affinity_s=60)

    assert len(east.dataplane.dump("service_affinity")) == 2
    assert group.ask("tcp", V4, 80)[2] == "two"
    assert group.ask("tcp", other, 80)[2] == "one"


def test_a_backend_that_ends_gets_no_new_client_though_it_was_theirs(
    east: Node, group: Group
) -> None:
    serve(east, V4, ONE, affinity_s=60)
    assert group.ask("tcp", V4, 80)[2] == "one"

    tcp = Protocol.TCP
    row = ServiceRow(slots=(at(*TWO, tcp),), terminating=frozenset({at(*ONE, tcp)}), affinity_s=60)
    east.dataplane.update_services({at(V4, 80, tcp): row}, ())

    assert group.ask("tcp", V4, 80)[2] == "two"


def test_processes_outside_the_cgroup_see_no_service(east: Node, group: Group) -> None:
    serve(east, V4, ONE)

    with cgroup() as outside:
        where, number, _ = outside.ask("tcp", V4, 80)
    assert (where, number) == ("error", errno.ENETUNREACH)


def test_a_change_of_backends_under_connects_loses_none(east: Node, group: Group) -> None:
    serve(east, V4, ONE)
    asked = []
    for turn in range(10):
        serve(east, V4, *((ONE,), (TWO,), (ONE, TWO))[turn % 3])
        asked += group.ask_often("tcp", V4, 80, 20)
    assert {name for _, _, name in asked} == {"one", "two"}
    assert all(where == V4 for where, _, _ in asked)


def test_an_agent_that_starts_again_finds_its_services_and_goes_on(
    east: Node, group: Group
) -> None:
    rows = serve(east, V4, ONE, TWO, affinity_s=60)
    heir = KernelDataplane(east.directory, built(), sizes=Sizes.lab())
    try:
        found = heir.services()
        assert {frontend: sorted(row.slots) for frontend, row in found.items()} == {
            frontend: sorted(row.slots) for frontend, row in rows.items()
        }
        heir.update_services({}, found)
        assert heir.services() == {}
        assert heir.dump("services") == [] and heir.dump("backends") == []
    finally:
        heir.close()


def test_an_agent_that_starts_again_forgets_a_backend_that_ended_meanwhile(east: Node) -> None:
    frontend, tcp = at(V4, 80, Protocol.TCP), Protocol.TCP
    ends = ServiceRow(slots=(at(*TWO, tcp),), terminating=frozenset({at(*ONE, tcp)}))
    east.dataplane.update_services({frontend: ends}, ())
    heir = KernelDataplane(east.directory, built(), sizes=Sizes.lab())
    try:
        heir.update_services({}, ())
        assert [row["address"] for row in heir.dump("backends")] == [TWO[0]]
    finally:
        heir.close()


def test_a_service_that_does_not_fit_is_named_and_the_others_stay(east: Node) -> None:
    serve(east, V4, ONE)
    many = tuple(at("127.0.0.9", 1, Protocol.TCP) for _ in range(Sizes.lab().backend_slots))

    with pytest.raises(MapFull, match="backend_slots"):
        east.dataplane.update_services({at(V4, 81, Protocol.TCP): ServiceRow(slots=many)}, ())

    assert len(east.dataplane.services()) == 2


def test_rows_are_shown_with_named_fields(east: Node) -> None:
    serve(east, V6, ONE_V6)

    services = east.dataplane.dump("services")
    assert {(row["address"], row["port"], row["protocol"]) for row in services} == {
        (V6, 80, "tcp"),
        (V6, 80, "udp"),
    }
    backends = east.dataplane.dump("backends")
    assert {(row["address"], row["port"], row["state"]) for row in backends} == {
        ("fd00::2", 8080, "active")
    }


def test_a_socket_that_waits_for_a_backend_that_left_is_told_and_reaches_another(
    east: Node, group: Group
) -> None:
    """Three wait for the same backend: by the service, by another service, and directly."""
    serve(east, V4, ONE)
    other = "100.64.0.11"
    serve(east, other, ONE)
    front, gone = at(V4, 80, Protocol.UDP), at(*ONE, Protocol.UDP)
    with (
        group.waiting(V4, 80, (V4, 80)) as client,
        group.waiting(other, 80, (V4, 80)) as spared,
        group.waiting(*ONE, (V4, 80)) as direct,
    ):
        for each in (client, spared, direct):
            assert line(each) == "one"
        serve(east, V4, TWO)
        wanted = abandoned(east.dataplane.socket_peers(), {front: frozenset({gone})}, {})
        assert list(wanted.values()) == [gone]
        assert asyncio.run(destroy_datagram(None, wanted)) == set(wanted)
        assert [line(client), line(client)] == [str(errno.ECONNABORTED), "two"]
        peers = [peer for peer in east.dataplane.socket_peers() if peer.cookie in wanted]
        assert {(peer.frontend, peer.backend) for peer in peers} == {
            (front, gone),
            (front, at(*TWO, Protocol.UDP)),
        }
        assert spared.poll() is None and direct.poll() is None
        for each in (spared, direct):
            assert waits(each)


def line(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


def waits(client: subprocess.Popen[str]) -> bool:
    """Whether it has nothing more to say: an error would have come with the others'."""
    assert client.stdout is not None
    return not select.select([client.stdout], [], [], 0)[0]
