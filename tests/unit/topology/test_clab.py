"""What a containerlab file may say, and how a wrong one is told: file, line, what, what next."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path

import pytest

from meshnet.errors import ConfigError
from topology import clab, clab_links
from topology.expect import model
from topology.model import Bind

LABS = Path(__file__).parents[3] / "containerlab"


def lab_file(tmp_path: Path, topology: str, name: str = "l") -> Path:
    file = tmp_path / "l.clab.yml"
    file.write_text(f"name: {name}\ntopology:\n{topology}")
    return file


TWO = """\
  nodes:
    a: {kind: linux}
    b: {kind: linux}
  links:
"""


@pytest.mark.parametrize(
    ("topology", "line", "message"),
    [
        (
            "  nodes:\n    a:\n      kind: toaster\n",
            5,
            "node 'a': unknown kind 'toaster': `linux` is a host, `bridge` a switch",
        ),
        ("  nodes:\n    a:\n      labels: {x: y}\n", 4, "node 'a' has no kind: add `kind: linux`"),
        (
            TWO + '    - endpoints: ["a:eth1", "c:eth1"]\n',
            7,
            "link to unknown node 'c': the nodes are a, b",
        ),
        (
            TWO + '    - endpoints: ["a:eth1", "b:ethernet-number-1"]\n',
            7,
            "interface 'ethernet-number-1' of node 'b' is longer than 15 characters (17), "
            "which Linux does not take",
        ),
        (
            TWO + '    - endpoints: ["a:eth1", "b:eth1"]\n    - endpoints: ["b:eth1", "a:eth2"]\n',
            8,
            "interface 'eth1' of node 'b' is in two links",
        ),
        (TWO + '    - endpoints: ["a:eth1"]\n', 7, "a link has two endpoints, this one 1"),
        (
            TWO + '    - endpoints: ["a:eth1", "b:eth1", "a:eth2"]\n',
            7,
            "a link has two endpoints, this one 3",
        ),
        (
            TWO + '    - endpoints: ["a:", "b:eth1"]\n',
            7,
            "'' is no interface name: write NODE:eth1",
        ),
        (
            TWO + "    - type: host\n      endpoint: {node: a, interface: eth1}\n"
            "      host-interface: x\n",
            7,
            "link type 'host' needs containers: use `veth`, or --runtime containerlab",
        ),
        (
            "  nodes:\n    a_b: {kind: linux}\n",
            4,
            "node name 'a_b' is no host name: letters, digits and '-', 63 characters at most",
        ),
        (
            "  nodes:\n    br-much-too-long-for-it: {kind: bridge}\n",
            4,
            "the bridge 'br-much-too-long-for-it' is longer than 15 characters (23), "
            "which Linux does not take",
        ),
        (
            "  nodes:\n    a:\n      kind: linux\n      binds: ['nothing:/x']\n",
            6,
            "bind 'nothing:/x': {directory}/nothing does not exist on this machine",
        ),
        ("  nodes: {}\n", 3, "a lab without nodes: add them under topology.nodes"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_what_to_do(
    tmp_path: Path, topology: str, line: int, message: str
) -> None:
    file = lab_file(tmp_path, topology)
    with pytest.raises(ConfigError) as caught:
        clab.read(file)
    expected = f"{file}:{line}: {message.replace('{directory}', str(tmp_path))}"
    assert str(caught.value) == expected
    assert caught.value.exit_code == 2


def test_a_field_that_containerlab_does_not_know_is_refused(tmp_path: Path) -> None:
    file = lab_file(tmp_path, "  nodes:\n    a:\n      kind: linux\n      colour: blue\n")
    with pytest.raises(ConfigError, match=r"l\.clab\.yml:4: .*'colour' was unexpected"):
        clab.read(file)


def test_a_file_that_is_not_there_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        clab.read(tmp_path / "nothing.yml")
    file = tmp_path / "bad.yml"
    file.write_text("name: l\ntopology: [\n")
    with pytest.raises(ConfigError, match=r"bad\.yml:\d+: not YAML"):
        clab.read(file)
    file.write_text("just words")
    with pytest.raises(ConfigError, match="not a containerlab topology"):
        clab.read(file)


def test_a_node_inherits_from_defaults_then_kind_then_group(tmp_path: Path) -> None:
    file = lab_file(
        tmp_path,
        """\
  defaults:
    kind: linux
    env: {A: defaults, B: defaults, C: defaults, D: true}
    exec: ["echo defaults"]
  kinds:
    linux:
      env: {B: kind, C: kind}
      exec: ["echo kind"]
      image: any
  groups:
    g:
      labels: {l: group}
      env: {C: group}
      exec: ["echo group"]
  nodes:
    a:
      group: g
      exec: ["echo node"]
      sysctls: {net.ipv4.ip_forward: 1}
    b:
