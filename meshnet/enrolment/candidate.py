"""May that cluster and ours be in one mesh? Pure, and asked by both sides alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from meshnet.enrolment.messages import MeshMember
from meshnet.errors import MeshnetError, Refused
from meshnet.logic import agreement
from meshnet.model import names
from meshnet.model.ability import Abilities
from meshnet.model.addressing import Prefix, contains, overlaps
from meshnet.model.check import Check, Fault
from meshnet.model.cluster import Cluster
from meshnet.model.node import Node
from meshnet.model.remote import Remote, RemoteKind, RemoteState
from meshnet.pki.certificate import Certificate
from meshnet.pki.verify import verify_ca

MAX_GATEWAYS = 64
MAX_POD_CIDRS = 16


@attrs.frozen(kw_only=True)
class Neighbourhood:
    """Everything of our side that another cluster could collide with."""

    cluster: Cluster
    mesh_ca: Certificate
    changing: bool = False
    """Our CAs are being replaced: what was pinned now would soon be wrong."""
    abilities: Abilities = attrs.field(factory=Abilities)
    nodes: tuple[Node, ...] = ()
    remotes: tuple[Remote, ...] = ()

    def others(self, name: str) -> tuple[Remote, ...]:
        """The remotes besides that one, which may be on its way in for the second time."""
        return tuple(remote for remote in self.remotes if remote.name != name)


def examine(ours: Neighbourhood, candidate: MeshMember) -> tuple[Check, ...]:
    """Every check, each with the first fault it found."""
    fine = f"{_spoken(candidate.pod_cidrs)} overlaps nothing"
    return (
        *recognise(ours, candidate),
        Check.of("pinned", _pin_faults(ours, candidate), "nothing pinned changes"),
        Check.of("pod-cidr", _pod_cidr_faults(ours, candidate), fine),
        Check.of("gateways", _gateway_faults(candidate), ", ".join(candidate.gateways)),
        *agreement.compare(ours.abilities, candidate.abilities, f"cluster {candidate.name!r}"),
    )


def recognise(ours: Neighbourhood, candidate: MeshMember) -> tuple[Check, ...]:
    """The checks for which a token alone is enough: before anything is said to anybody."""
    return (
        Check.of("name", _name_faults(ours, candidate), f"{candidate.name!r} is free"),
        Check.of("id", _id_faults(ours, candidate), f"{candidate.id} is free"),
        Check.of("ca", _ca_faults(ours, candidate), "its mesh CA is its own"),
    )


def compare(
    ours: Neighbourhood, name: str, number: int | None, pod_cidrs: tuple[Prefix, ...]
) -> tuple[Check, ...]:
    """The checks of a cluster that has no mesh CA and no gateway: one of Cilium. `number`: None
    before anybody asked for its id."""
    known = next((remote.id for remote in ours.remotes if remote.name == name), 0)
    candidate = MeshMember(
        name=name, id=number or known, mesh_ca="", pod_cidrs=pod_cidrs, gateways=()
    )
    checks = [
        Check.of("name", _name_faults(ours, candidate), f"{name!r} is free"),
        Check.of("pinned", _pin_faults(ours, candidate), "nothing pinned changes"),
        Check.of(
            "pod-cidr", _pod_cidr_faults(ours, candidate), f"{_spoken(pod_cidrs)} overlaps nothing"
        ),
    ]
    if number is not None:
        checks.append(Check.of("id", _id_faults(ours, candidate), f"{number} is free"))
    return tuple(checks)


def as_remote(member: MeshMember, state: RemoteState) -> Remote:
    """How a member that passed is stored: its CA alone, whatever else its text held."""
    return Remote(
        name=member.name,
        id=member.id,
        mesh_ca=verify_ca(member.mesh_ca.encode()).pem.decode(),
        pod_cidrs=member.pod_cidrs,
        gateways=member.gateways,
        state=state,
    )


def _name_faults(ours: Neighbourhood, candidate: MeshMember) -> Iterator[Fault]:
    try:
        names.cluster_name(candidate.name)
    except MeshnetError as error:
        yield Fault(str(error))
    if candidate.name == ours.cluster.name:
        yield Fault(
            f"both clusters are named {candidate.name!r}", "set one of them up under another name"
        )


def _id_faults(ours: Neighbourhood, candidate: MeshMember) -> Iterator[Fault]:
    try:
        names.cluster_id(candidate.id)
    except MeshnetError as error:
        yield Fault(str(error))
    taken = [(ours.cluster.name, ours.cluster.id)]
    taken += [(remote.name, remote.id) for remote in ours.others(candidate.name)]
    for name, number in taken:
        if number == candidate.id:
            yield Fault(
                f"clusters {name!r} and {candidate.name!r} both have id {number}",
                "set one of them up with another --id",
            )


def _ca_faults(ours: Neighbourhood, candidate: MeshMember) -> Iterator[Fault]:
    if ours.changing:
        yield Fault(
            f"cluster {ours.cluster.name!r} is changing its CAs",
            "wait until `meshnet cluster ca status` there says stable",
        )
    try:
        theirs = verify_ca(candidate.mesh_ca.encode())
    except Refused as error:
        yield Fault(str(error))
        return
    known = [(ours.cluster.name, ours.mesh_ca)]
    known += [
        (remote.name, Certificate.parse(remote.mesh_ca.encode()))
        for remote in ours.others(candidate.name)
        if remote.kind is RemoteKind.MESHNET
    ]
    for name, ca in known:
        # By subject, not by key: TLS finds a CA by its subject, so a namesake of another
        # cluster's CA would stand in the way of that cluster's certificates.
        if ca.parsed.subject == theirs.parsed.subject:
            yield Fault(
                f"mesh CA of cluster {candidate.name!r} is named like that of cluster {name!r}: "
                f"{ca.parsed.subject.rfc4514_string()}"
            )


def _pin_faults(ours: Neighbourhood, candidate: MeshMember) -> Iterator[Fault]:
    """Joining twice is fine, joining as another is not: what was pinned stays pinned."""
    wanted = (candidate.id, candidate.mesh_ca.strip(), set(candidate.pod_cidrs))
    for remote in ours.remotes:
        if remote.name == candidate.name and remote.state is RemoteState.COMMITTED:
            pinned = (remote.id, remote.mesh_ca.strip(), set(remote.pod_cidrs))
            if pinned != wanted:
                yield Fault(
                    f"cluster {remote.name!r} is in the mesh already, with another CA, id or "
                    "PodCIDR",
                    f"run `meshnet mesh leave {remote.name}` first",
                )


def _pod_cidr_faults(ours: Neighbourhood, candidate: MeshMember) -> Iterator[Fault]:
    if not 1 <= len(candidate.pod_cidrs) <= MAX_POD_CIDRS:
        yield Fault(
            f"cluster {candidate.name!r} names {len(candidate.pod_cidrs)} PodCIDRs: "
            f"1 to {MAX_POD_CIDRS}"
        )
    own = ours.cluster
    taken: list[tuple[str, Prefix, str]] = [
        *(("PodCIDR", prefix, own.name) for prefix in own.pod_cidrs),
        *(("service CIDR", prefix, own.name) for prefix in own.service_cidrs),
    ]
    for remote in ours.others(candidate.name):
        taken += [("PodCIDR", prefix, remote.name) for prefix in remote.pod_cidrs]
    for theirs in candidate.pod_cidrs:
        for what, prefix, cluster in taken:
            if overlaps(theirs, prefix):
                yield Fault(
                    f"PodCIDR {theirs} of cluster {candidate.name!r} overlaps {what} {prefix} "
                    f"of cluster {cluster!r}"
                )
        for node in ours.nodes:
            for address in node.addresses:
                if contains(theirs, address):
                    yield Fault(
                        f"PodCIDR {theirs} of cluster {candidate.name!r} contains node "
                        f"{node.name!r} ({address}) of cluster {own.name!r}"
                    )


def _gateway_faults(candidate: MeshMember) -> Iterator[Fault]:
    if not 1 <= len(candidate.gateways) <= MAX_GATEWAYS:
        yield Fault(
            f"cluster {candidate.name!r} names {len(candidate.gateways)} gateways: "
            f"1 to {MAX_GATEWAYS}"
        )
    for gateway in candidate.gateways:
        host, _colon, port = gateway.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            yield Fault(f"gateway {gateway!r} of cluster {candidate.name!r} is not host:port")


def _spoken(prefixes: Iterable[Prefix]) -> str:
    return ", ".join(map(str, prefixes))
