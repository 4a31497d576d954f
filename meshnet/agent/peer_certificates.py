"""Do the certificates last by which Cilium clusters read us? Nobody renews them by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from meshnet.agent.problems import Problem, Severity
from meshnet.errors import Refused
from meshnet.model.remote import Remote
from meshnet.pki.certificate import Certificate

NOTICE = timedelta(days=30)
"""So long before the end it is a problem: somebody has to carry files to another cluster."""
LAST_CALL = timedelta(days=7)
"""So long before the end of one that was renewed: nobody tells us where the new files are."""


def of_peers(
    remotes: Iterable[Remote], authorities: Sequence[Certificate], *, now: datetime
) -> list[Problem]:
    """`authorities`: our mesh CAs, the one that signs first."""
    found: list[Problem] = []
    for remote in remotes:
        for pem in remote.peer_certificates[:1]:
            found += _of_peer(remote.name, pem, authorities, now)
        for pem in remote.peer_certificates[1:]:
            found += _of_renewed(remote.name, pem, now)
    return found


def _of_peer(
    cluster: str, pem: str, authorities: Sequence[Certificate], now: datetime
) -> Iterator[Problem]:
    what = f"the certificate by which cluster {cluster} reads us"
    try:
        certificate = Certificate.parse(pem.encode())
    except Refused:
        yield _problem(cluster, Severity.ERROR, f"{what} cannot be read")
        return
    if certificate.not_after <= now:
        yield _problem(cluster, Severity.ERROR, f"{what} expired at {certificate.not_after}")
    elif not any(certificate.issued_by(ca) for ca in authorities):
        yield _problem(cluster, Severity.ERROR, f"{what} is of a mesh CA that was replaced")
    elif not certificate.issued_by(authorities[0]):
        yield _problem(cluster, Severity.WARNING, f"{what} is of a mesh CA that is being replaced")
    elif certificate.not_after - now < NOTICE:
        yield _problem(cluster, Severity.WARNING, f"{what} expires at {certificate.not_after}")


def _of_renewed(cluster: str, pem: str, now: datetime) -> Iterator[Problem]:
    """Of the one before the newest: who still reads by it stops at its end."""
    with contextlib.suppress(Refused):
        ends = Certificate.parse(pem.encode()).not_after
        if now < ends < now + LAST_CALL:
            yield Problem(
                id="peer-certificate",
                severity=Severity.WARNING,
                message=f"the certificate by which cluster {cluster} read us until it was renewed "
                f"expires at {ends}",
                fix="put the files of the newer one into that cluster's secrets, if they are not "
                "there yet; renewing once more would end the older one at once",
            )


def _problem(cluster: str, severity: Severity, message: str) -> Problem:
    return Problem(
        id="peer-certificate",
        severity=severity,
        message=message,
        fix=f"run `meshnet mesh access {cluster} --renew` on a signer and put its files into that "
        "cluster's secrets",
    )
