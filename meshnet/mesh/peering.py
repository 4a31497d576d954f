"""Cilium clusters as remotes: `mesh add` and `mesh access`.

They have no gateway of ours and no mesh CA. We read such a cluster's clustermesh-apiserver with
credentials that it made for us; it reads our gateways with a certificate that we made for it.
Everything else is as with a remote of our own kind: pinned PodCIDRs, one mirror, no trust.
"""

from __future__ import annotations

from datetime import timedelta

import attrs

from meshnet.enrolment.candidate import compare
from meshnet.enrolment.inviter import Introduction
from meshnet.enrolment.remotes import Remotes
from meshnet.enrolment.roster import GatewaysOf, gateways_of, live_nodes
from meshnet.errors import Conflict, NotFound, Refused
from meshnet.kvstore.api import KV, Created, Put, Unchanged
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.logic.admission import MAX_BYTES
from meshnet.logic.agreement import identities
from meshnet.model.ability import MAX_CONNECTED_CLUSTERS
from meshnet.model.addressing import Prefix
from meshnet.model.check import Check, demand
from meshnet.model.cluster import Cluster, ClusterConfig
from meshnet.model.names import cluster_name
from meshnet.model.remote import EtcdAccess, EtcdConfig, Remote, RemoteKind, RemoteState
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import (
    Authority,
    Profile,
    Subject,
    generate_key,
    make_csr,
)
from meshnet.pki.store import PkiStore
from meshnet.registry import codec, schema
from meshnet.registry.store import put_unique

PEER_LIFETIME = timedelta(days=365)
"""As long as Cilium's own. Nobody renews it for the other side: `mesh access --renew` does."""


@attrs.frozen(kw_only=True)
class Added:
    """What `mesh add` found out about the other cluster."""

    cluster: str
    id: int
    checks: tuple[Check, ...]


def access_tls(access: EtcdAccess) -> ClientTls:
    """With what a cluster's own etcd is called."""
    return ClientTls(
        ca=access.ca.encode(),
        cert=access.cert.encode(),
        key=access.key.encode(),
        names=access.names,
    )


def open_etcd(cluster: str, endpoints: tuple[str, ...], access: EtcdAccess) -> EtcdKV:
    """A Cilium cluster's etcd. It is no more trusted than a gateway."""
    tls = access_tls(access)
    return EtcdKV(endpoints, tls, server=f"etcd of cluster {cluster}", largest_list=2 * MAX_BYTES)


async def add(
    name: str,
    config: EtcdConfig,
    pod_cidrs: tuple[Prefix, ...],
    *,
    kv: KV,
    cluster: Cluster,
    pki: PkiStore,
) -> Added:
    """Read a cluster once, check it against ours, and store it as a remote, pinned.

    Adding it again replaces its endpoints and credentials, and nothing that was pinned.

    Raises:
        NotFound: that etcd knows no such cluster.
        Refused: it collides with us or with another remote, or was joined as another.
        Unreachable, Denied: its etcd does not answer, or not us.
    """
    cluster_name(name)
    introduction = Introduction(kv, cluster, pki)
    neighbourhood = await introduction.neighbourhood()
    demand(compare(neighbourhood, name, None, pod_cidrs))
    theirs = await _config_of(name, open_etcd(name, config.endpoints, config.access))
    number = theirs.id
    checks = (
        *compare(neighbourhood, name, number, pod_cidrs),
        identities(MAX_CONNECTED_CLUSTERS, theirs.max_connected_clusters, f"cluster {name!r}"),
    )
    demand(checks)
    held = await Remotes(kv).find(name)
    remote = Remote(
        name=name,
        id=number,
        mesh_ca="",
        pod_cidrs=pod_cidrs,
        gateways=config.endpoints,
        state=RemoteState.COMMITTED,
        kind=RemoteKind.CILIUM,
        access=config.access,
        peer_certificates=held.remote.peer_certificates if held else (),
    )
    key = schema.remote(name)
    as_read = Unchanged(key, held.mod_revision) if held else Created(key)
    if not (await kv.txn((as_read,), (Put(key, codec.encode_remote(remote)),))).succeeded:
        raise Conflict(f"cluster {name!r} is joining in another request: try again")
    return Added(cluster=name, id=number, checks=checks)


async def _config_of(name: str, theirs: KV) -> ClusterConfig:
    key = schema.cluster_config(name)
    try:
        found = await theirs.get(key)
    finally:
        await theirs.close()
    if found is None:
        raise NotFound(
            f"that etcd has no {key}: is it the clustermesh-apiserver of cluster {name!r}, and "
            "is it ready?"
        )
    return codec.decode_cluster_config(key, found.value)


async def access(
    name: str,
    *,
    kv: KV,
    cluster: Cluster,
    pki: PkiStore,
    renew: bool = False,
    gateways: GatewaysOf = gateways_of,
) -> EtcdConfig:
    """With what cluster `name` reads us, a private key included.

    The key exists in this answer and nowhere else. What was given out before ends at once.

    Args:
        renew: what was given out last goes on until it expires or this is called again.

    Raises:
        NotFound: no such remote.
        Refused: it has its own way to read us, we have no live node, or no CA key is here.
    """
    remotes = Remotes(kv)
    held = await remotes.find(name)
    if held is None:
        raise NotFound(
            f"cluster {name!r} is not in the mesh: `meshnet mesh add {name} --etcd-config FILE "
            "--pod-cidr CIDR` first"
        )
    if held.remote.kind is not RemoteKind.CILIUM:
        raise Refused(f"cluster {name!r} runs meshnet: it reads us by its own certificate already")
    if not pki.ca_key_path(Authority.MESH).exists():
        signers = ", ".join(pki.signers()) or "unknown"
        raise Refused(f"this node is no signer: run it on one (enrolment ports: {signers})")
    endpoints = gateways(await live_nodes(kv, cluster.name))
    if not endpoints:
        raise Refused(f"cluster {cluster.name!r} has no live node: start an agent first")
    key = generate_key()
    subject = Subject(profile=Profile.PEER, cluster=cluster.name, node=name)
    certificate = Signer.load(pki).sign(make_csr(key, name), subject, lifetime=PEER_LIFETIME)
    kept = held.remote.peer_certificates[:1] if renew else ()
    remote = attrs.evolve(held.remote, peer_certificates=(certificate.pem.decode(), *kept))
    # once: a second one would end what the other side has, and not what nobody got to see
    value = codec.encode_remote(remote)
    await put_unique(kv, schema.remote(name), value, unchanged=held.mod_revision)
    return EtcdConfig(
        endpoints=endpoints,
        access=EtcdAccess(
            ca=pki.ca(Authority.MESH).decode(), cert=certificate.pem.decode(), key=key.decode()
        ),
    )
