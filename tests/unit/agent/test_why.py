"""`why`, from what the agent has in its tables: pairs, addresses, entities, services."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from meshnet.agent import views
from meshnet.agent import why as explained
from meshnet.agent.context import Context
from meshnet.errors import NotFound, UsageError
from meshnet.model.addressing import host_prefix, parse_prefix
from meshnet.model.endpoint import IpEntry
from meshnet.model.remote import Remote
from meshnet.model.service import Protocol, RemoteService
from meshnet.registry import schema
from tests.support.policed import POLICY, World


def why(world: World, source: str, destination: str, port: str | None = "80/tcp") -> Any:
    return explained.why(world.context(), source, destination, port)


async def test_why_names_the_rule_that_allows_and_the_one_that_is_missing(world: World) -> None:
    assert why(world, "other", "web")["verdict"] == "allowed"
    world.apply(POLICY)
    allowed = why(world, "api", "web")
    assert allowed["verdict"] == "allowed"
    (rule,) = allowed["rules"]
    assert (rule["policy"], rule["place"]) == ("NetworkPolicy default/web", "spec.ingress[0]")
    assert [step["hook"] for step in allowed["path"]] == ["from_endpoint", "deliver_local"]
    for source, port in (
        ("other", "80/tcp"),
        ("api", "81/tcp"),
        ("api", "8/icmp"),
        ("host", "80/tcp"),
    ):
        denied = why(world, source, "web", port)
        assert (denied["verdict"], denied["direction"]) == ("denied", "ingress"), source
        assert denied["missing"] == "no rule of NetworkPolicy default/web allows it"


async def test_why_takes_addresses_and_entities(world: World) -> None:
    world.apply(POLICY)
    web = world.node.endpoints.get("default", "web")
    assert why(world, "default/api", str(web.ipv4))["verdict"] == "allowed"
    assert why(world, "web", "198.51.100.9")["verdict"] == "allowed"
    denied = why(world, "east/default/web", "203.0.113.1")
    assert (denied["verdict"], denied["direction"]) == ("denied", "egress")
    assert why(world, "east/web", "203.0.113.1") == denied, "what stands before one slash is either"
    assert why(world, "web", "world")["verdict"] == "denied", "the world as such is more than it"
    with pytest.raises(NotFound, match="'nobody' is no endpoint"):
        why(world, "nobody", "web")
    with pytest.raises(UsageError, match="80/quic"):
        why(world, "api", "web", "80/quic")


async def far_end(world: World, name: str, address: str, number: int) -> None:
    """An endpoint of cluster west, as its mirror tells of it."""
    remote = Remote(name="west", id=2, mesh_ca="", pod_cidrs=(), gateways=())
    tables = world.node.view.tables
    tables.remotes.items[schema.remote("west")] = remote
    entry = IpEntry(
        prefix=parse_prefix(address), host=ip_address("172.31.0.21"), node="west-1",
        identity=number, name=name, namespace="default",
    )  # fmt: skip
    tables.cached_ips.items[f"{schema.CACHE_IPS}west/{address}"] = entry
    world.identity(number, cluster="west", app=name)
    world.node.view.observe()


async def test_an_end_in_another_cluster_is_named_as_not_asked(world: World) -> None:
    await far_end(world, "db", "10.2.0.1/32", 0x20101)
    to_west = why(world, "api", "west/default/db")
    assert to_west["verdict"] == "allowed", "by the only end that is ours"
    assert [step["decision"] for step in to_west["path"]] == [
        "egress allowed", "ingress decided in cluster west: ask there",
    ]  # fmt: skip
    assert to_west["not_asked"] == [
        {"direction": "ingress", "endpoint": "west/default/db", "cluster": "west"}
    ]
    world.apply(POLICY)
    for source, destination, denied, open_end in (
        ("web", "10.2.0.1", "egress", "ingress"),
        ("west/default/db", "web", "ingress", "egress"),
    ):
        answer = why(world, source, destination)
        assert (answer["verdict"], answer["direction"]) == ("denied", denied)
        assert [end["direction"] for end in answer["not_asked"]] == [open_end]
    assert why(world, "other", "api")["not_asked"] == []


async def test_what_nobody_here_decides_is_unknown(world: World) -> None:
    await far_end(world, "db", "10.2.0.1/32", 0x20101)
    await far_end(world, "cache", "10.2.0.2/32", 0x20102)
    among_others = why(world, "west/default/db", "west/default/cache")
    assert (among_others["verdict"], among_others["direction"]) == ("unknown", "")
    assert among_others["missing"] == "no end of it is an endpoint of cluster east"
    assert [end["direction"] for end in among_others["not_asked"]] == ["egress", "ingress"]
    for source in ("world", "host", "203.0.113.1"):
        nobody = why(world, source, "world")
        assert (nobody["verdict"], nobody["not_asked"]) == ("unknown", []), source


async def test_why_tells_of_packets_that_the_receiver_got_from_the_sender(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, web = (world.node.endpoints.get("default", name) for name in ("api", "web"))
    seen = {"endpoint_id": web.id, "identity": api.identity, "packets": 7}
    monkeypatch.setattr(world.node.dataplane, "seen_identities", lambda: [seen])
    assert why(world, "api", "web")["seen"] == [seen]
    assert why(world, "other", "web")["seen"] == why(world, "web", "api")["seen"] == []


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {app: %s}, ports: [{name: http, port: %s, targetPort: %s}], clusterIP: %s}
"""
VIP = "100.64.0.9"


