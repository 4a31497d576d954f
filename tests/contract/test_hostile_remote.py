"""What a remote says that it may not say: each key refused, told once, and nothing else harmed.

hostile `west` and honest `north` ── etcd each ──▶ mesh leader of `east` ──▶ etcd of `east`
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog

from meshnet.kvstore.api import Delete
from meshnet.kvstore.etcd import EtcdKV
from meshnet.logic.admission import MAX_MANIFEST_BYTES
from meshnet.mesh.leader import Intervals, MeshLeader
from meshnet.mesh.leadership import Leadership
from meshnet.mesh.refusals import LASTING_S
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import Remote
from meshnet.registry import codec, schema
from tests.support.etcd import EtcdProcess, etcd
from tests.support.mesh import (
    EAST,
    WEB,
    WEST,
    as_mirrored,
    contents,
    entry,
    identity_key,
    introduction,
    ip_key,
    node,
    node_key,
    put_all,
    shared_policy,
    state,
    status_when,
    until,
)

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]

NORTH = attrs.evolve(WEST, name="north", id=3, pod_cidrs=(parse_prefix("10.3.0.0/16"),))
NORTHERN = dict([node_key(node(1, cluster="north", cluster_id=3))])
HONEST = state(nodes=2, endpoints=10) | dict([shared_policy("honest")])
MINE = "172.20.1.1"
"""The address of node east-1, which is ours."""
LONG = "x" * 900_000


def lie(key: str, **value: Any) -> tuple[str, bytes]:
    return key, json.dumps(value).encode()


def address(text: str, **value: Any) -> tuple[str, bytes]:
    return lie(f"{schema.IPS}{text}", **{"IP": text, "HostIP": "172.20.2.1", "ID": WEB} | value)


def host(number: int, *addresses: str, **other: Any) -> tuple[str, bytes]:
    made = node(number)
    wanted = tuple(ip_address(each) for each in addresses) or made.addresses
    return node_key(attrs.evolve(made, addresses=wanted, **other))


def labelled(local: int, text: str) -> tuple[str, bytes]:
    return f"{schema.IDENTITIES}{(2 << 16) + local}", text.encode()


OWN_LABEL = "k8s:io.cilium.k8s.policy.cluster=west;"

SHARED = schema.shared_manifests("west")
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "annotations": {"meshnet.io/scope": "mesh"}},
}
LIES: dict[str, tuple[tuple[str, bytes], str]] = {
    "an address of ours": (address("10.1.0.5"), "outside the PodCIDRs of west"),
    "an address of a third cluster": (address("10.3.1.5"), "outside the PodCIDRs of west"),
    "a prefix around its pinned one": (
        lie(f"{schema.IPS}10.2.0.0/15", IP="10.2.0.0", Mask="//4AAA==", ID=WEB),
        "10.2.0.0/15 is outside the PodCIDRs of west",
    ),
    "a PodCIDR it was not pinned": (
        host(3, pod_cidrs=(ip_network("10.9.0.0/24"),), gateways=()),
        "10.9.0.0/24 is outside the PodCIDRs",
    ),
    "a HostIP that is ours": (address("10.2.1.201", HostIP=MINE), "is no address of a known node"),
    "a HostIP of a third cluster's node": (
        address("10.2.1.202", HostIP="172.20.3.1"),
        "is no address of a known node",
    ),
    "a node at our address": (host(4, MINE), f"{MINE} belongs to node east-1 of this cluster"),
    "a node at a third cluster's node": (host(5, "172.20.3.1"), "172.20.3.1 belongs to north"),
    "a node inside our PodCIDR": (host(6, "10.1.0.7"), "inside a PodCIDR or service CIDR of this"),
    "a node at our loopback": (host(7, "127.0.0.1"), "not a unicast address"),
    "a node of very many addresses": (
        host(8, *(f"172.20.2.{n}" for n in range(100, 117))),
        "more than 16 addresses",
    ),
    "a gateway outside its node": (
        host(9, gateways=(ip_address("10.2.1.1"),)),
        "outside the node's PodCIDRs",
    ),
    "a node with our cluster id": (host(10, cluster_id=1), "cluster id is 1, not 2"),
    "a node of another name than its key": (
        (schema.node("west", "west-11"), node_key(node(1))[1]),
        "name does not match key",
    ),
    "an identity of ours": (identity_key((1 << 16) + 300), "outside the range of cluster id 2"),
    "an address with an identity of ours": (
        address("10.2.1.203", ID=(1 << 16) + 300),
        "outside the range of cluster id 2",
    ),
    "an address that says it is our host": (address("10.2.1.204", ID=1), "outside the range"),
    "an address that says it is the world": (address("10.2.1.205", ID=2), "outside the range"),
    "an identity labelled as another cluster": (
        identity_key(WEB + 1, cluster="east"),
        "is 'east', not 'west'",
    ),
    "an identity labelled as another cluster too": (
        labelled(302, f"any:io.cilium.k8s.policy.cluster=east;{OWN_LABEL}"),
        "is 'east', not 'west'",
    ),
    "an identity labelled twice": (
        labelled(303, f"k8s:io.cilium.k8s.policy.cluster=east;{OWN_LABEL}"),
        "stands there twice",
    ),
    "an identity labelled as our host": (
        labelled(304, f"{OWN_LABEL}reserved:host=;"),
        "of source 'reserved'",
    ),
    "an identity without a cluster": (labelled(305, "k8s:app=web;"), "could not find expected"),
    "a service with our backends": (
        lie(
            schema.service("west", "shop", "web"),
            cluster="west",
            namespace="shop",
            name="web",
            clusterID=2,
            backends={"10.1.0.5": {}},
        ),
        "backend 10.1.0.5 is outside",
    ),
    "a policy in another cluster's name": (
        (f"{SHARED}north/networkpolicy/shop/web", shared_policy()[1]),
        "is not <cluster>/<kind>/<namespace>/<name>",
    ),
    "a policy under another name than its own": (
        (f"{SHARED}networkpolicy/shop/api", shared_policy()[1]),
        "does not match key",
    ),
    "a policy that could not be applied here": (
        shared_policy("moon", ingress=[{"from": [{"moon": {}}]}]),
        "spec.ingress[0].from[0].moon",
    ),
    "a policy of its own cluster alone": (
        (shared_policy("own")[0], shared_policy("own")[1].replace(b'"mesh"', b'"cluster"')),
        "is not for the whole mesh",
    ),
    "a policy over the limit": (
        shared_policy("long", ingress=[{}] * MAX_MANIFEST_BYTES),
        f"over the limit of {MAX_MANIFEST_BYTES}",
    ),
    "labels for our namespaces": (
        (f"{SHARED}namespace//shop", json.dumps(NAMESPACE).encode()),
        "a Namespace is of its own cluster",
    ),
    "not JSON": ((f"{schema.IPS}10.2.1.206", b"\xff{"), "not JSON"),
    "JSON as deep as a well": ((f"{schema.IPS}10.2.1.207", b"[" * 100_000), "not JSON"),
    "a value over the limit": (
        (f"{schema.IPS}10.2.1.208", b" " * ((1 << 20) + 1)),
        "over the limit of 1048576",
    ),
    "a key over the limit": (
        (schema.node("west", LONG), b'{"Name":"x"}'),
        "characters is over the limit of 512",
    ),
    "a name of megabytes": (
        lie(schema.node("west", "west-12"), Name=LONG, Cluster="west", ClusterID=2),
        "characters)",
    ),
    "a key that plays with the terminal": (
        (schema.node("west", "\x1b[2J"), b'{"Name":"\\u001b[2J","Cluster":"west","ClusterID":2}'),
        "key has characters that cannot be printed",
    ),
    "a name that plays with the terminal": (
        address("10.2.1.209", K8sPodName="\x1b[2Jweb"),
        "a name in it has characters that cannot be printed",
    ),
}


@attrs.define
class Outcome:
    """How it went: everything that west said was in its etcd at the same time."""

    refused: dict[str, str] = attrs.field(factory=dict)
    told: list[str] = attrs.field(factory=list)
    """Keys in the log, as often as they were logged."""
    caches: list[dict[str, bytes]] = attrs.field(factory=list)
    """Our copies of both remotes, while west lied."""
    terms: int = 0
    """How often somebody began to lead."""
    status_bytes: int = 0
    northern: bool = False
    """What the honest remote wrote meanwhile came over."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    with (
        etcd(directory / "east") as east,
        etcd(directory / "west") as west,
        etcd(directory / "north") as north,
        structlog.testing.capture_logs() as logs,
    ):
        made = asyncio.run(attack(east, west, north))
    made.told = [row["key"] for row in logs if row["event"] == "key of a remote refused"]
    made.terms = len([row for row in logs if row["event"] == "leading"])
    yield made


