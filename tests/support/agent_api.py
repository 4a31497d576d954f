"""An agent's local API without the agent: the same routes on a UNIX socket, over a dict.

It understands what it is told: an endpoint that was added is listed, one that was deleted
is not, a name that is taken is refused. So tests assert what became of it, not the calls.
"""

from __future__ import annotations

import contextlib
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from meshnet.errors import (
    AlreadyExists,
    Conflict,
    MeshnetError,
    NotFound,
    TokenRefused,
    Unreachable,
)
from meshnet.logic import settings
from meshnet.model.addressing import parse_prefix
from meshnet.model.cluster import Cluster
from tests.support.agent_manifests import FakeManifests

Json = Any


class FakeAgent(FakeManifests):
    """Node east-1 of cluster east (id 1), in a mesh with cluster west (id 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = True
        self.problems: list[dict[str, str]] = []
        self.netns = "/proc/self/ns/net"
        """Where endpoints are put whose namespace the agent would make."""
        self.elsewhere: list[dict[str, Json]] = []
        self.owners: list[tuple[str, int]] = []
        """Every owner that was ever told, with the endpoint's name."""
        self.remotes = [remote()]
        self.tokens: dict[str, dict[str, Json]] = {}
        self.left: list[str] = []
        self.rungs: list[Json] = []
        """Of `mesh troubleshoot`."""
        self.peers: list[Json] = []
        """What `mesh add` asked for."""
        self.ipam: list[dict[str, Json]] = []
        """What `ipam check` finds; with a key it can be mended."""
        self.renewals: list[bool] = []
        """For each `mesh access`."""
        self.drops: list[dict[str, Json]] = []
        self.drop_events: list[dict[str, Json]] = []
        self.cluster = Cluster(name="east", id=1, pod_cidrs=(parse_prefix("10.1.0.0/16"),))
        self.rotating = False
        self.plan_fails = False
        self.certificates: list[dict[str, Json]] = []
        self.unreachable: list[Unreachable] = []
        """What the requests to come fail with, the last one first."""
        self.broken = False
        """Answers are no JSON."""
        self.nodes = [
            {
                "name": f"{cluster}-{n}",
                "cluster": cluster,
                "addresses": [f"192.0.2.{net + n}"],
                "pod_cidrs": [f"10.{id}.{4 * n}.0/22"],
            }
            for cluster, id, net in (("east", 1, 0), ("west", 2, 10))
            for n in (2, 1)
        ]

    def ask_etcd(self) -> None:
        if self.unreachable:
            raise self.unreachable.pop()

    def add(self, name: str, namespace: str = "default", **changes: Json) -> dict[str, Json]:
        number = len(self.endpoints) + 1
        endpoint = {
            "name": name,
            "namespace": namespace,
            "cluster": "east",
            "node": "east-1",
            "id": number,
            "state": "ready",
            "identity": 65536 + 256 + number,
            "labels": {},
            "ipv4": f"10.1.4.{number + 1}",
            "ipv6": f"fd00:10:1::{number + 1:x}",
            "netns": self.netns,
            "ifname": "eth0",
            "host_ifname": f"mesh{number}",
            "ports": {},
            "log": None,
            "owner_pid": None,
            "owns_netns": True,
            "audit": False,
            **changes,
        }
        self.endpoints[namespace, name] = endpoint
        return endpoint

    # --- routes: method and path pattern -> method of this class -----------------------

    def get_status(self) -> Json:
        return {
            "ready": self.ready,
            "version": "0.1.0",
            "cluster": {"name": "east", "id": 1},
            "node": {"name": "east-1", "addresses": ["192.0.2.1"], "pod_cidrs": ["10.1.4.0/22"]},
            "etcd": {"connected": True, "revision": 812},
            "dataplane": {
                "loaded": True,
                "programs": 9,
                "maps": [{"name": "ipcache", "entries": 25, "max_entries": 100}],
            },
            "endpoints": len(self.endpoints),
            "identities": 3,
            "peers": [
                {
                    "node": "west-1",
                    "cluster": "west",
                    "mode": "vxlan",
                    "path_mtu_bytes": 1500,
                    "rtt_ms": 0.21,
                    "reachable": True,
                }
            ],
            "clusters": self.remotes,
            "certificates": self.certificates,
            "problems": self.problems,
        }

    def get_config(self) -> Json:
        return settings.get_all(self.cluster)

    def get_config_X(self, key: str) -> Json:
        return {"key": key, "value": settings.get(self.cluster, key)}

    def post_config_X(self, key: str, body: Json) -> Json:
        self.cluster = settings.changed(self.cluster, key, body["value"])
        return self.get_config_X(key)

    def get_ca(self) -> Json:
        names = ["old", "new"] if self.rotating else ["old"]
        return {
            "phase": "announce" if self.rotating else "stable",
            "epoch": len(names) - 1,
            "since": "2026-11-22T20:00:00Z",
            "authorities": [
                {
                    "authority": "mesh",
                    "name": f"CN={name}",
                    "fingerprint": f"{name:x<64}",
                    "expires_at": "2036-11-22T20:00:00Z",
                    "signs": name == "old",
                }
                for name in names
            ],
            "nodes": [{"node": "east-1", "signer": True, "trusts_new": False, "renewed": True}],
            "waiting_for": ["node east-1: it does not trust the new CAs yet"] * self.rotating,
        }

    def post_ca_rotate(self, body: Json) -> Json:
        if self.rotating:
            raise Conflict("the CAs of cluster 'east' are changing already (announce)")
        self.rotating = True
        return self.get_ca()

    def get_mesh(self) -> Json:
        return self.remotes

    def get_endpoints(self, scope: str = "node") -> Json:
        here = list(self.endpoints.values())
        return here if scope == "node" else here + self.elsewhere

    def get_endpoints_X_X(self, namespace: str, name: str) -> Json:
        try:
            return self.endpoints[namespace, name]
        except KeyError:
            raise NotFound(f"endpoint {namespace}/{name} is not on this node") from None

    def post_endpoints(self, body: Json) -> Json:
        if (body["namespace"], body["name"]) in self.endpoints:
            raise AlreadyExists(
                f"endpoint {body['namespace']}/{body['name']} exists on node east-1: "
                "choose another name or delete it"
            )
        given = {**body, "netns": body["netns"] or self.netns}
        return self.add(given.pop("name"), **given)

    def patch_endpoints_X_X(self, namespace: str, name: str, body: Json) -> Json:
        endpoint = self.get_endpoints_X_X(namespace, name)
        endpoint.update(body)
        self.owners.append((name, body["owner_pid"]))
        return endpoint

    def delete_endpoints_X_X(self, namespace: str, name: str) -> Json:
        self.get_endpoints_X_X(namespace, name)
        del self.endpoints[namespace, name]

    def get_identities(self) -> Json:
        labels = {"k8s:app": "web", "k8s:io.kubernetes.pod.namespace": "default"}
        return [
            {"number": 131400, "cluster": "west", "labels": labels},
            {"number": 65800, "cluster": "east", "labels": labels},
        ]

    def get_identities_X(self, number: str) -> Json:
        for identity in self.get_identities():
            if str(identity["number"]) == number:
                return identity
        raise NotFound(f"identity {number} is unknown")

    def get_nodes(self) -> Json:
        return self.nodes

    def get_nodes_X(self, name: str) -> Json:
        for node in self.nodes:
            if node["name"] == name:
                return node
        raise NotFound(f"node {name} is unknown")

    def delete_nodes_X(self, name: str) -> Json:
        self.nodes.remove(self.get_nodes_X(name))

    def get_ipam(self) -> Json:
        return self.ipam

    def post_ipam_fix(self, body: Json) -> Json:
        self.ipam = [finding for finding in self.ipam if not finding["key"]]
        return self.ipam

    def get_maps(self) -> Json:
        return self.get_status()["dataplane"]["maps"]

    def get_maps_X(self, name: str) -> Json:
        if name != "ipcache":
            raise NotFound(f"there is no map {name}")
        return [{"prefix": "10.1.4.2/32", "identity": 65800, "node": "192.0.2.1"}]

    def get_drops(self) -> Json:
        return self.drops

    def get_drops_events(self, last: str) -> Json:
        return self.drop_events[-int(last) :]

    def post_tokens(self, body: Json) -> Json:
        number = f"t{len(self.tokens) + 1}"
        self.tokens[number] = {"id": number, "expires_at": "2026-11-22T20:00:00Z", **body}
        return {"token": f"mnt1.{number}", "id": number, "expires_at": "2026-11-22T20:00:00Z"}

    def get_tokens(self) -> Json:
        return list(self.tokens.values())

    def delete_tokens_X(self, number: str) -> Json:
        if self.tokens.pop(number, None) is None:
            raise NotFound(f"token {number} is unknown: it may have been used or have expired")

    def post_mesh_join(self, body: Json) -> Json:
        if body["token"] != "mnt1.west":
            raise TokenRefused("token was used already: ask cluster west for a new one")
        ok = not self.plan_fails
        checks = [{"check": "pod-cidr", "ok": ok, "evidence": "10.2.0.0/16", "fix": ""}]
        return {"cluster": "west", "id": 2, "checks": checks, "joined": not body["plan"]}

    def post_mesh_leave(self, body: Json) -> Json:
        self.remotes = [each for each in self.remotes if each["name"] != body["cluster"]]

    def get_mesh_troubleshoot(self, cluster: str | None = None) -> Json:
        if cluster not in (None, "west"):
            raise NotFound(f"cluster {cluster!r} is not in the mesh; remotes: west")
        return self.rungs

    def post_mesh_peers(self, body: Json) -> Json:
        self.peers.append(body)
        checks = [{"check": "name", "ok": True, "evidence": "'cil' is free", "fix": ""}]
        return {"cluster": body["cluster"], "id": 7, "checks": checks}

    def post_mesh_access(self, body: Json) -> Json:
        if body["cluster"] != "cil":
            raise NotFound(
                f"cluster {body['cluster']} is not in the mesh: mesh add {body['cluster']}"
            )
        self.renewals.append(body["renew"])
        access = {"ca": "CA", "cert": "CERT", "key": "KEY", "names": {}}
        return {"cluster": "east", "endpoints": ["192.0.2.1:4243"], "access": access}

    def post_leave(self, body: Json) -> Json:
        self.left.append("force" if body["force"] else "drained")

    def post_endpoints_X_X_amend(self, namespace: str, name: str, body: Json) -> Json:
        endpoint = self.get_endpoints_X_X(namespace, name)
        for key, value in body.get("labels", {}).items():
            endpoint["labels"].pop(key, None)
            if value is not None:
                endpoint["labels"][key] = value
        endpoint["audit"] = body.get("audit", endpoint["audit"])
        return endpoint


