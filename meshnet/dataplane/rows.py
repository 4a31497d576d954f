"""Model <-> map rows. The one place that knows padding, byte order and the mapped form."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from meshnet.dataplane import abi
from meshnet.model.addressing import Address, Prefix
from meshnet.model.dataplane import EndpointRow, Mode, Modes, NodeConfig, NodeRow

S = TypeVar("S", bound=ctypes.Structure)

_MAPPED = bytes(10) + b"\xff\xff"
_NONE = bytes(16)


def pack_address(address: Address | None) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d; None is all zero."""
    if address is None:
        return _NONE
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(data: bytes) -> Address | None:
    if data == _NONE:
        return None
    return IPv4Address(data[12:]) if data.startswith(_MAPPED) else IPv6Address(data)


def known_address(data: bytes) -> Address:
    """The same where none cannot be: as the key of a row."""
    return IPv4Address(data[12:]) if data.startswith(_MAPPED) else IPv6Address(data)


def pack_prefix(prefix: Prefix) -> bytes:
    """A key of a longest-prefix map: length in host order, then the network."""
    length = prefix.prefixlen + (abi.AddressLimit.V4_OFFSET if prefix.version == 4 else 0)
    return length.to_bytes(4, "little") + pack_address(prefix.network_address)


def unpack_prefix(data: bytes) -> Prefix:
    length = int.from_bytes(data[:4], "little")
    address = known_address(data[4:])
    if isinstance(address, IPv4Address):
        return IPv4Network((address, length - abi.AddressLimit.V4_OFFSET))
    return IPv6Network((address, length))


_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
"""IANA's numbers of those that people name."""


def protocol_name(number: int) -> str:
    return _PROTOCOLS.get(number, str(number))


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def unpack_mac(data: Iterable[int]) -> str:
    return ":".join(f"{byte:02x}" for byte in data)


def _set(field: ctypes.Structure, data: bytes) -> None:
    ctypes.memmove(ctypes.addressof(field), data, ctypes.sizeof(field))


def _set_block(block: abi.Block, prefix: Prefix) -> None:
    _set(block.network, pack_address(prefix.network_address))
    ones = _NONE if prefix.version == 6 else b"\xff" * 12 + bytes(4)
    mask = int(prefix.netmask).to_bytes(16, "big")
    _set(block.mask, bytes(a | b for a, b in zip(ones, mask, strict=True)))


def unpack_block(block: abi.Block) -> Prefix:
    address = known_address(bytes(block.network))
    ones = int.from_bytes(bytes(block.mask), "big").bit_count()
    if isinstance(address, IPv4Address):
        return IPv4Network((address, ones - abi.AddressLimit.V4_OFFSET))
    return IPv6Network((address, ones))


def pack_config(config: NodeConfig) -> abi.Config:
    row = abi.Config(
        cluster_id=config.cluster_id,
        underlay_ifindex=config.underlay_ifindex,
        vxlan_ifindex=config.vxlan_ifindex,
        vxlan_port=config.vxlan_port,
        geneve_port=config.geneve_port,
        accept_native=config.accept_native,
        gateway_mac=tuple(pack_mac(config.gateway_mac)),
        has_unmasqueraded=bool(config.unmasqueraded),
    )
    if config.masquerade_ports is not None:
        row.nat_first_port, row.nat_last_port = config.masquerade_ports
    _set(row.underlay_ipv4, pack_address(config.underlay_ipv4))
    _set(row.underlay_ipv6, pack_address(config.underlay_ipv6))
    for network in config.pod_cidrs:
        block = row.pod_cidr_ipv4 if network.version == 4 else row.pod_cidr_ipv6
        _set_block(block, network)
    _set(row.gateway_ipv4, pack_address(config.gateway_ipv4))
    _set(row.gateway_ipv6, pack_address(config.gateway_ipv6))
    return row


def pack_endpoint(endpoint: EndpointRow) -> abi.Endpoint:
    row = abi.Endpoint(
        ifindex=endpoint.ifindex,
        endpoint_id=endpoint.endpoint_id,
        identity=endpoint.identity,
        flags=(abi.EndpointFlag.READY if endpoint.ready else 0)
        | (abi.EndpointFlag.AUDIT if endpoint.audit else 0),
        mac=tuple(pack_mac(endpoint.mac)),
        policy_epoch=endpoint.policy_epoch,
        policy_id=endpoint.policy_id,
    )
    for address in endpoint.addresses:
        _set(row.ipv4 if address.version == 4 else row.ipv6, pack_address(address))
    return row


