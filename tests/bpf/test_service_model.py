"""Random flows of one endpoint, to two services and directly to their backends: whoever answers
what, the endpoint gets it from whom it asked, as a plain Python table says."""

from __future__ import annotations

import random

import attrs
import pytest

from tests.support.asking import BACK, FRONT, OTHER, REMOTE, TOO, VIP, Asking
from tests.support.bpf import REDIRECT, SHOT
from tests.support.packets import read, udp

pytestmark = pytest.mark.bpf

STEPS = 1500
PORTS = (5000, 5001, 5002)
Seen = tuple[int, str]
"""A flow as a backend sees it: the client's port there, and the backend."""


@attrs.frozen
class Table:
    """What the dataplane should remember. Nothing in here is forgotten in the test's time."""

    backends: dict[str, set[str]]
    """Of each frontend's address."""
    asked: dict[Seen, tuple[str, int]] = attrs.field(factory=dict)
    """What a service made of flows -> the frontend and the client's own port."""
    flows: dict[tuple[str, int], Seen] = attrs.field(factory=dict)
    """Where a flow to a frontend is, as long as its backend never was gone."""
    direct: set[Seen] = attrs.field(factory=set)

    def change(self, asking: Asking, vip: str, backends: set[str]) -> None:
        self.backends[vip] = backends
        asking.serve(*backends, at=vip)
        there = set().union(*self.backends.values())
        for flow in [flow for flow, seen in self.flows.items() if seen[1] not in there]:
            del self.flows[flow]


def ask(asking: Asking, table: Table, vip: str, port: int) -> None:
    packet = asking.asked(udp(port, FRONT), to=vip)
    seen = (packet.ports[0], str(packet.destination))

    assert packet.ports[1] == BACK
    if before := table.flows.get((vip, port)):
        assert seen == before, "it keeps its backend, and is seen as it was"
    else:
        assert seen[1] in table.backends[vip]
    assert seen not in table.direct
    assert table.asked.get(seen, (vip, port)) == (vip, port), "it is no other flow's"
    table.asked[seen] = (vip, port)
    table.flows[vip, port] = seen


def ask_directly(asking: Asking, table: Table, backend: str, port: int) -> None:
    done = asking.send(udp(port, BACK), to=backend)

    assert (done.verdict == SHOT) == ((port, backend) in table.asked)
    if done.verdict == REDIRECT:
        packet = read(done.packet).inner
        assert (packet.ports, str(packet.destination)) == ((port, BACK), backend)
        table.direct.add((port, backend))


def answer(asking: Asking, table: Table, seen: Seen) -> None:
    port, backend = seen
    packet = asking.answered(udp(BACK, port), of=backend)

    if seen in table.direct:
        assert (str(packet.source), packet.ports) == (backend, (BACK, port))
    else:
        vip, own = table.asked[seen]
        assert (str(packet.source), packet.ports) == (vip, (FRONT, own))


@pytest.mark.parametrize("seed", range(2))
def test_every_answer_comes_from_whom_the_endpoint_asked(asking: Asking, seed: int) -> None:
    rng, table = random.Random(seed), Table({})
    vips = (VIP[asking.family], TOO[asking.family])
    both = [REMOTE[asking.family], OTHER[asking.family]]
    for vip in vips:
        table.change(asking, vip, set(both))
    for _ in range(STEPS):
        vip, port, turn = rng.choice(vips), rng.choice(PORTS), rng.random()
        if turn < 0.4:
            ask(asking, table, vip, port)
        elif turn < 0.5:
            ask_directly(asking, table, rng.choice(both), port)
        elif turn < 0.98 and (table.asked or table.direct):
            answer(asking, table, rng.choice(sorted({*table.asked, *table.direct})))
        else:
            table.change(asking, vip, set(rng.sample(both, rng.choice((1, 2)))))
    assert any(port not in PORTS for port, _ in table.asked), "some were seen by another port"
