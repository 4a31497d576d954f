"""Which interface is the underlay? Decided once, at init or join, and then written down."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from meshnet.errors import ConfigError, NotFound
from meshnet.model.addressing import contains, parse_prefix
from meshnet.model.kernel import ENDPOINT_IFNAME_PREFIX, NETNS_PREFIX, Underlay

NO_CANDIDATE = "no interface has a global address: give one an address, then name it by --underlay"


@attrs.frozen(kw_only=True)
class Candidate:
    """An interface that could carry the tunnel: not loopback, not a tunnel, not ours, addressed."""

    underlay: Underlay
    default_route: bool
    """A default route leaves through it."""


def is_own(ifname: str) -> bool:
    """A device of meshnet, or the host side of an endpoint's veth: never the underlay."""
    number = ifname.removeprefix(ENDPOINT_IFNAME_PREFIX)
    return ifname.startswith(NETNS_PREFIX) or (number != ifname and number.isdecimal())


def choose(candidates: Sequence[Candidate], wanted: str | None) -> Underlay:
    """The one that `wanted` names or whose address lies in the CIDR `wanted`; without it
    the one with the default route, else the only one.

    Raises:
        ConfigError: none fits, or several do; the candidates are listed.
    """
    if wanted is None:
        routed = [candidate for candidate in candidates if candidate.default_route]
        fitting = routed or list(candidates)
        question = "more than one interface could be the underlay"
    elif "/" in wanted:
        prefix = parse_prefix(wanted)
        fitting = [
            candidate
            for candidate in candidates
            if any(contains(prefix, address) for address in candidate.underlay.addresses)
        ]
        question = f"more than one interface has an address in {wanted}"
        if not fitting:
            raise ConfigError(f"no interface has an address in {wanted}: {_listed(candidates)}")
    else:
        fitting = [c for c in candidates if c.underlay.ifname == wanted]
        question = ""
        if not fitting:
            raise ConfigError(
                f"underlay {wanted!r} is no interface here with a global address: "
                f"{_listed(candidates)}"
            )
    if not fitting:
        raise ConfigError(NO_CANDIDATE)
    if len(fitting) > 1:
        raise ConfigError(f"{question}: name it by --underlay; {_listed(fitting)}")
    return fitting[0].underlay


def by_name(candidates: Sequence[Candidate], ifname: str) -> Underlay:
    """The interface that the settings name.

    Raises:
        NotFound: it is gone, or has lost its addresses.
    """
    for candidate in candidates:
        if candidate.underlay.ifname == ifname:
            return candidate.underlay
    raise NotFound(
        f"underlay interface {ifname!r} does not exist or has no global address: "
        f"{_listed(candidates)}"
    )


def _listed(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "there is none with a global address"
    return "candidates are " + ", ".join(
        f"{c.underlay.ifname} ({', '.join(map(str, c.underlay.addresses))})" for c in candidates
    )
