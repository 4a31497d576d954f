"""Names of services and endpoints, as DNS records.

Source: Kubernetes DNS-Based Service Discovery, version 1.1.0 (the `cluster.local` names), and
the Multi-Cluster Services proposal KEP-1645 (`clusterset.local`). Names of endpoints, which
Kubernetes does not have, are ours.

    <service>.<ns>.svc.cluster.local               its cluster addresses; headless: all members
    <member>.<service>.<ns>.svc.cluster.local      one member of a headless service
    _<port>._<protocol>.<service>.<ns>.svc...      SRV: port and name
    <service>.<ns>.svc.clusterset.local            the same of a global service
    <endpoint>.<ns>.endpoint.cluster.local         an endpoint of this cluster
    <endpoint>.<ns>.<cluster>.endpoint.clusterset.local    of any cluster
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import attrs

from meshnet.logic.services import Key, Resolved
from meshnet.model.addressing import Address
from meshnet.model.service import ServiceType

CLUSTER = "cluster.local"
CLUSTERSET = "clusterset.local"
SCHEMA_VERSION = "1.1.0"
"""Of the specification, told under `dns-version.cluster.local`."""


class RecordType(enum.StrEnum):
    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    CNAME = "CNAME"
    PTR = "PTR"
    TXT = "TXT"


@attrs.frozen
class Record:
    name: str
    type: RecordType
    data: Address | str | tuple[int, str]
    """An address; a name or text; of SRV: port and target."""


@attrs.frozen
class Answer:
    """Of a name that is ours. No record of a name that exists is NODATA."""

    exists: bool
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


NO_SUCH_NAME = Answer(exists=False)
NO_DATA = Answer(exists=True)


@attrs.frozen(kw_only=True)
class Names:
    """All that names can be made from."""

    services: Mapping[Key, Resolved]
    members: Mapping[Key, tuple[tuple[str, Address], ...]]
    """Of headless services: host name and address."""
    endpoints: Mapping[tuple[str, str, str], tuple[Address, ...]]
    """By cluster, namespace and name."""
    cluster: str

    def answer(self, name: str, kind: str) -> Answer | None:
        """None: the name is nobody's here, so ask the world. `name` without the last dot."""
        name = name.lower()
        if name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self._reverse(name, kind)
        for zone in (CLUSTER, CLUSTERSET):
            if name == zone:
                return NO_DATA
            if name.endswith(f".{zone}"):
                labels = name.removesuffix(f".{zone}").split(".")
                return self._in_zone(name, labels, kind, everywhere=zone == CLUSTERSET)
        return None

    def _in_zone(self, name: str, labels: list[str], kind: str, *, everywhere: bool) -> Answer:
        match labels:
            case ["dns-version"] if not everywhere:
                record = Record(name, RecordType.TXT, SCHEMA_VERSION)
                return Answer(True, (record,) if kind == RecordType.TXT else ())
            case [endpoint, namespace, "endpoint"] if not everywhere:
                return self._endpoint(name, (self.cluster, namespace, endpoint), kind)
            case [endpoint, namespace, cluster, "endpoint"] if everywhere:
                return self._endpoint(name, (cluster, namespace, endpoint), kind)
            case ["svc"] | ["endpoint"]:
                return NO_DATA
            case [*rest, namespace, "svc"]:
                return self._service(name, rest, namespace, kind, everywhere=everywhere)
            case _:
                return NO_SUCH_NAME

    def _endpoint(self, name: str, key: tuple[str, str, str], kind: str) -> Answer:
        addresses = self.endpoints.get(key)
        return Answer(True, _addresses(name, addresses, kind)) if addresses else NO_SUCH_NAME

    def _service(
        self, name: str, rest: list[str], namespace: str, kind: str, *, everywhere: bool
    ) -> Answer:
        if not rest:  # a namespace: it exists where a service does
            return NO_DATA if any(key[0] == namespace for key in self.services) else NO_SUCH_NAME
        resolved = self.services.get((namespace, rest[-1]))
        if resolved is None or (everywhere and not resolved.service.sharing.is_global):
            return NO_SUCH_NAME
        service = resolved.service
        match rest[:-1]:
            case []:
                if service.type is ServiceType.EXTERNAL_NAME:
                    return Answer(True, (Record(name, RecordType.CNAME, service.external_name),))
                return Answer(True, _addresses(name, self._of(resolved), kind))
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                base = name.partition(".")[2].partition(".")[2]
                return self._ports(name, base, resolved, port[1:], protocol[1:], kind)
            case [member] if service.headless:
                found = [a for host, a in self._members(resolved) if host == member]
                return Answer(True, _addresses(name, found, kind)) if found else NO_SUCH_NAME
            case _:
                return NO_SUCH_NAME

    def _of(self, resolved: Resolved) -> tuple[Address, ...]:
        if resolved.service.headless:
            return tuple(address for _, address in self._members(resolved))
        return resolved.addresses

    def _members(self, resolved: Resolved) -> tuple[tuple[str, Address], ...]:
        """Those without a name are called by their address, with dashes for dots."""
        return tuple(
            (host or _dashed(address), address)
            for host, address in self.members.get(resolved.service.key, ())
        )

    def _ports(
        self, name: str, base: str, resolved: Resolved, port: str, protocol: str, kind: str
    ) -> Answer:
        numbers = [
            each.port
            for each in resolved.service.ports
            if (each.name, each.protocol.name.lower()) == (port, protocol)
        ]
        if not numbers:
            return NO_SUCH_NAME
        if kind != RecordType.SRV:
            return NO_DATA
        if not resolved.service.headless:
            record = Record(name, RecordType.SRV, (numbers[0], base))
            extra = [*_addresses(base, resolved.addresses, "A"),
                     *_addresses(base, resolved.addresses, "AAAA")]  # fmt: skip
            return Answer(True, (record,), tuple(extra))
        records, extra = [], []
        for each in resolved.ports:
            if (each.port.name, each.port.protocol.name.lower()) != (port, protocol):
                continue
            ports = {backend.at.address: backend.at.port for backend in each.backends}
            for host, address in self._members(resolved):
                target = f"{host}.{base}"
                records.append(
                    Record(name, RecordType.SRV, (ports.get(address, numbers[0]), target))
                )
                extra += [*_addresses(target, [address], "A"),
                          *_addresses(target, [address], "AAAA")]  # fmt: skip
        return Answer(True, tuple(dict.fromkeys(records)), tuple(extra))

    def _reverse(self, name: str, kind: str) -> Answer | None:
        for (namespace, service), resolved in self.services.items():
            for address in resolved.addresses:
                if address.reverse_pointer == name:
                    target = f"{service}.{namespace}.svc.{CLUSTER}"
                    record = Record(name, RecordType.PTR, target)
                    return Answer(True, (record,) if kind == RecordType.PTR else ())
        return None


def _addresses(name: str, addresses: Iterable[Address] | None, kind: str) -> tuple[Record, ...]:
    versions = {"A": 4, "AAAA": 6}
    wanted = versions.get(kind)
    return tuple(
        Record(name, RecordType(kind), address)
        for address in addresses or ()
        if address.version == wanted
    )


def _dashed(address: Address) -> str:
    return str(address).replace(".", "-").replace(":", "-")


def resolv_conf(namespace: str, resolvers: Iterable[Address]) -> str:
    """An endpoint's /etc/resolv.conf, as Kubernetes gives it to a pod (ClusterFirst)."""
    lines = [f"nameserver {address}" for address in resolvers]
    lines.append(f"search {namespace}.svc.{CLUSTER} svc.{CLUSTER} {CLUSTER}")
    lines.append("options ndots:5")
    return "\n".join(lines) + "\n"
