"""Why can a remote not be read? A ladder: each rung is tried only when those below it hold.

DNS, TCP, TLS, certificates, etcd protocol, identity, clock, lag. The mirror says *that* it is not
connected; this says at which step, with what was tried, the answer, the likely cause and the fix.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from meshnet.errors import Denied, MeshnetError
from meshnet.kvstore.api import KV
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.logic.admission import MAX_BYTES, spoken
from meshnet.mesh.claims import kinds
from meshnet.model.remote import MirrorStatus, Remote, RemoteKind
from meshnet.pki.certificate import Certificate
from meshnet.registry import codec, schema

PATIENCE_S = 3.0
SKEW_S = 10.0
"""Certificates are backdated by five minutes; logs of two sites are hard to read long before."""
BEAT_S = 60.0
"""Cilium's interval; ours is 20 s."""
FRESH_S = 30.0
"""A key younger than that may still be on its way when we look."""


@attrs.frozen(kw_only=True)
class Rung:
    """One line; field names are JSON keys."""

    rung: str
    ok: bool | None
    """None: not tried, a lower rung broke."""
    tried: str
    evidence: str = ""
    cause: str = ""
    fix: str = ""


class Broken(Exception):
    """A rung does not hold."""

    def __init__(self, evidence: str, cause: str, fix: str) -> None:
        super().__init__(evidence)
        self.evidence, self.cause, self.fix = spoken(evidence), cause, fix