async def attack(east: EtcdProcess, west: EtcdProcess, north: EtcdProcess) -> Outcome:
    stores = {"west": west.kv(), "north": north.kv()}
    ours = east.kv()
    await put_all(stores["west"], introduction() | HONEST)
    await put_all(stores["north"], introduction("north", 3) | NORTHERN)
    await put_all(ours, dict([node_key(node(1, cluster="east", cluster_id=1))]))
    for remote in (WEST, NORTH):
        await ours.put(schema.remote(remote.name), codec.encode_remote(remote))

    def open_remote(remote: Remote) -> EtcdKV:
        return {"west": west, "north": north}[remote.name].kv()

    leader = MeshLeader(ours, EAST, open_remote, intervals=Intervals(publish_s=0.1))
    task = asyncio.create_task(Leadership(ours, "east-1").run(leader.lead))
    outcome = Outcome()
    try:
        for cluster in stores:
            await status_when(ours, lambda status: status.ready, cluster=cluster)
        lies = [made for made, _ in LIES.values()]
        for start in range(0, len(lies), 16):  # a status shows the first 20
            await tell(stores["west"], ours, dict(lies[start : start + 16]), outcome)
        late = ip_key(entry(1, 77, cluster_id=3, identity=(3 << 16) + 300))
        await stores["north"].put(*late)
        await until(
            ours, schema.cache_ips("north"), lambda found: late[1] in found.values(), timeout=20
        )
        outcome.northern = True
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for kv in (ours, *stores.values()):
            await kv.close()
    return outcome


