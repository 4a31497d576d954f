"""Endpoints of the policy cases, with a prober in each, and the table they are held against."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import yaml

from meshnet.cli.client import AgentClient
from meshnet.config import Paths
from meshnet.manifests.kinds import find_kind
from tests.support.formed import NODES, Mesh, eventually

PROBER = str(Path(__file__).with_name("prober.py"))
CASES = Path(__file__).parents[1] / "lab" / "policy_cases.yaml"
DENIED_S = 0.5
"""How long a packet that must not come through is waited for."""
COUNTED_S = 0.2
"""The same where its drop is counted too: shorter than anything is sent a second time."""
ALLOWED_S = 4.0
HOSTS = {"host": "east-1", "neighbour": "east-2"}
"""Probers on nodes themselves: east-1, where web is, and another node of its cluster."""
WORLD = {
    "world-a": ("198.51.100.1", "2001:db8:100::1"),
    "world-b": ("198.51.100.129", "2001:db8:100:8000::1"),
    "world-c": ("203.0.113.1", "2001:db8:200::1"),
}
"""Addresses beside the node's own on east-1: for the mesh they are the world's."""

Json = dict[str, Any]


@attrs.frozen
class Expectation:
    source: str
    target: str
    protocol: str
    port: int
    passes: bool
    families: tuple[int, ...] = (4, 6)


@attrs.frozen
class Case:
    name: str
    manifests: tuple[Json, ...]
    expectations: tuple[Expectation, ...]
    reason: str = ""
    """Drop reason that must be counted; empty: where nothing is denied."""
    every_mode: bool = False
    """Run however packets travel."""


def expectations(lines: Iterable[str], *, passes: bool) -> Iterator[Expectation]:
    """`client other > web: tcp/80 udp/53 icmp`; `ipv4` or `ipv6` at the end: that family."""
    for line in lines:
        match = re.fullmatch(r"([\w ()-]+) > ([\w -]+): ([\w/ ]+)", line)
        assert match is not None, f"not an expectation: {line!r}"
        words = match[3].split()
        families = tuple(int(w[3]) for w in words if w in ("ipv4", "ipv6")) or (4, 6)
        for word in words:
            if word in ("ipv4", "ipv6"):
                continue
            protocol, _, port = word.partition("/")
            for source in match[1].split():
                for target in match[2].split():
                    yield Expectation(source, target, protocol, int(port or 0), passes, families)


def load_cases() -> list[Case]:
    found = []
    for raw in yaml.safe_load(CASES.read_text())["cases"]:
        reason = raw.get("reason", "POLICY_DEFAULT_DENY" if raw.get("denied") else "")
        found.append(
            Case(
                name=raw["name"],
                manifests=tuple(yaml.safe_load_all(raw["manifests"])),
                expectations=(
                    *expectations(raw.get("allowed", ()), passes=True),
                    *expectations(raw.get("denied", ()), passes=False),
                ),
                reason=reason,
                every_mode=raw.get("every_mode", False),
            )
        )
    return found


def load_endpoints() -> dict[str, Json]:
    found: dict[str, Json] = yaml.safe_load(CASES.read_text())["endpoints"]
    return found


def baseline() -> list[Expectation]:
    """Without policy: everything passes."""
    return [
        Expectation(source, target, protocol, port, True)
        for source in (*load_endpoints(), "host", "neighbour", "world-a")
        for target in load_endpoints()
        for protocol, port in (("tcp", 80), ("udp", 5300), ("icmp", 0))
        if source != target and not (source == "world-a" and target != "web")
    ]


class Prober:
    """One prober process: in an endpoint, or on a host itself."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", f"prober said {line!r}"

    def ask(self, probes: list[Json]) -> list[bool]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(probes) + "\n")
        self._process.stdin.flush()
        answers: list[bool] = json.loads(self._process.stdout.readline())
        return answers

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@attrs.frozen
class PolicyLab:
    mesh: Mesh
    probers: Mapping[str, Prober]
    addresses: Mapping[str, tuple[str, str]]
    """IPv4 and IPv6 of every name in the cases."""
    endpoints: frozenset[str]
    clients: Mapping[str, AgentClient]
    pool: ThreadPoolExecutor

    def client(self, node: str = "east-1") -> AgentClient:
        return self.clients[node]

    def apply(self, documents: Iterable[Json], *, node: str = "east-1") -> None:
        body = {"documents": list(documents), "wait": True}
        self.client(node).post("manifests", "apply", body=body)

    def stored(self, document: Json) -> Json:
        """As the cluster gives it back."""
        metadata = document["metadata"]
        query = {"kind": document["kind"].lower(), "name": metadata["name"]}
        if "namespace" in metadata:
            query["namespace"] = metadata["namespace"]
        (found,) = self.client("east-2").get("manifests", **query)
        return dict(found)

    def delete(self, documents: Iterable[Json], *, node: str = "east-1") -> None:
        keys = [
            {
                "kind": document["kind"],
                "namespace": document["metadata"].get("namespace", "default")
                if find_kind(document["kind"]).namespaced
                else "",
                "name": document["metadata"]["name"],
            }
            for document in documents
        ]
        self.client(node).post("manifests", "delete", body={"keys": keys, "wait": True})

    def wrong(
        self, expectations: Iterable[Expectation], *, denied_s: float = DENIED_S
    ) -> list[str]:
        """What came out otherwise than expected, in words."""
        by_prober: dict[str, list[tuple[Expectation, int]]] = {}
        for each in expectations:
            prober = "host" if each.source in WORLD else each.source
            for family in each.families:
                by_prober.setdefault(prober, []).append((each, family))
        found = self.pool.map(lambda item: self._ask(*item, denied_s), by_prober.items())
        return [line for lines in found for line in lines]

    def _ask(
        self, prober: str, wanted: list[tuple[Expectation, int]], denied_s: float
    ) -> list[str]:
        """One question at a time for one prober."""
        probes = [
            {
                "protocol": each.protocol,
                "to": self.addresses[each.target][family == 6],
                "port": each.port,
                # a host has several addresses: which one it sends from is the case's business
                "from": None
                if each.source in self.endpoints
                else self.addresses[each.source][family == 6],
                "wait_s": ALLOWED_S if each.passes else denied_s,
            }
            for each, family in wanted
        ]
        answers = self.probers[prober].ask(probes)
        return [
            f"{each.source} > {each.target}: {each.protocol}/{each.port} IPv{family} "
            f"{'passed' if passed else 'was dropped'}"
            for (each, family), passed in zip(wanted, answers, strict=True)
            if passed != each.passes
        ]

    def check(self, case: Case) -> None:
        """Apply it, ask for every verdict, and for each denied packet that its drop is counted
        for the right reason; then take it away."""
        before = self.drops(case.reason) if case.reason else 0
        try:
            self.apply(case.manifests)
            assert [self.stored(each) for each in case.manifests] == list(case.manifests)
            assert self.wrong(case.expectations, denied_s=COUNTED_S) == []
            denied = sum(len(e.families) for e in case.expectations if not e.passes)
            if denied:  # each of them, not one that was sent twice
                eventually(lambda: self.drops(case.reason) - before >= denied, within_s=10)
        finally:
            self.delete(case.manifests)

    def drops(self, reason: str, *, nodes: Iterable[str] = NODES) -> int:
        """Of these nodes, so far."""
        rows = self.pool.map(lambda node: self.client(node).get("drops"), nodes)
        return sum(row["packets"] for node in rows for row in node if row["reason"] == reason)


