"""What this node serves to others: the mesh gateway, and enrolment where it is a signer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from meshnet.agent.local import LocalNode
from meshnet.agent.start import etcd_tls
from meshnet.config import Settings
from meshnet.enrolment.nodes import Contacts
from meshnet.enrolment.server import EnrolmentServer
from meshnet.enrolment.tunnel import TunnelSide
from meshnet.gateway.server import Gateway
from meshnet.kvstore.api import KV
from meshnet.kvstore.channel import Connections
from meshnet.model.addressing import Address
from meshnet.model.cluster import ENROLMENT_PORT, ETCD_PORT, GATEWAY_PORT
from meshnet.model.remote import Remote
from meshnet.pki.store import PkiStore


class Trust:
    """Owns the node's two public ports."""

    def __init__(
        self,
        settings: Settings,
        local: LocalNode,
        kv: KV,
        pki: PkiStore,
        lifetime: Callable[[], timedelta],
    ) -> None:
        self._lifetime = lifetime
        self._settings = settings
        self._local = local
        self._kv = kv
        self._pki = pki
        self._etcd = Connections(settings.etcd.endpoints, etcd_tls(settings), server="etcd")
        self._gateway = Gateway(local.cluster.name, pki, self._etcd)

    @property
    def own_signer(self) -> str | None:
        """This node's enrolment port, where it is a signer."""
        if not self._settings.signer:
            return None
        return host_port(self._local.underlay.addresses[0], ENROLMENT_PORT)

    @property
    def signers(self) -> tuple[str, ...]:
        """Enrolment ports that a new token should name."""
        known = self._pki.signers()
        own = self.own_signer
        if own is None:
            return known
        return (own, *(endpoint for endpoint in known if endpoint != own))

    def remotes_changed(self, remotes: list[Remote]) -> None:
        """Whom the gateway admits from now on."""
        self._gateway.set_remotes(remotes)

    async def run(self) -> None:
        """Serve until cancelled."""
        addresses = self._local.underlay.addresses
        await self._gateway.start(host_port(address, GATEWAY_PORT) for address in addresses)
        enrolment = self._enrolment() if self._settings.signer else None
        if enrolment is not None:
            await enrolment.start(host_port(address, ENROLMENT_PORT) for address in addresses)
        try:
            await asyncio.Event().wait()
        finally:
            await self._gateway.stop()
            if enrolment is not None:
                await enrolment.stop()
            await self._etcd.close()

    def _enrolment(self) -> EnrolmentServer:
        return EnrolmentServer.of(
            self._kv,
            self._local.cluster,
            self._pki,
            self._contacts,
            tunnel_side(self._local),
            lifetime=self._lifetime,
        )

    def _contacts(self) -> Contacts:
        """As they are now: signers come and go."""
        return Contacts(etcd_endpoints=self._etcd_endpoints(), signers=self.signers)

    def _etcd_endpoints(self) -> tuple[str, ...]:
        """As other nodes reach it."""
        if self._settings.etcd.managed:
            return (host_port(self._local.underlay.addresses[0], ETCD_PORT),)
        return self._settings.etcd.endpoints


def tunnel_side(local: LocalNode) -> TunnelSide:
    """Where this node's tunnel ends, for whoever joins and wants to try it."""
    return TunnelSide(
        ifname=local.underlay.ifname,
        addresses=local.underlay.addresses,
        mtu=local.underlay.mtu,
        sends=local.cluster.tunnel.value,
    )


def host_port(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
