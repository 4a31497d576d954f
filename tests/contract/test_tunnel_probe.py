"""Questions in the tunnel's format over a real interface, both ways, in both families."""

from __future__ import annotations

import attrs
import pytest

from meshnet.enrolment.messages import ProbeReply, ProbeRequest
from meshnet.enrolment.tunnel import TunnelResponder, TunnelSide, probe
from meshnet.errors import Unreachable
from meshnet.model.addressing import Address, parse_address
from meshnet.model.check import Check
from tests.support.enrolment import loopback_tunnel

pytestmark = pytest.mark.netlink

ADDRESSES = {4: parse_address("127.0.0.1"), 6: parse_address("::1")}


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.check: check for check in checks}


def sides(address: Address, **signer: object) -> tuple[TunnelSide, TunnelSide]:
    return (
        loopback_tunnel(addresses=(address,)),
        loopback_tunnel(**{"addresses": (address,), **signer}),
    )


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("sends", ["vxlan", "geneve"])
async def test_datagrams_of_every_size_arrive_both_ways(version: int, sends: str) -> None:
    joiner, signer = sides(ADDRESSES[version], sends=sends)

    checks = by_name(await probe(joiner, signer.end(), b"", TunnelResponder(signer).answer))

    assert checks["tunnel-port"].ok, checks["tunnel-port"]
    overhead = 50 if version == 4 else 70
    assert checks["path-mtu"].evidence == (
        f"1500 bytes pass both ways (our interface: 1500), so endpoints get {1500 - overhead}"
    )


async def test_narrower_interface_of_the_other_side_is_the_paths_mtu() -> None:
    joiner, signer = sides(ADDRESSES[4], mtu=1400)

    checks = by_name(await probe(joiner, signer.end(), b"", TunnelResponder(signer).answer))

    assert checks["path-mtu"].evidence.startswith("1400 bytes pass both ways")


async def test_signer_that_hears_nothing_is_told_from_one_that_is_not_heard() -> None:
    joiner, signer = sides(ADDRESSES[4])
    responder = TunnelResponder(signer)
    target = f"127.0.0.1:{signer.ports['vxlan']}"
    back = f"127.0.0.1:{joiner.ports['vxlan']}"

    async def deaf(request: ProbeRequest) -> ProbeReply:
        return attrs.evolve(await responder.answer(request), arrived=(), source=None)

    async def mute(request: ProbeRequest) -> ProbeReply:
        return ProbeReply(arrived=(200, 1500), source="127.0.0.1")

    up = by_name(await probe(joiner, signer.end(), b"", deaf))["tunnel-port"]
    down = by_name(await probe(joiner, signer.end(), b"", mute))["tunnel-port"]

    assert up.evidence == f"no vxlan datagram from 127.0.0.1 reaches {target}"
    assert down.evidence == f"no vxlan datagram from 127.0.0.1 reaches {back}"


async def test_signer_that_does_not_answer_is_a_failed_check_and_no_traceback() -> None:
    joiner, signer = sides(ADDRESSES[4])

    async def away(_: ProbeRequest) -> ProbeReply:
        raise Unreachable("no signer of cluster 'east' answers")

    (check,) = await probe(joiner, signer.end(), b"", away)

    assert not check.ok
    assert "the other side did not look: no signer of cluster 'east' answers" in check.text


async def test_underlays_of_two_families_have_nothing_to_try() -> None:
    joiner, _ = sides(ADDRESSES[4])
    _, signer = sides(ADDRESSES[6])

    (check,) = await probe(joiner, signer.end(), b"", TunnelResponder(signer).answer)

    assert (check.ok, check.text) == (False, "the underlays have no IP version in common")
