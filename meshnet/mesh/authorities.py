"""Keeps what we pinned of each remote true while that cluster changes its CAs.

The leader asks the remote's signers, over TLS that the pinned CA verifies, which CAs are its
own now and what it has called back. Nobody else's word counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs
import structlog

from meshnet.enrolment.client import EnrolmentClient
from meshnet.enrolment.messages import AuthoritiesReply, AuthoritiesRequest
from meshnet.errors import MeshnetError, Refused
from meshnet.kvstore.api import KV
from meshnet.model.cluster import ENROLMENT_PORT
from meshnet.model.remote import Remote, RemoteKind, RemoteState
from meshnet.pki.certificate import Certificate
from meshnet.pki.verify import verify_ca
from meshnet.registry import codec
from meshnet.registry.store import list_remotes, put_if

INTERVAL_S = 10.0
PATIENCE_S = 20.0
"""For all signers of one remote together."""
MOST_SIGNERS = 16
MOST_REVOKED = 1000


class RemoteAuthorities:
    """`leading`: whether it is this node that speaks for the cluster."""

    def __init__(
        self, kv: KV, cluster: str, leading: Callable[[], bool], *, interval_s: float = INTERVAL_S
    ) -> None:
        self._kv = kv
        self._cluster = cluster
        self._leading = leading
        self._interval_s = interval_s
        self._failing: dict[str, str] = {}
        """Why a remote could not be asked, so that each reason is logged once."""
        self._log = structlog.get_logger(component="mesh")

    async def run(self) -> None:
        """Never returns."""
        while True:
            await asyncio.sleep(self._interval_s)
            if self._leading():
                try:
                    await self.ask_all()
                except MeshnetError as error:
                    self._log.warning("remotes' CAs not looked at", error=str(error))

    async def ask_all(self) -> None:
        """Each remote once, all at a time; one that does not answer is asked again."""
        stored = await list_remotes(self._kv, lambda _: None)
        ours = [each.item for each in stored]
        await asyncio.gather(
            *(
                self._ask(each.key, each.item, each.mod_revision, ours)
                for each in stored
                if each.item.kind is RemoteKind.MESHNET and each.item.state is RemoteState.COMMITTED
            )
        )

    async def _ask(self, key: str, remote: Remote, revision: int, known: list[Remote]) -> None:
        trusted = [Certificate.parse(pem.encode()) for pem in remote.trusted]
        client = EnrolmentClient(remote.name, signers_of(remote), trusted)
        try:
            async with asyncio.timeout(PATIENCE_S):
                reply = await client.authorities(AuthoritiesRequest(cluster=self._cluster))
            updated = pinned_anew(remote, reply, known)
            if updated != remote:
                value = codec.encode_remote(updated)
                await put_if(self._kv, key, value, unchanged=revision)
                self._log.info("remote's CAs pinned anew", remote=remote.name)
            self._failing.pop(remote.name, None)
        except (MeshnetError, TimeoutError) as error:
            reason = str(error) or "none of its signers answers in time"
            if self._failing.get(remote.name) != reason:
                self._failing[remote.name] = reason
                self._log.warning("remote's CAs not known", remote=remote.name, error=reason)


def signers_of(remote: Remote) -> tuple[str, ...]:
    """Its signers as it named them; else any of its nodes may be one."""
    hosts = (gateway.rpartition(":")[0] for gateway in remote.gateways)
    return remote.signers or tuple(f"{host}:{ENROLMENT_PORT}" for host in hosts)


def pinned_anew(remote: Remote, reply: AuthoritiesReply, known: list[Remote]) -> Remote:
    """What is pinned of that remote from now on.

    Raises Refused: it speaks for another, names no CA or too many, or one that bears the
    name of another cluster's.
    """
    if reply.name != remote.name:
        raise Refused(f"signer of cluster {remote.name!r} answers as cluster {reply.name!r}")
    if not 1 <= len(reply.mesh_cas) <= 2:
        raise Refused(f"cluster {remote.name!r} names {len(reply.mesh_cas)} CAs: 1 or 2")
    authorities = [verify_ca(pem.encode()) for pem in reply.mesh_cas]
    foreign = {
        Certificate.parse(pem.encode()).parsed.subject
        for other in known
        if other.name != remote.name
        if other.kind is RemoteKind.MESHNET
        for pem in other.trusted
    }
    for ca in authorities:
        if ca.parsed.subject in foreign:
            name = ca.parsed.subject.rfc4514_string()
            raise Refused(f"cluster {remote.name!r} names a CA like that of another: {name}")
    pems = [ca.pem.decode() for ca in authorities]
    return attrs.evolve(
        remote,
        mesh_ca=pems[0],
        next_mesh_ca=pems[1] if len(pems) == 2 else None,
        signers=reply.signers[:MOST_SIGNERS] if pems != list(remote.trusted) else remote.signers,
        revoked=reply.revoked[:MOST_REVOKED],
        expelled=reply.expelled[:MOST_REVOKED],
    )
