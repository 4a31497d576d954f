"""The gateway's way to its own cluster's etcd: the node's certificate, one channel.

A new channel is made when the certificate file was replaced, and to the next member when
one does not answer. Streams that run keep the old channel alive, and close it by ending.
"""

from __future__ import annotations

import attrs
import grpc
import grpc.aio
from etcd3 import etcdrpc

from meshnet.config import EtcdSettings

_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    # grpc ignores keepalive_timeout_ms; without this a frozen etcd is noticed after 60 s
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.use_local_subchannel_pool", 1),
)


@attrs.frozen(eq=False)
class Member:
    """One etcd member, connected. Held by whoever has a call on it: dropped, it closes."""

    channel: grpc.aio.Channel
    kv: etcdrpc.KVStub
    watch: etcdrpc.WatchStub


class Upstream:
    """The members of one etcd, one of them in use."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._turn = 0
        self._made_for: bytes | None = None
        self._member: Member | None = None

    def member(self) -> Member:
        """The member in use, over the certificate that is now on disk."""
        certificate = _read(self._settings.cert)
        if self._member is None or certificate != self._made_for:
            self._member = self._connect(certificate)
            self._made_for = certificate
        return self._member

    def failed(self, member: Member) -> None:
        """That member did not answer: the next call goes to the next one."""
        if member is self._member:
            self._member = None
            self._turn += 1

    def _connect(self, certificate: bytes) -> Member:
        settings = self._settings
        endpoint = settings.endpoints[self._turn % len(settings.endpoints)]
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(settings.ca),
            private_key=_read(settings.key),
            certificate_chain=certificate,
        )
        channel = grpc.aio.secure_channel(endpoint, credentials, _OPTIONS)
        return Member(channel, etcdrpc.KVStub(channel), etcdrpc.WatchStub(channel))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
