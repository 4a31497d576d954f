"""Policy, end to end: two clusters, real traffic in both families, one table of verdicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import watcher
from tests.support.formed import Mesh, eventually
from tests.support.policy_lab import (
    Case,
    Expectation,
    PolicyLab,
    baseline,
    expectations,
    load_cases,
    policy_lab,
)

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(mesh: Mesh) -> Iterator[PolicyLab]:
    with policy_lab(mesh) as made:
        assert made.wrong(baseline()) == []
        yield made
        assert made.wrong(baseline()) == []


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.name)
def test_case(lab: PolicyLab, case: Case) -> None:
    lab.check(case)


DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: %s}}}]}]
"""


def test_the_command_applies_shows_and_explains(lab: PolicyLab) -> None:
    node = lab.mesh["east-2"]
    path = node.path("/tmp/web.yaml")
    path.write_text(DENY % "api")
    assert node.meshnet("diff", "-f", "/tmp/web.yaml", check=False).returncode == 1
    assert node.meshnet("policy", "plan", "-f", "/tmp/web.yaml", check=False).returncode == 1
    assert node.meshnet("why", "shop/client", "shop/web", check=False).returncode == 0
    node.meshnet("apply", "--wait", "-f", "/tmp/web.yaml")
    try:
        got = node.meshnet("get", "netpol", "web", "-n", "shop", "-o", "yaml").stdout
        assert yaml.safe_load(got) == yaml.safe_load(DENY % "api")
        assert node.meshnet("diff", "-f", "/tmp/web.yaml").stdout == ""
        assert node.meshnet("policy", "plan", "-f", "/tmp/web.yaml").returncode == 0
        why = node.meshnet("why", "shop/client", "shop/web", "-o", "json", check=False)
        assert why.returncode == 1
        answer = json.loads(why.stdout)
        assert (answer["verdict"], answer["direction"]) == ("denied", "ingress")
        assert answer["missing"] == "no rule of NetworkPolicy shop/web allows it"
        allowed = node.meshnet("why", "shop/api", "shop/web", "--port", "81/tcp", "-o", "json")
        (rule,) = json.loads(allowed.stdout)["rules"]
        assert (rule["policy"], rule["place"]) == ("NetworkPolicy shop/web", "spec.ingress[0]")
        assert node.meshnet("why", "shop/nobody", "shop/web", check=False).returncode == 4
        (listed,) = lab.mesh.json("east-1", "policy", "list")
        assert listed["endpoints"] == ["shop/web"]
    finally:
        node.meshnet("delete", "--wait", "-f", "/tmp/web.yaml")


FRONT = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 8000, targetPort: http}]}
"""


def test_why_answers_of_a_service_by_its_backends(lab: PolicyLab) -> None:
    node = lab.mesh["east-2"]
    manifests = [yaml.safe_load(FRONT), yaml.safe_load(DENY % "api")]
    lab.apply(manifests)
    try:
        eventually(lambda: lab.mesh.json("east-2", "service", "list"), within_s=10)
        allowed = node.meshnet("why", "shop/api", "shop/front")
        assert "east/shop/web port 80/tcp, active: allowed" in allowed.stdout
        denied = node.meshnet("why", "shop/client", "shop/front", "-o", "json", check=False)
        assert (denied.returncode, json.loads(denied.stdout)["direction"]) == (1, "ingress")
        nothing = node.meshnet("why", "shop/api", "shop/front", "--port", "80/tcp", check=False)
        assert nothing.returncode == 4 and "no port 80/tcp: it has 8000/tcp" in nothing.stderr
    finally:
        lab.delete(manifests)


def expect(*lines: str, passes: bool = True) -> list[Expectation]:
    return list(expectations(lines, passes=passes))


def test_a_live_endpoint_obeys_the_policy_of_its_new_labels(lab: PolicyLab) -> None:
    node = lab.mesh["east-1"]
    manifest = yaml.safe_load((DENY % "gold").replace("{app: gold}", "{role: gold}"))
    lab.apply([manifest])
    try:
        assert lab.wrong(expect("client > web: tcp/80 icmp", passes=False)) == []
        node.meshnet("endpoint", "label", "-n", "shop", "client", "role=gold")
        assert lab.wrong(expect("client > web: tcp/80 icmp", "client > db other: tcp/80")) == []
        assert lab.wrong(expect("api > web: tcp/80", passes=False)) == []
        node.meshnet("endpoint", "label", "-n", "shop", "client", "role=frontend")
        assert lab.wrong(expect("client > web: tcp/80", passes=False)) == []
    finally:
        lab.delete([manifest])


def test_an_audited_endpoint_lets_through_and_tells(lab: PolicyLab) -> None:
    node = lab.mesh["east-1"]
    manifest = yaml.safe_load(DENY % "api")
    lab.apply([manifest])
    try:
        node.meshnet("endpoint", "audit", "-n", "shop", "web")
        before = lab.drops("POLICY_DEFAULT_DENY")
        earlier = max(e["time_ns"] for e in lab.client().get("drops", "events"))
        assert lab.wrong(expect("client far > web: tcp/80 udp/5300")) == []
        assert lab.drops("POLICY_DEFAULT_DENY") == before
        audited = [
            event
            for event in lab.client().get("drops", "events")
            if event["time_ns"] > earlier
            and event["verdict"] == "AUDIT"
            and event["destination"] == lab.addresses["web"][0]
            and event["source"] == lab.addresses["client"][0]
        ]
        assert {event["rule"] for event in audited} == {"default deny"}
        node.meshnet("endpoint", "audit", "-n", "shop", "web", "--off")
        assert lab.wrong(expect("client far > web: tcp/80 udp/5300", passes=False)) == []
    finally:
        node.meshnet("endpoint", "audit", "-n", "shop", "web", "--off")
        lab.delete([manifest])


def test_an_established_flow_obeys_a_revoked_rule(lab: PolicyLab) -> None:
    """UDP by one socket: its flow is the same before and after."""
    script = (
        "import socket,sys,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "s.connect((sys.argv[1],5300)); s.settimeout(0.05)\n"
        "while True:\n s.send(b'?')\n try:\n  s.recv(9); print(time.time(), flush=True)\n"
        " except OSError: pass\n time.sleep(0.01)\n"
    )
    argv = ["meshnet", "exec", "-n", "shop", "client", "--", sys.executable, "-c", script]
    argv.append(lab.addresses["web"][0])
    flow = subprocess.Popen(lab.mesh["east-1"].argv(argv), stdout=subprocess.PIPE, text=True)
    last = [0.0]

    def follow() -> None:
        assert flow.stdout is not None
        for line in flow.stdout:
            last[0] = float(line)

    reader = threading.Thread(target=follow)
    reader.start()
    manifest = yaml.safe_load(DENY % "api")
    try:
        eventually(lambda: last[0], within_s=10)
        revoked = time.time()
        lab.apply([manifest])
        eventually(lambda: time.time() - last[0] > 0.5, within_s=10)
        assert last[0] - revoked < 1.0
        lab.apply([yaml.safe_load(DENY % "client")])
        eventually(lambda: time.time() - last[0] < 0.2, within_s=10)
    finally:
        flow.terminate()  # passed on to what runs inside
        flow.wait()
        reader.join(10)
        lab.delete([manifest])


NO_LISTENER = """
import socket, sys
for port in (5999, 5998):
    for address in sys.argv[1:]:
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(4.0 if port == 5999 else 0.5); s.connect((address, port)); s.send(b"?")
        try: print(port, s.recv(9))
        except ConnectionRefusedError: print(port, "refused")
        except TimeoutError: print(port, "silence")
