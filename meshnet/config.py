"""Settings of one node: flag > `MESHNET_*` environment > meshnet.toml > default.

`cluster init` and `cluster join` write the file; the agent and the CLI read it. What the
whole cluster agrees on is not here but in etcd (`model.cluster.Cluster`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from meshnet.errors import ConfigError

if TYPE_CHECKING:
    import cattrs


@attrs.frozen(kw_only=True)
class Paths:
    """Where a node keeps its things. Only tests and packagers change these."""

    config: Path = Path("/etc/meshnet/meshnet.toml")
    state: Path = Path("/var/lib/meshnet")
    """Survives a reboot: pki/, etcd/, snapshot/."""
    run: Path = Path("/run/meshnet")
    """Dies with the boot: agent.sock, endpoints/, logs/."""
    bpf: Path = Path("/sys/fs/bpf/meshnet")
    log: Path = Path("/var/log/meshnet")
    """agent.log where no journal takes what the agent says."""

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def socket(self) -> Path:
        return self.run / "agent.sock"

    @classmethod
    def from_environment(cls) -> Paths:
        """The defaults, but for what the variables of `_VARIABLES` say."""
        given = {
            field: Path(os.environ[name])
            for field, name in _VARIABLES.items()
            if name in os.environ
        }
        return cls(**given)

    def as_environment(self) -> dict[str, str]:
        """The variables with which another process finds the same paths."""
        return {name: str(getattr(self, field)) for field, name in _VARIABLES.items()}


_VARIABLES = {
    "config": "MESHNET_CONFIG",
    "state": "MESHNET_STATE_DIR",
    "run": "MESHNET_RUN_DIR",
    "bpf": "MESHNET_BPF_DIR",
    "log": "MESHNET_LOG_DIR",
}


@attrs.frozen(kw_only=True)
class EtcdSettings:
    endpoints: tuple[str, ...]
    """`host:port`, without scheme: it is always TLS."""
    ca: str
    """PEM file that etcd's certificate is verified against."""
    cert: str
    key: str
    managed: bool = False
    """This node runs an etcd member that the agent supervises."""


_ge, _le = attrs.validators.ge, attrs.validators.le

_SETTINGS_FROM_ENVIRONMENT = {"conntrack_entries": "MESHNET_CONNTRACK_ENTRIES"}


@attrs.frozen(kw_only=True)
class Settings:
    """One node's file. Unknown keys are refused: a mistyped setting must not be ignored."""

    cluster: str
    cluster_id: int
    node: str
    underlay: str
    """Interface name, found once at init or join."""
    etcd: EtcdSettings
    signer: bool = False
    """This node holds the CA keys and serves enrolment."""
    masquerade_ports: str = "40000-60999"
    """Of the node's own address, for endpoints' flows to the world. The node's sockets get
    none of them by chance (net.ipv4.ip_local_reserved_ports)."""
    conntrack_entries: int = attrs.field(
        default=262_144, validator=attrs.validators.and_(_ge(1024), _le(1 << 24))
    )
    """Flows that the node remembers, at 112 bytes of kernel memory each, taken at once. Or
    `MESHNET_CONNTRACK_ENTRIES`, as hosts of a lab have it."""


def _converter() -> cattrs.Converter:
    import cattrs  # 30 ms that a command which only wants `Paths` need not pay

    return cattrs.Converter(forbid_extra_keys=True)


def load(paths: Paths) -> Settings:
    """Read the node's file.

    Raises:
        ConfigError: no file (the node is in no cluster), not TOML, or faulty; all faults
            are named at once.
    """
    import tomllib

    import cattrs

    try:
        raw: dict[str, Any] = tomllib.loads(paths.config.read_text())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{paths.config} does not exist: this node is in no cluster; run "
            "`meshnet cluster init NAME` or `meshnet cluster join TOKEN`"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{paths.config} is not TOML: {error}") from error
    for field, name in _SETTINGS_FROM_ENVIRONMENT.items():
        if name in os.environ:
            raw[field] = os.environ[name]
    try:
        return _converter().structure(raw, Settings)
    except cattrs.BaseValidationError as error:
        found = cattrs.transform_error(error, path="settings", format_exception=_fault)
        faults = "; ".join(found)
        raise ConfigError(f"{paths.config} is faulty: {faults}") from error


def _fault(error: BaseException, wanted: type | None) -> str:
    """A value that a validator of ours refuses says by itself what is wrong."""
    from cattrs.v import format_exception

    ours = wanted is None and isinstance(error, ValueError)
    return str(error.args[0]) if ours else format_exception(error, wanted)


def save(paths: Paths, settings: Settings) -> None:
    """Write the file whole or not at all."""
    import tomli_w

    paths.config.parent.mkdir(parents=True, exist_ok=True)
    temporary = paths.config.with_suffix(".tmp")
    temporary.write_text(tomli_w.dumps(_converter().unstructure(settings)))
    temporary.replace(paths.config)
