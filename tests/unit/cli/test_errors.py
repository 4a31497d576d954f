"""Bad input and bad weather: one line that says what, where, why and what next; an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshnet import errors
from meshnet.cli import client
from meshnet.cli.client import AgentClient
from meshnet.config import Paths
from tests.support.agent_api import FakeAgent
from tests.unit.cli.conftest import Meshnet

LABEL = "--label io.cilium.k8s.policy.cluster=west"


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("status --foo", 2, "No such option: --foo: see `meshnet status --help`"),
        ("nope", 2, "No such command 'nope'. Did you mean 'node'?: see `meshnet --help`"),
        (
            "status --wait --timeout soon",
            2,
            "'soon' is not a duration: give a number with ms, s, m, h or d, such as 60s or 1h30m",
        ),
        ("endpoint show nope", 4, "endpoint nope is not on this node: `meshnet endpoint list` "
         "shows what is"),
        ("endpoint show Web", 2, "endpoint name 'Web' is invalid: lower-case letters, digits and "
         "'-', first and last a letter or digit (RFC 1123)"),
        ("endpoint show a/web -n b", 2, "endpoint 'a/web' and --namespace b name two namespaces"),
        ("endpoint show web", 2, "endpoint 'web' is ambiguous on this node: blue/web, green/web; "
         "say which"),
        ("endpoint add web -n blue --netns /proc/self/ns/net", 1,
         "endpoint blue/web exists on node east-1: choose another name or delete it"),
        ("endpoint add x --netns /nope", 2, "--netns /nope does not exist: make it with "
         "`ip netns add`, or give /proc/PID/ns/net of a running process"),
        ("endpoint add x --netns / --ifname abcdefghijklmnop", 2, "--ifname 'abcdefghijklmnop' is "
         "no interface name: 15 characters at most, no '/' and no space"),
        (f"run {LABEL} -- true", 2, "label 'io.cilium.k8s.policy.cluster' is reserved: keys of "
         "users may not start with io.cilium. or io.kubernetes."),
        ("run --label web -- true", 2, "label 'web' has no '=': give KEY=VALUE, such as app=web"),
        ("run --port http=0/tcp -- true", 2, "port 'http=0/tcp' is not NAME=PORT/PROTOCOL, such "
         "as http=8080/tcp"),
        ("run --name UPPER -- true", 2, "endpoint name 'UPPER' is invalid: lower-case letters, "
         "digits and '-', first and last a letter or digit (RFC 1123)"),
        ("run -n blue --name web -- true", 125, "endpoint blue/web exists on node east-1: choose "
         "another name or delete it"),
        ("run --detach --tty -- true", 2, "--detach and --tty exclude each other: a terminal "
         "needs somebody at it"),
        ("exec nope -- true", 125, "endpoint nope is not on this node: `meshnet endpoint list` "
         "shows what is"),
        ("exec web -- true", 2, "endpoint 'web' is ambiguous on this node: blue/web, green/web; "
         "say which"),
        ("logs blue/web", 4, "endpoint blue/web has no log: only a command of "
         "`meshnet run --detach` has one"),
        ("identity show 7", 4, "identity 7 is unknown"),
        ("mesh join mnt1.used", 1, "token was used already: ask cluster west for a new one"),
        ("mesh join file:/nope/token", 2, "/nope/token cannot be read for a secret: [Errno 2] No "
         "such file or directory: '/nope/token'"),
        ("mesh invite --for West", 2, "cluster name 'West' is invalid: lower-case letters, digits "
         "and '-', first and last a letter or digit"),
        ("cluster token revoke t9", 4, "token t9 is unknown: it may have been used or have "
         "expired"),
    ],
)  # fmt: skip
def test_refusal_is_one_line_with_its_exit_code(
    command: str, code: int, message: str, agent: FakeAgent, meshnet: Meshnet
) -> None:
    agent.add("web", namespace="blue")
    agent.add("web", namespace="green")
    outcome = meshnet(*command.split())
    assert (outcome.code, outcome.err) == (code, f"Error: {message}\n")
    assert outcome.out == ""


def away(*, own: bool = True) -> errors.Unreachable:
    error = errors.Unreachable("etcd at 192.0.2.1:2379 is unreachable: connection refused")
    error.own_etcd = own
    return error


def test_a_command_rides_over_a_restart_of_etcd(
    agent: FakeAgent, meshnet: Meshnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AGAIN_S", 0.01)
    agent.unreachable = [away(), away()]
    outcome = meshnet("config", "set", "certificate_lifetime", "12h")
    assert (outcome.code, outcome.err.splitlines()) == (
        0,
        [
            "etcd at 192.0.2.1:2379 is unreachable: connection refused: trying again (0 of 30 s)",
            "certificate_lifetime is 12h",
        ],
    )


@pytest.mark.parametrize(("own", "tried"), [(True, 1), (False, 0)])
def test_an_etcd_that_stays_away_and_any_other_server_is_exit_code_5(
    own: bool, tried: int, agent: FakeAgent, meshnet: Meshnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AGAIN_S", 0.01)
    monkeypatch.setattr(client, "PATIENCE_S", 0.1)
    agent.unreachable = [away(own=own)] * 1000
    outcome = meshnet("config", "get", "certificate_lifetime")
    assert (outcome.code, outcome.out, outcome.err.count("trying again")) == (5, "", tried)
    assert outcome.err.splitlines()[-1] == (
        "Error: etcd at 192.0.2.1:2379 is unreachable: connection refused"
    )


def test_a_group_alone_is_its_help_and_wrong_usage(meshnet: Meshnet) -> None:
    outcome = meshnet("mesh")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: meshnet mesh [OPTIONS] COMMAND")


def test_no_agent_is_told_apart_from_no_cluster(home: Path, meshnet: Meshnet) -> None:
    socket = home / "run" / "agent.sock"
    outcome = meshnet("status")
    assert (outcome.code, outcome.err) == (
        5,
        f"Error: no agent answers on {socket}: start it with `systemctl start meshnet`, or "
        "`meshnet agent` where there is no systemd\n",
    )
    (home / "meshnet.toml").unlink()
    outcome = meshnet("status")
    assert (outcome.code, outcome.err) == (
        5,
        f"Error: this node is in no cluster ({home / 'meshnet.toml'} does not exist): run "
        "`meshnet cluster init NAME` or `meshnet cluster join TOKEN`\n",
    )


def test_a_socket_we_may_not_open_is_a_lack_of_permission(
    home: Path, monkeypatch: pytest.MonkeyPatch, meshnet: Meshnet
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("meshnet.cli.client._UnixConnection.connect", refuse)
    outcome = meshnet("status")
    assert (outcome.code, outcome.err) == (
        6,
        f"Error: {home / 'run' / 'agent.sock'} may not be opened by this user: run as root, or "
        "join the group 'meshnet' to read\n",
    )


def test_an_answer_that_is_none_asks_for_a_restart(agent: FakeAgent, meshnet: Meshnet) -> None:
    agent.broken = True
    outcome = meshnet("status")
    assert outcome.code == 5
    assert outcome.err == (
        "Error: what answers GET /v1/status is no agent of this version (HTTP 200): restart the "
        "agent\n"
    )


def test_refusals_keep_their_class(agent: FakeAgent) -> None:
    caller = AgentClient(Paths.from_environment())
    with pytest.raises(errors.NotFound):
        caller.get("nodes", "nope")
    with pytest.raises(errors.TokenRefused):
        caller.post("mesh", "join", body={"token": "x", "plan": False})


def test_an_agent_that_is_newer_is_still_understood(agent: FakeAgent, meshnet: Meshnet) -> None:
    class Novelty(errors.MeshnetError):
        exit_code = 6

    def refuse() -> None:
        raise Novelty("the flux is missing")

    agent.get_drops = refuse  # type: ignore[method-assign]
    outcome = meshnet("drops")
    assert (outcome.code, outcome.err) == (6, "Error: the flux is missing\n")


def test_debug_adds_the_traceback(agent: FakeAgent, meshnet: Meshnet) -> None:
    outcome = meshnet("--debug", "identity", "show", "7")
    assert outcome.code == 4
    assert "Traceback" in outcome.err
    assert outcome.err.endswith("Error: identity 7 is unknown\n")


def test_interrupt_exits_130_without_a_word(
    agent: FakeAgent, meshnet: Meshnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AgentClient, "get", interrupt)
    outcome = meshnet("status")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "")


def test_a_reader_that_goes_away_is_no_error(agent: FakeAgent, home: Path) -> None:
    command = f"{sys.executable} -m meshnet.cli.main drops -o json | true"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("141\n", "")
