"""`lab up` does what the file says, says what it cannot, and makes a running lab follow its file.

a ── sw ── b        and a cable a ── b
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.formed import eventually
from tests.support.lab import Lab, Node, deployed, found, leftovers, meshnet

pytestmark = pytest.mark.lab

NAME = f"lup-{os.getpid()}"

FIELDS = f"""\
name: {NAME}
prefix: own
topology:
  defaults: {{kind: linux, env-files: [common.env], image: any, cpu: 0.5, memory: 1Gb}}
  nodes:
    late:
      binds: ["shared:/srv/shared"]
      startup-delay: 1
      exec: ["sh -c 'echo $WORD >> /srv/shared/order'"]
    last:
      binds: ["shared:/srv/shared", "shared:/srv/looked-at:ro"]
      stages: {{configure: {{wait-for: [{{node: late, stage: healthy}}]}}}}
      exec: ["sh -c 'echo last >> /srv/shared/order'"]
    sw: {{kind: bridge}}
    outside: {{kind: host}}
  links:
    - {{endpoints: ["late:eth1", "sw:late"], ipv4: ["172.30.9.5/24", ""]}}
    - {{endpoints: ["last:eth1", "sw:last"], mtu: 1400, ipv4: ["172.30.9.6/24", ""]}}
    - {{endpoints: ["late:eth2", "outside:lup0"], ipv4: ["172.30.10.1/30", ""]}}
"""


def test_a_file_is_done_as_it_says_and_what_is_not_done_is_said(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "common.env").write_text("WORD=late\n")
    file = tmp_path / "lab.clab.yml"
    file.write_text(FIELDS)
    try:
        done = meshnet("lab", "up", str(file))
        assert done.returncode == 0, done.stderr
        for line in (
            f"late: /srv/shared is {tmp_path}/shared of this machine",
            f"last: /srv/looked-at is {tmp_path}/shared of this machine (read-only)",
            "lab.clab.yml: image: ignored, since hosts are namespaces of this machine",
            "lab.clab.yml: links without `mtu` have 1500 here, since containerlab's 9500 hides",
        ):
            assert done.stderr.count(line) == 1, done.stderr
        assert (tmp_path / "shared/order").read_text() == "late\nlast\n"
        lab = found(NAME)
        assert [mtu(lab["late"]), mtu(lab["last"])] == ["1500", "1400"]
        limits_are_set_or_missed_aloud(lab, done.stderr)
        long = meshnet("lab", "exec", f"own-{NAME}-last", "--", "ping", "-c1", "-W1", "172.30.9.5")
        assert long.returncode == 0, long.stderr
        link = subprocess.run(["ip", "link", "show", "lup0"], capture_output=True, check=False)
        assert link.returncode == 0, "the far end of a cable to kind `host` is the machine's"
        itself = meshnet("lab", "exec", "outside", "--lab", NAME, "--", "true")
        assert itself.returncode == 2 and "is this machine itself" in itself.stderr
    finally:
        meshnet("lab", "down", NAME)
    eventually(lambda: not Path("/sys/class/net/lup0").exists(), within_s=10)
    assert leftovers(NAME) == []


def mtu(node: Node) -> str:
    return node.exec("cat /sys/class/net/eth1/mtu", check=True).stdout.strip()


def limits_are_set_or_missed_aloud(lab: Lab, said: str) -> None:
    """A machine with the controllers in cgroup v1 cannot, and must not be silent about it."""
    group = next(Path("/sys/fs/cgroup").glob(f"**/meshnet-lab/{lab.name}/late"))
    missed = [line for line in said.splitlines() if "not limited, since this machine" in line]
    if (group / "memory.max").exists():
        assert (group / "memory.max").read_text() == "1000000000\n"
        assert (group / "cpu.max").read_text() == "50000 100000\n"
        assert not missed
    else:
        assert len(missed) == 1 and "cpu, memory" in missed[0]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("h: {kind: host, exec: [reboot]}", "node 'h' of kind `host` is this machine, and a lab"),
        ("r: {kind: nokia_srlinux}", "node 'r' of kind 'nokia_srlinux' needs containers: use kind"),
        (
            "h: {kind: host}\n  links: [{endpoints: ['h:lupa', 'h:lupb']}]",
            "link h:lupa - h:lupb has both ends on this machine",
        ),
    ],
)
def test_what_would_change_the_machine_or_needs_containers_is_refused(
    tmp_path: Path, nodes: str, message: str
) -> None:
    file = tmp_path / "lab.clab.yml"
    file.write_text(f"name: {NAME}-x\ntopology:\n  nodes:\n    {nodes}\n")
    done = meshnet("lab", "up", str(file))
    assert done.returncode == 2
    assert message in done.stderr
    assert leftovers(f"{NAME}-x") == []


def test_a_host_cannot_load_modules_boot_set_the_clock_or_touch_hardware(tmp_path: Path) -> None:
    file = tmp_path / "lab.clab.yml"
    file.write_text(f"name: {NAME}-c\ntopology:\n  nodes:\n    a: {{kind: linux}}\n")
    with deployed(file, name=f"{NAME}-c") as lab:
        status = lab["a"].exec("cat /proc/self/status", check=True).stdout
        bounding = int(status.split("CapBnd:")[1].split()[0], 16)
        for number in (16, 17, 22, 25):  # SYS_MODULE, SYS_RAWIO, SYS_BOOT, SYS_TIME
            assert not bounding >> number & 1
        assert bounding >> 12 & 1, "CAP_NET_ADMIN is a host's own"


BASE = """\
name: {name}
topology:
  defaults: {{kind: linux}}
  nodes:
    sw: {{kind: bridge}}
    a: {{exec: ["ip addr add 172.30.8.1/24 dev eth1", "ip addr add fd30:8::1/126 dev eth2"]}}
    b: {{exec: ["ip addr add 172.30.8.2/24 dev eth1", "ip addr add fd30:8::2/126 dev eth2"]}}
  links:
    - {{endpoints: ["a:eth1", "sw:a"], mtu: 1500}}
    - {{endpoints: ["b:eth1", "sw:b"], mtu: 1500}}
    - {{endpoints: ["a:eth2", "b:eth2"], mtu: 1500}}
