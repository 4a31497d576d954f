"""Does a signer answer through this very interface? A TLS handshake, and nothing is said.

The socket is bound to the device (SO_BINDTODEVICE, socket(7)), so that the answer is about
the interface and not about whatever the routing table prefers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import attrs

from meshnet.enrolment.messages import MeshMember
from meshnet.model.addressing import Address
from meshnet.model.check import Check
from meshnet.pki.certificate import enrolment_name
from meshnet.pki.token import JoinToken

TIMEOUT_S = 3.0
MOST_GATEWAYS = 8
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_*, openssl/x509_vfy.h


@attrs.frozen
class Greeting:
    """How one try ended."""

    endpoint: str
    error: str | None = None
    fix: str = ""

    @property
    def answered(self) -> bool:
        return self.error is None


async def greet(
    token: JoinToken, endpoint: str, ifname: str, addresses: tuple[Address, ...]
) -> Greeting:
    """Shake hands with one signer; it must bear the name of that role under the token's CA."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _greet(token, endpoint, ifname, addresses)
    except TimeoutError:
        return Greeting(endpoint, "no answer in time", "open 4244/tcp between the hosts")
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_EXPIRED, _NOT_YET):
            return Greeting(
                endpoint,
                f"by this host's clock its certificate is not valid now ({error.verify_message})",
                "set this host's clock right, or the signer's",
            )
        return Greeting(
            endpoint, "it is no signer of that cluster", "ask for a new token on a signer"
        )
    except OSError as error:
        return Greeting(
            endpoint, _reason(error), "see that the agent runs there and 4244/tcp is open"
        )


async def greet_gateway(gateway: str, mesh_ca: str) -> Greeting:
    """Shake hands with a cluster's gateway, as far as it goes before that cluster knows us: its
    certificate must be of that mesh CA and for that very address."""
    host, _, port = gateway.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=mesh_ca)
    context.set_alpn_protocols(["h2"])
    name = host.strip("[]")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(
                name, int(port), ssl=context, server_hostname=name
            )
            writer.close()
            with contextlib.suppress(OSError):  # it knows no certificate of ours yet
                await writer.wait_closed()
    except TimeoutError:
        return Greeting(gateway, "no answer in time", f"open {port}/tcp between the clusters")
    except ssl.SSLCertVerificationError as error:
        fix = "see `meshnet status` there: its certificates, its addresses, its clock"
        return Greeting(gateway, f"its certificate is not good: {error.verify_message}", fix)
    except OSError as error:
        return Greeting(gateway, _reason(error), f"open {port}/tcp between the clusters")
    return Greeting(gateway)


async def check_gateways(member: MeshMember) -> Check:
    """Whether one gateway at least of that cluster shows a good certificate to this host."""
    greetings = await asyncio.gather(
        *(greet_gateway(gateway, member.mesh_ca) for gateway in member.gateways[:MOST_GATEWAYS])
    )
    good = [each.endpoint for each in greetings if each.answered]
    if good:
        evidence = f"{', '.join(good)}: of the mesh CA of cluster {member.name!r}"
        return Check(check="certificates", ok=True, evidence=evidence)
    why = "; ".join(f"{each.endpoint}: {each.error}" for each in greetings)
    return Check(
        check="certificates",
        ok=False,
        evidence=f"no gateway of cluster {member.name!r} can be reached ({why})",
        fix=next((each.fix for each in greetings if each.fix), ""),
    )


async def _greet(
    token: JoinToken, endpoint: str, ifname: str, addresses: tuple[Address, ...]
) -> Greeting:
    host, _, port = endpoint.rpartition(":")
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, protocol, _, target = found[0]
    version = 6 if family is socket.AF_INET6 else 4
    source = next((each for each in addresses if each.version == version), None)
    if source is None:
        return Greeting(endpoint, f"it has no IPv{version} address")
    with socket.socket(family, kind, protocol) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ifname.encode() + b"\0")
        sock.bind((str(source), 0))
        await loop.sock_connect(sock, target)
        _, writer = await asyncio.open_connection(
            sock=sock, ssl=_context(token), server_hostname=enrolment_name(token.cluster)
        )
        writer.close()
        with contextlib.suppress(OSError):  # it was answered: how the connection ends is nothing
            await writer.wait_closed()
    return Greeting(endpoint)


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return os.strerror(error.errno) if error.errno else str(error)


def _context(token: JoinToken) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=token.ca.pem.decode())
    context.set_alpn_protocols(["h2"])
    return context


def routed_source(endpoint: str) -> str | None:
    """The address from which the routing table would send to that endpoint; None: no route."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, int(port)))  # sends nothing: UDP
        except OSError:
            return None
        return str(sock.getsockname()[0])
