"""A host of a Cilium cluster as others see it: its etcd, and its end of the tunnel.

python cilium_peer.py serve DIRECTORY ADDRESS    etcd with TLS, VXLAN that answers pings
python cilium_peer.py read DIRECTORY CLUSTER     what the files of `mesh access` show: JSON

It knows nothing of meshnet but the client of etcd that tests use. DIRECTORY has ca.crt,
server.{crt,key} for `serve`, and what `mesh access` wrote for `read`. Runs in a lab host.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

from meshnet.cli import etcd_config
from meshnet.errors import RegistryError
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from tests.support import cilium

VXLAN_PORT = 8472
ETCD_PORT = 2379
HEARTBEAT_S = 5.0


def etcd_argv(directory: Path, address: str) -> list[str]:
    url = f"https://{address}:{ETCD_PORT}"
    arguments = {
        "name": "cil",
        "data-dir": directory / "data",
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": "http://127.0.0.1:2380",
        "initial-advertise-peer-urls": "http://127.0.0.1:2380",
        "initial-cluster": "cil=http://127.0.0.1:2380",
        "trusted-ca-file": directory / "ca.crt",
        "cert-file": directory / "server.crt",
        "key-file": directory / "server.key",
        "log-level": "error",
        "logger": "zap",
    }
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    return ["etcd", *flags, "--client-cert-auth", "--unsafe-no-fsync"]


async def serve(directory: Path, address: str) -> None:
    etcd = subprocess.Popen(etcd_argv(directory, address), stdout=sys.stderr)
    tls = ClientTls(
        ca=directory / "ca.crt", cert=directory / "server.crt", key=directory / "server.key"
    )
    kv = EtcdKV([f"{address}:{ETCD_PORT}"], tls)
    try:
        await until_answers(kv)
        for key, value in cilium.keys(address).items():
            await kv.put(key, value.encode())
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(Tunnel, local_addr=(address, VXLAN_PORT))
        print("ready", flush=True)
        while True:
            await kv.put("cilium/.heartbeat", str(time.time()).encode())
            await asyncio.sleep(HEARTBEAT_S)
    finally:
        etcd.kill()
        etcd.wait()


async def until_answers(kv: EtcdKV) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(RegistryError):
                await kv.revision()
                return
            await asyncio.sleep(0.1)


class Tunnel(asyncio.DatagramProtocol):
    """Answers ICMP echo in VXLAN as the pod, and says what came: a JSON object a line."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        ethernet, ip = data[8:22], bytearray(data[22:])
        seen = {
            "vni": int.from_bytes(data[4:7], "big"),
            "source": socket.inet_ntoa(bytes(ip[12:16])),
            "destination": socket.inet_ntoa(bytes(ip[16:20])),
        }
        print(json.dumps(seen), flush=True)
        header = (ip[0] & 15) * 4
        if ip[9] != socket.IPPROTO_ICMP or ip[header] != 8:
            return
        ip[12:16], ip[16:20] = ip[16:20], ip[12:16]
        ip[header] = 0
        ip[header + 2 : header + 4] = bytes(2)
        ip[header + 2 : header + 4] = checksum(bytes(ip[header:]))
        vxlan = b"\x08\0\0\0" + cilium.IDENTITY.to_bytes(3, "big") + b"\0"
        frame = ethernet[6:12] + ethernet[:6] + ethernet[12:] + bytes(ip)
        self._transport.sendto(vxlan + frame, (source[0], VXLAN_PORT))


def checksum(data: bytes) -> bytes:
    """RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


async def read(directory: Path, cluster: str) -> None:
    text = (directory / cluster).read_text()
    files = {
        name: path.read_text() for name, path in etcd_config.named_files(text, directory).items()
    }
    config = etcd_config.read(text, files)
    access = config.access
    tls = ClientTls(ca=access.ca.encode(), cert=access.cert.encode(), key=access.key.encode())
    kv = EtcdKV(config.endpoints, tls, server=f"gateway of {cluster}")
    found: dict[str, str] = {}
    prefixes = (
        f"cilium/cluster-config/{cluster}",
        f"cilium/synced/{cluster}/",
        f"cilium/state/nodes/v1/{cluster}/",
        f"cilium/state/services/v1/{cluster}/",
        "cilium/state/ip/v1/default/",
        "cilium/state/identities/v1/id/",
    )
    for prefix in prefixes:
        pairs = (await kv.list(prefix)).pairs
        found |= {pair.key: pair.value.decode() for pair in pairs}
    await kv.close()
    print(json.dumps(found))


if __name__ == "__main__":
    verb, where, what = sys.argv[1:]
    asyncio.run((serve if verb == "serve" else read)(Path(where), what))
