"""One CA after another: what a new CA needs so that nodes believe it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import attrs

from meshnet.errors import Conflict, Refused
from meshnet.model.authority import Phase, TrustState
from meshnet.pki.ca import CertificateAuthority, Signer
from meshnet.pki.certificate import Authority, Certificate
from meshnet.pki.store import PkiStore
from meshnet.pki.verify import verify_ca


def pems(state: TrustState, which: Authority) -> tuple[str, ...]:
    return state.node_cas if which is Authority.NODE else state.mesh_cas


def stable_state(store: PkiStore, *, now: datetime | None = None) -> TrustState:
    """What a cluster begins with: the CAs on this node's disk."""
    return TrustState(
        node_cas=_texts(store.authorities(Authority.NODE)),
        mesh_cas=_texts(store.authorities(Authority.MESH)),
        since=now or datetime.now(UTC),
    )


def announce(
    state: TrustState, store: PkiStore, cluster: str
) -> tuple[TrustState, dict[Authority, CertificateAuthority]]:
    """New CAs, to be trusted beside the old ones. Their keys are the caller's to keep.

    Raises:
        Conflict: a change of CAs is under way.
        ConfigError: this node does not hold the keys of the CAs that sign now.
    """
    if state.phase is not Phase.STABLE:
        raise Conflict(
            f"the CAs of cluster {cluster!r} are changing already ({state.phase}): see `meshnet "
            "cluster ca status`"
        )
    signer = Signer.load(store)
    new = {which: signer.authority(which).successor(cluster, which) for which in Authority}
    endorsed = tuple(
        signer.authority(which).endorse(ca.certificate).pem.decode() for which, ca in new.items()
    )
    following = attrs.evolve(
        state,
        epoch=state.epoch + 1,
        phase=Phase.ANNOUNCE,
        node_cas=(*state.node_cas, new[Authority.NODE].certificate.pem.decode()),
        mesh_cas=(*state.mesh_cas, new[Authority.MESH].certificate.pem.decode()),
        endorsements=endorsed,
        since=datetime.now(UTC),
    )
    return following, new


def next_step(state: TrustState) -> TrustState:
    """From announce to sign, from sign to stable."""
    assert state.phase is not Phase.STABLE, "nothing follows but a new rotation"
    if state.phase is Phase.ANNOUNCE:
        phase, node, mesh = Phase.SIGN, state.node_cas[::-1], state.mesh_cas[::-1]
    else:
        phase, node, mesh = Phase.STABLE, state.node_cas[:1], state.mesh_cas[:1]
    return attrs.evolve(
        state,
        epoch=state.epoch + 1,
        phase=phase,
        node_cas=node,
        mesh_cas=mesh,
        since=datetime.now(UTC),
    )


def believe(
    trusted: Sequence[Certificate], offered: Iterable[str], endorsements: Iterable[str]
) -> tuple[Certificate, ...]:
    """The offered CAs, each of which is trusted already or endorsed by one that is.

    Raises Refused for any other: who can write etcd cannot make a CA.
    """
    known = {ca.fingerprint for ca in trusted}
    words = [Certificate.parse(pem.encode()) for pem in endorsements]
    vouched = {word.key_fingerprint for word in words if any(word.issued_by(ca) for ca in trusted)}
    believed = []
    for pem in offered:
        ca = verify_ca(pem.encode())
        if ca.fingerprint not in known and ca.key_fingerprint not in vouched:
            name = ca.parsed.subject.rfc4514_string()
            raise Refused(f"CA {name} is not endorsed by a CA that this node trusts: ignored")
        believed.append(ca)
    return tuple(believed)


def follow(store: PkiStore, state: TrustState) -> bool:
    """Trust on disk what the cluster trusts; answers whether anything changed.

    Raises Refused: it names a CA that nobody we trust has endorsed.
    """
    changed = False
    for which in Authority:
        before = store.authorities(which)
        now = believe(before, pems(state, which), state.endorsements)
        if [ca.fingerprint for ca in before] != [ca.fingerprint for ca in now]:
            store.save_ca(which, b"".join(ca.pem for ca in now))
            changed = True
    return changed


def _texts(authorities: Iterable[Certificate]) -> tuple[str, ...]:
    return tuple(ca.pem.decode() for ca in authorities)