def remote(name: str = "west", id: int = 2, **changes: Json) -> dict[str, Json]:
    """One row of `mesh status`."""
    return {
        "name": name,
        "id": id,
        "ready": True,
        "connected": True,
        "nodes": 2,
        "identities": 4,
        "endpoints": 2,
        "services": 0,
        "last_event_at": "2026-11-22T19:00:00Z",
        "reconnects": 0,
        "certificate_expires_at": "2026-11-29T19:00:00Z",
        "error": None,
        **changes,
    }


@contextlib.contextmanager
def serve(agent: FakeAgent, socket_path: Path) -> Iterator[None]:
    """Answer on the socket until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            status, answer = _answer(agent, self.command, self.path, self._body())
            raw = b"<html>" if agent.broken else json.dumps(answer).encode()
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_one

        def _body(self) -> Json:
            length = int(self.headers.get("Content-Length") or 0)
            return json.loads(self.rfile.read(length)) if length else None

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    socket_path.parent.mkdir(parents=True, exist_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(socket_path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            socket_path.unlink()


_PARAMETERS = {"endpoints": 2, "identities": 1, "nodes": 1, "maps": 1, "tokens": 1, "config": 1}


def _answer(agent: FakeAgent, method: str, target: str, body: Json) -> tuple[int, Json]:
    url = urlsplit(target)
    route, *rest = [unquote(part) for part in re.sub("^/v1/", "", url.path).split("/")]
    count = _PARAMETERS.get(route, 0)
    parameters = rest[:count] if len(rest) in (count, count + 1) else []
    verbs = rest[len(parameters) :]
    name = "_".join([method.lower(), route, *["X"] * len(parameters), *verbs])
    keywords: dict[str, Json] = {key: values[0] for key, values in parse_qs(url.query).items()}
    if body is not None:
        keywords["body"] = body
    try:
        agent.ask_etcd()
        return 200, getattr(agent, name)(*parameters, **keywords)
    except MeshnetError as error:
        told = {
            "type": type(error).__name__,
            "message": str(error),
            "exit_code": error.exit_code,
            "own_etcd": isinstance(error, Unreachable) and error.own_etcd,
        }
        return 409, {"error": told}
