"""etcd's client configuration as Cilium writes it, one YAML file a cluster. YAML stays on this side
of the agent's socket.

    endpoints: [https://west.mesh.cilium.io:2379]
    trusted-ca-file: /var/lib/cilium/clustermesh/west.etcd-client-ca.crt
    cert-file: ...
    key-file: ...
    cilium-host-aliases: [{hostname: west.mesh.cilium.io, ips: [192.0.2.7]}]

Source: etcd client/v3/yaml; the last field is Cilium's (facts: pkg/kvstore/config).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from meshnet.errors import ConfigError
from meshnet.model.addressing import parse_address
from meshnet.model.remote import EtcdAccess, EtcdConfig

DEFAULT_PORT = 2379
DIRECTORY = "/var/lib/cilium/clustermesh"
"""Where Cilium mounts the files of all its remotes."""


def read(text: str, files: Mapping[str, str]) -> EtcdConfig:
    """One file's text; `files`: the PEM texts by the names that it has for them.

    Raises ConfigError, naming the field.
    """
    raw = _mapping(text)
    aliases = _aliases(raw.get("cilium-host-aliases") or [])
    endpoints: list[str] = []
    names: dict[str, str] = {}
    for url in _texts(raw, "endpoints"):
        host, port = _host_port(url)
        for address in aliases.get(host, (host,)):
            endpoint = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            endpoints.append(endpoint)
            if address != host:
                names[endpoint] = host
    pem = [_pem(raw, field, files) for field in ("trusted-ca-file", "cert-file", "key-file")]
    ca, cert, key = pem
    access = EtcdAccess(ca=ca, cert=cert, key=key, names=names)
    return EtcdConfig(endpoints=tuple(endpoints), access=access)


def named_files(text: str, directory: Path) -> dict[str, Path]:
    """The PEM files that a configuration names -> where to look for each: as it says, else
    beside the configuration, for Cilium's paths are those of its pods."""
    raw = _mapping(text)
    named = (raw.get(field) for field in ("trusted-ca-file", "cert-file", "key-file"))
    found = {}
    for name in named:
        if isinstance(name, str) and name:
            path = Path(name)
            found[name] = path if path.is_file() else directory / path.name
    return found


def write(
    cluster: str, endpoints: Iterable[str], *, ca: str, cert: str, key: str
) -> dict[str, str]:
    """What another cluster's `cilium-clustermesh` secret needs to read `cluster`: by file name."""
    prefix = f"{DIRECTORY}/{cluster}.etcd-client"
    config = {
        "endpoints": [f"https://{endpoint}" for endpoint in endpoints],
        "trusted-ca-file": f"{prefix}-ca.crt",
        "key-file": f"{prefix}.key",
        "cert-file": f"{prefix}.crt",
    }
    return {
        cluster: yaml.safe_dump(config, sort_keys=False),
        f"{cluster}.etcd-client-ca.crt": ca,
        f"{cluster}.etcd-client.crt": cert,
        f"{cluster}.etcd-client.key": key,
    }


def _mapping(text: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"etcd configuration is not YAML: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError("etcd configuration is no YAML mapping: it wants endpoints, cert-file...")
    return raw


def _texts(raw: dict[str, Any], field: str) -> list[str]:
    found = raw.get(field)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"etcd configuration: {field} must be a list of at least one text")
    return found


def _host_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigError(f"etcd configuration: endpoint {url!r}: {error}") from error
    if parts.scheme != "https" or not host:
        raise ConfigError(
            f"etcd configuration: endpoint {url!r} is not https://HOST:PORT; without TLS a "
            "cluster is not read"
        )
    return host, port


def _aliases(raw: Any) -> dict[str, tuple[str, ...]]:
    try:
        return {
            str(alias["hostname"]): tuple(str(parse_address(ip)) for ip in alias["ips"])
            for alias in raw
        }
    except (KeyError, TypeError) as error:
        raise ConfigError(
            "etcd configuration: cilium-host-aliases is no list of {hostname, ips}"
        ) from error


def _pem(raw: dict[str, Any], field: str, files: Mapping[str, str]) -> str:
    name = raw.get(field)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"etcd configuration: {field} is missing")
    if name not in files:
        raise ConfigError(f"etcd configuration: {field} {name} was not given")
    return files[name]