async def tell(west: EtcdKV, ours: EtcdKV, lies: dict[str, bytes], outcome: Outcome) -> None:
    """Have west say all that; note what is shown of it, once and when it is said again."""
    for key, value in lies.items():
        await west.put(key, value)
    status = await status_when(ours, lambda status: status.refused == len(lies), timeout=20)
    outcome.refused |= {refusal.key: refusal.reason for refusal in status.refusals}
    outcome.status_bytes = max(outcome.status_bytes, len(codec.encode_mirror_status(status)))
    for key, value in lies.items():
        await west.put(key, value)
    await asyncio.sleep(LASTING_S + 0.3)
    mirrored = await contents(ours, schema.CACHES)
    outcome.caches.append(mirrored | await contents(ours, schema.CACHE_MANIFESTS))
    await west.txn((), [Delete(key) for key in lies])
    await status_when(ours, lambda status: status.refused == 0)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_refused_by_key_with_the_reason_and_told_once(name: str, outcome: Outcome) -> None:
    (key, _), reason = LIES[name]
    shown = key if len(key) < 300 and key.isprintable() else None
    if shown is None:  # a name that must not be shown as it is
        (shown,) = (k for k in outcome.refused if reason in outcome.refused[k])
    assert reason in outcome.refused[shown]
    assert outcome.told.count(shown) == 1
    assert shown.isprintable() and len(shown) < 400
    assert outcome.refused[shown].isprintable() and len(outcome.refused[shown]) < 400


def test_nothing_of_a_lie_is_copied_and_nothing_else_is_harmed(outcome: Outcome) -> None:
    assert len(outcome.caches) == 3
    for cache in outcome.caches:
        western = {key: value for key, value in cache.items() if "/north/" not in key}
        assert western == as_mirrored(HONEST), "its honest keys stay, the lies never came"
    assert outcome.northern, "another remote is mirrored on"
    assert outcome.terms == 1, "the leader led all the time"
    assert outcome.status_bytes < 64 << 10, "what is published of it stays small"
