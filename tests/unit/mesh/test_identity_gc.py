"""Identities go when nobody used them for two rounds, and never sooner."""

from __future__ import annotations

import pytest

from meshnet.errors import PoolExhausted
from meshnet.kvstore.memory import MemoryKV
from meshnet.mesh.identity_gc import IdentityCollector
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import FIRST_LOCAL, LabelSet, endpoint_labels
from meshnet.registry import allocator, codec, schema
from meshnet.registry.allocator import allocate_identity
from tests.support.mesh import contents, entry, lead

# A label's key may have a slash: the node's name is what follows the last one.
LABELS = endpoint_labels({"example.com/app": "web"}, namespace="shop", cluster="east")


class Fixture:
    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.collector = IdentityCollector(self.kv)

    async def start(self, labels: LabelSet = LABELS) -> int:
        self.writer = await lead(self.kv)
        return await allocate_identity(self.kv, 1, labels)

    async def rounds(self, count: int) -> list[str]:
        gone: list[str] = []
        for _ in range(count):
            gone += await self.collector.round(self.writer)
        return gone


async def test_an_identity_nobody_used_for_two_rounds_goes_with_its_allocation() -> None:
    fixture = Fixture()
    number = await fixture.start()
    assert await fixture.rounds(1) == []
    assert await fixture.rounds(1) == [schema.identity(number)]
    left = await contents(fixture.kv, "")
    assert left.keys() == {schema.LEADER, schema.retired_identity(number)}


async def test_a_number_that_was_taken_back_rests_before_it_is_anothers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two numbers in all."""
    monkeypatch.setattr(allocator, "LAST_LOCAL", FIRST_LOCAL + 1)
    monkeypatch.setattr(allocator, "IDENTITIES", 2)
    fixture = Fixture()
    number = await fixture.start()
    await fixture.rounds(2)

    others = [LabelSet.of({"k8s:app": f"a{n}"}) for n in range(2)]
    other = await allocate_identity(fixture.kv, 1, others[0])
    assert other != number
    with pytest.raises(PoolExhausted):
        await allocate_identity(fixture.kv, 1, LABELS)

    resting = await fixture.kv.get(schema.retired_identity(number))
    assert resting is not None and resting.value == str(LABELS).encode()
    await fixture.kv.revoke(resting.lease)  # its time is over
    assert await allocate_identity(fixture.kv, 1, others[1]) == number


async def test_an_identity_in_use_stays_for_ever() -> None:
    fixture = Fixture()
    number = await fixture.start()
    await fixture.kv.put(schema.identity_value(LABELS, "east-1"), str(number).encode())
    assert await fixture.rounds(4) == []


async def test_an_identity_that_an_address_has_stays() -> None:
    fixture = Fixture()
    number = await fixture.start()
    one: IpEntry = entry(1, 5, cluster_id=1, identity=number)
    await fixture.kv.put(schema.ip(one.prefix), codec.encode_ip_entry(one))
    assert await fixture.rounds(4) == []


async def test_a_use_between_the_rounds_begins_the_count_anew() -> None:
    fixture = Fixture()
    await fixture.start()
    key = schema.identity_value(LABELS, "east-1")
    await fixture.rounds(1)
    await fixture.kv.put(key, b"1")
    await fixture.rounds(1)
    await fixture.kv.delete(key)
    assert await fixture.rounds(1) == []
    assert len(await fixture.rounds(1)) == 1


async def test_an_identity_written_anew_between_the_rounds_stays() -> None:
    fixture = Fixture()
    number = await fixture.start()
    await fixture.rounds(1)
    pair = await fixture.kv.get(schema.identity(number))
    assert pair is not None
    await fixture.kv.put(pair.key, pair.value)
    assert await fixture.rounds(1) == []


async def test_labels_that_were_given_another_number_meanwhile_keep_it() -> None:
    fixture = Fixture()
    number = await fixture.start()
    await fixture.rounds(1)
    await fixture.kv.put(schema.identity_allocation(LABELS), b"70000")
    assert await fixture.rounds(1) == [schema.identity(number)]
    left = await contents(fixture.kv, schema.IDENTITY_ALLOCATIONS)
    assert list(left.values()) == [b"70000"]


async def test_a_node_that_takes_an_identity_up_is_safe_before_it_has_said_so() -> None:
    fixture = Fixture()
    number = await fixture.start()
    await fixture.rounds(1)
    assert await allocate_identity(fixture.kv, 1, LABELS) == number
    assert await fixture.rounds(1) == []
    await fixture.kv.put(schema.identity_value(LABELS, "east-1"), str(number).encode())
    assert await fixture.rounds(3) == []


async def test_an_identity_taken_up_during_a_round_fails_its_collection() -> None:
    fixture = Fixture()
    number = await fixture.start()
    await fixture.rounds(1)
    in_use = fixture.collector._in_use

    async def taken_up_just_after() -> tuple[set[bytes], set[str]]:
        found = await in_use()
        assert await allocate_identity(fixture.kv, 1, LABELS) == number
        return found

    fixture.collector._in_use = taken_up_just_after  # type: ignore[method-assign]
    assert await fixture.rounds(1) == []
    assert await fixture.kv.get(schema.identity(number)) is not None