""",
    )
    lab = clab.read(file)
    a = lab.nodes["a"]
    assert a.kind == "linux"
    assert a.env == {"A": "defaults", "B": "kind", "C": "group", "D": "true"}
    assert a.exec == ("echo defaults", "echo kind", "echo group", "echo node")
    assert a.labels == {"l": "group"}
    assert a.sysctls == {"net.ipv4.ip_forward": "1"}
    assert a.ignored == ("image",)
    assert lab.nodes["b"].exec == ("echo defaults", "echo kind")


def test_a_bind_is_relative_to_the_file_and_the_most_specific_of_a_target_counts(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").mkdir()
    file = lab_file(
        tmp_path,
        "  defaults: {kind: linux, binds: ['/etc:/t', '/usr:/u']}\n"
        "  nodes:\n    a: {binds: ['x:/t:ro']}\n",
    )
    assert clab.read(file).nodes["a"].binds == (
        Bind(source=tmp_path / "x", target=Path("/t"), read_only=True),
        Bind(source=Path("/usr"), target=Path("/u")),
    )


def test_a_link_is_brief_or_extended_and_may_bring_addresses(tmp_path: Path) -> None:
    file = lab_file(
        tmp_path,
        TWO
        + """\
    - endpoints: ["a:eth1", "b:eth1"]
      ipv4: ["192.0.2.1/24", "192.0.2.2/24"]
    - type: veth
      mtu: 1400
      endpoints:
        - {node: a, interface: eth2, mac: "02:00:00:00:00:01", ipv6: "fd00::1/64"}
        - {node: b, interface: eth2}
""",
    )
    brief, extended = clab.read(file).links
    assert brief.mtu == clab_links.DEFAULT_MTU == 1500
    assert brief.other.addresses == (ip_interface("192.0.2.2/24"),)
    assert extended.mtu == 1400
    assert extended.one.mac == "02:00:00:00:00:01"
    assert extended.one.addresses == (ip_interface("fd00::1/64"),)
    assert extended.other.addresses == ()


def test_patterns_with_unicode_classes_do_not_break_the_schema(tmp_path: Path) -> None:
    file = lab_file(
        tmp_path, "  nodes:\n    a: {kind: linux, ports: ['80:8080'], mgmt-ipv4: 192.0.2.1}\n"
    )
    assert clab.read(file).nodes["a"].ignored == ("ports",)


@pytest.mark.parametrize("file", sorted(LABS.glob("*.clab.yml")), ids=lambda path: path.name)
def test_every_lab_of_ours_is_a_valid_containerlab_file(file: Path) -> None:
    lab = clab.read(file)
    for node in lab.nodes.values():
        assert node.is_bridge or "image" in node.ignored, "containerlab needs an image"


@pytest.mark.parametrize("file", sorted(LABS.glob("*.clab.yml")), ids=lambda path: path.name)
def test_every_lab_of_ours_expects_something_and_says_what_to_see(file: Path) -> None:
    assert model.read(clab.read(file)).expect
    page = f"{file.name.removesuffix('.clab.yml')}.md"
    assert "What to" in (LABS / page).read_text()
    assert f"({page})" in (LABS / "README.md").read_text()


def test_the_demo_lab_is_what_the_documents_say() -> None:
    lab = clab.read(LABS / "two-clusters.clab.yml")
    assert lab.name == "two-clusters"
    clusters = {
        name: (node.labels["meshnet.cluster"], node.labels["meshnet.cluster-id"])
        for name, node in lab.nodes.items()
        if not node.is_bridge
    }
    assert clusters == {
        "east-1": ("east", "1"),
        "east-2": ("east", "1"),
        "west-1": ("west", "2"),
        "west-2": ("west", "2"),
    }
    assert {link.mtu for link in lab.links} == {1500}
