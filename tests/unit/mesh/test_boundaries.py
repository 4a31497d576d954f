"""Whose an address is, and that it stays theirs."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import attrs

from meshnet.mesh.boundaries import Boundaries
from meshnet.mesh.refusals import LASTING_S, LastingRefusals
from tests.support.mesh import EAST, WEST, node

NORTH = attrs.evolve(WEST, name="north", id=3, pod_cidrs=(ip_network("10.3.0.0/16"),))
SHARED = node(4, cluster="north", cluster_id=3)
SHARED = attrs.evolve(SHARED, addresses=node(1).addresses, pod_cidrs=(), gateways=())


def boundaries() -> Boundaries:
    made = Boundaries(EAST)
    made.remotes({"west": WEST, "north": NORTH})
    return made


def test_two_remotes_with_one_address_are_told_apart_by_who_was_first() -> None:
    made = boundaries()
    made.believed("west", set(node(1).addresses))
    assert "belongs to west" in str(made.of(NORTH).judge(SHARED, ()))
    assert made.of(WEST).judge(node(1), ()) is None

    made.believed("north", set(SHARED.addresses))  # as if it had been judged a moment before
    assert "belongs to west" in str(made.of(NORTH).judge(SHARED, ()))
    assert made.of(WEST).judge(node(1), ()) is None


def test_an_address_is_free_again_when_its_remote_was_left() -> None:
    made = boundaries()
    made.believed("west", set(node(1).addresses))
    made.remotes({"north": NORTH})
    assert made.of(NORTH).judge(SHARED, ()) is None


def test_our_own_addresses_are_ours_whoever_was_first() -> None:
    made = boundaries()
    made.believed("west", set(node(1).addresses))
    made.own_nodes(
        [attrs.evolve(node(1, cluster="east", cluster_id=1), addresses=node(1).addresses)]
    )
    assert "belongs to node east-1 of this cluster" in str(made.of(WEST).judge(node(1), ()))


def test_the_version_grows_only_when_something_changed() -> None:
    made = boundaries()
    made.believed("west", {ip_address("172.20.2.1")})
    version = made.version
    made.believed("west", {ip_address("172.20.2.1")})
    assert made.version == version


def test_a_refusal_is_told_once_and_only_when_it_lasts() -> None:
    refusals = LastingRefusals()
    assert refusals.update({"a": "early", "b": "bad"}, 0.0) == ({}, [])
    assert refusals.update({"b": "bad"}, LASTING_S) == ({"b": "bad"}, ["b"])
    assert refusals.update({"b": "bad"}, LASTING_S + 1) == ({"b": "bad"}, [])
    assert refusals.update({"b": "worse"}, LASTING_S + 2) == ({}, [])
    assert refusals.update({"b": "worse"}, 9.0) == ({"b": "worse"}, ["b"])
    assert refusals.update({}, 10.0) == ({}, [])
