"""Manifests and policy of an agent without the agent: what was applied is what there is."""

from __future__ import annotations

from typing import Any

from meshnet.errors import NotFound

Json = Any


class FakeManifests:
    """A part of FakeAgent: its routes under /v1/manifests, /v1/policies and /v1/why."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[str, str, str], Json] = {}
        self.endpoints: dict[tuple[str, str], dict[str, Json]] = {}

    # --- policy ---------------------------------------------------------------------------

    def get_policies(self) -> Json:
        return [
            {"kind": kind, "namespace": namespace, "name": name, "audit": False, "rules": 1,
             "origin": "east",
             "default_deny": ["ingress"], "endpoints": []}
            for kind, namespace, name in sorted(self.manifests)
        ]  # fmt: skip

    def post_policies_plan(self, body: Json) -> Json:
        return [
            {"identity": 65800, "labels": "", "direction": "ingress", "remote": "everybody else",
             "remote_labels": "", "before": ["everything"], "after": ["nothing"]}
            for change in self.post_manifests_diff(body)
            if change["action"] != "unchanged"
        ]  # fmt: skip

    def get_why(self, source: str, destination: str, port: str = "80/tcp") -> Json:
        for name in (source, destination):
            if name not in ("world", *(name for _, name in self.endpoints)):
                raise NotFound(f"{name!r} is no endpoint, address or entity that is known")
        denied, unknown = source == "world", {source, destination} == {"world"}
        policy = {"policy": "NetworkPolicy default/web", "place": "spec.ingress[0]"}
        return {
            "source": source, "destination": destination, "port": port,
            "verdict": "unknown" if unknown else "denied" if denied else "allowed",
            "direction": "ingress" if denied else "",
            "rules": [] if denied else [{"direction": "ingress", "deny": False, "audit": False,
                                         **policy}],
            "missing": "no rule of NetworkPolicy default/web allows it" if denied else "",
            "path": [{"hook": "deliver_local", "node": "east-1", "decision": "ingress"}],
            "not_asked": [{"direction": "egress", "endpoint": f"west/default/{source}",
                           "cluster": "west"}] if source == "far" else [],
            "seen": [],
        }  # fmt: skip

    # --- manifests ------------------------------------------------------------------------

    def get_manifests(self, kind: str, namespace: str | None = None, name: str = "") -> Json:
        found = [
            document
            for (what, where, called), document in sorted(self.manifests.items())
            if what.lower() == kind and namespace in (None, where) and name in ("", called)
        ]
        if name and not found:
            raise NotFound(f"no {kind} {name}")
        return found

    def post_manifests_apply(self, body: Json) -> Json:
        changes = self.post_manifests_diff(body)
        for change in changes:
            key = (change["kind"], change["namespace"], change["name"])
            self.manifests[key] = change["after"]
        return changes

    def post_manifests_diff(self, body: Json) -> Json:
        return [self._change(document) for document in body["documents"]]

    def post_manifests_delete(self, body: Json) -> Json:
        keys = [(key["kind"], key["namespace"], key["name"]) for key in body["keys"]]
        for key in keys:
            if key not in self.manifests:
                raise NotFound(f"{key} is not applied")
        return [
            {"kind": k, "namespace": ns, "name": n, "action": "deleted",
             "before": self.manifests.pop((k, ns, n)), "after": None}
            for k, ns, n in keys
        ]  # fmt: skip

    def _change(self, document: Json) -> Json:
        metadata = document["metadata"]
        key = (document["kind"], metadata.get("namespace", ""), metadata["name"])
        before = self.manifests.get(key)
        same = "unchanged" if before == document else "configured"
        return {
            "kind": key[0],
            "namespace": key[1],
            "name": key[2],
            "action": same if before else "created",
            "before": before,
            "after": document,
        }
