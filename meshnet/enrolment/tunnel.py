"""Does the tunnel pass between two hosts that are not one mesh yet? Both ways, for real.

    joiner                                       signer
      │ listens on the wire                        │
      │ probe(secret, nonce, where I am) ────────▶ │ listens on the wire
      │ ═══ questions, in our tunnel's format ═══▶ │ notes what arrives
      │ ◀══ questions, in their tunnel's format ══ │
      │ ◀──────────── what arrived, by enrolment ─ │

Neither side needs the other in its maps, and the dataplane takes the questions away.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import attrs

from meshnet.enrolment.messages import ProbeReply, ProbeRequest, TunnelEnd
from meshnet.errors import MeshnetError, Refused
from meshnet.host import tap
from meshnet.logic import tunnel_probe
from meshnet.logic.tunnel_probe import NONCE_BYTES, Direction
from meshnet.model.addressing import Address, host_port
from meshnet.model.check import Check

ROUNDS = 4
GAP_S = 0.1
LISTEN_S = 2.0
"""How long a signer waits for what never comes."""
MOST_SIZES = 16
JOINER, SIGNER = 0, 1

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # <linux/in.h>, <linux/in6.h>

Ask = Callable[[ProbeRequest], Awaitable[ProbeReply]]


@attrs.frozen(kw_only=True)
class TunnelSide:
    """Where a host's tunnel ends."""

    ifname: str
    addresses: tuple[Address, ...]
    mtu: int
    sends: str
    """Its cluster's tunnel protocol."""
    ports: Mapping[str, int] = attrs.field(factory=lambda: dict(tunnel_probe.PORTS))

    def end(self) -> TunnelEnd:
        return TunnelEnd(addresses=self.addresses, sends=self.sends, ports=dict(self.ports))

    def address(self, version: int) -> Address | None:
        return next((each for each in self.addresses if each.version == version), None)


@attrs.define
class _Heard:
    """What arrived of one exchange."""

    nonce: bytes
    side: int
    sizes: set[int] = attrs.field(factory=set)
    source: str | None = None

    async def listen(self, sock: socket.socket, protocol: str) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            packet, origin = await loop.sock_recvfrom(sock, 65536)
            datagram = tap.read(packet) if origin[2] != tap.PACKET_OUTGOING else None
            if datagram is None:
                continue
            question = tunnel_probe.read(protocol, datagram.payload, datagram.source)
            if question and (question.nonce, question.side) == (self.nonce, self.side):
                self.sizes.add(question.size)
                self.source = question.source


async def probe(side: TunnelSide, theirs: TunnelEnd, secret: bytes, ask: Ask) -> tuple[Check, ...]:
    """The joiner's part. `ask` reaches the very signer whose end `theirs` is."""
    version = _common_version(side, theirs)
    if version is None:
        return (Check.failed("tunnel-port", "the underlays have no IP version in common"),)
    ours = side.address(version)
    target = next(each for each in theirs.addresses if each.version == version)
    assert ours is not None
    nonce = secrets.token_bytes(NONCE_BYTES)
    sizes = tunnel_probe.sizes(side.mtu, version)
    request = ProbeRequest(
        secret=secret,
        nonce=nonce,
        address=ours,
        sends=side.sends,
        port=side.ports[theirs.sends],
        sizes=sizes,
    )
    heard = _Heard(nonce, SIGNER)
    try:
        reply = await _exchange(side, theirs, target, request, heard, ask)
    except MeshnetError as error:
        return (Check.failed("tunnel-port", f"the other side did not look: {error}"),)
    up = Direction(
        protocol=side.sends,
        source=str(ours),
        target=host_port(target, theirs.ports[side.sends]),
        arrived=reply.arrived,
        seen_source=reply.source,
    )
    down = Direction(
        protocol=theirs.sends,
        source=str(target),
        target=host_port(ours, request.port),
        arrived=tuple(sorted(heard.sizes)),
        seen_source=heard.source,
    )
    return tunnel_probe.judge(up, down, mtu=side.mtu, version=version)


async def _exchange(
    side: TunnelSide,
    theirs: TunnelEnd,
    target: Address,
    request: ProbeRequest,
    heard: _Heard,
    ask: Ask,
) -> ProbeReply:
    async with _listening(side.ifname, request.port, theirs.sends, heard):
        asking = asyncio.ensure_future(ask(request))
        try:
            while not asking.done():
                await send_round(
                    side.sends,
                    source=request.address,
                    target=(target, theirs.ports[side.sends]),
                    nonce=request.nonce,
                    side=JOINER,
                    sizes=request.sizes,
                )
                await asyncio.wait([asking], timeout=GAP_S)
            await asyncio.sleep(GAP_S)  # what is still on its way
            return asking.result()
        finally:
            asking.cancel()


class TunnelResponder:
    """The signer's part: one exchange at a time, for whoever holds a token."""

    def __init__(self, side: TunnelSide) -> None:
        self.side = side
        self._busy = asyncio.Lock()

    async def answer(self, request: ProbeRequest) -> ProbeReply:
        """Send what was asked for and listen. Raises Refused: not in this shape."""
        ours = self.side.address(request.address.version)
        known = request.sends in self.side.ports and 0 < request.port < 65536
        if ours is None or not known or len(request.sizes) > MOST_SIZES:
            raise Refused("tunnel probe asks for what this host has not")
        if len(request.nonce) != NONCE_BYTES:
            raise Refused(f"tunnel probe's nonce has not {NONCE_BYTES} bytes")
        wanted = tunnel_probe.sizes(self.side.mtu, ours.version)
        sizes = tuple(size for size in request.sizes if size in wanted)
        heard = _Heard(request.nonce, JOINER)
        port = self.side.ports[request.sends]
        async with self._busy, _listening(self.side.ifname, port, request.sends, heard):
            rounds = 0
            deadline = asyncio.get_running_loop().time() + LISTEN_S
            while asyncio.get_running_loop().time() < deadline:
                if rounds < ROUNDS:
                    await send_round(
                        self.side.sends,
                        source=ours,
                        target=(request.address, request.port),
                        nonce=request.nonce,
                        side=SIGNER,
                        sizes=sizes,
                    )
                    rounds += 1
                elif heard.sizes >= set(sizes):
                    break
                await asyncio.sleep(GAP_S)
        return ProbeReply(arrived=tuple(sorted(heard.sizes)), source=heard.source)


async def send_round(
    protocol: str,
    *,
    source: Address,
    target: tuple[Address, int],
    nonce: bytes,
    side: int,
    sizes: tuple[int, ...],
) -> None:
    """Each size once, never in fragments. What cannot leave is as if it got lost."""
    version = source.version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        sock.bind((str(source), 0))
        for size in sizes:
            data = tunnel_probe.payload(protocol, nonce, side, size, version)
            with contextlib.suppress(OSError):  # too big for the interface, or no route
                sock.sendto(data, (str(target[0]), target[1]))
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _listening(ifname: str, port: int, protocol: str, heard: _Heard) -> AsyncIterator[None]:
    try:
        opened = contextlib.ExitStack()
        sock = opened.enter_context(tap.tap(ifname, port))
    except OSError as error:
        raise Refused(f"cannot listen on {ifname}: {error.strerror}") from error
    with opened:
        task = asyncio.ensure_future(heard.listen(sock, protocol))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


def _common_version(side: TunnelSide, theirs: TunnelEnd) -> int | None:
    """IPv4 first, as the tunnel itself chooses."""
    shared = {each.version for each in side.addresses} & {each.version for each in theirs.addresses}
    return min(shared, default=None)
