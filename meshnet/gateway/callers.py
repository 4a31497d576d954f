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
from meshnet.model.remote import Remote, RemoteKind
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

    A meshnet cluster presents its mirror's certificate, signed by its own mesh CA. A Cilium
    cluster has one of ours, `meshnet://<us>/peer/<it>`, of the key that it was given last.
    """

    def __init__(self, cluster: str, mesh_ca: Certificate) -> None:
        self._cluster = cluster
        self._mesh_ca = mesh_ca
        self._authorities: dict[str, Certificate] = {}
        self._peer_keys: dict[str, str] = {}
        self._log = structlog.get_logger(component="gateway")
        self.bundle = mesh_ca.pem
        """PEM of every CA that TLS shall let in. Never empty: an empty one lets in nobody
        and is refused by grpc, so our own CA is in it; no remote can bear its names."""

    def replace(self, remotes: Iterable[Remote]) -> frozenset[str]:
        """Take over the remotes; answers the clusters whose right to call ended or changed."""
        authorities: dict[str, Certificate] = {}
        peer_keys: dict[str, str] = {}
        for remote in remotes:
            if remote.kind is RemoteKind.CILIUM:
                peer_keys[remote.name] = remote.peer_key
                continue
            try:
                authorities[remote.name] = verify_ca(remote.mesh_ca.encode())
            except Refused as error:
                self._log.error("remote left out", remote=remote.name, error=str(error))
        before, now = self._rights(), _rights(authorities, peer_keys)
        gone = frozenset(name for name in before if before[name] != now.get(name))
        self._authorities, self._peer_keys = authorities, peer_keys
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
        cluster, profile = _claim_of(certificate)
        if profile is Profile.PEER:
            return self._admit_peer(certificate, cluster, now)
        authority = self._authorities.get(cluster)
        if authority is None:
            raise self._stranger(cluster)
        verify_peer(certificate, authority, Usage.CLIENT, now=now)
        return Caller(cluster, certificate.not_after)

    def _admit_peer(self, certificate: Certificate, issuer: str, now: datetime | None) -> Caller:
        """A certificate that we issued to a cluster which has no mesh CA."""
        cluster = certificate.uris[0].rpartition("/")[2]
        if issuer != self._cluster or cluster not in self._peer_keys:
            raise self._stranger(cluster)
        verify_peer(certificate, self._mesh_ca, Usage.CLIENT, now=now)
        if certificate.key_fingerprint != self._peer_keys[cluster]:
            raise PermissionRefused(
                f"certificate of cluster {cluster!r} was replaced: `meshnet mesh access {cluster}` "
                "made a newer one"
            )
        return Caller(cluster, certificate.not_after)

    def _stranger(self, cluster: str) -> PermissionRefused:
        return PermissionRefused(
            f"cluster {cluster!r} is not in the mesh of cluster {self._cluster!r}"
        )

    def _rights(self) -> dict[str, str]:
        return _rights(self._authorities, self._peer_keys)


def _rights(authorities: dict[str, Certificate], peer_keys: dict[str, str]) -> dict[str, str]:
    """Cluster -> by what it may call."""
    return {name: authority.fingerprint for name, authority in authorities.items()} | peer_keys


def _claim_of(certificate: Certificate) -> tuple[str, Profile]:
    """The cluster in the certificate's one URI, and whether it is a mirror's or a peer's."""
    try:
        (uri,) = certificate.uris
        cluster, profile = parse_uri(uri)
    except (ValueError, Refused) as error:
        raise PermissionRefused(f"client certificate names {certificate.uris}") from error
    mirror = profile is Profile.MIRROR and uri == f"meshnet://{cluster}/mirror"
    if not mirror and profile is not Profile.PEER:
        raise PermissionRefused(f"client certificate is for {uri}, not for a mirror")
    return cluster, profile
