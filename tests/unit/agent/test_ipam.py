"""`ipam check` reads etcd itself, and mends only what nobody else would."""

from __future__ import annotations

import json

from meshnet.agent.ipam import Ipam
from meshnet.kvstore.memory import MemoryKV
from meshnet.logic.ipam_check import Fault
from meshnet.registry import schema
from meshnet.registry.allocator import allocate_pod_cidrs
from tests.support.node import local_node

OWN = local_node().cluster
ORPHAN = f"{schema.IPS}10.1.20.1"


def entry(address: str, node: str) -> bytes:
    return json.dumps(
        {"IP": address, "Mask": None, "HostIP": "192.0.2.9", "ID": (OWN.id << 16) + 300,
         "Key": 0, "Metadata": f"cilium-global:default:{node}:7", "K8sNamespace": "default",
         "K8sPodName": "web"}
    ).encode()  # fmt: skip


async def test_keys_of_a_node_that_is_gone_are_deleted_unless_a_lease_will_do_it() -> None:
    kv = MemoryKV()
    leased = f"{schema.IPS}10.1.20.2"
    await kv.put(ORPHAN, entry("10.1.20.1", "east-9"))
    await kv.put(leased, entry("10.1.20.2", "east-9"), lease=await kv.grant(60))
    ipam = Ipam(kv, OWN)

    assert [each.id for each in await ipam.check()] == [
        Fault.ADDRESS_ORPHANED,
        Fault.ADDRESS_OUTSIDE,
    ]
    assert [each.id for each in await ipam.fix()] == [Fault.ADDRESS_OUTSIDE]

    assert await kv.get(ORPHAN) is None
    assert await kv.get(leased) is not None


async def test_an_allocation_whose_node_is_down_is_found_and_kept() -> None:
    kv = MemoryKV()
    blocks = await allocate_pod_cidrs(kv, OWN, "east-9")
    ipam = Ipam(kv, OWN)

    assert {each.subject for each in await ipam.fix()} == {str(each.network) for each in blocks}
    assert await allocate_pod_cidrs(kv, OWN, "east-9") == blocks


async def test_a_poisoned_key_does_not_hide_the_rest() -> None:
    kv = MemoryKV()
    await kv.put(f"{schema.IPS}10.1.20.3", b"not JSON")
    await kv.put(ORPHAN, entry("10.1.20.1", "east-9"))
    assert [each.key for each in await Ipam(kv, OWN).check()] == [ORPHAN]
