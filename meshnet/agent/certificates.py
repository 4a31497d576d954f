"""Keeps this node's certificates young, and says when it cannot.

An expired certificate may stop the control plane from learning; it never stops packets.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from meshnet.agent.problems import Problem, Severity
from meshnet.config import Settings
from meshnet.enrolment.renewal import renew_due
from meshnet.errors import MeshnetError
from meshnet.pki.certificate import Profile
from meshnet.pki.store import PkiStore

INTERVAL_S = 60.0


class CertificateKeeper:
    """Looks every minute; every connection reads renewed files by itself."""

    def __init__(self, pki: PkiStore, settings: Settings) -> None:
        self._pki = pki
        self._cluster = settings.cluster
        self._lifetime = timedelta(seconds=settings.certificate_lifetime_s)
        self._error: str | None = None
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                for profile in await renew_due(self._pki, self._cluster, lifetime=self._lifetime):
                    self._log.info("certificate renewed", path=str(profile))
                self._error = None
            except MeshnetError as error:
                self._error = str(error)
                self._log.warning("certificates not renewed", error=self._error)
            await asyncio.sleep(min(INTERVAL_S, self._lifetime.total_seconds() / 20))

    def problems(self) -> list[Problem]:
        now = datetime.now(UTC)
        found = [
            Problem(
                id="certificate-expired",
                severity=Severity.ERROR,
                message=f"this node's {expiry.profile} certificate expired at {expiry.not_after}",
                fix="bring a signer back within one lifetime, or leave and join again",
            )
            for expiry in self._pki.expiries()
            if expiry.not_after <= now
        ]
        if self._error is not None:
            fix = "bring a signer back: certificates are good until they expire"
            warning = Severity.WARNING
            found.append(
                Problem(id="renewal-failed", severity=warning, message=self._error, fix=fix)
            )
        return found

    def mirror_expires_at(self) -> datetime | None:
        """Of the certificate by which remotes know our mirror."""
        certificate = self._pki.certificate(Profile.MIRROR)
        return None if certificate is None else certificate.not_after
