"""The committed reference of the command line is what the commands say, and the contract is met."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.cli.reference import reference
from tests.unit.cli.conftest import Meshnet

FILE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def test_the_reference_is_up_to_date() -> None:
    assert FILE.read_text() == reference(), "run `python -m meshnet.cli.reference >` it"


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("cluster init", "--id --pod-cidr --service-cidr --node-prefix-v4 --node-prefix-v6 "
         "--routing --tunnel --masquerade --no-masquerade --non-masquerade-cidr --underlay --node "
         "--etcd --etcd-ca --etcd-cert --etcd-key"),
        ("cluster token", "--ttl --signer"),
        ("cluster join", "--node --underlay --plan"),
        ("cluster leave", "--force"),
        ("mesh invite", "--ttl --for"),
        ("mesh join", "--plan"),
        ("mesh status", "--wait --timeout"),
        ("status", "--wait --timeout"),
        ("run", "--name --namespace --label --port --detach"),
        ("endpoint add", "--netns --namespace --label --ifname"),
        ("endpoint list", "--all-nodes --all-clusters --output"),
    ],
)  # fmt: skip
def test_commands_have_the_contracts_flags(command: str, flags: str, meshnet: Meshnet) -> None:
    words = meshnet(*command.split(), "--help").out.replace(",", " ").replace("/", " ").split()
    assert set(flags.split()) <= set(words)
