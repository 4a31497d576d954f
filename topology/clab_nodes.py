"""A node of a containerlab file: what it inherits, merged, checked and given a type."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dotenv import dotenv_values, parser

from topology.model import BRIDGE_KIND, HOST_KIND, Bind, LabNode, Limits, Stage, Wait
from topology.source import Source, Step

IFNAMSIZ = 15
"""Characters of an interface name (IFNAMSIZ of <linux/if.h>, less its NUL)."""
HOSTNAME_MAX = 63
IMPORT_ENVS = "__IMPORT_ENVS"
"""containerlab's word for "the environment of whoever deploys", which would leak into a lab."""

Layers = Sequence[Mapping[str, Any]]

_NODE_NAME = re.compile(r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
_MEMORY = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$", re.IGNORECASE)
_USED = {
    "kind", "exec", "env", "env-files", "binds", "labels", "group", "hostname", "sysctls",
    "cpu", "cpu-set", "memory", "startup-delay", "stages",
}  # fmt: skip
_HARMLESS = {"config", "mgmt-ipv4", "mgmt-ipv6", "image-pull-policy"}
"""Say nothing about: our own data, the management network that is not there."""


def node(source: Source, topology: Mapping[str, Any], name: str, kinds: Collection[str]) -> LabNode:
    """Raises ConfigError: with file, line, what is wrong, and what to do."""
    where = ("topology", "nodes", name)
    if len(name) > HOSTNAME_MAX or not _NODE_NAME.match(name):
        raise source.error(
            where,
            f"node name {name!r} is no host name: letters, digits and '-', "
            f"{HOSTNAME_MAX} characters at most",
        )
    layers = _layers(topology, topology["nodes"][name] or {})
    kind = next((layer["kind"] for layer in reversed(layers) if "kind" in layer), None)
    if kind is None:
        raise source.error(where, f"node {name!r} has no kind: add `kind: {HOST_KIND}`")
    if kind not in kinds:
        raise source.error(where, unknown_kind((*where, "kind"), kind))
    if kind == BRIDGE_KIND and len(name) > IFNAMSIZ:
        raise source.error(where, too_long(name, f"the bridge {name!r}"))
    return LabNode(
        name=name,
        kind=kind,
        hostname=str(_latest(layers, "hostname") or name),
        exec=tuple(_commands(source, where, layers)),
        env=_env(source, where, layers),
        binds=tuple(_binds(source, where, layers)),
        labels=_merged(layers, "labels"),
        sysctls=_merged(layers, "sysctls"),
        limits=_limits(source, where, layers),
        startup_delay_s=_latest(layers, "startup-delay") or 0,
        waits=_waits(source, where, layers, topology["nodes"]),
        ignored=tuple(sorted({k for layer in layers for k in layer} - _USED - _HARMLESS)),
    )


def unknown_kind(where: Sequence[Step], kind: object) -> str:
    owner = f"node {where[-2]!r}" if len(where) > 1 else "node"
    return f"{owner}: unknown kind {kind!r}: `{HOST_KIND}` is a host, `{BRIDGE_KIND}` a switch"


def too_long(name: str, what: str) -> str:
    return f"{what} is longer than {IFNAMSIZ} characters ({len(name)}), which Linux does not take"


def _layers(topology: Mapping[str, Any], own: Mapping[str, Any]) -> Layers:
    """What the node inherits, least specific first: defaults, kind, group, its own."""
    defaults = topology.get("defaults") or {}
    groups = topology.get("groups") or {}
    group = groups.get(own.get("group", defaults.get("group"))) or {}
    kind = own.get("kind") or group.get("kind") or defaults.get("kind")
    return [defaults, (topology.get("kinds") or {}).get(kind) or {}, group, own]


def _latest(layers: Layers, key: str) -> Any:
    return next((layer[key] for layer in reversed(layers) if key in layer), None)


def _merged(layers: Layers, key: str) -> dict[str, str]:
    return {
        name: _text(value) for layer in layers for name, value in (layer.get(key) or {}).items()
    }


def _text(value: object) -> str:
    """As YAML wrote it: `true`, not Python's `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _env(source: Source, where: Sequence[Step], layers: Layers) -> dict[str, str]:
    """Files first, least specific first; then `env`, which wins."""
    found: dict[str, str] = {}
    for text in (text for layer in layers for text in layer.get("env-files", ())):
        path = (source.path.parent / Path(text).expanduser()).resolve()
        try:
            with path.open() as file:
                faulty = [b.original.line for b in parser.parse_stream(file) if b.error]
        except (OSError, UnicodeDecodeError) as error:
            raise source.error(
                (*where, "env-files"), f"env-file {text!r}: {path} cannot be read: {error}"
            ) from error
        if faulty:
            raise source.error(
                (*where, "env-files"),
                f"env-file {text!r}: line {faulty[0]} of {path} is not NAME=VALUE",
            )
        found |= {name: value or "" for name, value in dotenv_values(path).items()}
    found |= _merged(layers, "env")
    if IMPORT_ENVS in found:
        raise source.error(
            (*where, "env", IMPORT_ENVS),
            f"{IMPORT_ENVS} is not supported: name the variables under `env` or in `env-files`",
        )
    return found


def _commands(source: Source, where: Sequence[Step], layers: Layers) -> Iterator[str]:
    """`exec`, between what its stages add before and after."""
    yield from _stage_commands(source, where, layers, Stage.CREATE, ("on-exit",))
    yield from _stage_commands(source, where, layers, Stage.LINKS, ("on-enter", "on-exit"))
    yield from _stage_commands(source, where, layers, Stage.CONFIGURE, ("on-enter",))
    for layer in layers:
        yield from layer.get("exec", ())
    yield from _stage_commands(source, where, layers, Stage.CONFIGURE, ("on-exit",))
    yield from _stage_commands(source, where, layers, Stage.HEALTHY, ("on-enter", "on-exit"))


def _stage_commands(
    source: Source, where: Sequence[Step], layers: Layers, stage: Stage, phases: Sequence[str]
) -> Iterator[str]:
    for phase in phases:
        for layer in layers:
            said = (layer.get("stages") or {}).get(stage, {}).get("exec") or {}
            if isinstance(said, Mapping):
                yield from said.get(phase, ())
                continue
            for command in said:
                if command.get("target", "container") != "container":
                    raise source.error(
                        (*where, "stages", stage, "exec"),
                        f"stage {stage}: {command['command']!r} would run on this machine: only "
                        "target `container` is supported, or use --runtime containerlab",
                    )
                if command["phase"] == phase:
                    yield command["command"]


def _waits(
    source: Source, where: Sequence[Step], layers: Layers, nodes: Collection[str]
) -> dict[Stage, tuple[Wait, ...]]:
    found: dict[Stage, tuple[Wait, ...]] = {}
    for layer in layers:
        for stage, said in (layer.get("stages") or {}).items():
            at = (*where, "stages", stage, "wait-for")
            for wait in said.get("wait-for", ()):
                waited = Wait(wait.get("node", ""), Stage(wait.get("stage", Stage.CREATE)))
                if waited.node not in nodes:
                    raise source.error(
                        at,
                        f"node {where[-1]!r} waits for unknown node {waited.node!r}: the nodes "
                        f"are {', '.join(sorted(nodes))}",
                    )
                if Stage.EXIT in (waited.stage, stage):
                    raise source.error(
                        at, "stage `exit` needs containers: a namespace host does not exit"
                    )
                found[Stage(stage)] = (*found.get(Stage(stage), ()), waited)
    return found


def _limits(source: Source, where: Sequence[Step], layers: Layers) -> Limits:
    memory = _latest(layers, "memory")
    return Limits(
        cpu=_latest(layers, "cpu") or None,
        cpu_set=_latest(layers, "cpu-set"),
        memory=None if memory is None else _bytes(source, (*where, "memory"), memory),
    )


def _bytes(source: Source, where: Sequence[Step], text: str) -> int:
    match = _MEMORY.match(text.strip())
    if match is None:
        raise source.error(where, f"memory {text!r} is no size: write 512Mb or 1GiB")
    number, unit, binary = match.groups()
    base = 1024.0 if binary else 1000.0
    return round(float(number) * base ** " kmgt".index(unit.lower() or " "))


def _binds(source: Source, where: Sequence[Step], layers: Layers) -> Iterator[Bind]:
    """`SOURCE:TARGET[:OPTIONS]`, relative to the file. The most specific of a target counts."""
    found: dict[Path, Bind] = {}
    for text in (bind for layer in layers for bind in layer.get("binds", ())):
        parts = text.split(":")
        if len(parts) not in (2, 3) or not parts[0] or not parts[1].startswith("/"):
            raise source.error(
                (*where, "binds"), f"bind {text!r} is not SOURCE:/TARGET or SOURCE:/TARGET:ro"
            )
        outside = (source.path.parent / Path(parts[0]).expanduser()).resolve()
        if not outside.exists():
            raise source.error(
                (*where, "binds"), f"bind {text!r}: {outside} does not exist on this machine"
            )
        options = parts[2].split(",") if len(parts) == 3 else []
        target = Path(parts[1])
        found[target] = Bind(source=outside, target=target, read_only="ro" in options)
    yield from found.values()
