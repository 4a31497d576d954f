"""Keeps this node's certificates young, and says when it cannot.

An expired certificate may stop the control plane from learning; it never stops packets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from meshnet.agent.problems import Problem, Severity
from meshnet.enrolment.renewal import renew_due
from meshnet.errors import MeshnetError
from meshnet.pki.certificate import Profile
from meshnet.pki.store import PkiStore

INTERVAL_S = 60.0
RETRY_S = 1.0


class CertificateKeeper:
    """Looks every minute; every connection reads renewed files by itself.

    `lifetime`: what the cluster has set for new certificates."""

    def __init__(self, pki: PkiStore, cluster: str, lifetime: Callable[[], timedelta]) -> None:
        self._pki = pki
        self._cluster = cluster
        self._lifetime = lifetime
        self._woken = asyncio.Event()
        self._error: str | None = None
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Never returns."""
        while True:
            lifetime = self._lifetime()
            try:
                for profile in await renew_due(self._pki, self._cluster, lifetime=lifetime):
                    self._log.info("certificate renewed", path=str(profile))
                self._error = None
            except MeshnetError as error:
                self._error = str(error)
                self._log.warning("certificates not renewed", error=self._error)
            await self._pause(lifetime)

    def wake(self) -> None:
        """The CAs have changed, or the lifetime: look at once."""
        self._woken.set()

    async def _pause(self, lifetime: timedelta) -> None:
        """Short while a certificate of an old CA is left: the signer may hear of the new one
        later than we do."""
        wait_s = min(INTERVAL_S, lifetime.total_seconds() / 20)
        try:
            async with asyncio.timeout(RETRY_S if self._pki.outdated() else wait_s):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()

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

    def expiries(self) -> list[dict[str, object]]:
        """What this node's certificates have left, soonest first."""
        now = datetime.now(UTC)
        return [
            {
                "certificate": expiry.profile.value,
                "expires_at": expiry.not_after,
                "days_left": round((expiry.not_after - now).total_seconds() / 86400, 2),
            }
            for expiry in self._pki.expiries()
        ]

    def mirror_expires_at(self) -> datetime | None:
        """Of the certificate by which remotes know our mirror."""
        certificate = self._pki.certificate(Profile.MIRROR)
        return None if certificate is None else certificate.not_after
