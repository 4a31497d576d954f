"""At least as strict as a Cilium agent: what it was seen to refuse, and what it takes.

Seen with Cilium 1.20-dev, one bad key at a time (facts: cilium-interop).
"""

from __future__ import annotations

import json

import pytest

from meshnet.kvstore.api import KeyValue
from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.claims import kinds
from meshnet.mesh.replica import Replica
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import Remote, RemoteKind, RemoteState
from tests.support import cilium
from tests.support.mesh import EAST

CIL = Remote(
    name=cilium.CLUSTER,
    id=cilium.ID,
    mesh_ca="",
    pod_cidrs=(parse_prefix(cilium.POD_CIDR),),
    gateways=(),
    state=RemoteState.COMMITTED,
    kind=RemoteKind.CILIUM,
)
KEYS = cilium.keys("192.0.2.7")
NODE = f"cilium/state/nodes/v1/{cilium.CLUSTER}/{cilium.NODE}"
IP = f"cilium/state/ip/v1/default/{cilium.POD}"
IDENTITY = f"cilium/state/identities/v1/id/{cilium.IDENTITY}"
SERVICE = f"cilium/state/services/v1/{cilium.CLUSTER}/default/server"


def read(keys: dict[str, str]) -> dict[str, str]:
    """Key -> why it is refused, of those that are."""
    its_kinds = kinds(CIL.name)
    replica = Replica(Boundaries(EAST).of(CIL), its_kinds)
    for kind in its_kinds:
        pairs = [
            KeyValue(key, value.encode(), 1, 1)
            for key, value in keys.items()
            if key.startswith(kind.exported)
        ]
        replica.relist(kind, pairs)
    replica.operations()
    return replica.refusals


def changed(key: str, **fields: object) -> dict[str, str]:
    return {**KEYS, key: json.dumps(json.loads(KEYS[key]) | fields)}


def test_what_ciliums_own_agent_writes_is_believed() -> None:
    assert read(KEYS) == {}


@pytest.mark.parametrize(
    ("key", "fields", "reason"),
    [
        (NODE, {"ClusterID": 8}, "cluster id is 8, not 7"),
        (NODE, {"ClusterID": 0}, "ClusterID 0 is reserved"),
        (NODE, {"Cluster": "other"}, "unexpected cluster name"),
        (NODE, {"Name": "n2"}, "name does not match key"),
        (IP, {"ID": 8 << 16 | 300}, "outside the range of cluster id 7"),
        (IP, {"IP": "10.7.1.188"}, "IP address does not match key"),
        (SERVICE, {"name": "other"}, "namespaced name does not match key"),
        (SERVICE, {"clusterID": 0}, "ClusterID 0 is reserved"),
        (SERVICE, {"backends": {"pod": {}}}, "'pod' is not an IP address"),
    ],
)
def test_what_cilium_refuses_is_refused_with_a_reason(
    key: str, fields: dict[str, object], reason: str
) -> None:
    refused = read(changed(key, **fields))
    assert reason in refused[key]


@pytest.mark.parametrize(
    ("number", "labels", "reason"),
    [
        (8 << 16 | 300, cilium.LABELS, "ID 524588|outside the range"),
        (cilium.IDENTITY, "k8s:app=web;", "could not find expected label"),
        (cilium.IDENTITY, cilium.LABELS.replace("=cil;", "=other;"), "is 'other', not 'cil'"),
    ],
)
def test_an_identity_of_another_is_refused(number: int, labels: str, reason: str) -> None:
    key = f"cilium/state/identities/v1/id/{number}"
    refused = read({**KEYS, key: labels})
    assert any(part in refused[key] for part in reason.split("|"))


@pytest.mark.parametrize(
    "keys",
    [
        changed(NODE, ANewField={"a": 1}, Labels=None, Annotations=None),
        changed(IP, K8sServiceAccount="web", NamedPorts=None, Key=3),
        {
            **KEYS,
            "cilium/state/ip/v1/default/10.7.2.16/28": json.dumps(
                json.loads(KEYS[IP]) | {"IP": "10.7.2.16", "Mask": "////8A=="}
            ),
        },
        changed(SERVICE, frontends=None, hostnames=None),
    ],
    ids=["unknown and null fields", "optional fields", "a CIDR as an ip key", "a service of nulls"],
)
def test_what_cilium_takes_is_taken(keys: dict[str, str]) -> None:
    assert read(keys) == {}


def test_where_we_are_stricter_it_is_by_the_pinned_prefixes_and_the_known_nodes() -> None:
    """Cilium takes these: an address outside its PodCIDRs, or without a node that is known."""
    assert (
        "outside the PodCIDRs"
        in read({**KEYS, IP.replace("10.7.", "10.8."): KEYS[IP].replace("10.7.", "10.8.")})[
            IP.replace("10.7.", "10.8.")
        ]
    )
    assert "no HostIP" in read(changed(IP, HostIP=""))[IP]
    assert "known node" in read(changed(IP, HostIP="192.0.2.8"))[IP]
    assert "outside the range" in read(changed(IP, ID=6))[IP]
