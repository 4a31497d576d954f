"""This node's part in the cluster's trust: which CAs, which signers, what was called back.

Every node follows what etcd says of the CAs, as far as a CA that it trusts has endorsed it,
and says how far it is. Signers take a change of CAs from step to step, and list what was
revoked; a node that runs etcd makes it refuse by that list.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import attrs
import structlog

from meshnet.agent.local import LocalNode
from meshnet.agent.problems import Problem, Severity
from meshnet.enrolment.disclosure import revoked_serials
from meshnet.enrolment.keys import fetch_keys
from meshnet.enrolment.nodes import record
from meshnet.errors import Conflict, MeshnetError, PoisonedKey, Refused
from meshnet.kvstore.api import KV
from meshnet.kvstore.server import EtcdServer
from meshnet.logic.rollover import Followers, waiting_for
from meshnet.model.authority import Crl, Phase, TrustReport, TrustState
from meshnet.pki import rollover
from meshnet.pki.ca import Signer, holders
from meshnet.pki.certificate import Authority
from meshnet.pki.store import PkiStore
from meshnet.pki.verify import verify_crl
from meshnet.registry import codec, schema, trust_codec
from meshnet.registry.follow import Snapshot, follow
from meshnet.registry.session import Session
from meshnet.registry.store import list_items, put_if, put_unique

T = TypeVar("T")

PREFIX = "meshnet/v1/trust/"
PENDING_S = 0.5
"""How often to look again while something is on its way."""
IDLE_S = 30.0


@attrs.frozen(kw_only=True)
class Surroundings:
    """What the agent knows of others."""

    live: Callable[[], frozenset[str]]
    """Nodes of our cluster with a lease."""
    remotes: Callable[[], frozenset[str]]


class Authorities:
    """`renew`: wakes whoever keeps this node's certificates."""

    def __init__(
        self,
        local: LocalNode,
        kv: KV,
        session: Session,
        pki: PkiStore,
        etcd: EtcdServer | None,
        around: Surroundings,
        *,
        signer: str | None,
        lifetime: Callable[[], timedelta],
        renew: Callable[[], None],
    ) -> None:
        self._local = local
        self._kv = kv
        self._session = session
        self._pki = pki
        self._etcd = etcd
        self._around = around
        self._signer = signer
        self._lifetime = lifetime
        self._renew = renew
        self._raw: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._synced = False
        self._followed = -1
        self._announced = 0
        """The epoch that this node began: its keys are on disk before etcd knows of it."""
        self._recorded: set[int] = set()
        self.expelled: frozenset[str] = frozenset()
        """Nodes that were revoked."""
        self._owners: frozenset[str] = frozenset()
        """Nodes that hold PodCIDRs, as of the latest look."""
        self.error: str | None = None
        self._log = structlog.get_logger()

    # --- what is known -------------------------------------------------------------------

    @property
    def state(self) -> TrustState | None:
        return self._read(schema.TRUST, trust_codec.decode_trust)

    @property
    def reports(self) -> dict[str, TrustReport]:
        return self._under(schema.TRUST_NODES, trust_codec.decode_trust_report)

    @property
    def crl(self) -> Crl | None:
        """Of the node CA: what etcd refuses."""
        return self._read(schema.crl(Authority.NODE), trust_codec.decode_crl)

    @property
    def signers(self) -> tuple[str, ...]:
        """Enrolment ports of the live signers."""
        found = (report.signer for _, report in sorted(self.reports.items()))
        return tuple(each for each in found if each is not None)

    def waiting_for(self) -> tuple[str, ...]:
        state = self.state
        if state is None:
            return ()
        followers = Followers(
            live=self._around.live(),
            away=self._owners - self._around.live(),
            reports=self.reports,
            remotes=self._around.remotes(),
            told=self._under(schema.TRUST_TOLD, trust_codec.decode_told),
        )
        now, patience = datetime.now(UTC), self._lifetime()
        return waiting_for(state, followers, now=now, patience=patience)

    def enforced(self, serials: set[str]) -> bool:
        """Whether every etcd that a node of ours runs refuses all of them."""
        crl = self.crl
        if crl is None or not serials <= set(crl.serials):
            return not serials
        numbers = [report.crl for report in self.reports.values() if report.crl is not None]
        return all(number >= crl.number for number in numbers)

    def problems(self) -> list[Problem]:
        found = []
        if self.error is not None:
            found.append(
                Problem(
                    id="trust-not-followed",
                    severity=Severity.ERROR,
                    message=self.error,
                    fix="see `meshnet cluster ca status`; if nobody here rotates the CAs, find out "
                    f"who wrote {schema.TRUST}",
                )
            )
        if self._synced and len(self.signers) < 2:
            found.append(
                Problem(
                    id="too-few-signers",
                    severity=Severity.WARNING,
                    message=f"{len(self.signers)} live signer holds the CA keys of this cluster: "
                    "when it is lost nobody joins and no certificate is renewed",
                    fix="join one more host with `meshnet cluster token --signer`",
                )
            )
        return found

    # --- what is done --------------------------------------------------------------------

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._watch_revocations())
            tasks.create_task(self._work())

    async def rotate(self) -> TrustState:
        """Begin a change of CAs; it goes on by itself.

        Raises:
            Refused: this node is no signer, or has not heard of the present CAs.
            Conflict: a change is under way.
        """
        state, pair = self.state, await self._kv.get(schema.TRUST)
        if self._signer is None:
            raise Refused(
                "this node holds no CA keys: run `meshnet cluster ca rotate` on a signer "
                f"({', '.join(self.signers) or 'none is live'})"
            )
        if state is None or pair is None:
            raise Refused("this cluster's CAs are not in etcd yet: try again in a moment")
        following, new = rollover.announce(state, self._pki, self._local.cluster.name)
        self._announced = following.epoch
        for which, authority in new.items():
            keys = (*self._pki.ca_keys(which)[:1], authority.key_pem())
            self._pki.save_ca_keys(which, keys)
        value = trust_codec.encode_trust(following)
        await put_unique(self._kv, schema.TRUST, value, unchanged=pair.mod_revision)
        self._log.info("CAs begin to change", epoch=following.epoch)
        return following

    async def _watch(self) -> None:
        async for update in follow(self._kv, PREFIX, lambda _, value: value, self._poisoned):
            before = {} if isinstance(update, Snapshot) else self._raw
            merged = before | update.items
            self._raw = {key: value for key, value in merged.items() if value is not None}
            self._synced = True
            self._changed.set()

    async def _watch_revocations(self) -> None:
        async for update in follow(
            self._kv, schema.REVOKED, trust_codec.decode_revocation, self._poisoned
        ):
            before = frozenset() if isinstance(update, Snapshot) else self.expelled
            there = {schema.last_of(key) for key, found in update.items.items() if found}
            gone = {schema.last_of(key) for key, found in update.items.items() if not found}
            self.expelled = (before | there) - gone
            self._changed.set()

    async def _work(self) -> None:
        while True:
            wait_s = IDLE_S
            try:
                wait_s = await self._step()
                self.error = None
            except MeshnetError as error:
                self.error = str(error)
                self._log.warning("trust not followed", error=self.error)
                wait_s = PENDING_S * 4
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    async def _step(self) -> float:
        """One pass; answers the seconds until the next."""
        if not self._synced:
            return PENDING_S
        state = self.state
        if state is None:
            if self._signer is not None:
                value = trust_codec.encode_trust(rollover.stable_state(self._pki))
                with contextlib.suppress(Conflict):  # another signer was faster
                    await put_if(self._kv, schema.TRUST, value, unchanged=0)
            return PENDING_S
        if rollover.follow(self._pki, state):
            self._log.info("trusts other CAs", epoch=state.epoch, phase=state.phase.value)
        if state.epoch != self._followed:
            self._followed = state.epoch
            self._renew()
        if self.signers and self.signers != self._pki.signers():
            self._pki.save_signers(self.signers)
        self._enforce()
        report = self._report(state)
        if report != self.reports.get(self._local.name):
            await self._tell(report)
        if self._signer is not None:
            await self._sign(state, report)
        settled = self._etcd is None or self._etcd.settled
        return IDLE_S if state.phase is Phase.STABLE and settled else PENDING_S

    def _enforce(self) -> None:
        """The list that our etcd reads at every connection."""
        crl = self.crl
        if self._etcd is None or crl is None:
            return
        pem = verify_crl(crl.pem.encode(), self._pki.authorities(Authority.NODE))
        if self._pki.crl() != pem:
            self._pki.save_crl(pem)
            self._log.info("etcd refuses certificates that were called back", number=crl.number)

    def _report(self, state: TrustState) -> TrustReport:
        """The new epoch only when our etcd trusts it too: it reads its CAs at its start."""
        settled = self._etcd is None or self._etcd.settled
        crl = self.crl
        before = self.reports.get(self._local.name)
        return TrustReport(
            epoch=state.epoch if settled else before.epoch if before else 0,
            renewed=not self._pki.outdated(),
            signer=self._signer,
            keys=sum(
                len(holders(self._pki.authorities(which), self._pki.ca_keys(which)))
                for which in (Authority if self._signer is not None else ())
            ),
            crl=None if self._etcd is None else crl.number if crl and settled else 0,
        )

    async def _tell(self, report: TrustReport) -> None:
        """Under the session's lease. A session that has ended, as when the node leaves, is not
        begun again by this."""
        key = schema.trust_node(self._local.name)
        self._session.want(key, trust_codec.encode_trust_report(report))
        if self._session.held:
            await self._session.flush()

    async def _sign(self, state: TrustState, report: TrustReport) -> None:
        if report.keys < len(state.node_cas) + len(state.mesh_cas):
            others = tuple(each for each in self.signers if each != self._signer)
            await fetch_keys(self._pki, self._local.cluster.name, others)
        await self._record_own()
        await self._list_revoked()
        if state.phase is not Phase.STABLE:
            blocks = await list_items(
                self._kv, schema.POD_CIDR_ALLOCATIONS, codec.decode_pod_cidr, self._poisoned
            )
            self._owners = frozenset(block.item.node for block in blocks) - {""}
            if not self.waiting_for():
                await self._advance(state)
        if state.phase is Phase.STABLE and state.epoch >= self._announced:
            for which in Authority:
                kept = holders(self._pki.authorities(which), self._pki.ca_keys(which))
                if kept and len(self._pki.ca_keys(which)) > len(kept):
                    self._pki.save_ca_keys(which, tuple(each.key_pem() for each in kept))

    async def _record_own(self) -> None:
        """What a signer signs for itself nobody else would remember."""
        for expiry in self._pki.expiries():
            certificate = self._pki.certificate(expiry.profile)
            if certificate is not None and certificate.serial not in self._recorded:
                await record(self._kv, certificate, now=datetime.now(UTC))
                self._recorded.add(certificate.serial)

    async def _advance(self, state: TrustState) -> None:
        pair = await self._kv.get(schema.TRUST)
        if pair is None or trust_codec.decode_trust(pair.key, pair.value) != state:
            return  # another signer was faster
        following = rollover.next_step(state)
        value = trust_codec.encode_trust(following)
        await put_if(self._kv, schema.TRUST, value, unchanged=pair.mod_revision)
        self._log.info("change of CAs goes on", phase=following.phase.value)

    async def _list_revoked(self) -> None:
        serials = await revoked_serials(self._kv, Authority.NODE)
        crl, pair = self.crl, await self._kv.get(schema.crl(Authority.NODE))
        if set(serials) <= set(crl.serials if crl else ()):
            return
        number = crl.number + 1 if crl else 1
        pem = Signer.load(self._pki).node.revoke((int(s, 16) for s in serials), number=number)
        made = Crl(number=number, serials=serials, pem=pem.decode())
        unchanged = pair.mod_revision if pair else 0
        await put_if(
            self._kv, schema.crl(Authority.NODE), trust_codec.encode_crl(made), unchanged=unchanged
        )

    # --- inside --------------------------------------------------------------------------

    def _read(self, key: str, decode: Callable[[str, bytes], T]) -> T | None:
        value = self._raw.get(key)
        return None if value is None else decode(key, value)

    def _under(self, prefix: str, decode: Callable[[str, bytes], T]) -> dict[str, T]:
        found: dict[str, T] = {}
        for key, value in self._raw.items():
            if key.startswith(prefix):
                try:
                    found[schema.last_of(key)] = decode(key, value)
                except PoisonedKey as error:
                    self._poisoned(error)
        return found

    def _poisoned(self, error: PoisonedKey) -> None:
        self._log.error("key skipped", key=error.key, error=error.reason)


def status(authorities: Authorities, pki: PkiStore) -> dict[str, Any]:
    """`meshnet cluster ca status`."""
    state = authorities.state
    reports = authorities.reports
    return {
        "phase": state.phase.value if state else Phase.STABLE.value,
        "epoch": state.epoch if state else 0,
        "since": state.since if state else None,
        "authorities": [
            {
                "authority": which.value,
                "name": ca.parsed.subject.rfc4514_string(),
                "fingerprint": ca.fingerprint,
                "expires_at": ca.not_after,
                "signs": index == 0,
            }
            for which in Authority
            for index, ca in enumerate(pki.authorities(which))
        ],
        "nodes": [
            {
                "node": name,
                "signer": report.signer is not None,
                "trusts_new": state is not None and report.epoch >= state.epoch,
                "renewed": report.renewed,
            }
            for name, report in sorted(reports.items())
        ],
        "waiting_for": list(authorities.waiting_for()),
    }
