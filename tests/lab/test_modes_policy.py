"""Policy where packets travel natively and by Geneve: the same verdicts, from the same table.

east-1 ── native ── east-2      east-* ── Geneve out, VXLAN back ── west-*
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.lab.test_modes import settled
from tests.support.formed import Mesh
from tests.support.policy_lab import (
    Case,
    PolicyLab,
    baseline,
    expectations,
    load_cases,
    policy_lab,
)

pytestmark = pytest.mark.lab

CASES = [case for case in load_cases() if case.every_mode]


@pytest.fixture(scope="module")
def lab(modes: Mesh) -> Iterator[PolicyLab]:
    settled(modes)
    with policy_lab(modes) as made:
        assert made.wrong(baseline()) == []
        yield made
        assert made.wrong(baseline()) == []
    settled(modes)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(lab: PolicyLab, case: Case) -> None:
    lab.check(case)


def test_the_receiver_of_geneve_knows_whom_it_lets_in(lab: PolicyLab) -> None:
    """West enforces; api and client of east come by Geneve, far and its node by VXLAN."""
    lab.mesh.run("west-1", "meshnet", "status", "--wait", "--timeout", "20s")
    manifest = yaml.safe_load("""
        apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: db, namespace: shop}
        spec:
          endpointSelector: {matchLabels: {app: db}}
          ingress:
          - fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: east, app: api}}]
          - fromEndpoints: [{matchLabels: {app: client}}]
            toPorts: [{ports: [{port: http, protocol: TCP}]}]
    """)
    wanted = [
        *expectations(["api > db: tcp/80 udp/5300 icmp", "far > db: tcp/9090"], passes=True),
        *expectations(["client web host > db: tcp/80 udp/5300 icmp", "far > db: tcp/80"],
                      passes=False),
    ]  # fmt: skip
    before = lab.drops("POLICY_DEFAULT_DENY", nodes=["west-1"])
    lab.apply([manifest], node="west-1")
    try:
        assert lab.wrong(wanted) == []
        dropped = lab.drops("POLICY_DEFAULT_DENY", nodes=["west-1"]) - before
        assert dropped >= 2 * len([each for each in wanted if not each.passes])
    finally:
        lab.delete([manifest], node="west-1")
