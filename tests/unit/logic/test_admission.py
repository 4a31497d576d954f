"""What of a remote's words is believed: each rule once, and the law of level triggering."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.logic.admission import (
    MAX_VALUE_BYTES,
    Admission,
    Boundary,
    Claim,
    ServiceClaim,
    Unreadable,
    oversized,
)
from meshnet.model.endpoint import IpEntry
from meshnet.model.identity import CLUSTER_LABEL, Identity, LabelSet, endpoint_labels
from meshnet.model.node import Node

WEST = Boundary(
    name="west",
    cluster_id=2,
    pod_cidrs=(ip_network("10.2.0.0/16"), ip_network("fd00:10:2::/48")),
    foreign={
        ip_network("10.1.0.0/16"): "this cluster",
        ip_network("100.64.0.0/16"): "this cluster",
        ip_network("10.3.0.0/16"): "north",
    },
    taken={ip_address("172.20.0.1"): "node east-1 of this cluster"},
)
HOST = ip_address("172.20.0.3")
NODE = Node(
    name="west-1",
    cluster="west",
    cluster_id=2,
    addresses=(HOST, ip_address("fd00:172:20::3")),
    gateways=(ip_address("10.2.4.1"),),
    pod_cidrs=(ip_network("10.2.4.0/22"), ip_network("fd00:10:2:1::/112")),
)
ENTRY = IpEntry(prefix=ip_network("10.2.4.9/32"), host=HOST, identity=(2 << 16) + 300)
IDENTITY = Identity((2 << 16) + 300, endpoint_labels({}, namespace="shop", cluster="west"))
SERVICE = ServiceClaim(cluster="west", cluster_id=2, backends=(ip_address("10.2.4.9"),))


def judge(claim: Claim, boundary: Boundary = WEST) -> str | None:
    return boundary.judge(claim, {HOST})


@pytest.mark.parametrize("claim", [NODE, ENTRY, IDENTITY, SERVICE], ids=lambda c: type(c).__name__)
def test_an_honest_claim_is_believed(claim: Claim) -> None:
    assert judge(claim) is None


@pytest.mark.parametrize("address", ["10.2.9.9", "fd00:10:2::9"])
def test_both_families_of_a_remotes_addresses_are_believed(address: str) -> None:
    assert judge(attrs.evolve(ENTRY, prefix=ip_network(address))) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cluster": "north"}, "cluster is 'north', not 'west'"),
        ({"cluster_id": 7}, "cluster id is 7, not 2"),
        (
            {"addresses": (ip_address("10.1.0.9"),)},
            "is inside a PodCIDR or service CIDR of this cluster",
        ),
        (
            {"addresses": (ip_address("100.64.0.9"),)},
            "is inside a PodCIDR or service CIDR of this cluster",
        ),
        ({"addresses": (ip_address("10.3.0.9"),)}, "is inside a PodCIDR or service CIDR of north"),
        ({"addresses": (ip_address("10.2.0.9"),)}, "is inside a PodCIDR or service CIDR of west"),
        ({"addresses": (ip_address("172.20.0.1"),)}, "belongs to node east-1 of this cluster"),
        ({"addresses": (ip_address("127.0.0.1"),)}, "not a unicast address of an underlay"),
        ({"addresses": (ip_address("ff02::1"),)}, "not a unicast address of an underlay"),
        ({"pod_cidrs": (ip_network("10.1.0.0/24"),)}, "outside the PodCIDRs of west"),
        ({"pod_cidrs": (ip_network("10.0.0.0/8"),)}, "outside the PodCIDRs of west"),
        (
            {"gateways": (ip_address("10.2.9.1"),)},
            "gateway 10.2.9.1 is outside the node's PodCIDRs",
        ),
        ({"health": (ip_address("10.2.9.2"),)}, "health address 10.2.9.2 is outside the node's"),
        ({"ingress": (ip_address("10.1.0.3"),)}, "ingress address 10.1.0.3 is outside the node's"),
    ],
)
def test_a_node_that_reaches_beyond_its_cluster_is_refused(
    change: dict[str, object], reason: str
) -> None:
    assert reason in (judge(attrs.evolve(NODE, **change)) or "believed")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prefix": ip_network("10.1.0.9/32")}, "outside the PodCIDRs of west"),
        ({"prefix": ip_network("0.0.0.0/0")}, "outside the PodCIDRs of west"),
        ({"identity": (1 << 16) + 300}, "outside the range of cluster id 2"),
        ({"identity": (3 << 16) + 300}, "outside the range of cluster id 2"),
        ({"identity": 1}, "outside the range of cluster id 2"),
        ({"identity": 6}, "outside the range of cluster id 2"),
        ({"host": ip_address("172.20.0.9")}, "is no address of a known node of west"),
        ({"host": None}, "has no HostIP"),
    ],
)
def test_an_address_that_reaches_beyond_its_cluster_is_refused(
    change: dict[str, object], reason: str
) -> None:
    assert reason in (judge(attrs.evolve(ENTRY, **change)) or "believed")


def test_an_identity_of_another_range_or_cluster_is_refused() -> None:
    assert "outside the range" in str(judge(Identity((3 << 16) + 300, IDENTITY.labels)))
    stolen = endpoint_labels({}, namespace="shop", cluster="east")
    assert "is 'east', not 'west'" in str(judge(Identity(IDENTITY.number, stolen)))
    bare = LabelSet.of({"k8s:app": "web"})
    assert f"label {CLUSTER_LABEL} is None" in str(judge(Identity(IDENTITY.number, bare)))


def test_a_backend_outside_the_remotes_pod_cidrs_is_refused() -> None:
    claim = attrs.evolve(SERVICE, backends=(ip_address("10.2.0.9"), ip_address("10.1.0.9")))
    assert judge(claim) == "backend 10.1.0.9 is outside the PodCIDRs of west"


def test_our_own_prefixes_win_over_pinned_ones_that_overlap_them() -> None:
    greedy = attrs.evolve(WEST, pod_cidrs=(ip_network("10.0.0.0/8"),))
    assert "overlaps 10.1.0.0/16 of this cluster" in str(
        judge(attrs.evolve(ENTRY, prefix=ip_network("10.1.0.9/32")), greedy)
    )


def test_a_value_of_a_mebibyte_is_read_and_one_byte_more_is_not() -> None:
    assert oversized("key", bytes(MAX_VALUE_BYTES)) is None
    refused = oversized("key", bytes(MAX_VALUE_BYTES + 1))
    assert refused is not None and "1048577 bytes is over the limit" in refused.reason


def test_an_address_is_believed_as_soon_as_its_node_is_and_no_longer() -> None:
    admission = Admission(WEST)
    admission.put("ip", ENTRY)
    assert admission.reason("ip") is not None

    assert admission.put("node", NODE) == {"node", "ip"}
    assert admission.reason("ip") is None

    assert admission.delete("node") == {"node", "ip"}
    assert admission.reason("ip") is not None


def test_an_address_is_not_believed_for_a_node_that_is_not() -> None:
    admission = Admission(WEST)
    admission.put("ip", ENTRY)
    admission.put("node", attrs.evolve(NODE, cluster_id=7))
    assert admission.reason("ip") is not None


_HOSTS = [ip_address(f"172.20.0.{last}") for last in (1, 3, 4)]  # .1 is one of ours
_CLAIMS: st.SearchStrategy[Claim] = st.one_of(
    st.builds(
        lambda addresses, cluster_id: attrs.evolve(
            NODE, addresses=tuple(addresses), cluster_id=cluster_id
        ),
        st.lists(st.sampled_from(_HOSTS), max_size=2),
        st.sampled_from([2, 2, 7]),
    ),
    st.builds(lambda host: attrs.evolve(ENTRY, host=host), st.sampled_from([*_HOSTS, None])),
    st.just(Unreadable("not JSON")),
)
_KEYS = st.sampled_from("abcde")
_BOUNDARIES = st.sampled_from(
    [WEST, attrs.evolve(WEST, taken={}), attrs.evolve(WEST, pod_cidrs=(ip_network("10.2.8.0/22"),))]
)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), _KEYS, _CLAIMS),
            st.tuples(st.just("delete"), _KEYS, st.none()),
            st.tuples(st.just("hold_to"), st.none(), _BOUNDARIES),
        ),
        max_size=25,
    )
)
def test_judgements_depend_on_the_keys_that_are_there_and_not_on_their_history(
    steps: list[tuple[str, str, Claim | Boundary]],
) -> None:
    admission, boundary = Admission(WEST), WEST
    claims: dict[str, Claim] = {}
    judged: dict[str, str | None] = {}  # as a follower of the answers would know it
    for what, key, value in steps:
        if what == "put":
            claims[key] = value
            dirty = admission.put(key, value)
        elif what == "delete":
            claims.pop(key, None)
            dirty = admission.delete(key)
        else:
            boundary = value
            dirty = admission.hold_to(boundary)
        for one in dirty:
            judged.pop(one, None)
            if one in claims:
                judged[one] = admission.reason(one)

    hosts = {
        address
        for claim in claims.values()
        if isinstance(claim, Node) and boundary.judge(claim, ()) is None
        for address in claim.addresses
    }
    assert judged == {key: boundary.judge(claim, hosts) for key, claim in claims.items()}
