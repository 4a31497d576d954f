"""What a lab file expects of its lab: `topology.defaults.config.vars.meshnet`.

containerlab hands `config.vars` to its configuration engine and looks at nothing in them,
so a file with expectations is still a file of its own. See docs/how-to/labs.md.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override
from cattrs.v import format_exception

from topology.model import Lab
from topology.source import Source

WHERE = ("topology", "defaults", "config", "vars", "meshnet")
ALL = "all"
PORT = 8080


class Verdict(enum.StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    LOST = "lost"


@attrs.frozen(kw_only=True)
class EndpointSpec:
    """An endpoint to start; it serves HTTP on port 8080."""

    node: str
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Reach:
    """Ping and TCP from one endpoint to another, in both families."""

    source: str
    """An endpoint, or `all`."""
    target: str
    verdict: Verdict = Verdict.ALLOWED
    mode: str | None = None
    """How packets go there: vxlan, geneve, native; None: whichever."""
    identity: bool = True
    """The receiver's node saw the sender's identity (of what is allowed)."""
    reason: str | None = None
    """Of what is denied: the drop reason that one of the two nodes counted."""
    within: float = 10.0
    """Seconds."""


@attrs.frozen(kw_only=True)
class Run:
    """A command on a node that ends well and says something, within some seconds."""

    node: str
    command: str
    """Without a shell. `{NAME.ipv4}` and `{NAME.ipv6}` are addresses of an endpoint."""
    says: str = ""
    """A regular expression, found in its output."""
    within: float = 10.0


@attrs.frozen(kw_only=True)
class Survive:
    """What still holds within some seconds of a fault, and after it is healed."""

    fault: str
    """As `lab fault` takes it: `cut east-1 west-1 --one-way`."""
    within: float
    reach: tuple[Reach, ...] = ()
    run: tuple[Run, ...] = ()
    """Each within its own time."""
    then: tuple[Reach, ...] = ()
    """Once it is healed, within the same time."""


@attrs.frozen(kw_only=True)
class Refused:
    """Two clusters that cannot be one mesh."""

    join: str
    to: str
    says: str
    """A regular expression, found in what `mesh join` says."""


@attrs.frozen(kw_only=True)
class Expectation:
    """One of these."""

    reach: Reach | None = None
    survive: Survive | None = None
    refused: Refused | None = None
    run: Run | None = None

    def __attrs_post_init__(self) -> None:
        if len([one for one in attrs.astuple(self, recurse=False) if one is not None]) != 1:
            raise ValueError("it is one of reach, survive, refused and run")


@attrs.frozen(kw_only=True)
class Expectations:
    endpoints: Mapping[str, EndpointSpec] = attrs.field(factory=dict)
    expect: tuple[Expectation, ...] = ()

    @property
    def apart(self) -> frozenset[frozenset[str]]:
        """Pairs of clusters that are not joined, since that is refused."""
        refused = (one.refused for one in self.expect if one.refused)
        return frozenset(frozenset((one.join, one.to)) for one in refused)


RENAMED = {"source": "from", "target": "to"}
"""Fields of Reach -> their names in a file: `from` is a word of Python's."""


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    renames = {name: override(rename=said) for name, said in RENAMED.items()}
    hook: Any = make_dict_structure_fn(Reach, converter, _cattrs_forbid_extra_keys=True, **renames)  # type: ignore[arg-type]
    converter.register_structure_hook(Reach, hook)
    converter.register_structure_hook(str, _strict_text)
    return converter


def _strict_text(value: Any, _: type) -> str:
    if not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is no text")
    return str(value)


def read(lab: Lab) -> Expectations:
    """Those of a lab's file; none where it has none.

    Raises:
        ConfigError: with file, line, what is wrong.
    """
    source = Source.read(lab.file)
    said: Any = source.data
    for step in WHERE:
        said = said.get(step) or {} if isinstance(said, Mapping) else {}
    try:
        found = _converter().structure(said, Expectations)
        _check(lab, found)
    except cattrs.BaseValidationError as error:
        words = "; ".join(cattrs.transform_error(error, format_exception=_told))
        for name, said in RENAMED.items():
            words = re.sub(rf"\.{name}\b", f".{said}", words)
        raise source.error(WHERE, f"expectations: {words}") from error
    except ValueError as error:
        raise source.error(WHERE, f"expectations: {error}") from error
    return found


def _told(error: BaseException, kind: type | None) -> str:
    """One fault in words."""
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown field {', '.join(map(str, error.extra_fields))}"
    if isinstance(error, ValueError):
        return str(error)
    return format_exception(error, kind)


def _check(lab: Lab, found: Expectations) -> None:
    """What names something names something that is there."""
    hosts = [node.name for node in lab.nodes.values() if not node.is_bridge]
    for name, endpoint in found.endpoints.items():
        _one_of(endpoint.node, hosts, f"endpoint {name!r} is on node")
    for one in found.expect:
        survive = one.survive
        for command in (one.run, *(survive.run if survive else ())):
            if command:
                _one_of(command.node, hosts, "run is on node")
        for reach in (one.reach, *(survive.reach + survive.then if survive else ())):
            for end in (reach.source, reach.target) if reach else ():
                _one_of(end, [ALL, *found.endpoints], "reach names endpoint")


def _one_of(name: str, there: list[str], what: str) -> None:
    if name not in there:
        raise ValueError(f"{what} {name!r}: there are {', '.join(there)}")
