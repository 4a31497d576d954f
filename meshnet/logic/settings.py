"""What the whole cluster agreed on, by key: read with `config get`, changed with `config set`."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from meshnet.errors import NotFound, UsageError
from meshnet.model import names
from meshnet.model.cluster import Cluster

SHORTEST_LIFETIME_S, LONGEST_LIFETIME_S = 60, 90 * 86400
_DURATION = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@attrs.frozen
class Setting:
    key: str
    read: Callable[[Cluster], object]
    write: Callable[[Cluster, str], Cluster] | None
    """None: decided at `cluster init` for good."""


def get(cluster: Cluster, key: str) -> object:
    """Raises NotFound."""
    return _find(key).read(cluster)


def get_all(cluster: Cluster) -> dict[str, object]:
    return {setting.key: setting.read(cluster) for setting in SETTINGS}


def changed(cluster: Cluster, key: str, text: str) -> Cluster:
    """The cluster with that setting. Raises NotFound, UsageError: fixed, or out of range."""
    setting = _find(key)
    if setting.write is None:
        raise UsageError(f"{key} is decided at `cluster init` and cannot be changed")
    return setting.write(cluster, text)


def duration_s(key: str, text: str) -> int:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{key} {text!r} is not a duration, such as 7d, 12h, 90m or 120s")
    return int(match[1]) * _SECONDS[match[2]]


def _lifetime(cluster: Cluster, text: str) -> Cluster:
    seconds = duration_s("certificate_lifetime", text)
    if not SHORTEST_LIFETIME_S <= seconds <= LONGEST_LIFETIME_S:
        raise UsageError(f"certificate_lifetime {text} is out of range: 60s to 90d")
    return attrs.evolve(cluster, certificate_lifetime_s=seconds)


def _policy_default_local(cluster: Cluster, text: str) -> Cluster:
    return attrs.evolve(cluster, policy_default_local=_truth("policy_default_local", text))


def _policies_from(cluster: Cluster, text: str) -> Cluster:
    given = () if text == "none" else tuple(text.split(","))
    for name in given:
        if name == cluster.name:
            raise UsageError("policies_from names other clusters: this one's hold anyway")
        names.cluster_name(name)
    return attrs.evolve(cluster, policies_from=tuple(sorted(set(given))))


def _truth(key: str, text: str) -> bool:
    """As `config get` prints it, or as JSON has it."""
    if text not in ("yes", "no", "true", "false"):
        raise UsageError(f"{key} {text!r} is neither yes nor no")
    return text in ("yes", "true")


def _spoken_duration(seconds: int) -> str:
    unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def _find(key: str) -> Setting:
    for setting in SETTINGS:
        if setting.key == key:
            return setting
    known = ", ".join(setting.key for setting in SETTINGS)
    raise NotFound(f"setting {key!r} does not exist: there are {known}")


SETTINGS = (
    Setting(
        "certificate_lifetime", lambda c: _spoken_duration(c.certificate_lifetime_s), _lifetime
    ),
    Setting("cluster", lambda c: c.name, None),
    Setting("id", lambda c: c.id, None),
    Setting("pod_cidrs", lambda c: [str(prefix) for prefix in c.pod_cidrs], None),
    Setting("service_cidrs", lambda c: [str(prefix) for prefix in c.service_cidrs], None),
    Setting("routing", lambda c: c.routing.value, None),
    Setting("tunnel", lambda c: c.tunnel.value, None),
    Setting("masquerade", lambda c: c.masquerade, None),
    Setting("policies_from", lambda c: list(c.policies_from), _policies_from),
    Setting("policy_default_local", lambda c: c.policy_default_local, _policy_default_local),
)
