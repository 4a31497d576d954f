"""etcd's client YAML as Cilium writes it: read, refused by field, written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from meshnet.cli import etcd_config
from meshnet.errors import ConfigError

CILIUM = """\
endpoints:
- https://west.mesh.cilium.io:2379
- https://192.0.2.9
trusted-ca-file: /var/lib/cilium/clustermesh/west.etcd-client-ca.crt
key-file: /var/lib/cilium/clustermesh/west.etcd-client.key
cert-file: /var/lib/cilium/clustermesh/west.etcd-client.crt
cilium-host-aliases:
- hostname: west.mesh.cilium.io
  ips: [192.0.2.7, "2001:db8::7"]
"""
"""The shape of a secret that `cilium clustermesh connect` makes."""
FILES = {
    f"/var/lib/cilium/clustermesh/west.etcd-client{end}": end for end in ("-ca.crt", ".key", ".crt")
}


def test_ciliums_form_is_read_with_its_aliases_as_tls_names() -> None:
    read = etcd_config.read(CILIUM, FILES)

    assert read.endpoints == ("192.0.2.7:2379", "[2001:db8::7]:2379", "192.0.2.9:2379")
    assert (read.access.ca, read.access.cert, read.access.key) == ("-ca.crt", ".crt", ".key")
    name = "west.mesh.cilium.io"
    assert read.access.names == {"192.0.2.7:2379": name, "[2001:db8::7]:2379": name}
    assert ".key" not in repr(read.access), "a key is not shown by accident"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("endpoints:\n- https://west.mesh.cilium.io:2379\n- https://192.0.2.9", ""), "endpoints"),
        (("https://192.0.2.9", "http://192.0.2.9"), "'http://192.0.2.9' is not https://HOST:PORT"),
        (("https://192.0.2.9", "https://192.0.2.9:port"), "endpoint 'https://192.0.2.9:port'"),
        (("cert-file: /", "certificate: /"), "cert-file is missing"),
        (("west.etcd-client.key", "east.key"), "key-file /var/lib/cilium/clustermesh/east.key was"),
        (("  ips:", "  addresses:"), "cilium-host-aliases is no list of {hostname, ips}"),
        (("192.0.2.7,", "here,"), "'here' is not an IP address"),
        (("endpoints:", "endpoints: {"), "not YAML"),
    ],
)
def test_what_is_wrong_is_said_by_field(change: tuple[str, str], said: str) -> None:
    text = CILIUM.replace(*change)
    assert text != CILIUM

    with pytest.raises(ConfigError) as error:
        etcd_config.read(text, FILES)

    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_pem_files_are_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.key"
    elsewhere.write_text("key")
    text = CILIUM.replace("/var/lib/cilium/clustermesh/west.etcd-client.key", str(elsewhere))

    named = etcd_config.named_files(text, tmp_path)

    assert named[str(elsewhere)] == elsewhere
    crt = "/var/lib/cilium/clustermesh/west.etcd-client.crt"
    assert named[crt] == tmp_path / "west.etcd-client.crt"


def test_what_is_written_is_ciliums_form_and_can_be_read_again() -> None:
    files = etcd_config.write("east", ("192.0.2.1:4243", "[::1]:4243"), ca="A", cert="C", key="K")

    assert set(files) == {
        "east",
        "east.etcd-client-ca.crt",
        "east.etcd-client.crt",
        "east.etcd-client.key",
    }
    assert yaml.safe_load(files["east"]) == {
        "endpoints": ["https://192.0.2.1:4243", "https://[::1]:4243"],
        "trusted-ca-file": "/var/lib/cilium/clustermesh/east.etcd-client-ca.crt",
        "key-file": "/var/lib/cilium/clustermesh/east.etcd-client.key",
        "cert-file": "/var/lib/cilium/clustermesh/east.etcd-client.crt",
    }
    named = {f"{etcd_config.DIRECTORY}/{name}": text for name, text in files.items()}
    read = etcd_config.read(files["east"], named)
    assert read.endpoints == ("192.0.2.1:4243", "[::1]:4243")
    assert (read.access.ca, read.access.cert, read.access.key) == ("A", "C", "K")
