"""Bad input to the real command on a real host: an exit code, one line that says what, no trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.formed import two_hosts
from tests.support.lab import Node

pytestmark = pytest.mark.lab

NAME_RULE = "lower-case letters, digits and '-', first and last a letter or digit"

OF_MESHNET = """
ls -A /etc/meshnet /var/lib/meshnet 2>/dev/null | grep -v : | grep .
ls -d /run/meshnet /sys/fs/bpf/meshnet /run/netns/* 2>/dev/null
ip -br link | grep -v -e '^lo ' -e '^eth1@'
true
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with two_hosts("input", tmp_path_factory.mktemp("input")) as lab:
        yield lab["a"], lab["b"]


@pytest.fixture(scope="module")
def bare(hosts: tuple[Node, Node]) -> Node:
    """A host in no cluster."""
    return hosts[0]


@pytest.fixture(scope="module")
def small(hosts: tuple[Node, Node]) -> Node:
    """The one node of a cluster, with room for five endpoints."""
    hosts[1].meshnet("cluster", "init", "small", "--id", "7", "--node-prefix-v4", "29")
    return hosts[1]


def refusal(node: Node, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that must fail and leave nothing behind."""
    done = node.exec(list(argv))
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("East", f"cluster name 'East' is invalid: {NAME_RULE}"),
        ("east --node East_1", f"node name 'East_1' is invalid: {NAME_RULE} (RFC 1123)"),
        ("east --id 0", "cluster id 0 is out of range: 1 to 255"),
        ("east --id 256", "cluster id 256 is out of range: 1 to 255"),
        (
            "east --pod-cidr 10.0.0.0/24",
            "PodCIDR 10.0.0.0/24 is too small: a node takes a /22, so give at least /22 or a "
            "longer --node-prefix-v4",
        ),
        (
            "east --pod-cidr fd00:1::/48",
            "an IPv4 PodCIDR is needed beside IPv6: add --pod-cidr 10.x.0.0/16",
        ),
        (
            "east --pod-cidr 10.0.0.1/16",
            "10.0.0.1/16 has host bits set: did you mean 10.0.0.0/16?",
        ),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_and_the_host_untouched(
    bare: Node, flags: str, message: str
) -> None:
    found = refusal(bare, "meshnet", "cluster", "init", *flags.split())
    assert found == (2, "", f"Error: {message}\n")
    assert bare.exec(["sh", "-c", OF_MESHNET]).stdout == ""


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("--reuid 65534 --clear-groups", "must be root, not uid 65534: run it with sudo"),
        (
            "--bounding-set -bpf,-sys_admin --inh-caps -bpf,-sys_admin",
            "CAP_BPF is missing from this process's effective capabilities: add it to the "
            "container or unit (`--cap-add BPF`, `AmbientCapabilities=CAP_BPF`)",
        ),
    ],
    ids=["not root", "no CAP_BPF"],
)
def test_what_init_may_not_do_is_told_before_anything_is_made(
    bare: Node, without: str, message: str
) -> None:
    argv = ("setpriv", *without.split(), "meshnet", "cluster", "init", "east")
    assert refusal(bare, *argv) == (6, "", f"Error: {message}\n")
    assert bare.exec(["sh", "-c", OF_MESHNET]).stdout == ""


def test_a_host_in_no_cluster_says_so(bare: Node) -> None:
    code, out, err = refusal(bare, "meshnet", "status")
    assert (code, out) == (5, "")
    assert "Error: " in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--name Web", f"endpoint name 'Web' is invalid: {NAME_RULE} (RFC 1123)"),
        ("-n Blue", f"namespace name 'Blue' is invalid: {NAME_RULE} (RFC 1123)"),
        ("--label app", "label 'app' has no '=': give KEY=VALUE, such as app=web"),
        (
            "--label io.cilium.k8s.policy.cluster=west",
            "label 'io.cilium.k8s.policy.cluster' is reserved: keys of users may not start with "
            "io.cilium. or io.kubernetes.",
        ),
        ("--label a=b;c", "label a='b;c' is invalid: a value has letters, digits, '-', '_' and "
         "'.', 63 characters at most"),
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_be_is_refused(small: Node, words: str, message: str) -> None:
    found = refusal(small, "meshnet", "run", *words.split(), "--", "true")
    assert found == (2, "", f"Error: {message}\n")


def test_only_root_changes_and_others_do_not_even_read(small: Node) -> None:
    """The socket is root:meshnet 0660."""
    for command in (["endpoint", "delete", "web"], ["status"]):
        nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "meshnet")
        code, out, err = refusal(small, *nobody, *command)
        assert (code, out, err[:7]) == (6, "", "Error: "), err


def test_a_full_pool_refuses_the_next_endpoint_and_takes_it_when_one_has_gone(small: Node) -> None:
    adding = ("meshnet", "endpoint", "add", "--netns")
    try:
        for number in range(6):
            small.exec(["ip", "netns", "add", f"own{number}"], check=True)
        for number in range(5):
            small.exec([*adding, f"/run/netns/own{number}", f"e{number}"], check=True)
        taken = small.exec([*adding, "/run/netns/own5", "e0"])
        assert (taken.returncode, taken.stderr) == (
            1,
            "Error: endpoint default/e0 is taken on node b; choose another --name or run `meshnet "
            "endpoint delete default/e0`\n",
        )
        code, out, err = refusal(small, *adding, "/run/netns/own5", "e5")
        assert (code, out) == (1, "")
        assert err.startswith("Error: PodCIDR 10.7.")
        assert err.endswith(
            "/29 of node 'b' is full: all 5 addresses are in use; delete endpoints here or run "
            "the new one on another node\n"
        )
        small.meshnet("endpoint", "delete", "e3")
        small.exec([*adding, "/run/netns/own5", "e5"], check=True)
        inside = ["ip", "netns", "exec", "own5", "ping", "-c1", "-W1"]
        address = small.exec(["ip", "-n", "own0", "-4", "-br", "addr", "show", "eth0"]).stdout
        small.exec([*inside, address.split()[2].partition("/")[0]], check=True)
    finally:
        for number in range(6):
            small.meshnet("endpoint", "delete", f"e{number}", check=False)
            small.exec(["ip", "netns", "del", f"own{number}"])


def test_deleting_an_added_endpoint_leaves_its_namespace_to_its_owner(small: Node) -> None:
    small.exec(["ip", "netns", "add", "guest"], check=True)
    try:
        small.meshnet("endpoint", "add", "guest", "--netns", "/run/netns/guest", "--ifname", "net1")
        links = small.exec(["ip", "-n", "guest", "-br", "link"]).stdout
        assert "net1@" in links
        small.meshnet("endpoint", "delete", "guest")
        left = small.exec(["ip", "-n", "guest", "-br", "link"], check=True).stdout
        assert [line.split()[0] for line in left.splitlines()] == ["lo"]
    finally:
        small.exec(["ip", "netns", "del", "guest"])


def test_a_namespace_that_is_not_there_is_refused(small: Node) -> None:
    adding = ("meshnet", "endpoint", "add", "web", "--netns", "/run/netns/nope")
    assert refusal(small, *adding) == (
        2,
        "",
        "Error: --netns /run/netns/nope does not exist: make it with `ip netns add`, or give "
        "/proc/PID/ns/net of a running process\n",
    )