"""


IN_THEIR_STYLE = """\
name: {name}
mgmt: {{network: custom, ipv4-subnet: 172.100.100.0/24}}
topology:
  kinds:
    linux: {{image: "alpine:3"}}
  nodes:
    l1:
      kind: linux
      image: nginx:stable-alpine
      cmd: ash -c "sleep 9999"
      env: {{MYVAR: is set}}
      exec:
        - ip link show eth1
        - sh -c 'test "$MYVAR" = "is set"'
      cpu: 1.5
      memory: 1G
      mgmt-ipv4: 172.100.100.11
      ports: ["56180:80"]
      healthcheck: {{test: [CMD-SHELL, "true"], interval: 5}}
      dns: {{servers: [192.0.2.53]}}
    l2: {{kind: linux}}
    br-theirs: {{kind: bridge}}
  links:
    - endpoints: ["l1:eth1", "l2:some1"]
      mtu: 2000
      vars: {{foo: bar, some: [thing, else]}}
    - endpoints: ["br-theirs:l1-eth2", "l1:eth2"]
    - type: veth
      endpoints:
        - {{node: l1, interface: eth3, mac: "02:00:00:00:00:01"}}
        - {{node: l2, interface: eth3, mac: "02:00:00:00:00:02"}}
"""


def test_a_file_in_containerlabs_own_style_deploys_unchanged(tmp_path: Path) -> None:
    name = f"{NAME}-t"
    file = tmp_path / "lab.clab.yml"
    file.write_text(IN_THEIR_STYLE.format(name=name))
    with deployed(file, name=name) as lab:
        links = lab["l2"].exec("ip -br link", check=True).stdout
        assert "some1@" in links and "02:00:00:00:00:02" in links
        ports = lab["br-theirs"].exec("ip -br link show master br-theirs", check=True).stdout
        assert ports.startswith("l1-eth2@")


def test_up_makes_a_running_lab_what_its_file_says_and_touches_nothing_else(
    tmp_path: Path,
) -> None:
    name = f"{NAME}-r"
    file = tmp_path / "lab.clab.yml"
    text = BASE.format(name=name)

    def up(text: str) -> Lab:
        file.write_text(text)
        done = meshnet("lab", "up", str(file))
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
        return found(name)

    said: list[str] = []
    try:
        first = up(text)
        first["a"].exec("touch /run/mine", check=True)
        assert up(text) == first
        assert f"lab {name} is what lab.clab.yml says already" in said[-1]

        meshnet("lab", "fault", name, "kill", "b")
        eventually(lambda: meshnet("lab", "status", name).returncode == 1, within_s=10)
        again = up(text)
        assert again["a"] == first["a"] and again["b"] != first["b"]
        assert "taking away b\nmaking b\n" in said[-1]
        again["a"].exec("ls /run/mine", check=True)
        again["a"].exec("ping -c1 -W1 b", check=True)
        again["a"].exec("ping -c1 -W1 fd30:8::2", check=True)  # its end of the cable came back

        more = text.replace(
            ', mtu: 1500}\n    - {endpoints: ["b:eth1', ', mtu: 1400}\n    - {endpoints: ["b:eth1'
        )
        more = (
            more.replace("    b:", "    c:").replace('"b:eth', '"c:eth').replace('"sw:b"', '"sw:c"')
        )
        changed = up(more)
        assert set(changed.nodes) == {"sw", "a", "c"}
        assert changed["a"] == first["a"]
        assert mtu(changed["a"]) == "1400"
        changed["c"].exec("ping -c1 -W1 a", check=True)

        broken = more.replace("ip addr add 172.30.8.2/24", "ip addr add nonsense")
        file.write_text(broken)
        failed = meshnet("lab", "up", str(file))
        assert failed.returncode == 1 and "node 'c': exec 'ip addr add nonsense" in failed.stderr
        assert meshnet("lab", "status", name).returncode == 1, "c is missing, and that shows"
        up(more)["c"].exec("ping -c1 -W1 a", check=True)
    finally:
        meshnet("lab", "down", name)
    assert leftovers(name) == []


def test_twenty_hosts_are_up_in_ten_seconds(tmp_path: Path) -> None:
    name = f"{NAME}-20"
    hosts = [f"h{number}" for number in range(20)]
    nodes = "".join(f"    {host}: {{}}\n" for host in hosts)
    links = "".join(
        f'    - {{endpoints: ["{host}:eth1", "sw:{host}"], ipv4: ["172.30.6.{number}/24", ""]}}\n'
        for number, host in enumerate(hosts, 1)
    )
    file = tmp_path / "lab.clab.yml"
    file.write_text(
        f"name: {name}\ntopology:\n  defaults: {{kind: linux}}\n  nodes:\n"
        f"    sw: {{kind: bridge}}\n{nodes}  links:\n{links}"
    )
    began = time.monotonic()
    with deployed(file, name=name) as lab:
        print(f"20 hosts were up after {time.monotonic() - began:.2f} s")
        assert time.monotonic() - began < 10.0
        lab["h0"].exec("ping -c1 -W1 h19", check=True)
