"""`cluster init` and `join`: bad input is refused before anything on the host is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.errors import CapabilityMissing
from meshnet.host import capability
from tests.unit.cli.conftest import Meshnet

NAME_RULE = "lower-case letters, digits and '-', first and last a letter or digit"


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("East", 2, f"cluster name 'East' is invalid: {NAME_RULE}"),
        ("default", 2, "cluster name 'default' is invalid: 'default' is kept by Cilium for "
         "clusters without an id"),
        (f"{'a' * 33}", 2, f"cluster name '{'a' * 33}' is invalid: 32 characters at most"),
        ("east --node East_1", 2, f"node name 'East_1' is invalid: {NAME_RULE} (RFC 1123)"),
        ("east --id 0", 2, "cluster id 0 is out of range: 1 to 255"),
        ("east --id 256", 2, "cluster id 256 is out of range: 1 to 255"),
        ("east --pod-cidr 10.0.0.0/24", 2, "PodCIDR 10.0.0.0/24 is too small: a node takes a /22, "
         "so give at least /22 or a longer --node-prefix-v4"),
        ("east --pod-cidr fd00:1::/48", 2, "an IPv4 PodCIDR is needed beside IPv6: add --pod-cidr "
         "10.x.0.0/16"),
        ("east --pod-cidr 10.0.0.1/16", 2, "10.0.0.1/16 has host bits set: did you mean "
         "10.0.0.0/16?"),
        ("east --pod-cidr ten", 2, "'ten' is not a CIDR, such as 10.1.0.0/16"),
        ("east --non-masquerade-cidr 203.0.113.9/24", 2, "203.0.113.9/24 has host bits set: did "
         "you mean 203.0.113.0/24?"),
        ("east --no-masquerade --non-masquerade-cidr 10.0.0.0/8", 2, "--non-masquerade-cidr means "
         "nothing with --no-masquerade: no destination is masqueraded then; leave one of them out"),
        ("east --node-prefix-v4 30", 2, "--node-prefix-v4 30 is too small for a node: /29 at most"),
        ("east --pod-cidr 10.0.0.0/16 --service-cidr 10.0.128.0/20", 2, "10.0.0.0/16 overlaps "
         "10.0.128.0/20: every CIDR of a cluster is its own"),
        ("east --etcd https://10.0.0.1:2379", 2, "--etcd is always TLS: --etcd-ca, --etcd-cert, "
         "--etcd-key must be given too"),
        ("east --etcd-ca /etc/hosts", 2, "--etcd-ca, --etcd-cert and --etcd-key belong to --etcd "
         "URL,..."),
        ("east --etcd http://a:1 --etcd-ca /etc/hosts --etcd-cert /etc/hosts --etcd-key "
         "/etc/hosts", 2, "--etcd 'http://a:1' is not https://HOST:PORT"),
        ("east --etcd a:1 --etcd-ca /nope --etcd-cert /etc/hosts --etcd-key /etc/hosts", 2,
         "--etcd-ca /nope is no file"),
    ],
)  # fmt: skip
def test_a_faulty_init_changes_nothing(
    flags: str, code: int, message: str, home: Path, meshnet: Meshnet
) -> None:
    before = sorted(home.rglob("*"))
    outcome = meshnet("cluster", "init", *flags.split())
    assert (outcome.code, outcome.out, outcome.err) == (code, "", f"Error: {message}\n")
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    "lack", ["must be root, not uid 1000: run it with sudo", "CAP_BPF is missing"]
)
def test_what_the_host_lacks_is_told_before_anything_is_made(
    lack: str, home: Path, meshnet: Meshnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise CapabilityMissing(lack)

    monkeypatch.setattr(capability, "require_all", refuse)
    (home / "meshnet.toml").unlink()
    outcome = meshnet("cluster", "init", "east", "--node", "a")
    assert (outcome.code, outcome.err) == (6, f"Error: {lack}\n")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hello", "not a join token: it must start with 'mnt1.'"),
        ("mnt1.AAAA", "join token of 9 characters is truncated or damaged: copy it again"),
    ],
)
def test_what_is_no_token_is_refused(token: str, message: str, meshnet: Meshnet) -> None:
    outcome = meshnet("cluster", "join", token, "--node", "a")
    assert (outcome.code, outcome.err) == (1, f"Error: {message}\n")


def test_token_life_is_bounded(meshnet: Meshnet) -> None:
    outcome = meshnet("cluster", "token", "--ttl", "30d")
    assert (outcome.code, outcome.err) == (2, "Error: --ttl 30d is out of range: 10s to 7d\n")
