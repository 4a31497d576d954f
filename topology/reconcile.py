"""What must change so that a running lab is what its file says. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import attrs

from topology.model import MACHINE_KIND, Lab, LabNode, Link
from topology.state import LabState, LinkState

End = tuple[str, str]
"""Node and interface."""


@attrs.frozen(kw_only=True)
class Changes:
    gone: tuple[str, ...]
    """Nodes to take away: not in the file any more, or about to be made anew."""
    fresh: tuple[str, ...]
    """Nodes to make: new, changed, or dead."""
    unplugged: tuple[End, ...]
    """Ends, of nodes that stay, of links that go."""
    plugged: tuple[Link, ...]
    """Links to lay."""

    @property
    def none(self) -> bool:
        return not (self.gone or self.fresh or self.unplugged or self.plugged)


def definition(thing: LabNode | Link) -> str:
    """The same for the same definition, in every process."""
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:32]


def link_state(link: Link) -> LinkState:
    one, other = link.ends
    return LinkState(
        one=(one.node, one.ifname), other=(other.node, other.ifname), definition=definition(link)
    )


def changes(old: LabState, new: Lab, alive: Collection[str]) -> Changes:
    """From what is there to what shall be.

    Args:
        alive: the nodes of `old` whose init runs.
    """
    fresh = tuple(
        name
        for name, node in new.nodes.items()
        if not node.is_machine
        and (name not in alive or old.nodes[name].definition != definition(node))
    )
    gone = tuple(
        name
        for name, node in old.nodes.items()
        if node.kind != MACHINE_KIND and (name not in new.nodes or name in fresh)
    )
    wanted = {link_state(link): link for link in new.links}
    unplugged, kept = [], set()
    for there in old.links:
        staying = [end for end in (there.one, there.other) if end[0] not in gone]
        if len(staying) == 2 and there in wanted:
            kept.add(there)
        elif staying:
            # of two, that in a lab host: there nobody else can have taken the name
            unplugged.append(min(staying, key=lambda end: old.nodes[end[0]].kind == MACHINE_KIND))
    plugged = tuple(link for there, link in wanted.items() if there not in kept)
    return Changes(gone=gone, fresh=fresh, unplugged=tuple(unplugged), plugged=plugged)