async def ask(world: World, source: str, destination: str, port: str | None = None) -> Any:
    return explained.why(await resolved(world), source, destination, port)


async def resolved(world: World) -> Context:
    """With services resolved as the agent's own loop does."""
    ips = world.node.view.tables.ips
    for endpoint in world.node.endpoints.list():
        for address in (endpoint.ipv4, endpoint.ipv6):
            assert address is not None
            ips.items[schema.ip(address)] = IpEntry(
                prefix=host_prefix(address), host=ip_address("172.31.0.11"), node="east-1",
                identity=endpoint.identity, name=endpoint.name, namespace="default",
            )  # fmt: skip
    addresses = world.node.view.tables.service_addresses
    addresses.items["a"] = (ip_address(VIP), ("default", "front"))
    context = world.context()
    await context.services.reconcile()
    return context


async def test_a_service_is_answered_for_by_its_backends_at_their_ports(world: World) -> None:
    world.apply(SERVICE % ("front", "web", 8000, 80, VIP))
    world.apply(POLICY)
    for name in ("front", "default/front", "east/default/front", "front.default.svc", VIP):
        answer = await ask(world, "api", name)
        assert (answer["verdict"], answer["destination"]) == ("allowed", "service default/front")
        assert answer["port"] == "8000/tcp", "the only one it has"
    assert [each["destination"] for each in answer["backends"]] == ["east/default/web"] * 2
    assert {each["port"] for each in answer["backends"]} == {"80/tcp"}
    (rule,) = answer["rules"]
    assert rule["place"] == "spec.ingress[0]"
    denied = await ask(world, "other", "front", "8000/tcp")
    assert (denied["verdict"], denied["direction"]) == ("denied", "ingress")
    assert denied["missing"] == "no rule of NetworkPolicy default/web allows it"
    assert (await ask(world, "front", "api"))["direction"] == "egress", "a service as the source"
    assert (await ask(world, "other", "web", "80/tcp"))["destination"] == "east/default/web"


