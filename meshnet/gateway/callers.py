"""Who may call the gateway: the mirrors of the remotes of this cluster, and nobody else.

TLS lets in whom any known CA has signed; the question whose certificate it is gets its
answer here, per call, against exactly the CA that was pinned for the cluster it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
import structlog

from meshnet.errors import PermissionRefused, Refused
from meshnet.model.remote import Remote, RemoteKind
from meshnet.pki.certificate import Certificate, Profile, Usage, parse_uri
from meshnet.pki.verify import choose_issuer, verify_ca, verify_peer


@attrs.frozen
class Caller:
    """A remote cluster, proven."""

    cluster: str
    not_after: datetime
    """When its certificate ends, and with it every stream it has opened."""


@attrs.frozen
class Rights:
    """By what a cluster may call."""

    authorities: tuple[Certificate, ...]
    revoked: frozenset[int] = frozenset()
    """Serial numbers."""

    def exceeded_by(self, later: Rights | None) -> bool:
        """Whether a call that was admitted by these may not go on under the later ones."""
        if later is None:
            return True
        kept = {ca.fingerprint for ca in later.authorities}
        mine = {ca.fingerprint for ca in self.authorities}
        return not mine <= kept or not later.revoked <= self.revoked


class Callers:
    """The remotes as the gateway knows them. `replace` may come at any time.

    A meshnet cluster presents its mirror's certificate, signed by its own mesh CA. A Cilium
    cluster has one of ours, `meshnet://<us>/peer/<it>`, of a key that still counts.
    """

    def __init__(self, cluster: str, own: Callable[[], Sequence[Certificate]]) -> None:
        self._cluster = cluster
        self._own = own
        """Our mesh CAs as they are now."""
        self._rights: dict[str, Rights] = {}
        self._peer_keys: dict[str, frozenset[str]] = {}
        self._log = structlog.get_logger(component="gateway")

    @property
    def bundle(self) -> bytes:
        """PEM of every CA that TLS shall let in. Never empty: an empty one lets in nobody
        and is refused by grpc, so our own CA is in it; no remote can bear its names."""
        remotes = (ca for rights in self._rights.values() for ca in rights.authorities)
        return b"".join(ca.pem for ca in (*self._own(), *remotes))

    def replace(self, remotes: Iterable[Remote]) -> frozenset[str]:
        """Take over the remotes; answers the clusters whose right to call ended or changed."""
        rights: dict[str, Rights] = {}
        peer_keys: dict[str, frozenset[str]] = {}
        for remote in remotes:
            try:
                if remote.kind is RemoteKind.CILIUM:
                    peer_keys[remote.name] = frozenset(
                        Certificate.parse(pem.encode()).key_fingerprint
                        for pem in remote.peer_certificates
                    )
                    continue
                rights[remote.name] = Rights(
                    tuple(verify_ca(pem.encode()) for pem in remote.trusted),
                    frozenset(int(serial, 16) for serial in remote.revoked),
                )
            except (Refused, ValueError) as error:
                self._log.error("remote left out", remote=remote.name, error=str(error))
        gone = {
            name for name, before in self._rights.items() if before.exceeded_by(rights.get(name))
        }
        gone |= {
            name
            for name, keys in self._peer_keys.items()
            if name not in peer_keys or not keys <= peer_keys[name]
        }
        self._rights, self._peer_keys = rights, peer_keys
        return frozenset(gone)

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
        rights = self._rights.get(cluster)
        if rights is None:
            raise self._stranger(cluster)
        issuer = choose_issuer(certificate, rights.authorities)
        verify_peer(certificate, issuer, Usage.CLIENT, now=now)
        if certificate.serial in rights.revoked:
            raise PermissionRefused(f"certificate of cluster {cluster!r} was revoked by it")
        return Caller(cluster, certificate.not_after)

    def _admit_peer(self, certificate: Certificate, issuer: str, now: datetime | None) -> Caller:
        """A certificate that we issued to a cluster which has no mesh CA."""
        cluster = certificate.uris[0].rpartition("/")[2]
        if issuer != self._cluster or cluster not in self._peer_keys:
            raise self._stranger(cluster)
        verify_peer(certificate, choose_issuer(certificate, self._own()), Usage.CLIENT, now=now)
        if certificate.key_fingerprint not in self._peer_keys[cluster]:
            raise PermissionRefused(
                f"certificate of cluster {cluster!r} was replaced: `meshnet mesh access {cluster}` "
                "made a newer one"
            )
        return Caller(cluster, certificate.not_after)

    def _stranger(self, cluster: str) -> PermissionRefused:
        return PermissionRefused(
            f"cluster {cluster!r} is not in the mesh of cluster {self._cluster!r}"
        )


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
