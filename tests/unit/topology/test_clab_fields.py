"""The fields of a node that reach beyond it: files, limits, stages, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshnet.errors import ConfigError
from topology import clab, stages
from topology.model import Limits, Link, Stage, Wait, long_name
from topology.netns import limits
from topology.stages import Step


def lab_file(tmp_path: Path, text: str, head: str = "name: l\n") -> Path:
    file = tmp_path / "l.clab.yml"
    file.write_text(f"{head}topology:\n{text}")
    return file


def test_env_files_are_relative_to_the_file_and_env_wins(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "common.env").write_text("A=common\nB=common\nexport C='with blanks'\n# word\n")
    (tmp_path / "sub/own.env").write_text("B=own\nD=own\n")
    file = lab_file(
        tmp_path,
        "  defaults: {kind: linux, env-files: [common.env]}\n"
        "  nodes:\n    a: {env-files: [sub/own.env], env: {D: env}}\n",
    )
    env = clab.read(file).nodes["a"].env
    assert env == {"A": "common", "B": "own", "C": "with blanks", "D": "env"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("env-files: [nothing.env]", r"env-file 'nothing.env': .*/nothing.env cannot be read"),
        ("env-files: [bad.env]", r"env-file 'bad.env': line 2 of .*/bad.env is not NAME=VALUE"),
        ("env: {__IMPORT_ENVS: true}", "__IMPORT_ENVS is not supported: name the variables"),
        ("memory: lots", "memory 'lots' is no size: write 512Mb or 1GiB"),
        (
            "stages: {create: {wait-for: [{node: z, stage: create}]}}",
            "node 'a' waits for unknown node 'z': the nodes are a, b",
        ),
        (
            "stages: {create: {wait-for: [{node: b, stage: exit}]}}",
            "stage `exit` needs containers",
        ),
        (
            "stages: {create: {exec: [{command: reboot, target: host, phase: on-exit}]}}",
            "stage create: 'reboot' would run on this machine",
        ),
    ],
)
def test_a_wrong_field_is_refused_by_file_and_line(
    tmp_path: Path, fields: str, message: str
) -> None:
    (tmp_path / "bad.env").write_text("A=1\n= = '\n")
    file = lab_file(tmp_path, f"  nodes:\n    b: {{kind: linux}}\n    a: {{kind: linux, {fields}}}")
    with pytest.raises(ConfigError, match=r"l\.clab\.yml:5: " + message) as caught:
        clab.read(file)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("word", ["host", "mgmt-net", "macvlan", "vxlan", "dummy"])
def test_a_brief_link_of_another_type_is_refused_by_name(tmp_path: Path, word: str) -> None:
    file = lab_file(
        tmp_path,
        f'  nodes:\n    a: {{kind: linux}}\n  links: [{{endpoints: ["a:eth1", "{word}:x"]}}]\n',
    )
    with pytest.raises(ConfigError, match=f"link type '{word}' needs containers: use `veth`"):
        clab.read(file)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512Mb", 512_000_000), ("1GiB", 1 << 30), ("1.5kb", 1500), ("4096", 4096), ("2m", 2_000_000)],
)
def test_sizes_are_containerlabs(tmp_path: Path, text: str, size: int) -> None:
    file = lab_file(tmp_path, f"  nodes:\n    a: {{kind: linux, memory: '{text}', cpu: 0.5}}\n")
    assert clab.read(file).nodes["a"].limits == Limits(cpu=0.5, memory=size)


def test_limits_are_cgroup_v2s_words() -> None:
    assert limits.wanted(Limits(cpu=1.5, cpu_set="0-1", memory=1 << 20)) == {
        "cpu": ("cpu.max", "150000 100000"),
        "cpuset": ("cpuset.cpus", "0-1"),
        "memory": ("memory.max", "1048576"),
    }
    assert limits.wanted(Limits()) == {}


def test_the_commands_of_stages_run_around_exec(tmp_path: Path) -> None:
    file = lab_file(
        tmp_path,
        """\
  nodes:
    a:
      kind: linux
      startup-delay: 3
      exec: [own]
      stages:
        create-links: {exec: {on-exit: [linked]}}
        configure:
          exec:
            - {command: after, phase: on-exit}
            - {command: before, target: container, phase: on-enter}
        healthy: {exec: {on-enter: [well]}}
""",
    )
    node = clab.read(file).nodes["a"]
    assert node.exec == ("linked", "before", "own", "after", "well")
    assert node.startup_delay_s == 3


WAITING = """\
  nodes:
    a: {kind: linux, stages: {configure: {wait-for: [{node: b, stage: healthy}]}}}
    b: {kind: linux, stages: {create: {wait-for: [{node: c, stage: create-links}]}}}
    c: {kind: linux}
  links:
    - endpoints: ["a:eth1", "b:eth1"]
    - endpoints: ["a:eth2", "a:eth3"]
"""


def test_a_stage_comes_after_those_it_waits_for_and_a_link_after_both_nodes(
    tmp_path: Path,
) -> None:
    lab = clab.read(lab_file(tmp_path, WAITING))
    assert lab.nodes["a"].waits == {Stage.CONFIGURE: (Wait("b", Stage.HEALTHY),)}
    flat = [(number, step) for number, wave in enumerate(stages.waves(lab)) for step in wave]
    at = {str(step): number for number, step in flat}
    assert at["create of c"] == at["create of a"] == 0
    assert at["create-links of c"] < at["create of b"] < at["a:eth1 - b:eth1"]
    assert at["a:eth1 - b:eth1"] < at["create-links of a"] < at["configure of a"]
    assert at["healthy of b"] < at["configure of a"]
    assert len([step for _, step in flat if isinstance(step, Link)]) == 2
    assert len([step for _, step in flat if isinstance(step, Step)]) == 12


def test_stages_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    wait = "stages: {create: {wait-for: [{node: %s, stage: create}]}}"
    file = lab_file(
        tmp_path,
        f"  nodes:\n    a: {{kind: linux, {wait % 'b'}}}\n    b: {{kind: linux, {wait % 'a'}}}\n",
    )
    with pytest.raises(
        ConfigError, match=r"wait for each other: create of (.), for create of ., for create of \1$"
    ):
        clab.read(file)


def test_a_long_name_is_containerlabs() -> None:
    assert long_name("clab", "l", "a") == "clab-l-a"
    assert long_name("__lab-name", "l", "a") == "l-a"
    assert long_name("", "l", "a") == "a"


def test_the_prefix_is_read(tmp_path: Path) -> None:
    text = "  nodes: {a: {kind: linux}}\n"
    assert clab.read(lab_file(tmp_path, text)).prefix == "clab"
    assert clab.read(lab_file(tmp_path, text, 'name: l\nprefix: ""\n')).prefix == ""
