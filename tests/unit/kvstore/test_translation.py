"""gRPC's words into ours: every reason by which a caller or an operator decides."""

from __future__ import annotations

import grpc
import pytest
from grpc import StatusCode

from meshnet.errors import (
    Compacted,
    Denied,
    LeaseLost,
    NotPermitted,
    RegistryError,
    Unreachable,
)
from meshnet.kvstore.channel import Connection, Connections, NeverSent, TooLarge

FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:192.0.2.1:2379: "
AT = "etcd at h:2379"


def translated(code: StatusCode, details: str) -> RegistryError:
    connections = Connections(["h:2379"], None, server="etcd")
    connection = Connection.__new__(Connection)
    connection.endpoint = "h:2379"
    nothing = grpc.aio.Metadata()
    return connections.translate(connection, grpc.aio.AioRpcError(code, nothing, nothing, details))


@pytest.mark.parametrize(
    ("code", "details", "kind", "message"),
    [
        (
            StatusCode.UNAVAILABLE,
            FAILED + "connect: Connection refused (111)",
            NeverSent,
            f"{AT} is unreachable: connection refused: is it running?",
        ),
        (
            StatusCode.UNAVAILABLE,
            FAILED + "SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed",
            NeverSent,
            f"{AT} is unreachable: TLS verification failed: our CA did not sign its certificate",
        ),
        (
            StatusCode.UNAVAILABLE,
            "etcdserver: no leader",
            Unreachable,
            f"{AT} is unreachable: it has no leader, its quorum is lost",
        ),
        (
            StatusCode.UNAVAILABLE,
            "ping timeout",
            Unreachable,
            f"{AT} is unreachable: it froze: no answer to a ping",
        ),
        (
            StatusCode.UNAVAILABLE,
            "Socket closed",
            Unreachable,
            f"{AT} is unreachable: it closed the connection",
        ),
        (
            StatusCode.DEADLINE_EXCEEDED,
            "Deadline Exceeded",
            Unreachable,
            f"{AT} is unreachable: no answer in time",
        ),
        (
            StatusCode.UNKNOWN,
            "something new",
            Unreachable,
            f"{AT} is unreachable: something new",
        ),
        (
            StatusCode.PERMISSION_DENIED,
            "etcdserver: permission denied",
            NotPermitted,
            f"{AT} refused: permission denied",
        ),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            Denied,
            f"{AT} refused: mvcc: database space exceeded",
        ),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max (70000000 vs. 67108864)",
            TooLarge,
            f"{AT}: an answer is over 64 MiB",
        ),
        (
            StatusCode.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
            Compacted,
            f"{AT}: etcdserver: mvcc: required revision has been compacted: list again",
        ),
        (
            StatusCode.NOT_FOUND,
            "etcdserver: requested lease not found",
            LeaseLost,
            "the lease is gone: put its keys again under a new one",
        ),
    ],
)
def test_a_failure_is_told_by_kind_place_and_reason(
    code: StatusCode, details: str, kind: type[RegistryError], message: str
) -> None:
    error = translated(code, details)
    assert type(error) is kind
    assert str(error) == message


def test_only_what_was_never_sent_may_be_sent_elsewhere() -> None:
    assert isinstance(translated(StatusCode.UNAVAILABLE, "errors resolving h:2379: x"), NeverSent)
    assert not isinstance(translated(StatusCode.UNAVAILABLE, "Socket closed"), NeverSent)
