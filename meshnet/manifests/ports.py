"""Ports and ICMP types, in Kubernetes' form and in Cilium's."""

from __future__ import annotations

import re

from meshnet.manifests.reader import Reader
from meshnet.model.policy import (
    ICMP,
    ICMPV6,
    LAST_PORT,
    PROTOCOLS,
    TCP,
    NamedPort,
    Port,
    PortRange,
)

CILIUM_MOST = 40
"""Ports, or ICMP types, of one rule (Cilium: pkg/policy/api/rule_validation.go)."""
_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_NAME_RULE = "must be a port's name: 15 characters, lower-case letters, digits and '-' (RFC 6335)"
_UNUSUAL = ("VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH")
_UNUSUAL_REASON = (
    "is not enforced by meshnet, so it is refused: policy names TCP, UDP, SCTP and ICMP types; "
    "leave ports out to match every protocol"
)
ICMP_TYPES = {
    "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
    "RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
    "Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEchoRequest": 42,
    "ExtendedEchoReply": 43,
}  # fmt: skip
"""Names that Cilium knows for ICMP types (pkg/policy/api/icmp.go)."""
ICMPV6_TYPES = {
    "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
    "EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130,
    "MulticastListenerReport": 131, "MulticastListenerDone": 132, "RouterSolicitation": 133,
    "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
    "RedirectMessage": 137, "RouterRenumbering": 138, "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140,
}  # fmt: skip


def read_kubernetes_ports(reader: Reader) -> tuple[Port, ...]:
    """NetworkPolicyPort: TCP unless it says another protocol."""
    found: list[Port] = []
    for item in reader.items():
        fields = item.fields()
        protocol, port, end = (
            fields.take("protocol"), fields.take("port"), fields.take("endPort")
        )  # fmt: skip
        fields.close()
        number = protocol.choice(PROTOCOLS, TCP) if protocol else TCP
        if port is None:
            if end is not None:
                end.fault("needs a port before it")
            found.append(PortRange(number))
        elif isinstance(port.value, str):
            _refuse_end(end)
            found.append(NamedPort(port.text(_NAME, _NAME_RULE), number))
        else:
            first = port.integer(1, LAST_PORT)
            found.append(PortRange(number, first, _end(end, first)))
    return tuple(found)


def read_cilium_ports(reader: Reader) -> tuple[Port, ...] | None:
    """PortProtocol: every protocol unless it says one. None: no port is named, so all."""
    found: list[Port] = []
    for item in reader.items(most=CILIUM_MOST):
        fields = item.fields()
        given, port, end = fields.take("protocol"), fields.require("port"), fields.take("endPort")
        fields.close()
        numbers = _protocols(given)
        if port is None:
            continue
        text = port.text()
        if text.isdecimal():
            first = Reader(int(text), port.path, port.faults).integer(0, LAST_PORT)
            # port 0 is how Cilium writes "every port of this protocol"
            last = _end(end, first) if first or end else LAST_PORT
            found += [PortRange(number, first, last) for number in numbers]
        else:
            _refuse_end(end)
            name = port.text(_NAME, _NAME_RULE)
            found.append(NamedPort(name, numbers[0] if len(numbers) == 1 else None))
    return tuple(found) or None


def read_icmps(reader: Reader) -> tuple[Port, ...]:
    """`icmps`: types by family, IPv4 unless it says IPv6."""
    found: list[Port] = []
    for item in reader.items():
        fields = item.fields()
        if listed := fields.require("fields"):
            found += [_icmp(each) for each in listed.items(most=CILIUM_MOST)]
        fields.close()
    return tuple(found)


def _icmp(reader: Reader) -> PortRange:
    fields = reader.fields()
    family, kind = fields.take("family"), fields.require("type")
    fields.close()
    families = {"IPv4": ICMP, "IPv6": ICMPV6}
    protocol = family.choice(families, ICMP) if family else ICMP
    if kind is None:
        return PortRange(protocol)
    if isinstance(kind.value, str) and not kind.value.isdecimal():
        number = kind.choice(ICMP_TYPES if protocol == ICMP else ICMPV6_TYPES, 0)
    else:
        value = int(kind.value) if isinstance(kind.value, str) else kind.value
        number = Reader(value, kind.path, kind.faults).integer(0, 255)
    return PortRange(protocol, number, number)


def _protocols(reader: Reader | None) -> tuple[int, ...]:
    everything = tuple(PROTOCOLS.values())
    if reader is None:
        return everything
    if reader.value in _UNUSUAL:
        reader.fault(_UNUSUAL_REASON)
        return everything
    if isinstance(reader.value, str):  # Cilium reads any case
        reader = Reader(reader.value.upper(), reader.path, reader.faults)
    choices = {name: (number,) for name, number in PROTOCOLS.items()}
    return reader.choice({"ANY": everything, **choices}, everything)


def _end(reader: Reader | None, first: int) -> int:
    if reader is None or reader.value == 0:
        return first
    last = reader.integer(1, LAST_PORT)
    if last < first:
        reader.fault(f"must be {first} or more")
    return max(first, last)


def _refuse_end(reader: Reader | None) -> None:
    if reader is not None and reader.value:
        reader.fault("needs a numeric port before it")
