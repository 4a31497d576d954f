"""What an operator asks a mesh about itself: `meshnet bundle`, `meshnet ipam check`."""

from __future__ import annotations

import json
import tarfile

import pytest

from tests.support.formed import Mesh

pytestmark = pytest.mark.lab


def test_a_bundle_is_whole_and_has_no_secret_of_the_node(mesh: Mesh) -> None:
    node = mesh["east-1"]
    token = mesh.run("east-1", "meshnet", "mesh", "invite").strip()
    try:
        file = mesh.run("east-1", "meshnet", "bundle", "--out", "/tmp/bundle.tar.gz").strip()
        with tarfile.open(node.path(file)) as archive:
            text = {
                member.name.removeprefix("meshnet-bundle/"): opened.read().decode()
                for member in archive
                if (opened := archive.extractfile(member)) is not None
            }
        assert json.loads(text["bundle.json"])["missing"] == {}
        assert json.loads(text["agent/status.json"])["node"]["name"] == "east-1"
        assert len(json.loads(text["maps/nodes.json"])) >= 4
        assert "from_endpoint" in text["host/programs.txt"]
        keys = list(node.path("/var/lib/meshnet/pki").glob("*.key"))
        secrets = [key.read_text().splitlines()[1] for key in keys] + [token]
        assert len(secrets) > 3
        assert not [name for name, it in text.items() for secret in secrets if secret in it]
    finally:
        node.path("/tmp/bundle.tar.gz").unlink(missing_ok=True)
        for row in mesh.json("east-1", "cluster", "token", "list"):
            mesh.run("east-1", "meshnet", "cluster", "token", "revoke", row["id"])


def test_blocks_and_addresses_of_both_clusters_fit_together(mesh: Mesh) -> None:
    for found in mesh.each("ipam", "check", nodes=("east-2", "west-1")).values():
        assert found == []