class Ladder:
    """One remote.

    Args:
        endpoints: `host:port` of its gateways, or of its clustermesh-apiserver.
        tls: with what our mirror calls them.
        ours: our own etcd, for what was copied.
        status: what the leader's mirror says of itself.
    """

    def __init__(
        self,
        remote: Remote,
        endpoints: Sequence[str],
        tls: ClientTls,
        ours: KV,
        status: MirrorStatus | None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._remote = remote
        self._endpoints = tuple(endpoints)
        self._tls = tls
        self._ours = ours
        self._status = status
        self._now = now
        self._peer: Certificate | None = None
        self._theirs: EtcdKV | None = None

    async def climb(self) -> tuple[Rung, ...]:
        """All rungs, in order."""
        where = ", ".join(self._endpoints)
        name, config = self._remote.name, schema.cluster_config(self._remote.name)
        steps = (
            ("DNS", f"names in {where}", self._dns),
            ("TCP", f"connect to {where}", self._tcp),
            ("TLS", "handshake, verified by its CA", self._handshake),
            ("certificates", "ours and theirs, now", self._certificates),
            ("etcd protocol", f"Range {config}", self._etcd),
            ("identity", f"id and keys of {name}, as pinned", self._identity),
            ("clock", f"{schema.HEARTBEAT} against our clock", self._clock),
            ("lag", "its nodes' keys against our copy", self._lag),
        )
        rungs: list[Rung] = []
        try:
            for rung, tried, step in steps:
                if any(not each.ok for each in rungs):
                    rungs.append(Rung(rung=rung, ok=None, tried=tried))
                    continue
                try:
                    evidence = spoken(await step())
                    rungs.append(Rung(rung=rung, ok=True, tried=tried, evidence=evidence))
                except Broken as broken:
                    rungs.append(
                        Rung(
                            rung=rung,
                            ok=False,
                            tried=tried,
                            evidence=broken.evidence,
                            cause=broken.cause,
                            fix=broken.fix,
                        )
                    )
        finally:
            if self._theirs is not None:
                await self._theirs.close()
        return tuple(rungs)

    # --- the way there ----------------------------------------------------------------------

    async def _dns(self) -> str:
        resolved = await self._narrow(
            _resolve,
            "its name does not resolve here",
            "give the name to this node's DNS or /etc/hosts, or use addresses",
        )
        return resolved or "addresses, no name"

    async def _tcp(self) -> str:
        port = self._endpoints[0].rpartition(":")[2]
        return await self._narrow(
            _connect,
            "nothing listens there, or a firewall is between",
            f"start the agent there; let {port}/tcp through from this node",
        )

    async def _handshake(self) -> str:
        async with _context(self._tls) as context:

            async def handshake(endpoint: str) -> str:
                self._peer, said = await _shake(context, endpoint, self._tls.names.get(endpoint))
                return said

            return await self._narrow(
                handshake,
                f"it has no certificate of the CA that {self._remote.name} was joined with",
                self._join_again("its CA was renewed or the cluster set up anew"),
            )

    async def _narrow(self, attempt: Attempt, cause: str, fix: str) -> str:
        """Go on with the endpoints where it works; Broken when it does nowhere."""
        outcomes = await asyncio.gather(
            *(_tried(attempt, endpoint) for endpoint in self._endpoints)
        )
        worked = [(e, said) for e, (ok, said) in zip(self._endpoints, outcomes, strict=True) if ok]
        failed = [
            f"{e}: {said}"
            for e, (ok, said) in zip(self._endpoints, outcomes, strict=True)
            if not ok
        ]
        if not worked:
            raise Broken("; ".join(failed), cause, fix)
        self._endpoints = tuple(endpoint for endpoint, _ in worked)
        said = "; ".join(dict.fromkeys(said for _, said in worked if said))
        return f"{said}; but not {'; '.join(failed)}" if failed else said

    # --- who is there ------------------------------------------------------------------------

    async def _certificates(self) -> str:
        now = datetime.fromtimestamp(self._now(), UTC)
        ours = Certificate.parse(_bytes(self._tls.cert))
        since = ours.parsed.not_valid_before_utc
        if not since <= now <= ours.not_after:
            raise Broken(
                f"ours is valid from {_day(since)} to {_day(ours.not_after)}",
                "it was not renewed, or this node's clock is wrong",
                self._join_again("Cilium's credentials are renewed there")
                if self._remote.kind is RemoteKind.CILIUM
                else "bring a signer back: see `meshnet status`",
            )
        theirs = f", theirs {_left(self._peer, now)}" if self._peer else ""
        return f"ours {_left(ours, now)}{theirs}"

    async def _etcd(self) -> str:
        name = self._remote.name
        self._theirs = EtcdKV(
            self._endpoints,
            self._tls,
            server=f"gateway of cluster {name}",
            timeout_s=PATIENCE_S,
            largest_list=2 * MAX_BYTES,
        )
        began = time.monotonic()
        try:
            pair = await self._theirs.get(schema.cluster_config(name))
        except Denied as error:
            raise Broken(
                str(error),
                f"cluster {name} does not count us among its remotes",
                self._join_again(f"cluster {name} left the mesh"),
            ) from error
        except MeshnetError as error:
            raise Broken(
                str(error),
                f"cluster {name} refused our certificate, or no etcd is behind its gateway",
                f"see `meshnet status` on a node of {name}; " + self._join_again("it left us"),
            ) from error
        took_ms = (time.monotonic() - began) * 1000
        return f"answered in {took_ms:.0f} ms" + ("" if pair else ", but has no such key")

    async def _identity(self) -> str:
        theirs, remote = self._reader, self._remote
        key = schema.cluster_config(remote.name)
        pair = await theirs.get(key)
        if pair is None:
            raise Broken(f"{key} is missing", "its cluster has no leader", _ITS_LEADER)
        try:
            config = codec.decode_cluster_config(key, pair.value)
        except MeshnetError as error:
            raise Broken(str(error), "its writer is broken", _ITS_LEADER) from error
        if config.id != remote.id:
            raise Broken(
                f"it says id {config.id}, but joined with {remote.id}",
                "another cluster of that name",
                self._join_again("the cluster was set up anew"),
            )
        there = {pair.key for pair in (await theirs.list(schema.canaries(remote.name))).pairs}
        missing = [kind.canary for kind in kinds(remote.name) if kind.canary not in there]
        if config.synced_canaries and missing:
            raise Broken(f"{missing[0]} is missing", "its state is not whole yet", _ITS_LEADER)
        if self._status and self._status.refused:
            first = self._status.refusals[0]
            raise Broken(
                f"id {config.id}; {self._status.refused} keys refused, {first.key}: {first.reason}",
                "it says what it may not say: see docs/reference/trust.md",
                f"cluster {remote.name} must correct them; all else of it goes on",
            )
        return f"id {config.id}, all kinds announced, no key refused"

    # --- is it of now ------------------------------------------------------------------------

    async def _clock(self) -> str:
        beat = await self._reader.get(schema.HEARTBEAT)
        if beat is None:
            raise Broken("there is no heartbeat", "its cluster has no leader", _ITS_LEADER)
        try:
            said = datetime.fromisoformat(beat.value.decode())
            behind = self._now() - said.timestamp()
        except ValueError:
            return "its heartbeat bears no time: not compared"
        if behind < -SKEW_S:
            raise Broken(f"its clock is {-behind:.0f} s ahead of ours", _CLOCKS, _NTP)
        if behind > BEAT_S + SKEW_S:
            raise Broken(
                f"its heartbeat is {behind:.0f} s old by our clock",
                f"its leader is gone, or {_CLOCKS}",
                f"{_ITS_LEADER}; {_NTP}",
            )
        return f"its last heartbeat was {max(0.0, behind):.0f} s ago by our clock"

    async def _lag(self) -> str:
        status, name = self._status, self._remote.name
        if status is None:
            raise Broken("no mirror reports", "our cluster has no leader", _OUR_LEADER)
        if not status.ready:
            said = status.error or "still copying"
            raise Broken(f"the mirror is not ready: {said}", "see the error", _OUR_LEADER)
        nodes = kinds(name)[0]
        theirs = await self._reader.list(nodes.exported)
        copied = {pair.key: pair.value for pair in (await self._ours.list(nodes.cached)).pairs}
        late = [
            pair.key for pair in theirs.pairs if copied.get(nodes.cache_key(pair.key)) != pair.value
        ]
        if late:
            raise Broken(
                f"{len(late)} of {len(theirs.pairs)} nodes are not as there, {late[0]}",
                "the mirror is behind",
                _OUR_LEADER,
            )
        last = status.last_event_at
        news = f", last change {self._now() - last.timestamp():.0f} s ago" if last else ""
        return f"{len(theirs.pairs)} nodes are as there{news}, {status.reconnects} reconnects"

    @property
    def _reader(self) -> EtcdKV:
        assert self._theirs is not None, "the rung below has opened it"
        return self._theirs

    def _join_again(self, when: str) -> str:
        name = self._remote.name
        if self._remote.kind is RemoteKind.CILIUM:
            return f"`meshnet mesh add {name}` with new files, if {when}"
        return f"`meshnet mesh leave {name}` here and there and join again, if {when}"


_CLOCKS = "the clocks differ"
_NTP = "let both clusters' nodes keep time (NTP)"
_ITS_LEADER = "look at `meshnet status` (or the clustermesh-apiserver) there"
_OUR_LEADER = (
    "look at the leader's log: `meshnet status -o json` says on which node `leader` is true"
)

Attempt = Callable[[str], Awaitable[str]]


async def _tried(attempt: Attempt, endpoint: str) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return True, await attempt(endpoint)
    except TimeoutError:
        return False, f"no answer within {PATIENCE_S:g} s"
    except ssl.SSLCertVerificationError as error:
        return False, error.verify_message
    except (OSError, ValueError) as error:
        return False, getattr(error, "strerror", None) or str(error)


def _host_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


async def _resolve(endpoint: str) -> str:
    host, port = _host_port(endpoint)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = {str(row[4][0]) for row in found}
    return "" if addresses == {host} else f"{host} is {', '.join(sorted(addresses))}"


async def _connect(endpoint: str) -> str:
    began = time.monotonic()
    _, writer = await asyncio.open_connection(*_host_port(endpoint))
    took_ms = (time.monotonic() - began) * 1000
    writer.close()
    return f"connected in {took_ms:.1f} ms"


async def _shake(
    context: ssl.SSLContext, endpoint: str, name: str | None
) -> tuple[Certificate, str]:
    """Its certificate, and what was agreed upon."""
    host, port = _host_port(endpoint)
    _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name or host)
    try:
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = session.getpeercert(binary_form=True)
        assert der is not None, "a verified peer has a certificate"
        pem = ssl.DER_cert_to_PEM_cert(der).encode()
        return Certificate.parse(pem), f"{session.version()}, {(session.cipher() or ('?',))[0]}"
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _context(tls: ClientTls) -> AsyncIterator[ssl.SSLContext]:
    """Our certificate, trust in that CA alone. Python's ssl wants files."""
    context = ssl.create_default_context(cadata=_bytes(tls.ca).decode())
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as directory:
        paths = []
        for name, part in (("crt", tls.cert), ("key", tls.key)):
            path = Path(directory) / name
            path.touch(mode=0o600)
            path.write_bytes(_bytes(part))
            paths.append(path)
        context.load_cert_chain(paths[0], paths[1])
        yield context


def _bytes(part: bytes | Path) -> bytes:
    return part if isinstance(part, bytes) else part.read_bytes()


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _left(certificate: Certificate, now: datetime) -> str:
    left = certificate.not_after - now
    return f"good for {left.days} days" if left.days else f"good for {left.seconds // 60} minutes"
