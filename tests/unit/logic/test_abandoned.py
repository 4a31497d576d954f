"""Which datagram sockets lost their backend."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from meshnet.logic.abandoned import abandoned, left, living
from meshnet.logic.services import Resolved, ResolvedPort
from meshnet.model.service import (
    Backend,
    BackendAddress,
    BackendState,
    Frontend,
    Protocol,
    Service,
    ServicePort,
    SocketPeer,
)

VIP = ip_address("100.64.0.10")


def at(host: str, protocol: Protocol = Protocol.UDP) -> BackendAddress:
    return BackendAddress(ip_address(host), 5300, protocol)


def resolved(protocol: Protocol = Protocol.UDP, **states: BackendState) -> Resolved:
    """A service at VIP:53 whose backends 10.1.0.<name> are in these states."""
    backends = tuple(
        Backend(at=at(f"10.1.0.{name[1:]}", protocol), port_name="", cluster="east", state=state)
        for name, state in states.items()
    )
    port = ServicePort(name="", port=53, protocol=protocol, target=5300)
    service = Service(namespace="default", name="dns", ports=(port,))
    return Resolved(
        service=service, addresses=(VIP,), ports=(ResolvedPort(port=port, backends=backends),)
    )


FRONT = Frontend(VIP, 53, Protocol.UDP)
ACTIVE, ENDING, OUT = BackendState.ACTIVE, BackendState.TERMINATING, BackendState.UNHEALTHY


def test_who_works_or_ends_goes_on_with_its_clients() -> None:
    now = living([resolved(b1=ACTIVE, b2=ENDING, b3=OUT)])
    assert now == {FRONT: {at("10.1.0.1"), at("10.1.0.2")}}


def test_streams_notice_by_themselves() -> None:
    assert living([resolved(Protocol.TCP, b1=ACTIVE)]) == {}


@pytest.mark.parametrize(
    ("after", "gone"),
    [
        ([resolved(b1=ACTIVE, b2=ACTIVE)], {}),
        ([resolved(b1=ACTIVE, b2=ENDING)], {}),
        ([resolved(b1=ACTIVE, b2=OUT)], {FRONT: {at("10.1.0.2")}}),
        ([resolved(b1=ACTIVE)], {FRONT: {at("10.1.0.2")}}),
        ([resolved(b1=ACTIVE, b2=ACTIVE, b3=ACTIVE)], {}),
        ([], {FRONT: {at("10.1.0.1"), at("10.1.0.2")}}),
    ],
)  # fmt: skip
def test_a_backend_that_is_out_or_not_there_any_more_has_left(
    after: list[Resolved], gone: dict[Frontend, set[BackendAddress]]
) -> None:
    before = living([resolved(b1=ACTIVE, b2=ACTIVE)])
    assert left(before, living(after)) == gone


def test_only_sockets_that_asked_for_the_service_are_meant() -> None:
    gone = {FRONT: frozenset({at("10.1.0.2")})}
    other = Frontend(VIP, 54, Protocol.UDP)
    peers = [
        SocketPeer(1, FRONT, at("10.1.0.2")),
        SocketPeer(2, FRONT, at("10.1.0.1")),
        SocketPeer(3, other, at("10.1.0.2")),
    ]
    assert abandoned(peers, gone, {}) == {1: at("10.1.0.2")}
    assert abandoned(peers, gone, {FRONT: frozenset({at("10.1.0.2")})}) == {}, "it is back"
