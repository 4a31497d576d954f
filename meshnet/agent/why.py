"""`meshnet why`: whether one end may reach another, by the rules themselves.

A service is answered for by its backends: who asks for one reaches any of those that take
clients, so all of them must be reached before the answer is yes.

A cluster knows its own policies alone. The verdict is that of the ends that are its endpoints;
an end in another cluster is named as not asked, and where no end is ours the verdict is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

import attrs

from meshnet.agent import views
from meshnet.agent.context import Context
from meshnet.agent.enforcement import named_ports
from meshnet.errors import InvalidPrefix, NotFound, UsageError
from meshnet.logic.explain import Explanation, explain
from meshnet.logic.peers import NamedPorts, Remote, plain_labels, prefix_remote, reserved_remotes
from meshnet.logic.policy_set import Subject
from meshnet.logic.services import Resolved
from meshnet.model.addressing import Address, host_prefix, parse_address, parse_prefix
from meshnet.model.identity import LabelSet, ReservedIdentity
from meshnet.model.policy import PROTOCOL_NAMES, Direction
from meshnet.model.ruling import Verdict
from meshnet.model.service import BackendAddress, BackendState, Service, ServicePort

Json = dict[str, Any]
DEFAULT_PORT = "80/tcp"
ENTITIES = {
    "world": ReservedIdentity.WORLD,
    "host": ReservedIdentity.HOST,
    "remote-node": ReservedIdentity.REMOTE_NODE,
    "health": ReservedIdentity.HEALTH,
}
_PROTOCOLS = {name: number for number, name in PROTOCOL_NAMES.items()}
_DNS_NAME = re.compile(r"([^./]+)\.([^./]+)\.svc(?:\.(?:cluster|clusterset)\.local\.?)?")
_WORDS = {Verdict.ALLOW: "allowed", Verdict.DENY: "denied", Verdict.AUDIT: "allowed"}


@attrs.frozen(kw_only=True)
class Party:
    title: str
    remote: Remote
    cluster: str = ""
    node: str = ""
    endpoint_id: int = 0


@attrs.frozen(kw_only=True)
class Way:
    """Whom a flow really meets at one end: who was named, or one backend of a service."""

    party: Party
    port: str
    """As its node sees it: the backend's, not the service's."""
    state: BackendState = BackendState.ACTIVE


@attrs.frozen(kw_only=True)
class Known:
    """What is known when the question is put; read once for it, whatever the number of backends."""

    context: Context
    endpoints: list[Json]
    by_address: dict[str, Json]
    """Of `endpoints`."""
    labels: dict[int, LabelSet]
    """By identity."""
    seen: dict[tuple[int, int], Json]
    """What this node's endpoints received, by endpoint id and the sender's identity."""

    @classmethod
    def read(cls, context: Context) -> Self:
        endpoints = views.endpoints(context, "mesh")
        return cls(
            context=context,
            endpoints=endpoints,
            by_address={row[family]: row for row in endpoints for family in ("ipv4", "ipv6")},
            labels=context.view.labels(),
            seen={
                (row["endpoint_id"], row["identity"]): row
                for row in context.dataplane.seen_identities()
            },
        )


def why(context: Context, source: str, destination: str, port: str | None = None) -> Json:
    """Both ends' answers.

    Args:
        port: `80/tcp`, `8/icmp`; of a service the service's own. None: the only one that the
            service has, else 80/tcp.

    Raises:
        NotFound: one of them is nobody, or the service has no such port or no backend.
        UsageError: `port` is none.
    """
    known = Known.read(context)
    sender, receiver = _end(known, source), _end(known, destination)
    port = _spelled(*_number(port or _only_port(receiver)))
    others = _ways(known, receiver, port)
    answers = [
        _answer(known, one.party, other.party, other.port)
        | {"state": other.state if isinstance(receiver, Resolved) else one.state}
        for one in _ways(known, sender, None)
        for other in others
    ]
    if isinstance(sender, Party) and isinstance(receiver, Party):
        return {name: value for name, value in answers[0].items() if name != "state"}
    ends = {"source": _title(sender), "destination": _title(receiver), "port": port}
    return ends | _together(answers)


# --- services -----------------------------------------------------------------------------------


def _only_port(end: Party | Resolved) -> str:
    ports = () if isinstance(end, Party) else end.ports
    return _port_text(ports[0].port) if len(ports) == 1 else DEFAULT_PORT


def _port_text(port: ServicePort | BackendAddress) -> str:
    return _spelled(port.protocol, port.port)


def _spelled(protocol: int, number: int) -> str:
    return f"{number}/{PROTOCOL_NAMES[protocol]}"


def _title(end: Party | Resolved) -> str:
    return end.title if isinstance(end, Party) else f"service {_name(end.service)}"


def _name(service: Service) -> str:
    return f"{service.namespace}/{service.name}"


def _ways(known: Known, end: Party | Resolved, port: str | None) -> list[Way]:
    """Args: `port`: None at the sending end, where all backends of a service are meant."""
    if isinstance(end, Party):
        return [Way(party=end, port=port or "")]
    service = end.service
    if service.external_name:
        raise NotFound(
            f"service {_name(service)} is another name for {service.external_name}, which may be "
            "anybody: ask for its address"
        )
    if service.headless:  # only a name: the port stays
        found = [
            Way(party=_of_address(known, address), port=port or "")
            for _, address in known.context.services.resolver.members(service)
        ]
    else:
        chosen = [each for each in end.ports if port in (None, _port_text(each.port))]
        if not chosen:
            ports = ", ".join(_port_text(each.port) for each in end.ports) or "none"
            raise NotFound(f"service {_name(service)} has no port {port}: it has {ports}")
        found = [
            Way(
                party=_of_address(known, backend.at.address),
                port=_port_text(backend.at),
                state=backend.state,
            )
            for each in chosen
            for backend in each.backends
        ]
    if not found:
        raise NotFound(
            f"service {_name(service)} has no backend, so nobody answers for it: "
            f"`meshnet service show {service.name} -n {service.namespace}`"
        )
    return found


def _together(answers: list[Json]) -> Json:
    """Allowed when every backend that takes clients is; else what the first denied one says, or
    those that are unknown."""
    counted = [each for each in answers if each["state"] is BackendState.ACTIVE] or answers
    by_verdict = {
        verdict: [each for each in counted if each["verdict"] == verdict]
        for verdict in ("denied", "unknown")
    }
    shown = by_verdict["denied"][:1] or by_verdict["unknown"] or counted
    found: Json = {name: shown[0][name] for name in ("verdict", "direction", "missing")}
    for name in ("rules", "path", "not_asked", "seen"):  # both addresses of a backend say the same
        found[name] = []
        for each in shown:
            found[name] += [item for item in each[name] if item not in found[name]]
    return found | {"backends": answers}


# --- one pair -----------------------------------------------------------------------------------


def _answer(known: Known, sender: Party, receiver: Party, port: str) -> Json:
    context = known.context
    protocol, number = _number(port)
    path: list[Json] = []
    not_asked: list[Json] = []
    found: list[tuple[Direction, Explanation]] = []
    for direction, own, other, hook in (
        (Direction.EGRESS, sender, receiver, "from_endpoint"),
        (Direction.INGRESS, receiver, sender, "deliver_local"),
    ):
        if not own.cluster:  # no endpoint, so no policy is about it
            continue
        if own.cluster != context.view.own:
            decision = f"{direction} decided in cluster {own.cluster}: ask there"
            path.append({"hook": hook, "node": own.node, "decision": decision})
            end = {"endpoint": own.title, "cluster": own.cluster}
            not_asked.append({"direction": str(direction), **end})
            continue
        answer = _explain(context, own, direction, other, protocol, number)
        found.append((direction, answer))
        decision = f"{direction} {_WORDS[answer.verdict]}"
        if answer.verdict is Verdict.AUDIT:
            decision += ", as policy in audit mode would deny it"
        path.append({"hook": hook, "node": own.node, "decision": decision})
    denied = next(((d, a) for d, a in found if a.verdict is Verdict.DENY), None)
    here = receiver.node == context.local.name
    met = known.seen.get((receiver.endpoint_id, sender.remote.number)) if here else None
    missing = "" if found else f"no end of it is an endpoint of cluster {context.view.own}"
    return {
        "source": sender.title,
        "destination": receiver.title,
        "port": port,
        "verdict": "denied" if denied else "allowed" if found else "unknown",
        "direction": str(denied[0]) if denied else "",
        "rules": [
            {"direction": str(direction), **attrs.asdict(rule)}
            for direction, answer in ([denied] if denied else found)
            for rule in answer.rules
        ],
        "missing": denied[1].missing if denied else missing,
        "path": path,
        "not_asked": not_asked,
        "seen": [met] if met else [],
    }


def _explain(
    context: Context, own: Party, direction: Direction, other: Party, protocol: int, port: int
) -> Explanation:
    table = context.enforcement.table
    subject = Subject(labels=own.remote.labels, ports=own.remote.named_ports)
    return explain(table.policies, table.scope, subject, direction, other.remote, protocol, port)


def _number(text: str) -> tuple[int, int]:
    """`80/tcp`, `8/icmp`."""
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if not number.isdecimal() or int(number) > 65535 or protocol not in _PROTOCOLS:
        raise UsageError(
            f"port {text!r} is not NUMBER/PROTOCOL, such as 80/tcp: {', '.join(_PROTOCOLS)}"
        )
    return _PROTOCOLS[protocol], int(number)


# --- who is meant -------------------------------------------------------------------------------


def _end(known: Known, text: str) -> Party | Resolved:
    """An entity, an address, [cluster/][namespace/]endpoint, or a service by the same name, by
    its name in DNS or by its address. Of one name for both, the endpoint."""
    if text in ENTITIES:
        return _entity(text)
    try:
        address = parse_address(text)
    except InvalidPrefix:
        return _named(known, text)
    for resolved in known.context.services.resolved.values():
        if address in (*resolved.addresses, *resolved.service.external_ips):
            return resolved
    return _of_address(known, address)


def _entity(name: str) -> Party:
    number = int(ENTITIES[name])
    (remote,) = [each for each in reserved_remotes() if each.number == number]
    return Party(title=name, remote=remote)


def _of_address(known: Known, address: Address) -> Party:
    if row := known.by_address.get(str(address)):
        return _endpoint(known, row)
    own = known.context.local
    for node in known.context.view.nodes():
        if address in (*node.addresses, *node.gateways):
            entity = "host" if node.key == (own.cluster.name, own.name) else "remote-node"
            return attrs.evolve(_entity(entity), title=f"node {node.name} ({address})")
    return Party(title=f"world ({address})", remote=prefix_remote(0, host_prefix(address)))


def _readings(text: str) -> Iterator[tuple[str | None, str, str]]:
    """Cluster (None: any), namespace and name that `[cluster/][namespace/]name` may mean, the
    likelier first: with one slash what stands before it is either."""
    *above, name = text.split("/")
    if not above:
        yield None, "default", name
    elif len(above) == 1:
        yield None, above[0], name
        yield above[0], "default", name
    elif len(above) == 2:
        yield above[0], above[1], name


def _named(known: Known, text: str) -> Party | Resolved:
    own, services = known.context.view.own, known.context.services.resolved
    match = _DNS_NAME.fullmatch(text)
    if match and (resolved := services.get((match[2], match[1]))):
        return resolved
    for cluster, namespace, name in _readings(text):
        rows = [
            row
            for row in known.endpoints
            if (row["namespace"], row["name"]) == (namespace, name)
            and cluster in (None, row["cluster"])
        ]
        if rows:  # the same name in several clusters: ours is meant
            return _endpoint(known, min(rows, key=lambda row: row["cluster"] != own))
        if cluster in (None, own) and (resolved := services.get((namespace, name))):
            return resolved
    raise NotFound(
        f"{text!r} is no endpoint, service, address or entity ({', '.join(ENTITIES)}) that is "
        "known here: see `meshnet endpoint list --all-clusters` and `meshnet service list`"
    )


def _endpoint(known: Known, row: Json) -> Party:
    labels = known.labels.get(row["identity"])
    remote = Remote(
        number=row["identity"],
        labels=plain_labels(labels) if labels else {},
        named_ports=_ports_of(known.context, row),
    )
    return Party(
        title=f"{row['cluster']}/{row['namespace']}/{row['name']}",
        remote=remote,
        cluster=row["cluster"],
        node=row["node"],
        endpoint_id=row["id"],
    )


def _ports_of(context: Context, row: Json) -> NamedPorts:
    view = context.view.clusters.get(row["cluster"])
    for text in (row["ipv4"], row["ipv6"]):
        entry = view.ips.get(parse_prefix(text)) if view and text else None
        if entry is not None:
            return named_ports(entry.named_ports)
    return frozenset()
