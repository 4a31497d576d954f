"""`apply`, `diff`, `get` and `delete`: files, directories, standard input, every fault at once."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from meshnet.model.manifest import ORIGIN_ANNOTATION, annotated
from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet

SHOP = """
# a comment alone is no document
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {}}]
    ports: [{port: http}, {port: 8000, endPort: 9000}]
---
"""


@pytest.fixture
def shop(tmp_path: Path) -> str:
    (tmp_path / "shop.yaml").write_text(SHOP)
    return str(tmp_path / "shop.yaml")


def test_apply_is_idempotent_and_get_gives_back_what_was_applied(
    agent: FakeAgent, meshnet: Meshnet, shop: str
) -> None:
    first = meshnet("apply", "-f", shop)
    assert first.out == "namespace shop created\nnetworkpolicy shop/web created\n"
    assert meshnet("apply", "-f", shop).out.count("unchanged") == 2
    got = meshnet("get", "netpol", "web", "-n", "shop", "-o", "yaml").out
    assert yaml.safe_load(got) in list(yaml.safe_load_all(SHOP))
    listed = meshnet("get", "ns", "-o", "json").json
    assert [each["metadata"]["name"] for each in listed] == ["shop"]


@pytest.mark.parametrize("alias", ["netpol", "networkpolicy", "networkpolicies", "NetworkPolicy"])
def test_kinds_have_kubectls_aliases(
    alias: str, agent: FakeAgent, meshnet: Meshnet, shop: str
) -> None:
    meshnet("apply", "-f", shop)
    assert "shop" in meshnet("get", alias, "-A").out
    assert meshnet("get", alias).out.splitlines() == ["KIND   NAMESPACE   NAME   SCOPE   ORIGIN"]
    assert meshnet("get", "moon").code == 2
    assert meshnet("get", alias, "nothing", "-n", "shop").code == 4


def test_a_list_that_was_read_can_be_applied(
    agent: FakeAgent, meshnet: Meshnet, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshnet("apply", "-f", shop)
    text = meshnet("get", "netpol", "-A", "-o", "yaml").out
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert meshnet("apply", "-f", "-").out == "networkpolicy shop/web unchanged\n"


def test_a_list_that_can_be_applied_has_nothing_of_another_clusters(
    agent: FakeAgent, meshnet: Meshnet, shop: str
) -> None:
    meshnet("apply", "-f", shop)
    ours = agent.manifests["NetworkPolicy", "shop", "web"]
    theirs = annotated(ours, ORIGIN_ANNOTATION, "west")
    theirs["metadata"]["name"] = "theirs"
    agent.manifests["NetworkPolicy", "shop", "theirs"] = theirs

    listed = yaml.safe_load(meshnet("get", "netpol", "-A", "-o", "yaml").out)
    assert listed["items"] == [ours]
    assert meshnet("get", "netpol", "-A", "-o", "json").json == [theirs, ours]
    assert "west" in meshnet("get", "netpol", "-A").out
    named = meshnet("get", "netpol", "theirs", "-n", "shop", "-o", "yaml").out
    assert yaml.safe_load(named) == theirs


def test_diff_says_what_would_change_by_its_exit_code(
    agent: FakeAgent, meshnet: Meshnet, shop: str, tmp_path: Path
) -> None:
    assert meshnet("diff", "-f", shop).code == 1
    assert agent.manifests == {}
    meshnet("apply", "-f", shop)
    assert meshnet("diff", "-f", shop) == meshnet("diff", "-f", shop)
    assert meshnet("diff", "-f", shop).code == 0
    (tmp_path / "shop.yaml").write_text(SHOP.replace("team: a", "team: b"))
    changed = meshnet("diff", "-f", shop)
    assert changed.code == 1
    assert "-    team: a\n+    team: b\n" in changed.out


def test_every_fault_of_every_document_is_told_and_nothing_is_stored(
    agent: FakeAgent, meshnet: Meshnet, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(SHOP.replace("port: http", "port: -1"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yml").write_text("kind: [\n")
    (tmp_path / "sub" / "c.json").write_text('{"apiVersion": "v1", "kind": "Namespace"}')
    (tmp_path / "sub" / "not.txt").write_text("neither read nor a fault")
    outcome = meshnet("apply", "-f", str(tmp_path))
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    assert len(lines) == 3
    assert f"{tmp_path}/a.yaml, document 2: spec.ingress[0].ports[0].port: must be 1 to" in lines[0]
    assert "not -1" in lines[0]
    assert f"{tmp_path}/sub/b.yml, document 1 is no YAML" in lines[1]
    assert f"{tmp_path}/sub/c.json, document 1: document: field 'metadata' is missing" in lines[2]
    assert agent.manifests == {}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("apply",), 2, "--filename"),
        (("apply", "-f", "/nowhere.yaml"), 2, "/nowhere.yaml cannot be read"),
        (("apply", "-f", "/dev/null"), 2, "no manifest in /dev/null"),
        (("delete",), 2, "give either -f FILE or KIND NAME"),
        (("delete", "netpol"), 2, "which netpol?"),
        (("delete", "netpol", "x"), 4, "is not applied"),
    ],
)
def test_bad_calls(
    arguments: tuple[str, ...], code: int, words: str, agent: FakeAgent, meshnet: Meshnet
) -> None:
    outcome = meshnet(*arguments)
    assert outcome.code == code
    assert words in outcome.err


def test_one_manifest_twice_is_a_fault(agent: FakeAgent, meshnet: Meshnet, shop: str) -> None:
    outcome = meshnet("apply", "-f", shop, "-f", shop)
    assert outcome.code == 2
    assert "NetworkPolicy shop/web is in" in outcome.err


def test_delete_by_file_and_by_name(agent: FakeAgent, meshnet: Meshnet, shop: str) -> None:
    meshnet("apply", "-f", shop)
    assert meshnet("delete", "ns", "shop").out == "namespace shop deleted\n"
    assert meshnet("delete", "-f", shop).code == 4
    assert meshnet("delete", "netpol", "web", "-n", "shop").code == 0
    assert agent.manifests == {}


def test_many_manifests_are_sent_in_requests_that_the_agent_takes(
    agent: FakeAgent, meshnet: Meshnet, tmp_path: Path
) -> None:
    note = "x" * 100_000
    text = "\n---\n".join(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": f"n{number}", "annotations": {"note": note}},
            }
        )
        for number in range(12)
    )
    (tmp_path / "many.yaml").write_text(text)
    assert meshnet("apply", "-f", str(tmp_path / "many.yaml")).out.count("created") == 12


APPLICATION = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {}
"""


