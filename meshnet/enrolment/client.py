"""A joiner's way to the enrolment port of another's signers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import grpc
import grpc.aio

from meshnet.enrolment.faults import error_of
from meshnet.enrolment.messages import (
    SERVICE,
    AuthoritiesReply,
    AuthoritiesRequest,
    ChallengeReply,
    JoinMeshReply,
    JoinMeshRequest,
    JoinNodeReply,
    JoinNodeRequest,
    KeysReply,
    KeysRequest,
    Nothing,
    ProbeReply,
    ProbeRequest,
    RenewReply,
    RenewRequest,
    decode,
    encode,
)
from meshnet.errors import Refused, Unreachable
from meshnet.pki.certificate import Certificate, enrolment_name
from meshnet.pki.token import JoinToken

T = TypeVar("T")

TIMEOUT_S = 10.0
COMMIT_TIMEOUT_S = 30.0
"""The inviter reads from our gateways before it answers."""

_UNANSWERED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""Another signer may do better."""
_MISTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification")


class EnrolmentClient:
    """Asks each signer in turn until one answers.

    Nothing is sent before TLS has proven, against that cluster's mesh CA (or the two of
    them while they change), that a signer of it listens: its certificate must bear the
    role's name, whatever its address.
    """

    def __init__(
        self, cluster: str, endpoints: Sequence[str], authorities: Sequence[Certificate]
    ) -> None:
        self._cluster = cluster
        self._endpoints = tuple(endpoints)
        self._authorities = tuple(authorities)

    @property
    def answering(self) -> EnrolmentClient:
        """The same, but asking the signer alone that answered last."""
        return EnrolmentClient(self._cluster, self._endpoints[:1], self._authorities)

    @classmethod
    def of(cls, token: JoinToken) -> EnrolmentClient:
        return cls(token.cluster, token.endpoints, (token.ca,))

    async def join_node(self, request: JoinNodeRequest) -> JoinNodeReply:
        return await self._call("JoinNode", request, JoinNodeReply)

    async def renew(self, request: RenewRequest) -> RenewReply:
        return await self._call("Renew", request, RenewReply)

    async def challenge(self) -> ChallengeReply:
        return await self._call("Challenge", Nothing(), ChallengeReply)

    async def fetch_keys(self, request: KeysRequest) -> KeysReply:
        return await self._call("FetchKeys", request, KeysReply)

    async def authorities(self, request: AuthoritiesRequest) -> AuthoritiesReply:
        return await self._call("Authorities", request, AuthoritiesReply)

    async def plan_mesh(self, request: JoinMeshRequest) -> JoinMeshReply:
        return await self._call("PlanMesh", request, JoinMeshReply)

    async def prepare_mesh(self, request: JoinMeshRequest) -> JoinMeshReply:
        return await self._call("PrepareMesh", request, JoinMeshReply)

    async def commit_mesh(self, request: JoinMeshRequest) -> JoinMeshReply:
        return await self._call("CommitMesh", request, JoinMeshReply, timeout_s=COMMIT_TIMEOUT_S)

    async def probe_tunnel(self, request: ProbeRequest) -> ProbeReply:
        return await self._call("ProbeTunnel", request, ProbeReply)

    async def abort_mesh(self, request: JoinMeshRequest) -> Nothing:
        return await self._call("AbortMesh", request, Nothing)

    async def _call(
        self, method: str, request: object, shape: type[T], *, timeout_s: float = TIMEOUT_S
    ) -> T:
        """Raises what the signer raised; Unreachable when none answers; Refused when who
        answers is not a signer of that cluster."""
        failures: list[str] = []
        for endpoint in self._endpoints:
            try:
                answer = await self._ask(endpoint, method, encode(request), timeout_s)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
                if any(sign in details for sign in _MISTRUSTED):
                    raise Refused(
                        f"{endpoint} is no signer of cluster {self._cluster!r}: its certificate "
                        "is not signed by that cluster's mesh CA, or a clock is wrong"
                    ) from error
                if code not in _UNANSWERED:
                    raise error_of(code, details) from error
                failures.append(f"{endpoint}: {_spoken(code, details)}")
            else:
                others = (each for each in self._endpoints if each != endpoint)
                self._endpoints = (endpoint, *others)  # the next question begins here
                return decode(answer, shape)
        raise Unreachable(
            f"no signer of cluster {self._cluster!r} answers: {'; '.join(failures) or 'none known'}"
        )

    async def _ask(self, endpoint: str, method: str, data: bytes, timeout_s: float) -> bytes:
        options = (
            ("grpc.ssl_target_name_override", enrolment_name(self._cluster)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
        )
        credentials = grpc.ssl_channel_credentials(
            root_certificates=b"".join(ca.pem for ca in self._authorities)
        )
        async with grpc.aio.secure_channel(endpoint, credentials, options) as channel:
            call = channel.unary_unary(f"/{SERVICE}/{method}")
            answer: bytes = await call(data, timeout=timeout_s)
            return answer


def _spoken(code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    return "connection refused" if "Connection refused" in details else details