def unpack_endpoint(row: abi.Endpoint) -> EndpointRow:
    addresses = (unpack_address(bytes(row.ipv4)), unpack_address(bytes(row.ipv6)))
    return EndpointRow(
        ifindex=row.ifindex,
        endpoint_id=row.endpoint_id,
        identity=row.identity,
        addresses=tuple(address for address in addresses if address is not None),
        mac=unpack_mac(row.mac),
        ready=bool(row.flags & abi.EndpointFlag.READY),
        policy_epoch=row.policy_epoch,
        policy_id=row.policy_id,
        audit=bool(row.flags & abi.EndpointFlag.AUDIT),
    )


_MODES = {
    Mode.VXLAN: abi.NodeMode.VXLAN,
    Mode.GENEVE: abi.NodeMode.GENEVE,
    Mode.NATIVE: abi.NodeMode.NATIVE,
}
_MODE_NAMES = {int(number): mode for mode, number in _MODES.items()}


def pack_node(node: NodeRow, *, owner: int) -> abi.Node:
    """What does not fit inline is left to `pod_cidrs`, and the row says so."""
    inline = node.pod_cidrs[: abi.NodeLimit.POD_CIDRS]
    gateways = node.gateways[: abi.NodeLimit.GATEWAYS]
    flags = abi.NodeFlag.PRESENT.value
    flags |= abi.NodeFlag.LOCAL if node.local else 0
    flags |= abi.NodeFlag.IPV6_UNDERLAY if node.address.version == 6 else 0
    flags |= abi.NodeFlag.MORE_POD_CIDRS if len(inline) < len(node.pod_cidrs) else 0
    row = abi.Node(
        gateway_count=len(gateways),
        pod_cidr_count=len(inline),
        cluster_id=node.cluster_id,
        owner=owner,
        flags=flags,
        path_mtu=node.path_mtu,
        ifindex=node.ifindex,
        mode_ipv4=_MODES[node.modes.ipv4],
        mode_ipv6=_MODES[node.modes.ipv6],
    )
    _set(row.outer, pack_address(node.address))
    for hop in node.next_hops:
        _set(row.next_hop_ipv4 if hop.version == 4 else row.next_hop_ipv6, pack_address(hop))
    for place, gateway in enumerate(gateways):
        _set(row.gateways[place], pack_address(gateway))
    for field, servants in ((row.health, node.health), (row.ingress, node.ingress)):
        for place, servant in enumerate(servants[: abi.NodeLimit.SERVANTS]):
            _set(field[place], pack_address(servant))
    for place, prefix in enumerate(inline):
        _set_block(row.pod_cidrs[place], prefix)
    return row


def unpack_node(row: abi.Node, more: Iterable[Prefix] = ()) -> NodeRow:
    """`more`: all PodCIDRs of its owner, for the ones that are not inline."""
    inline = [unpack_block(row.pod_cidrs[place]) for place in range(row.pod_cidr_count)]
    hops = (unpack_address(bytes(row.next_hop_ipv4)), unpack_address(bytes(row.next_hop_ipv6)))
    return NodeRow(
        address=known_address(bytes(row.outer)),
        cluster_id=row.cluster_id,
        pod_cidrs=(*inline, *(prefix for prefix in more if prefix not in inline)),
        gateways=tuple(
            known_address(bytes(row.gateways[place])) for place in range(row.gateway_count)
        ),
        health=_servants(row.health),
        ingress=_servants(row.ingress),
        path_mtu=row.path_mtu,
        local=bool(row.flags & abi.NodeFlag.LOCAL),
        modes=Modes(ipv4=_MODE_NAMES[row.mode_ipv4], ipv6=_MODE_NAMES[row.mode_ipv6]),
        next_hops=tuple(hop for hop in hops if hop is not None),
        ifindex=row.ifindex,
    )


def _servants(field: Iterable[abi.Address]) -> tuple[Address, ...]:
    found = (unpack_address(bytes(address)) for address in field)
    return tuple(address for address in found if address is not None)


def unpack(layout: type[S], data: bytes) -> S:
    return layout.from_buffer_copy(data)