"""
ONE_WAY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress: [{ports: [{port: 5999, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{port: 5999, protocol: UDP}]}]
"""


def test_icmp_errors_of_an_allowed_flow_pass_where_nothing_else_does(lab: PolicyLab) -> None:
    """Nobody listens: the receiver's stack says so, against its egress and the sender's ingress."""
    manifests = list(yaml.safe_load_all(ONE_WAY))
    lab.apply(manifests)
    try:
        assert lab.wrong(expect("api > client: icmp udp/5300", passes=False)) == []
        inside = (
            "meshnet",
            "exec",
            "-n",
            "shop",
            "client",
            "--",
            sys.executable,
            "-c",
            NO_LISTENER,
        )
        said = lab.mesh.run("east-1", *inside, *lab.addresses["api"], *lab.addresses["db"])
        assert said.splitlines() == ["5999 refused"] * 4 + ["5998 silence"] * 4
    finally:
        lab.delete(manifests)


def test_a_policy_is_in_effect_soon_after_it_was_applied(lab: PolicyLab) -> None:
    """Until every node has answered that its dataplane is there; the bar is 0.1 s."""
    taken = []
    for app in ("api", "client") * 5:
        began = time.monotonic()
        lab.apply([yaml.safe_load(DENY % app)])
        taken.append(time.monotonic() - began)
    lab.delete([yaml.safe_load(DENY % "api")])
    print("in effect, ms:", [round(each * 1000) for each in sorted(taken)])
    assert sorted(taken)[len(taken) // 2] < 1.0


SWAPS = int(os.environ.get("MESHNET_POLICY_SWAPS", "60"))
"""Changes of rules under probes; 10 000 were run with it set."""
SWAPPED = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: swapped, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: "5300", protocol: UDP}, {port: "%s", protocol: TCP}]}]
  - fromCIDR: [%s]
"""
WATCHER = str(Path(watcher.__file__))


def test_nobody_is_open_or_closed_by_mistake_while_rules_change(lab: PolicyLab) -> None:
    """A pair that every rule allows and one that none does, probed every millisecond."""
    address = lab.addresses["web"][0]
    prefixes = ("198.51.100.0/24", "198.51.0.0/16", "198.51.100.0/24, 198.51.0.0/16")

    def rules(number: int) -> list[dict[str, object]]:
        text = SWAPPED % (80 + number % 7, prefixes[number % 3])
        return [yaml.safe_load(text)]

    lab.apply(rules(0))
    watching = {}
    for name, node, kind in (("client", "east-1", "allowed"), ("api", "east-2", "denied")):
        argv = ["meshnet", "exec", "-n", "shop", name, "--", sys.executable, WATCHER]
        watching[kind] = subprocess.Popen(
            lab.mesh[node].argv([*argv, address, "5300", kind]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        counts = {}
        for each in watching.values():
            assert each.stdout is not None and each.stdout.readline() == "ready\n"
        for number in range(SWAPS):
            lab.client().post("manifests", "apply", body={"documents": rules(number)})
        for kind, each in watching.items():
            out, _ = each.communicate("stop\n", timeout=30)
            counts[kind] = [int(word) for word in out.split()]
    finally:
        for each in watching.values():
            each.terminate()
            each.wait()
        lab.delete(rules(0))
    print(f"{SWAPS} swaps, sent and answered: {counts}")
    assert counts["allowed"][0] == counts["allowed"][1] > SWAPS
    assert counts["denied"][1] == 0 and counts["denied"][0] > SWAPS
