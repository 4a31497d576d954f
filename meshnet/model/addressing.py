"""Addresses, prefixes, and the PodCIDR a node hands addresses from."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import attrs

from meshnet.errors import InvalidPrefix

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

LONGEST_V4 = 29
"""The smallest IPv4 PodCIDR: 8 addresses, 5 of them for endpoints."""
LONGEST_V6 = 120
"""The smallest IPv6 PodCIDR."""


IPV6_MTU_LEAST = 1280
"""RFC 8200 section 5. The kernel takes IPv6 off an interface that carries less."""


def usable_mtu(mtu: int, version: int) -> int:
    """`mtu`, or what that IP version cannot do with less than."""
    return max(mtu, IPV6_MTU_LEAST) if version == 6 else mtu


def parse_address(text: str) -> Address:
    """Read one address. Raises ConfigError's InvalidPrefix with the text in it."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise InvalidPrefix(f"{text!r} is not an IP address") from error


def parse_prefix(text: str) -> Prefix:
    """Read one CIDR; set host bits are an error, since they hide a typing mistake."""
    try:
        return ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            fixed = ip_network(text, strict=False)
            raise InvalidPrefix(f"{text} has host bits set: did you mean {fixed}?") from error
        raise InvalidPrefix(f"{text!r} is not a CIDR, such as 10.1.0.0/16") from error


def host_prefix(address: Address) -> Prefix:
    """The /32 or /128 of one address."""
    return ip_network(address)


def host_port(address: Address, port: int) -> str:
    """How an address and a port are written as one; IPv6 in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def contains(prefix: Prefix, address: Address) -> bool:
    """Membership that answers False across families instead of raising."""
    return prefix.version == address.version and address in prefix


def overlaps(one: Prefix, other: Prefix) -> bool:
    """Overlap that answers False across families instead of raising."""
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.overlaps(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.overlaps(other)
    return False


@attrs.frozen(kw_only=True)
class PodCIDR:
    """The block of endpoint addresses that one node may hand out.

    Never handed to an endpoint: the network address, the node's gateway (the address
    after it) and, for IPv4, the broadcast address.
    """

    network: Prefix
    node: str
    epoch: int = 1
    """Grows when the block changes hands; a node must prove its epoch before it allocates."""

    def __attrs_post_init__(self) -> None:
        longest = LONGEST_V4 if self.network.version == 4 else LONGEST_V6
        if self.network.prefixlen > longest:
            raise InvalidPrefix(f"PodCIDR {self.network} is too small: /{longest} at most")

    @property
    def gateway(self) -> Address:
        """The node's own address in this block; endpoints route through it."""
        return self.network[1]

    @property
    def capacity(self) -> int:
        """How many endpoints fit."""
        return self.network.num_addresses - (3 if self.network.version == 4 else 2)