async def test_one_denied_backend_is_enough_unless_it_takes_no_clients(world: World) -> None:
    world.apply((SERVICE % ("front", "web", 80, 80, VIP)).replace("{app: web}", "{tier: front}"))
    world.apply(POLICY)
    for name in ("web", "api"):
        amended = await world.node.endpoints.amend("default", name, labels={"tier": "front"})
        world.identity(amended.identity, app=name, tier="front")
    answer = await ask(world, "other", "front")
    assert answer["verdict"] == "denied"
    assert [each["verdict"] for each in answer["backends"]].count("allowed") == 2
    web = world.node.endpoints.get("default", "web")
    failing = {
        backend.at: "connection refused"
        for port in world.services.resolved["default", "front"].ports
        for backend in port.backends
        if backend.at.address in (web.ipv4, web.ipv6)
    }
    world.node.view.tables.health.items["h"] = failing
    assert (await ask(world, "other", "front"))["verdict"] == "allowed"


async def test_backends_in_another_cluster_are_not_asked(world: World) -> None:
    shared = "{name: front, annotations: {service.cilium.io/global: 'true'}}"
    world.apply((SERVICE % ("front", "web", 80, 80, VIP)).replace("{name: front}", shared))
    await far_end(world, "db", "10.2.0.1/32", 0x20101)
    world.node.view.tables.cached_services.items["s"] = RemoteService(
        cluster="west", cluster_id=2, namespace="default", name="front",
        backends={ip_address("10.2.0.1"): {"http": (Protocol.TCP, 80)}},
    )  # fmt: skip
    unasked = {"direction": "ingress", "endpoint": "west/default/db", "cluster": "west"}
    ours = await ask(world, "api", "front")
    assert (ours["verdict"], ours["not_asked"]) == ("allowed", [unasked])
    assert [len(each["not_asked"]) for each in ours["backends"]] == [0, 1, 0]
    world_wide = await ask(world, "world", "front")
    assert [each["verdict"] for each in world_wide["backends"]] == ["allowed", "unknown", "allowed"]
    assert (world_wide["verdict"], world_wide["not_asked"]) == ("unknown", [unasked])
    world.apply(POLICY)
    assert (await ask(world, "world", "front"))["verdict"] == "denied", "before unknown"


async def test_a_question_reads_the_tables_once_whatever_the_number_of_backends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply((SERVICE % ("front", "web", 80, 80, VIP)).replace("{app: web}", "{tier: front}"))
    for name in ("web", "other"):
        amended = await world.node.endpoints.amend("default", name, labels={"tier": "front"})
        world.identity(amended.identity, app=name, tier="front")
    context = await resolved(world)
    read: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counting(*args: Any) -> Any:
            read[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, name, counting)

    counted(views, "endpoints")
    counted(world.node.dataplane, "seen_identities")
    counted(world.node.view, "labels")
    answer = explained.why(context, "api", "front")
    assert len(answer["backends"]) == 4
    assert read == {"endpoints": 1, "seen_identities": 1, "labels": 2}, "one of them the list's"


async def test_a_service_that_nobody_answers_for_is_said_to_be_so(world: World) -> None:
    world.apply(SERVICE % ("front", "nobody", 80, 80, VIP))
    with pytest.raises(NotFound, match="default/front has no backend"):
        await ask(world, "api", "front")
    world.apply(SERVICE % ("front", "web", 80, 80, VIP))
    with pytest.raises(NotFound, match="no port 81/tcp: it has 80/tcp"):
        await ask(world, "api", "front", "81/tcp")
    with pytest.raises(NotFound, match="'west/default/front' is no endpoint, service"):
        await ask(world, "api", "west/default/front")
    world.apply(SERVICE % ("flat", "web", 80, 80, "None"))
    world.apply(POLICY)
    answer = await ask(world, "api", "flat", "81/tcp")
    assert answer["backends"][0]["port"] == "81/tcp", "headless: only a name"
    assert answer["verdict"] == "denied"
    named = "apiVersion: v1\nkind: Service\nmetadata: {name: far}\nspec: {type: ExternalName, "
    world.apply(named + "externalName: db.example.com}")
    with pytest.raises(NotFound, match="another name for db"):
        await ask(world, "api", "far")
