"""`run` and `exec` are transparent: bytes, statuses and signals are the command's own."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.support.formed import Mesh, Workload

pytestmark = pytest.mark.lab

EVERY_BYTE = bytes(range(256)) * 4096
STATUSES = (0, 1, 2, 5, 100, 124, 125, 126, 127, 128, 200, 255)


def through(
    mesh: Mesh, node: str, *argv: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run meshnet in a host with bytes on its stdin."""
    command = mesh[node].argv(["meshnet", *argv])
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)


def test_exec_passes_a_megabyte_of_every_byte_there_and_back(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    done = through(mesh, "west-1", "exec", "db", "--", "tee", "/dev/stderr", given=EVERY_BYTE)
    assert (done.returncode, done.stdout, done.stderr) == (0, EVERY_BYTE, EVERY_BYTE)


def test_the_exit_status_is_the_commands_own(mesh: Mesh, workloads: dict[str, Workload]) -> None:
    """Of `run` and of `exec`; 128 + signal where one killed it."""
    wanted = {f"exit {status}": status for status in STATUSES}
    wanted |= {f"kill -{s.name[3:]} $$": 128 + s for s in (signal.SIGKILL, signal.SIGTERM)}
    script = "\n".join(
        f"(meshnet exec web -- sh -c '{command}'; echo exec $?; "
        f"meshnet run -- sh -c '{command}'; echo run $?) 2>/dev/null"
        for command in wanted
    )
    said = mesh.run("east-1", "bash", "-c", script).split("\n")[:-1]
    assert said == [f"{verb} {status}" for status in wanted.values() for verb in ("exec", "run")]


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "QUIT"])
def test_a_signal_to_run_reaches_the_command(mesh: Mesh, name: str) -> None:
    """Through `lab exec` too, which hands signals on as well."""
    command = f"trap 'echo got {name}; exit 42' {name}; echo ready; while :; do sleep 0.05; done"
    argv = mesh["east-2"].argv(["meshnet", "run", "--", "sh", "-c", command])
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.Signals[f"SIG{name}"])
        out, _ = running.communicate(timeout=10)
    finally:
        running.terminate()
        running.wait(timeout=10)
    assert (running.returncode, out) == (42, f"got {name}\n")


def test_what_cannot_be_started_is_told_apart_from_what_failed(mesh: Mesh) -> None:
    for verb in (["run"], ["exec", "cache"]):
        assert through(mesh, "west-2", *verb, "--", "no-such-command").returncode == 127
        assert through(mesh, "west-2", *verb, "--", "/etc/passwd").returncode == 126
    done = through(mesh, "west-2", "exec", "nobody", "--", "true")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"Error: endpoint nobody is not on this node")


def test_a_namespace_that_somebody_else_made_is_an_endpoint_of_the_mesh(
    mesh: Mesh, workloads: dict[str, Workload]
) -> None:
    netns = "/run/netns/theirs"
    mesh.run("west-2", "ip", "netns", "add", "theirs")
    try:
        mesh.run("west-2", "meshnet", "endpoint", "add", "theirs", "--netns", netns)
        address = mesh.workload("west-2", "theirs").ipv6
        assert " 0% packet loss" in mesh.inside(workloads["web"], f"ping -q -c 2 -W 2 {address}")
        shown = json.loads(mesh.run("west-2", "ip", "-n", "theirs", "-j", "-6", "addr", "show"))
        assert address in {a["local"] for link in shown for a in link["addr_info"]}
    finally:
        mesh.stop("west-2", "theirs")
        mesh.run("west-2", "ip", "netns", "del", "theirs")
