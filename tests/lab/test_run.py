"""`run`, `exec` and `logs` on a real node: streams, statuses, signals, and their endpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.lab import Node, deployed

pytestmark = pytest.mark.lab

CLAB = """
name: runs
topology:
  kinds:
    linux: {image: "meshnet:latest"}
  nodes:
    br-runs: {kind: bridge}
    a: {kind: linux, exec: ["ip addr add 172.30.8.1/24 dev eth1"]}
  links:
    - endpoints: ["a:eth1", "br-runs:a"]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    file = tmp_path_factory.mktemp("runs") / "runs.clab.yml"
    file.write_text(CLAB)
    with deployed(file) as lab:
        lab["a"].meshnet("cluster", "init", "east")
        yield lab["a"]


@pytest.fixture(autouse=True)
def no_endpoint_stays(node: Node) -> Iterator[None]:
    yield
    for endpoint in endpoints(node):
        node.meshnet("endpoint", "delete", f"{endpoint['namespace']}/{endpoint['name']}")


def endpoints(node: Node) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        node.meshnet("endpoint", "list", "-o", "json").stdout
    )
    return found


def gone_within(node: Node, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while endpoints(node) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not endpoints(node)


def test_a_command_has_an_endpoint_as_long_as_it_runs(node: Node) -> None:
    inside = "ip -4 -br addr show eth0; meshnet endpoint show web -o json; exit 7"
    done = node.meshnet(
        "run", "--name", "web", "--label", "app=web", "--", "sh", "-c", inside, check=False
    )
    assert done.returncode == 7
    address, _, detail = done.stdout.partition("\n")
    endpoint = json.loads(detail)
    assert (endpoint["state"], endpoint["labels"]) == ("ready", {"app": "web"})
    assert address.split()[-1] == f"{endpoint['ipv4']}/32"
    assert endpoints(node) == []


def test_streams_pass_byte_for_byte_and_stderr_is_the_commands(node: Node) -> None:
    payload = bytes(range(256)) * 400
    argv = node.argv(["meshnet", "run", "--", "sh", "-c", "cat; echo no >&2"])
    done = subprocess.run(argv, input=payload, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, payload, b"no\n")


def test_what_cannot_run_leaves_no_endpoint(node: Node) -> None:
    for detach in ([], ["--detach"]):
        done = node.meshnet("run", *detach, "--", "no-such-command", check=False)
        assert (done.returncode, done.stdout) == (127, "")
        assert done.stderr == "Error: no-such-command: command not found\n"
        assert endpoints(node) == []
    assert node.meshnet("run", "--", "/etc/passwd", check=False).returncode == 126


def test_a_signal_reaches_the_command(node: Node) -> None:
    script = "trap 'echo told; exit 42' TERM; echo ready; while :; do sleep 0.05; done"
    inner = f'meshnet run -- sh -c "{script}" & sleep 1.5; kill -TERM $!; wait $!'
    done = node.exec(["bash", "-c", inner])
    assert (done.returncode, done.stdout) == (42, "ready\ntold\n")
    assert endpoints(node) == []


def test_a_detached_command_outlives_us_and_its_endpoint_ends_with_it(node: Node) -> None:
    script = "echo hello; echo oops >&2; exec sleep 600"
    done = node.meshnet("run", "--detach", "--name", "job", "-n", "blue", "--", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("blue/job\n", "")
    assert node.meshnet("logs", "job").stdout == "hello\noops\n"

    endpoint = json.loads(node.meshnet("endpoint", "show", "job", "-o", "json").stdout)
    node.exec(["kill", str(endpoint["owner_pid"])], check=True)
    assert gone_within(node, 5)


def test_deleting_an_endpoint_ends_its_command(node: Node) -> None:
    node.meshnet("run", "--detach", "--name", "job", "--", "sleep", "600")
    pid = json.loads(node.meshnet("endpoint", "show", "job", "-o", "json").stdout)["owner_pid"]
    node.meshnet("endpoint", "delete", "job")
    assert endpoints(node) == []
    assert node.exec(["test", "-e", f"/proc/{pid}"]).returncode == 1


def test_exec_sees_the_endpoints_network_and_gives_the_status(node: Node) -> None:
    node.meshnet("run", "--detach", "--name", "job", "--", "sleep", "600")
    inside = node.meshnet("exec", "job", "--", "ip", "-br", "link").stdout
    assert {line.split("@")[0].split()[0] for line in inside.splitlines()} == {"lo", "eth0"}
    assert node.meshnet("exec", "job", "--", "sh", "-c", "exit 9", check=False).returncode == 9
    assert node.meshnet("exec", "job", "--", "nonesuch", check=False).returncode == 127
    assert node.meshnet("exec", "job", "-t", "--", "tty").stdout.startswith("/dev/pts/")


def test_a_name_that_is_taken_is_refused_and_a_namespace_apart_is_not(node: Node) -> None:
    node.meshnet("run", "--detach", "--name", "job", "--", "sleep", "600")
    taken = node.meshnet("run", "--name", "job", "--", "true", check=False)
    assert taken.returncode == 125
    assert taken.stderr == (
        "Error: endpoint default/job is taken on node a; choose another --name or run `meshnet "
        "endpoint delete default/job`\n"
    )
    assert node.meshnet("run", "--name", "job", "-n", "blue", "--", "true").returncode == 0


def test_an_endpoint_ends_with_its_command_though_we_were_killed(node: Node) -> None:
    ours = subprocess.Popen(
        node.argv(["sh", "-c", "echo $$; exec meshnet run --name job -- sleep 2"]),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert ours.stdout is not None
    pid = ours.stdout.readline().strip()
    deadline = time.monotonic() + 5
    while not endpoints(node) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)  # until it told the agent who the owner is
    node.exec(["kill", f"-{signal.SIGKILL.value}", pid], check=True)
    ours.wait(timeout=10)
    assert endpoints(node), "the command goes on, and so does its endpoint"
    assert gone_within(node, 10)