def test_an_applications_services_apply_and_its_deployments_are_left_out_by_name(
    agent: FakeAgent, meshnet: Meshnet, tmp_path: Path
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(APPLICATION)
    done = meshnet("apply", "-f", str(file))
    assert (done.code, done.out) == (1, "service default/web created\n")
    assert f"{file}, document 2: kind: a Deployment is not meshnet's" in done.err
    assert "`meshnet run" in done.err


def test_nothing_but_what_is_not_ours_is_a_fault(
    agent: FakeAgent, meshnet: Meshnet, tmp_path: Path
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(APPLICATION.partition("---")[2])
    done = meshnet("apply", "-f", str(file))
    assert (done.code, done.out) == (2, "")
    assert "a Deployment is not meshnet's" in done.err


def test_what_is_applied_for_the_mesh_says_so_and_what_cannot_be_is_refused(
    agent: FakeAgent, meshnet: Meshnet, shop: str, tmp_path: Path
) -> None:
    refused = meshnet("apply", "--mesh", "-f", shop)
    assert refused.code == 2 and "a Namespace is of its own cluster" in refused.err
    assert agent.manifests == {}
    policy = tmp_path / "web.yaml"
    policy.write_text(SHOP.split("---")[2])
    assert meshnet("diff", "--mesh", "-f", str(policy)).code == 1
    applied = meshnet("apply", "--mesh", "-f", str(policy))
    assert applied.out == "networkpolicy shop/web created\n"
    assert "policies_from" in applied.err
    assert meshnet("diff", "--mesh", "-f", str(policy)).code == 0
    assert "meshnet.io/scope: mesh" in meshnet("diff", "-f", str(policy)).out
    got = meshnet("get", "netpol", "-n", "shop").out.splitlines()
    assert got[1].split() == ["NetworkPolicy", "shop", "web", "mesh", "-"]
