"""The image of containerlab/Dockerfile is a node: two of its containers, joined by a cable, are a
cluster whose endpoints reach each other. `make test-docker`.

containerlab itself does no more than this: privileged containers and veths between them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docker import BUILD_S, Engine, base_image, engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
IMAGE = "meshnet:test"
ALLOWED = (
    "--cgroupns=private",
    *(f"--sysctl=net.ipv6.conf.{scope}.disable_ipv6=0" for scope in ("all", "default")),
    *(f"--cap-add={name}" for name in ("NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE")),
    *(f"--security-opt={name}=unconfined" for name in ("seccomp", "apparmor", "systempaths")),
)
"""What a node needs of `--privileged`, which a machine may not have whole (SYS_RESOURCE)."""
NODES = {"one": "172.31.9.1", "two": "172.31.9.2"}


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("docker")) as found:
        yield found


@pytest.fixture(scope="module")
def nodes(docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Two containers of the image, a veth between them, and addresses on it."""
    base = base_image(docker, tmp_path_factory.mktemp("base"))
    docker(
        "build", "-q", "--network", "host", "--build-arg", f"BASE={base}", "-t", IMAGE,
        "-f", str(ROOT / "containerlab" / "Dockerfile"), str(ROOT), timeout_s=2 * BUILD_S,
    )  # fmt: skip
    for name in NODES:
        docker(
            "run", "-d", *ALLOWED, "--network", "none", "--name", name, "--hostname", name, IMAGE
        )
    one, two = (str(docker.pid(name)) for name in NODES)
    subprocess.run(
        ["ip", "link", "add", "eth1", "netns", one, "type", "veth",
         "peer", "name", "eth1", "netns", two], check=True,
    )  # fmt: skip
    for name, address in NODES.items():
        docker("exec", name, "ip", "address", "add", f"{address}/24", "dev", "eth1")
        docker("exec", name, "ip", "link", "set", "eth1", "up")
    return docker


def test_a_container_without_its_own_cgroups_refuses_to_start(nodes: Engine) -> None:
    """Its node would attach programs to the root of the machine's cgroups."""
    flags = [flag for flag in ALLOWED if "cgroupns" not in flag]
    nodes("create", *flags, "--cgroupns=host", "--network", "none", "--name", "shared", IMAGE)
    done = nodes("start", "-a", "shared", fails=True)
    assert "run it with --cgroupns=private" in done


def test_two_containers_of_the_image_are_a_cluster(nodes: Engine) -> None:
    def meshnet(node: str, *words: str) -> str:
        return nodes("exec", node, "meshnet", *words, timeout_s=90)

    assert meshnet("one", "version").startswith("meshnet ")
    meshnet("one", "cluster", "init", "east", "--underlay", "eth1")
    token = json.loads(meshnet("one", "cluster", "token", "-o", "json"))["token"]
    meshnet("two", "cluster", "join", token)
    for node, name in (("one", "web"), ("two", "db")):
        meshnet(node, "run", "--name", name, "--detach", "--", "sleep", "600")
    shown = json.loads(meshnet("two", "endpoint", "show", "db", "-o", "json"))
    for address in (shown["ipv4"], shown["ipv6"]):
        meshnet("one", "exec", "web", "--", "ping", "-c", "3", "-W", "2", address)
