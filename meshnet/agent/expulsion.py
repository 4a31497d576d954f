"""`node delete --revoke`: a stolen node is thrown out, whatever it still does.

Its certificates go on the list that etcd refuses by, which cuts its connections too; the
other clusters of the mesh learn of it when they ask for our CAs; then its keys go, and it
cannot write them again.
"""

from __future__ import annotations

import asyncio

import structlog

from meshnet.agent.authorities import Authorities
from meshnet.enrolment.nodes import revoke
from meshnet.errors import MeshnetError, Refused
from meshnet.kvstore.api import KV
from meshnet.pki.certificate import Authority
from meshnet.registry import schema
from meshnet.registry.allocator import release_pod_cidrs

PATIENCE_S = 30.0
POLL_S = 0.2


class Expulsion:
    def __init__(
        self, kv: KV, cluster: str, authorities: Authorities, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._kv = kv
        self._cluster = cluster
        self._authorities = authorities
        self._patience_s = patience_s
        self._log = structlog.get_logger()

    async def expel(self, name: str) -> None:
        """Returns when etcd refuses the node and nothing of it is left there.

        Raises:
            Refused: its certificates are renewed no more and its keys are gone, but etcd does
                not refuse it: no signer is live, or it is not an etcd that meshnet runs.
        """
        revocation = await revoke(self._kv, name)
        self._log.info("node revoked", node=name)
        serials = set(revocation.serials.get(Authority.NODE.value, ()))
        refused = await self._until_refused(serials)
        await self._persist(name)
        if not refused:
            raise Refused(
                f"node {name} is renewed no more and its keys are gone, but etcd does not refuse "
                "its certificates yet: bring a signer back, then run the same command again"
            )
        self._log.info("node expelled", node=name, certificates=len(serials))

    async def _until_refused(self, serials: set[str]) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                while not self._authorities.enforced(serials):  # noqa: ASYNC110  # etcd tells
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True

    async def _remove(self, name: str) -> None:
        pair = await self._kv.get(schema.node(self._cluster, name))
        if pair is not None:
            if pair.lease:
                await self._kv.revoke(pair.lease)  # with it goes all that the node has put
            await self._kv.delete(pair.key)
        await release_pod_cidrs(self._kv, name)

    async def _persist(self, name: str) -> None:
        """etcd has just been started again, so the first try may find it away."""
        async with asyncio.timeout(self._patience_s):
            while True:
                try:
                    await self._remove(name)
                    return
                except MeshnetError as error:
                    if not error.transient:
                        raise
                    await asyncio.sleep(POLL_S)
