"""From hosts to a mesh: what a lab's labels say becomes clusters, and the clusters a mesh.

`meshnet.cluster` names a node's cluster and `meshnet.cluster-id` its id; the first node of
a cluster runs `cluster init`, the others join it, and every cluster joins every other. It is
the real command that does it, in the real hosts, as an operator would type it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import attrs

from meshnet.errors import LabError
from topology.inside import run, run_all
from topology.state import LabState

CLUSTER = "meshnet.cluster"
CLUSTER_ID = "meshnet.cluster-id"

OPTIONS = {
    "meshnet.routing": ("--routing", "tunnel"),
    "meshnet.tunnel": ("--tunnel", "vxlan"),
    "meshnet.underlay": ("--underlay", "eth1"),
    "meshnet.pod-cidr": ("--pod-cidr", ""),
    "meshnet.service-cidr": ("--service-cidr", ""),
}
"""Label of the founder -> option of `cluster init`, and what it is where there is no label;
empty: left out. A value may be several, with commas between."""

Say = Callable[[str], None]


@attrs.frozen
class Member:
    """One cluster of the lab."""

    name: str
    id: str
    nodes: tuple[str, ...]
    """The first one founds it and signs for it."""
    options: tuple[str, ...] = ()
    """Of its `cluster init`."""

    @property
    def founder(self) -> str:
        return self.nodes[0]


def members(lab: LabState) -> tuple[Member, ...]:
    """The clusters that the labels name, in the order of the file.

    Raises:
        LabError: no node has the label, or the nodes of one cluster differ about its id.
    """
    nodes: dict[str, list[str]] = {}
    ids: dict[str, str] = {}
    for node, state in lab.nodes.items():
        cluster = state.labels.get(CLUSTER)
        if cluster is None:
            continue
        nodes.setdefault(cluster, []).append(node)
        said = state.labels.get(CLUSTER_ID, "")
        if ids.setdefault(cluster, said) != said:
            raise LabError(f"nodes of cluster {cluster!r} differ in their label {CLUSTER_ID}")
    if not nodes:
        raise LabError(f"no node of lab {lab.name!r} has a label {CLUSTER}: nothing to form")
    return tuple(
        Member(name, ids[name], tuple(names), _options(lab.nodes[names[0]].labels))
        for name, names in nodes.items()
    )


def _options(labels: Mapping[str, str]) -> tuple[str, ...]:
    values = {option: labels.get(label, default) for label, (option, default) in OPTIONS.items()}
    return tuple(
        word
        for option, text in values.items()
        for value in filter(None, text.split(","))
        for word in (option, value.strip())
    )


def form(
    lab: LabState,
    say: Say,
    *,
    init: Mapping[str, Sequence[str]] | None = None,
    apart: Collection[Collection[str]] = (),
) -> tuple[Member, ...]:
    """Clusters first, all at once; then their nodes, all at once; then the mesh.

    What is formed already is left as it is.

    Args:
        init: options of `cluster init`, by cluster, where they are not what the labels say.
        apart: pairs of clusters that are not joined.

    Raises:
        LabError: a command failed, with the host and its last words.
    """
    clusters = members(lab)
    if all(_has_agent(lab, node) for cluster in clusters for node in cluster.nodes):
        return clusters
    say("founding " + ", ".join(f"{c.name} on {c.founder}" for c in clusters))
    run_all(
        lab,
        {
            c.founder: (
                "meshnet",
                "cluster",
                "init",
                c.name,
                *_id(c),
                "--node",
                c.founder,
                *(init or {}).get(c.name, c.options),
            )
            for c in clusters
        },
    )
    joiners = {node: c for c in clusters for node in c.nodes[1:]}
    if joiners:
        say("joining " + ", ".join(f"{node} to {c.name}" for node, c in joiners.items()))
        tokens = {
            node: _token(run(lab, c.founder, "meshnet", "cluster", "token", "-o", "json"))
            for node, c in joiners.items()
        }
        run_all(lab, {node: ("meshnet", "cluster", "join", tokens[node]) for node in joiners})
    for host, guest in combinations(clusters, 2):
        if {host.name, guest.name} in map(set, apart):
            continue
        say(f"joining the mesh: {guest.name} to {host.name}")
        join(lab, host=host, guest=guest)
    run_all(
        lab, {node: ("meshnet", "mesh", "status", "--wait") for c in clusters for node in c.nodes}
    )
    return clusters


def join(lab: LabState, *, host: Member, guest: Member) -> None:
    """Two clusters become one mesh. Raises LabError: refused, with the reason."""
    invite = ("meshnet", "mesh", "invite", "--for", guest.name, "-o", "json")
    token = _token(run(lab, host.founder, *invite))
    run(lab, guest.founder, "meshnet", "mesh", "join", token)


def _has_agent(lab: LabState, node: str) -> bool:
    return Path(f"/proc/{lab.nodes[node].pid}/root/run/meshnet/agent.sock").exists()


def _id(cluster: Member) -> tuple[str, ...]:
    return ("--id", cluster.id) if cluster.id else ()


def _token(output: str) -> str:
    token: str = json.loads(output)["token"]
    return token
