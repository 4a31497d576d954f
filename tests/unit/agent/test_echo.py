"""Probes as bytes: what the peer's dataplane and stack will see, and what is heard of them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from meshnet.agent import echo
from meshnet.agent.echo import Answer, TooBig
from meshnet.model.dataplane import Mode
from tests.support.packets import checksum, icmpv6_checksum, ip, read, udp
from tests.support.wellformed import parse

V4 = (ip_address("10.1.0.1"), ip_address("10.2.0.1"))
V6 = (ip_address("fd00:10:1::1"), ip_address("fd00:10:2::1"))
COOKIE = b"12345678"


@pytest.mark.parametrize("ends", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("mode", "head"), [(Mode.VXLAN, "0800000000000600"), (Mode.GENEVE, "0000655800000600")]
)
def test_a_probe_is_a_sound_echo_of_the_length_asked_for(
    ends: tuple[echo.Address, echo.Address], mode: Mode, head: str
) -> None:
    data = echo.tunnelled(*ends, identifier=7, cookie=COOKIE, mode=mode, length=1281)

    assert data[:8] == bytes.fromhex(head)
    inner = read(data[8:])
    assert (inner.source, inner.destination) == ends
    assert len(data) == 8 + 14 + 1281
    assert parse(inner.ether_type, data[22:]).length == 1281
    if ends == V4:
        assert checksum(inner.payload) == 0
    else:
        assert icmpv6_checksum(inner) == 0


def replied(version: int, message: bytes) -> bytes:
    """As a raw socket hands it over."""
    return b"\x45" + bytes(19) + message if version == 4 else message


@pytest.mark.parametrize(("version", "kind"), [(4, 0), (6, 129)])
def test_an_answer_is_known_by_its_identifier_and_cookie(version: int, kind: int) -> None:
    message = struct.pack("!BBHHH", kind, 0, 0, 7, 0) + COOKIE + bytes(100)

    assert echo.read(version, replied(version, message), 7) == Answer(COOKIE)
    assert echo.read(version, replied(version, message), 8) is None
    assert echo.read(version, replied(version, message[:12]), 7) is None


def test_a_routers_too_big_names_the_destination_and_the_mtu() -> None:
    four = ip("192.0.2.1", "192.0.2.2", udp(1, 8472)).data[:28]
    six = ip("2001:db8::1", "2001:db8::2", udp(1, 8472)).data

    said = echo.read(4, replied(4, struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + four), 7)
    assert said == TooBig(ip_address("192.0.2.2"), 1400)
    said = echo.read(6, struct.pack("!BBHI", 2, 0, 0, 70000) + six, 7)
    assert said == TooBig(ip_address("2001:db8::2"), 70000)
    assert echo.read(4, replied(4, struct.pack("!BBHHH", 3, 1, 0, 0, 0) + four), 7) is None


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x4f" + bytes(30), b"\x02" + bytes(20)])
def test_scraps_are_nothing(version: int, packet: bytes) -> None:
    assert echo.read(version, packet, 7) is None
