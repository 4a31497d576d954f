"""The enrolment port (4244/tcp) of a signer: TLS with server authentication only.

A joiner has no certificate yet, so what it sends proves it: a token's secret, or a
signature by the key of the certificate to be renewed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import attrs
import grpc
import grpc.aio
import structlog

from meshnet.enrolment.disclosure import Disclosure
from meshnet.enrolment.faults import status_of
from meshnet.enrolment.handshake import check_gateways
from meshnet.enrolment.inviter import Introduction, Inviter
from meshnet.enrolment.keys import KeyCustody
from meshnet.enrolment.messages import (
    SERVICE,
    AuthoritiesRequest,
    JoinMeshReply,
    JoinMeshRequest,
    JoinNodeReply,
    JoinNodeRequest,
    KeysRequest,
    Nothing,
    ProbeReply,
    ProbeRequest,
    RenewRequest,
    TunnelEnd,
    decode,
    encode,
)
from meshnet.enrolment.nodes import Contacts, NodeAdmission
from meshnet.enrolment.probe import PATIENCE_S, GatewayProbe
from meshnet.enrolment.remotes import Remotes
from meshnet.enrolment.roster import GatewaysOf, gateways_of
from meshnet.enrolment.tokens import Tokens
from meshnet.enrolment.tunnel import TunnelResponder, TunnelSide
from meshnet.errors import ConfigError, MeshnetError
from meshnet.kvstore.api import KV
from meshnet.model.check import clean
from meshnet.model.cluster import Cluster
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import LIFETIME, Profile
from meshnet.pki.store import PkiStore

T = TypeVar("T")

MAX_CALLS = 16
"""At one time. Anybody may connect; nobody may fill the memory."""

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 << 10),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # a second agent on the port must fail, not share it silently
    ("grpc.so_reuseport", 0),
)


class EnrolmentServer:
    """Carries requests to those who decide, and their refusals back."""

    def __init__(
        self,
        admission: NodeAdmission,
        inviter: Inviter,
        responder: TunnelResponder,
        tokens: Tokens,
        disclosure: Disclosure,
        pki: PkiStore,
    ) -> None:
        self._admission = admission
        self._inviter = inviter
        self._responder = responder
        self._tokens = tokens
        self._disclosure = disclosure
        self._custody = KeyCustody(disclosure.cluster, pki, disclosure.banned)
        self._pki = pki
        self._server: grpc.aio.Server | None = None
        self._log = structlog.get_logger(component="enrolment")

    @classmethod
    def of(
        cls,
        kv: KV,
        cluster: Cluster,
        pki: PkiStore,
        contacts: Callable[[], Contacts],
        tunnel: TunnelSide,
        *,
        lifetime: Callable[[], timedelta] = lambda: LIFETIME,
        gateways: GatewaysOf = gateways_of,
        patience_s: float = PATIENCE_S,
    ) -> EnrolmentServer:
        """One for a signer, out of its PKI directory. Raises ConfigError: no CA keys there."""
        Signer.load(pki)  # at once, and again for each request: CAs change
        tokens = Tokens(kv, cluster)
        introduction = Introduction(kv, cluster, pki, gateways)
        return cls(
            NodeAdmission(
                kv, cluster, lambda: Signer.load(pki), tokens, contacts, lifetime=lifetime
            ),
            Inviter(tokens, Remotes(kv), introduction, GatewayProbe(pki, patience_s=patience_s)),
            TunnelResponder(tunnel),
            tokens,
            Disclosure(kv, cluster.name, pki, contacts),
            pki,
        )

    async def start(self, addresses: Iterable[str]) -> tuple[int, ...]:
        """Listen on each `host:port` (port 0: any) and answer the ports. Raises ConfigError."""
        handlers = {
            "JoinNode": self._handler(JoinNodeRequest, self._join_node),
            "Renew": self._handler(RenewRequest, self._admission.renew),
            "Authorities": self._handler(AuthoritiesRequest, self._disclosure.authorities),
            "Challenge": self._handler(Nothing, self._custody.challenge),
            "FetchKeys": self._handler(KeysRequest, self._custody.hand_over),
            "PlanMesh": self._handler(JoinMeshRequest, self._plan_mesh),
            "ProbeTunnel": self._handler(ProbeRequest, self._probe_tunnel),
            "PrepareMesh": self._handler(JoinMeshRequest, self._inviter.prepare),
            "CommitMesh": self._handler(JoinMeshRequest, self._inviter.commit),
            "AbortMesh": self._handler(JoinMeshRequest, self._inviter.abort),
        }
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        credentials = grpc.dynamic_ssl_server_credentials(self._tls(), self._tls)
        try:
            ports = tuple(self._server.add_secure_port(each, credentials) for each in addresses)
        except RuntimeError as error:
            raise ConfigError(
                f"enrolment cannot listen: {error}: does another agent run?"
            ) from error
        await self._server.start()
        return ports

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=1)

    async def _join_node(self, request: JoinNodeRequest) -> JoinNodeReply:
        reply = await self._admission.join(request)
        return attrs.evolve(reply, tunnel=self._tunnel_end()) if request.plan else reply

    async def _plan_mesh(self, request: JoinMeshRequest) -> JoinMeshReply:
        reply = await self._inviter.plan(request)
        checks = reply.checks
        if clean(checks):
            checks += (await check_gateways(request.member),)
        return attrs.evolve(reply, checks=checks, tunnel=self._tunnel_end())

    def _tunnel_end(self) -> TunnelEnd:
        return self._responder.side.end()

    async def _probe_tunnel(self, request: ProbeRequest) -> ProbeReply:
        """Raises TokenRefused: only who may join makes this host send anything."""
        await self._tokens.find(request.secret)
        return await self._responder.answer(request)

    def _tls(self) -> grpc.ServerCertificateConfiguration:
        """Asked by grpc before every handshake: a renewed certificate is in use at once."""
        certificate, key = self._pki.pair(Profile.ENROLMENT)
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def _handler(
        self, shape: type[T], decide: Callable[[T], Awaitable[object]]
    ) -> grpc.RpcMethodHandler:
        async def handle(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                request = decode(data, shape)
                reply = await decide(request)
            except MeshnetError as error:
                self._log.warning(
                    "enrolment refused",
                    request=shape.__name__,
                    peer=context.peer(),
                    error=str(error),
                )
                await context.abort(status_of(error), str(error))
                raise
            self._log.info("enrolment", request=shape.__name__, peer=context.peer())
            return encode(reply)

        return grpc.unary_unary_rpc_method_handler(handle)
