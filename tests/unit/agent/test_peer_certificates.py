"""Who reads us by a certificate that nobody renews is named in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from meshnet.agent.peer_certificates import of_peers
from meshnet.agent.problems import Severity
from meshnet.model.remote import Remote, RemoteKind
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Profile, Subject, generate_key, make_csr

NOW = datetime.now(UTC)
OURS, NEXT = Signer.create("east"), Signer.create("east")


def remote(*certificates: str) -> Remote:
    return Remote(
        name="cil",
        id=7,
        mesh_ca="",
        pod_cidrs=(),
        gateways=(),
        kind=RemoteKind.CILIUM,
        peer_certificates=certificates,
    )


def certificate(days: float) -> str:
    subject = Subject(profile=Profile.PEER, cluster="east", node="cil")
    csr = make_csr(generate_key(), "cil")
    return OURS.sign(csr, subject, lifetime=timedelta(days=days)).pem.decode()


@pytest.mark.parametrize(
    ("left_days", "signers", "said"),
    [
        (31, (OURS,), None),
        (29, (OURS,), (Severity.WARNING, "expires at")),
        (-1, (OURS,), (Severity.ERROR, "expired at")),
        (31, (OURS, NEXT), None),
        (31, (NEXT, OURS), (Severity.WARNING, "is of a mesh CA that is being replaced")),
        (31, (NEXT,), (Severity.ERROR, "is of a mesh CA that was replaced")),
    ],
)
def test_a_certificate_that_ends_is_a_problem_with_the_command_that_renews_it(
    left_days: float, signers: tuple[Signer, ...], said: tuple[Severity, str] | None
) -> None:
    authorities = [signer.mesh.certificate for signer in signers]
    now = NOW + timedelta(days=365 - left_days)
    found = of_peers([remote(certificate(365))], authorities, now=now)

    if said is None:
        assert found == []
        return
    (problem,) = found
    assert (problem.severity, said[1] in problem.message) == (said[0], True), problem.message
    assert problem.message.startswith("the certificate by which cluster cil reads us ")
    assert "`meshnet mesh access cil --renew` on a signer" in problem.fix


@pytest.mark.parametrize(("left_days", "said"), [(8, False), (6, True), (-1, False)])
def test_before_the_end_of_one_that_was_renewed_its_successor_must_be_in_place(
    left_days: float, said: bool
) -> None:
    now = NOW + timedelta(days=30 - left_days)
    renewed = remote(certificate(365), certificate(30))
    found = of_peers([renewed], [OURS.mesh.certificate], now=now)

    assert len(found) == said
    for problem in found:
        assert (problem.id, problem.severity) == ("peer-certificate", Severity.WARNING)
        assert "cluster cil read us until it was renewed expires at" in problem.message
        assert problem.fix.startswith("put the files of the newer one into that cluster's secrets")


def test_only_the_newest_must_last_and_who_has_none_is_no_problem() -> None:
    authorities = [OURS.mesh.certificate]
    old, new = certificate(8), certificate(365)

    assert of_peers([remote(new, old), remote()], authorities, now=NOW) == []
    assert len(of_peers([remote(old)], authorities, now=NOW)) == 1
    broken = attrs.evolve(remote(new), peer_certificates=("no PEM",))
    (problem,) = of_peers([broken], authorities, now=NOW)
    assert problem.message == "the certificate by which cluster cil reads us cannot be read"
