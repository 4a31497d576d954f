"""The remotes of a cluster in etcd, and the two steps by which one becomes one.

A pending remote hangs on a lease of two minutes: whatever dies in the middle of a join,
on either side, its half goes away by itself. Committing takes it off the lease.
"""

from __future__ import annotations

from functools import partial

import attrs

from meshnet.errors import Conflict, LeaseLost, TokenRefused
from meshnet.kvstore.api import KV, Compare, Created, Delete, Operation, Put, Unchanged
from meshnet.kvstore.patience import ride
from meshnet.model.remote import Remote, RemoteState
from meshnet.registry import codec, schema
from meshnet.registry.store import list_remotes

PENDING_TTL_S = 120


@attrs.frozen
class HeldRemote:
    """A remote as it lies in etcd, at one revision."""

    remote: Remote
    mod_revision: int
    create_revision: int


class Remotes:
    def __init__(self, kv: KV) -> None:
        self._kv = kv

    async def list(self) -> tuple[Remote, ...]:
        """All of them. Raises PoisonedKey: what cannot be read cannot be checked against."""
        return tuple(remote.item for remote in await list_remotes(self._kv))

    async def find(self, cluster: str) -> HeldRemote | None:
        key = schema.remote(cluster)
        pair = await self._kv.get(key)
        if pair is None:
            return None
        remote = codec.decode_remote(key, pair.value)
        return HeldRemote(remote, pair.mod_revision, pair.create_revision)

    async def hold(
        self,
        remote: Remote,
        *,
        when: tuple[Compare, ...] = (),
        then: tuple[Operation, ...] = (),
    ) -> None:
        """Store it as pending, together with `then`, in one txn.

        A committed one stays as it is: a second join must not cut what works.

        Raises:
            Conflict: a compare failed; somebody else was faster.
            TokenRefused: the token among `then` has expired in between.
        """
        key = schema.remote(remote.name)
        held = await self.find(remote.name)
        compare = Unchanged(key, held.mod_revision) if held else Created(key)
        writes = then
        if held is None or held.remote.state is RemoteState.PENDING:
            pending = attrs.evolve(remote, state=RemoteState.PENDING)
            lease = await self._kv.grant(PENDING_TTL_S)
            writes = (*then, Put(key, codec.encode_remote(pending), lease))
        try:
            result = await self._kv.txn((*when, compare), writes)
        except LeaseLost as error:
            raise TokenRefused("token has just expired: ask for a new one") from error
        if not result.succeeded:
            raise Conflict(f"cluster {remote.name!r} is joining in another request: try again")

    async def commit(self, remote: Remote) -> None:
        """Make it a remote for good. Raises Conflict when its pending half is not there."""
        held = await self.find(remote.name)
        if held is None or held.remote.mesh_ca != remote.mesh_ca:
            raise Conflict(
                f"cluster {remote.name!r} is not pending any more: join again within "
                f"{PENDING_TTL_S} s"
            )
        if held.remote.state is RemoteState.COMMITTED:
            return  # the same join again: what was learnt since it was pinned stays
        key = schema.remote(remote.name)
        committed = attrs.evolve(remote, state=RemoteState.COMMITTED)
        result = await self._kv.txn(
            (Unchanged(key, held.mod_revision),), (Put(key, codec.encode_remote(committed)),)
        )
        if not result.succeeded:
            raise Conflict(f"cluster {remote.name!r} is joining in another request: try again")

    async def drop(self, remote: Remote, *, committed_since: int | None = None) -> None:
        """Take back what a failed join has left: the pending half, and a committed one only
        if it was made at or after that revision. What was there before stays."""
        held = await self.find(remote.name)
        if held is None or held.remote.mesh_ca != remote.mesh_ca:
            return
        if held.remote.state is RemoteState.COMMITTED and (
            committed_since is None or held.create_revision < committed_since
        ):
            return
        key = schema.remote(remote.name)
        await self._kv.txn((Created(key, held.create_revision),), (Delete(key),))

    async def remove(self, cluster: str) -> bool:
        """Leave it. False when there is none of that name."""
        key = schema.remote(cluster)
        if await self._kv.get(key) is None:
            return False
        await ride(partial(self._kv.delete, key))
        return True
