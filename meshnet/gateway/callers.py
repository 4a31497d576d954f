"""Who may call the gateway: the mirrors of the remotes of this cluster, and nobody else.

TLS lets in whom any known CA has signed; the question whose certificate it is gets its
answer here, per call, against exactly the CA that was pinned for the cluster it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import attrs
import structlog

from meshnet.errors import PermissionRefused, Refused
from meshnet.model.remote import Remote
from meshnet.pki.certificate import Certificate, Profile, Usage, parse_uri
from meshnet.pki.verify import verify_ca, verify_peer


@attrs.frozen
class Caller:
    """A remote cluster, proven."""

    cluster: str
    not_after: datetime
    """When its certificate ends, and with it every stream it has opened."""


class Callers:
    """The remotes as the gateway knows them. `replace` may come at any time.

    Certificates of Cilium peers (kind `cilium`) will be signed by our own mesh CA under a
    URI of their own; until then such a remote cannot call.
    """

    def __init__(self, cluster: str, mesh_ca: Certificate) -> None:
        self._cluster = cluster
        self._mesh_ca = mesh_ca
        self._authorities: dict[str, Certificate] = {}
        self._log = structlog.get_logger(component="gateway")
        self.bundle = mesh_ca.pem
        """PEM of every CA that TLS shall let in. Never empty: an empty one lets in nobody
        and is refused by grpc, so our own CA is in it; no remote can bear its names."""

    def replace(self, remotes: Iterable[Remote]) -> frozenset[str]:
        """Take over the remotes; answers the clusters whose right to call ended or changed."""
        authorities: dict[str, Certificate] = {}
        for remote in remotes:
            try:
                authorities[remote.name] = verify_ca(remote.mesh_ca.encode())
            except Refused as error:
                self._log.error("remote left out", remote=remote.name, error=str(error))
        gone = frozenset(
            name
            for name, before in self._authorities.items()
            if name not in authorities or authorities[name].fingerprint != before.fingerprint
        )
        self._authorities = authorities
        self.bundle = b"".join(ca.pem for ca in (self._mesh_ca, *authorities.values()))
        return gone

    def admit(self, certificate_pem: bytes | None, *, now: datetime | None = None) -> Caller:
        """Prove who calls, from the certificate that TLS has seen.

        Raises:
            PermissionRefused: no certificate, not a mirror's, an unknown cluster, or signed
                by another CA than that cluster's.
        """
        if certificate_pem is None:
            raise PermissionRefused("no client certificate: the gateway wants a mirror's")
        certificate = Certificate.parse(certificate_pem)
        cluster = _mirror_of(certificate)
        authority = self._authorities.get(cluster)
        if authority is None:
            raise PermissionRefused(
                f"cluster {cluster!r} is not in the mesh of cluster {self._cluster!r}"
            )
        verify_peer(certificate, authority, Usage.CLIENT, now=now)
        return Caller(cluster, certificate.not_after)


def _mirror_of(certificate: Certificate) -> str:
    """The cluster whose mirror the certificate says it is, exactly one."""
    try:
        (uri,) = certificate.uris
        cluster, profile = parse_uri(uri)
    except (ValueError, Refused) as error:
        raise PermissionRefused(f"client certificate names {certificate.uris}") from error
    if profile is not Profile.MIRROR or uri != f"meshnet://{cluster}/mirror":
        raise PermissionRefused(f"client certificate is for {uri}, not for a mirror")
    return cluster
