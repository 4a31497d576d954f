"""Labs are whole or not there, and a file that somebody else wrote cannot touch the machine.

one ── sw ── two        172.30.0.1, .2; fd30::1, ::2
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.lab import LABS, MESHNET, STATE, Lab, deployed, found, leftovers, meshnet

pytestmark = pytest.mark.lab

NAME = f"lbx-{os.getpid()}"
CGROUP = Path(
    subprocess.run(
        ["findmnt", "-n", "-o", "TARGET", "-t", "cgroup2"], capture_output=True, text=True
    ).stdout.split("\n")[0]
)

TWO_HOSTS = f"""\
name: {NAME}
topology:
  defaults:
    env: {{ COLOUR: blue }}
  nodes:
    sw: {{ kind: bridge }}
    one:
      kind: linux
      env: {{ SIZE: 7, COLOUR: green }}
      binds: ["shared:/srv/shared", "shared:/srv/looked-at:ro"]
      exec:
        - ip addr add 172.30.0.1/24 dev eth1
        - ip addr add fd30::1/64 dev eth1
        - sh -c "echo from-$COLOUR > /srv/shared/word"
    two:
      kind: linux
      exec:
        - ip addr add 172.30.0.2/24 dev eth1
        - ip addr add fd30::2/64 dev eth1
  links:
    - {{ endpoints: ["one:eth1", "sw:one"], mtu: 1500 }}
    - {{ endpoints: ["two:eth1", "sw:two"], mtu: 1400 }}
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "shared").mkdir(exist_ok=True)
    file = tmp_path / "lab.clab.yml"
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The two hosts, for tests that leave them as they were."""
    file = write(tmp_path_factory.mktemp("lab"), TWO_HOSTS)
    try:
        done = meshnet("lab", "up", str(file))
        assert done.returncode == 0, done.stderr
        yield found(NAME)
    finally:
        meshnet("lab", "down", NAME)


def test_hosts_reach_each_other_across_the_switch_by_name_and_by_both_families(lab: Lab) -> None:
    lab["one"].exec("ping -c1 -W1 two", check=True)
    lab["one"].exec("ping -c1 -W1 -6 fd30::2", check=True)
    links = json.loads(lab["two"].exec("ip -j link show eth1", check=True).stdout)
    assert links[0]["mtu"] == 1400


def test_a_host_has_its_name_environment_binds_and_the_real_command(lab: Lab) -> None:
    one = lab["one"]
    assert one.exec("hostname").stdout == "one\n"
    assert one.exec(["sh", "-c", "echo $COLOUR $SIZE"]).stdout == "green 7\n"
    assert (lab.file.parent / "shared/word").read_text() == "from-green\n"
    assert one.exec("touch /srv/looked-at/x").returncode == 1
    assert one.meshnet("version").stdout.startswith("meshnet ")


def test_a_host_has_its_own_bpffs_cgroup_run_and_state_directories(lab: Lab) -> None:
    script = (
        "set -e; mkdir /sys/fs/bpf/pin /run/mine /etc/meshnet/mine /var/lib/meshnet/mine; "
        f"mkdir {CGROUP}/group; cat /proc/self/cgroup | grep '^0::/$'; ip netns add inner; "
        f"ls /run; rmdir {CGROUP}/group"
    )
    assert lab["one"].exec(["sh", "-c", script], check=True).stdout == "0::/\nmine\nnetns\n"
    looking = "ls /sys/fs/bpf /run /etc/meshnet /var/lib/meshnet"
    assert "mine" not in lab["two"].exec(looking, check=True).stdout
    for path in ("/sys/fs/bpf/pin", "/run/mine", "/run/netns/inner", "/var/lib/meshnet/mine"):
        assert not Path(path).exists()


def test_what_a_foreign_file_runs_changes_nothing_of_the_machine(lab: Lab) -> None:
    panic = Path("/proc/sys/kernel/panic").read_text()
    before = Path("/etc/hostname").read_text(), os.uname().nodename
    for attempt in (
        "echo owned > /etc/hostname; hostname owned; rm -rf /usr/share/doc /etc/passwd",
        "touch /lbx-owned /tmp/lbx-owned /run/lbx-owned /dev/shm/lbx-owned",
        "echo 4711 > /proc/sys/kernel/panic",
        "date -s 2001-01-01",
        "mknod /tmp/disk b 254 0",
        "ls /dev/vda /dev/sda /dev/mem",
    ):
        lab["two"].exec(["sh", "-c", attempt])
    assert (Path("/etc/hostname").read_text(), os.uname().nodename) == before
    assert Path("/etc/passwd").exists() and Path("/usr/share/doc").is_dir()
    for path in ("/lbx-owned", "/tmp/lbx-owned", "/run/lbx-owned", "/dev/shm/lbx-owned"):
        assert not Path(path).exists()
    assert Path("/proc/sys/kernel/panic").read_text() == panic
    assert time.time() > 1_700_000_000
    assert lab["two"].exec("mknod /tmp/disk b 254 0").returncode == 1
    assert lab["two"].exec("ls /dev/vda").returncode == 2


def test_exec_passes_bytes_status_and_signals(lab: Lab) -> None:
    every_byte = bytes(range(256)) * 300
    argv = lab["one"].argv("cat")
    assert subprocess.run(argv, input=every_byte, capture_output=True).stdout == every_byte
    assert lab["one"].exec(["sh", "-c", "exit 7"]).returncode == 7
    assert lab["one"].exec("there-is-no-such-command").returncode == 127
    trap = 'trap "exit 42" TERM; echo ready; while :; do sleep 0.05; done'
    child = subprocess.Popen(lab["one"].argv(["sh", "-c", trap]), stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=10) == 42


def test_exec_in_no_such_node_is_our_own_failure_and_lists_the_nodes(lab: Lab) -> None:
    done = meshnet("lab", "exec", "three", "--lab", lab.name, "--", "true")
    assert done.returncode == 125
    assert "no lab node is called 'three' (nodes: sw, one, two)" in done.stderr


def test_orphans_in_a_host_are_reaped(lab: Lab) -> None:
    lab["one"].exec(["sh", "-c", "(sleep 0.1 &) ; (true &)"], check=True)
    time.sleep(0.3)
    states = lab["one"].exec("ps -e -o stat=", check=True).stdout.split()
    assert not [state for state in states if state.startswith("Z")]


def test_a_lab_is_listed_with_its_nodes_and_its_name_is_taken(lab: Lab, tmp_path: Path) -> None:
    rows = json.loads(meshnet("lab", "list", "-o", "json").stdout)
    mine = next(row for row in rows if row["name"] == lab.name)
    assert (mine["nodes"], mine["runtime"], mine["file"]) == (3, "netns", str(lab.file))
    status = json.loads(meshnet("lab", "status", lab.name, "-o", "json").stdout)
    assert {(row["node"], row["kind"], row["up"]) for row in status} == {
        ("sw", "bridge", True), ("one", "linux", True), ("two", "linux", True),
    }  # fmt: skip
    again = meshnet("lab", "up", str(write(tmp_path, TWO_HOSTS)))
    assert again.returncode == 1
    assert f"lab '{lab.name}' is up already, from {lab.file} (netns)" in again.stderr
    lab["one"].exec("true", check=True)


def test_a_cut_stops_both_ways_until_healed_and_a_frozen_host_stands_still(lab: Lab) -> None:
    one, two = lab["one"], lab["two"]
    lab.fault("cut", "one", "two")
    assert one.exec("ping -c1 -W1 172.30.0.2").returncode == 1
    assert two.exec("ping -c1 -W1 -6 fd30::1").returncode == 1
    lab.fault("heal")
    one.exec("ping -c1 -W1 two", check=True)
    lab.fault("freeze", "two")
    frozen = two.exec("true")
    assert frozen.returncode == 125 and "is frozen" in frozen.stderr
    one.exec("ping -c1 -W1 two", check=True)  # its kernel still answers
    lab.fault("heal")
    two.exec("true", check=True)


def test_the_demo_lab_is_up_in_three_seconds_and_leaves_nothing() -> None:
    started = time.monotonic()
    with deployed(LABS / "two-clusters.clab.yml") as lab:
        assert time.monotonic() - started < 3.0
        assert set(lab.nodes) == {"br-underlay", "east-1", "east-2", "west-1", "west-2"}
        for other in ("east-2", "west-1", "west-2"):
            lab["east-1"].exec(f"ping -c1 -W1 {other}", check=True)


def test_killing_init_kills_the_host_and_everything_in_it(tmp_path: Path) -> None:
    with deployed(write(tmp_path, TWO_HOSTS.replace("shared:", f"{tmp_path}/shared:")),
                  name=f"{NAME}-k") as lab:  # fmt: skip
        lab["two"].exec(["sh", "-c", "setsid sleep 4711 >/dev/null 2>&1 & true"], check=True)
        os.kill(lab["two"].pid, signal.SIGKILL)
        wait_until(lambda: meshnet("lab", "status", lab.name).returncode == 1)
        procs = CGROUP / "meshnet-lab" / lab.name / "two" / "cgroup.procs"
        wait_until(lambda: procs.read_text() == "")
        down = lab["two"].exec("true")
        assert down.returncode == 125 and "is not up" in down.stderr
        lab["one"].exec("true", check=True)


def test_a_failing_exec_line_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    name = f"{NAME}-f"
    text = TWO_HOSTS.replace(NAME, name).replace("ip addr add fd30::2/64", "ip addr add nonsense")
    done = meshnet("lab", "up", str(write(tmp_path, text)))
    assert done.returncode == 1
    assert "node 'two': exec 'ip addr add nonsense dev eth1' failed with status" in done.stderr
    assert leftovers(name) == []


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def entry(name: str) -> str:
    file = STATE / name / "lab.json"
    return file.read_text() if file.exists() else ""


POINTS: dict[str, Callable[[str], bool]] = {
    "the entry is written": lambda name: entry(name) != "",
    "the first cgroup is made": lambda name: (CGROUP / "meshnet-lab" / name).exists(),
    "a builder is in its cgroup": lambda name: any(
        path.read_text() for path in (CGROUP / "meshnet-lab" / name).glob("*/cgroup.procs")
    ),
    "the inits are recorded": lambda name: '"pid": ' in entry(name).replace('"pid": null', ""),
    "exec lines run": lambda name: STATE.parent.joinpath(f"{name}.mark").exists(),
}


@pytest.mark.parametrize("point", POINTS)
def test_down_takes_everything_away_after_a_kill_when(point: str, tmp_path: Path) -> None:
    name = f"{NAME}-c"
    mark = STATE.parent / f"{name}.mark"
    mark.unlink(missing_ok=True)
    text = TWO_HOSTS.replace(NAME, name).replace(
        "    two:\n      kind: linux\n      exec:\n",
        f'    two:\n      kind: linux\n      binds: ["{mark.parent}:/mark"]\n      exec:\n'
        f'        - sh -c "touch /mark/{mark.name}; sleep 30"\n',
    )
    child = subprocess.Popen([MESHNET, "lab", "up", write(tmp_path, text)])
    try:
        wait_until(lambda: POINTS[point](name))
        child.kill()
        child.wait()
        done = meshnet("lab", "down", name)
        assert done.returncode == 0, done.stderr
        assert leftovers(name) == []
        assert meshnet("lab", "down", name).returncode == 4, "and now there is no such lab"
    finally:
        child.kill()
        meshnet("lab", "down", name)
        mark.unlink(missing_ok=True)


def test_down_takes_everything_away_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    name = f"{NAME}-r"
    file = write(tmp_path, TWO_HOSTS.replace(NAME, name))
    for moment in range(12):
        child = subprocess.Popen([MESHNET, "lab", "up", file], stderr=subprocess.DEVNULL)
        time.sleep(0.25 + 0.03 * moment)  # imports take the first 0.25 s
        child.kill()
        child.wait()
        assert meshnet("lab", "down", name).returncode in (0, 4)
        assert leftovers(name) == []