@contextlib.contextmanager
def policy_lab(mesh: Mesh) -> Iterator[PolicyLab]:
    """The endpoints of the table; everything is taken away afterwards."""
    endpoints = load_endpoints()
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(16))
        list(pool.map(lambda item: _start(mesh, *item), endpoints.items()))
        stack.callback(lambda: list(pool.map(lambda i: _stop(mesh, *i), endpoints.items())))
        _add_world(mesh)
        probers = {}
        for name, spec in endpoints.items():
            inside = ("meshnet", "exec", "-n", spec["namespace"], name, "--")
            argv = mesh[spec["node"]].argv([*inside, sys.executable, PROBER])
            probers[name] = Prober(argv)
            stack.callback(probers[name].close)
        for name, node in HOSTS.items():
            probers[name] = Prober(mesh[node].argv([sys.executable, PROBER]))
            stack.callback(probers[name].close)
        for prober in probers.values():
            prober.ready()
        addresses = _addresses(mesh, endpoints)
        yield PolicyLab(mesh, probers, addresses, frozenset(endpoints), _clients(mesh), pool)


def _start(mesh: Mesh, name: str, spec: Json) -> None:
    words = ["meshnet", "run", "--name", name, "-n", spec["namespace"], "--detach"]
    for key, value in spec["labels"].items():
        words += ["--label", f"{key}={value}"]
    for key, value in spec.get("ports", {}).items():
        words += ["--port", f"{key}={value}"]
    mesh.run(spec["node"], *words, "--", "sleep", "3600")


def _stop(mesh: Mesh, name: str, spec: Json) -> None:
    mesh.run(spec["node"], "meshnet", "endpoint", "delete", "-n", spec["namespace"], name)


def _add_world(mesh: Mesh) -> None:
    add = ("ip", "addr", "replace")
    for ipv4, ipv6 in WORLD.values():
        mesh.run("east-1", *add, f"{ipv4}/32", "dev", "lo")
        mesh.run("east-1", *add, f"{ipv6}/128", "dev", "lo", "nodad")


def _addresses(mesh: Mesh, endpoints: Mapping[str, Json]) -> dict[str, tuple[str, str]]:
    found = dict(WORLD)
    for row in mesh.json("east-1", "endpoint", "list", "--all-clusters"):
        if row["name"] in endpoints:
            found[row["name"]] = (row["ipv4"], row["ipv6"])
    for name, node in HOSTS.items():
        (row,) = [r for r in mesh.json(node, "node", "list") if r["name"] == node]
        ipv4, ipv6 = sorted(row["gateways"], key=len) if "gateways" in row else row["addresses"]
        found[name] = (ipv4, ipv6)
    return found


def _clients(mesh: Mesh) -> dict[str, AgentClient]:
    """Each agent's own socket, through the host's root."""
    return {
        node: AgentClient(
            attrs.evolve(Paths.from_environment(), run=mesh[node].path("/run/meshnet"))
        )
        for node in NODES
    }
