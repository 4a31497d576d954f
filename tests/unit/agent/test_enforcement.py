"""From manifests in the tables to rows of the dataplane, across changes and restarts."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
import yaml

from meshnet.agent.endpoint_facts import EndpointRequest
from meshnet.errors import MapFull
from meshnet.manifests.kinds import read_manifest
from meshnet.model.manifest import SharedManifest
from meshnet.model.policy import Direction
from meshnet.model.remote import Remote
from meshnet.model.ruling import Verdict
from meshnet.registry import codec, schema
from tests.support.node import CLUSTER, Node
from tests.support.policed import World

WEST_API = 2 << 16 | 400
ALLOW, DENY, AUDIT = Verdict.ALLOW, Verdict.DENY, Verdict.AUDIT


@pytest.fixture
async def world(tmp_path: Path) -> World:
    node = Node(tmp_path)
    await node.prove()
    return World(node)


async def start(world: World, **labels: str) -> None:
    request = EndpointRequest(name="web", labels=labels, ports={"http": "8080/tcp"})
    await world.node.endpoints.create(request)


FROM_API = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web%s}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: %s}]}]
"""
API = 65536 + 700


async def test_an_endpoint_is_policed_from_its_first_row_on(world: World) -> None:
    world.apply(FROM_API % ("", "http"))
    world.identity(API, app="api")
    await start(world, app="web")
    assert world.row.policy_id != 0
    assert (world.judge(API, 8080), world.judge(API, 80), world.judge(1, 8080)) == (
        ALLOW, DENY, DENY,
    )  # fmt: skip
    assert world.judge(API, 1, Direction.EGRESS) is ALLOW


async def test_an_endpoint_that_nothing_selects_has_no_policy(world: World) -> None:
    world.apply(FROM_API % ("", "http"))
    await start(world, app="other")
    assert world.row.policy_id == 0


async def test_changes_have_other_numbers_and_nothing_old_is_left(world: World) -> None:
    await start(world, app="web")
    world.identity(API, app="api")
    world.apply(FROM_API % ("", 80))
    first = world.row
    rows = len(world.node.dataplane.policy())
    world.apply(FROM_API % ("", 81))
    assert world.row.policy_id != first.policy_id
    assert world.row.policy_epoch > first.policy_epoch
    assert (world.judge(API, 80), world.judge(API, 81)) == (DENY, ALLOW)
    assert len(world.node.dataplane.policy()) == rows
    world.delete_all()
    assert world.row.policy_id == 0
    assert (world.node.dataplane.policy(), world.node.dataplane.policy_classes()) == ({}, set())


async def test_a_new_identity_adds_its_rows_under_the_same_number(world: World) -> None:
    await start(world, app="web")
    world.apply(FROM_API % ("", 80))
    before = world.row
    assert world.judge(API, 80) is DENY
    world.identity(API, app="api")
    assert world.judge(API, 80) is ALLOW
    assert world.row.policy_id == before.policy_id
    assert world.row.policy_epoch > before.policy_epoch
    calm = world.row.policy_epoch
    world.identity(API + 1, app="unrelated")
    assert world.row.policy_epoch == calm, "who nobody selects disturbs nobody"


async def test_what_a_full_map_did_not_take_is_written_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(world, app="web")
    world.apply(FROM_API % ("", 80))
    world.identity(API, app="api")
    before, kept = world.row, world.node.dataplane.policy()

    with monkeypatch.context() as patch:
        patch.setattr(world.node.dataplane, "write_policy", no_room)
        for _ in range(2):
            with pytest.raises(MapFull):
                world.apply(FROM_API % ("", 81))
    assert (world.row, world.node.dataplane.policy()) == (before, kept)

    world.settle()
    assert (world.judge(API, 80), world.judge(API, 81)) == (DENY, ALLOW)
    assert {key.policy_id for key in world.node.dataplane.policy()} == {world.row.policy_id}
    assert world.row.policy_epoch > before.policy_epoch


async def test_what_could_not_be_removed_is_removed_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(world, app="web")
    world.apply(FROM_API % ("", 80))
    with monkeypatch.context() as patch:
        patch.setattr(world.node.dataplane, "remove_policy", no_room)
        with pytest.raises(MapFull):
            world.delete_all()
    world.settle()
    assert (world.node.dataplane.policy(), world.node.dataplane.policy_classes()) == ({}, set())


def no_room(*_: object) -> None:
    raise MapFull("policy", capacity=1)


async def test_a_restarted_agent_keeps_what_is_enforced_until_it_knows_better(
    world: World, tmp_path: Path
) -> None:
    world.apply(FROM_API % ("", 80))
    world.identity(API, app="api")
    await start(world, app="web")
    before, manifests = world.row, dict(world.node.view.tables.manifests.items)
    identities = dict(world.node.view.tables.identities.items)
    world.node.start_agent()
    for table in world.node.view.tables:
        table.synced = False
    await world.node.endpoints.restore()
    assert world.row == before
    assert (world.judge(API, 80), world.judge(API, 81)) == (ALLOW, DENY)
    world.node.view.tables.manifests.items = manifests
    world.node.view.tables.identities.items = identities
    for table in world.node.view.tables:
        table.synced = True
    world.settle()
    assert (world.judge(API, 80), world.judge(API, 81)) == (ALLOW, DENY)
    assert {key.policy_id for key in world.node.dataplane.policy()} == {world.row.policy_id}


async def test_prefixes_have_numbers_that_last_until_the_ipcache_followed(world: World) -> None:
    cidr = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {}
  egress: [{toCIDR: [%s]}]
"""
    await start(world, app="web")
    world.apply(cidr % "10.0.0.0/8, 10.1.0.0/16")
    numbers = {str(p): n for p, n in world.node.enforcement.prefixes.items()}
    inner = numbers["10.1.0.0/16"]
    assert world.judge(inner, 80, Direction.EGRESS) is ALLOW
    manifest = read_manifest(yaml.safe_load(cidr % "10.0.0.0/8"))
    world.node.view.tables.manifests.items[codec.manifest_key(manifest.key)] = manifest
    world.node.enforcement.reconcile()
    assert list(map(str, world.node.enforcement.prefixes)) == ["10.0.0.0/8"]
    assert world.judge(inner, 80, Direction.EGRESS) is ALLOW, "the ipcache still gives it"
    world.node.enforcement.sweep()
    assert world.judge(inner, 80, Direction.EGRESS) is DENY


async def test_named_ports_of_others_come_with_their_addresses(world: World) -> None:
    from meshnet.logic.stale import Effective
    from meshnet.model.addressing import host_prefix
    from meshnet.model.endpoint import IpEntry

    await start(world, app="web")
    world.apply("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: db}]}]}
""")
    world.identity(API, app="db")
    assert world.judge(API, 5432, Direction.EGRESS) is DENY
    entry = IpEntry(prefix=host_prefix(ip_address("10.1.9.9")), host=None, identity=API,
                    named_ports={"db": "5432/tcp"})  # fmt: skip
    ips = world.node.view.tables.ips
    ips.items[schema.ip(ip_address("10.1.9.9"))] = entry
    world.node.view.observe()
    assert isinstance(world.node.view.clusters["east"], Effective)
    world.settle()
    assert world.judge(API, 5432, Direction.EGRESS) is ALLOW
    assert world.judge(WEST_API, 5432, Direction.EGRESS) is DENY


async def test_a_live_endpoint_obeys_the_policy_of_its_new_labels(world: World) -> None:
    world.apply(FROM_API % ("", 80))
    world.identity(API, app="api")
    await start(world, app="other")
    before = world.row
    amended = await world.node.endpoints.amend("default", "web", labels={"app": "web"})
    assert amended.labels == {"app": "web"}
    assert world.row.identity == amended.identity != before.identity
    assert (world.judge(API, 80), world.judge(1, 80)) == (ALLOW, DENY)
    await world.node.endpoints.amend("default", "web", labels={"app": None})
    assert world.row.policy_id == 0
    assert (await world.node.kv.get(schema.ip(amended.ipv4))) is not None


async def test_an_audited_endpoint_stays_so_over_a_restart(world: World) -> None:
    world.apply(FROM_API % ("", 80))
    await start(world, app="web")
    await world.node.endpoints.amend("default", "web", audit=True)
    assert world.judge(1, 80) is AUDIT
    world.node.start_agent()
    await world.node.endpoints.restore()
    assert world.node.endpoints.get("default", "web").audit
    assert world.judge(1, 80) is AUDIT or world.row.audit


TO_SERVICES = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {}
  egress: [{toServices: [%s]}]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: store, labels: {tier: data}, annotations: {service.cilium.io/global: "%s"}}
spec: {%s ports: [{port: 80, targetPort: 8080}]}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: store-1, labels: {kubernetes.io/service-name: store}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [198.51.100.7]}]
"""
BY_NAME = "{k8sService: {serviceName: store, namespace: default}}"


@pytest.mark.parametrize(
    "said", [BY_NAME, "{k8sServiceSelector: {selector: {matchLabels: {tier: data}}}}"]
)
async def test_a_service_is_whoever_its_selector_finds_here(world: World, said: str) -> None:
    await start(world, app="web")
    world.identity(API, app="db")
    world.identity(WEST_API, "west", app="db")
    world.apply(TO_SERVICES % said)
    assert world.judge(API, 8080, Direction.EGRESS) is DENY, "there is no such service"
    world.apply(SERVICE % ("false", "selector: {app: db},"))
    assert world.judge(API, 8080, Direction.EGRESS) is ALLOW
    assert world.judge(WEST_API, 8080, Direction.EGRESS) is DENY
    world.apply(SERVICE % ("true", "selector: {app: db},"))
    assert world.judge(WEST_API, 8080, Direction.EGRESS) is ALLOW, "it is in every cluster now"
    world.apply(SERVICE % ("true", "selector: {app: other},"))
    assert world.judge(API, 8080, Direction.EGRESS) is DENY


async def test_a_service_without_a_selector_is_the_hosts_of_its_slices(world: World) -> None:
    await start(world, app="web")
    world.identity(API, app="db")
    world.apply(SERVICE % ("false", ""))
    world.apply(TO_SERVICES % BY_NAME)
    assert world.node.enforcement.prefixes == {}
    world.apply(SLICE)
    ((prefix, number),) = world.node.enforcement.prefixes.items()
    assert str(prefix) == "198.51.100.7/32"
    assert world.judge(number, 8080, Direction.EGRESS) is ALLOW
    assert world.judge(API, 8080, Direction.EGRESS) is DENY
    assert world.judge(2, 8080, Direction.EGRESS) is DENY, "the rest of the world"


async def test_a_change_of_a_service_that_no_policy_names_disturbs_nobody(world: World) -> None:
    await start(world, app="web")
    world.apply(TO_SERVICES % "{k8sService: {serviceName: other}}")
    before = world.row
    world.apply(SERVICE % ("false", "selector: {app: db},"))
    assert world.row == before


async def test_whom_a_selector_without_a_cluster_means_follows_the_setting(world: World) -> None:
    await start(world, app="web")
    world.identity(API, app="api")
    world.identity(WEST_API, "west", app="api")
    world.apply(FROM_API % ("", 80))
    assert (world.judge(API, 80), world.judge(WEST_API, 80)) == (ALLOW, DENY)
    before = world.row
    for local_only, of_west in ((False, ALLOW), (True, DENY)):
        config = world.node.view.tables.config.items
        config[schema.CONFIG] = attrs.evolve(CLUSTER, policy_default_local=local_only)
        world.node.view.observe()
        world.settle()
        assert (world.judge(API, 80), world.judge(WEST_API, 80)) == (ALLOW, of_west)
        assert world.row.policy_id != before.policy_id, "rules never change under one number"
        before = world.row
    config.clear()
    world.node.view.observe()
    world.settle()
    assert world.row == before, "what was agreed on stays when its key is lost"


OF_MESH = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, annotations: {meshnet.io/scope: mesh}}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: %s}}}]}]
"""
FROM_ALL = OF_MESH.partition("  ingress")[0] + "  ingress: [{}]"


def asked(world: World, origin: str, text: str) -> None:
    """As the leader mirrored it from another cluster, of which we may take policies or not."""
    manifest = read_manifest(yaml.safe_load(text))
    key = f"{schema.cache_manifests(origin)}networkpolicy/default/{manifest.key.name}"
    tables = world.node.view.tables
    tables.cached_manifests.items[key] = SharedManifest(origin=origin, manifest=manifest)
    remote = Remote(name=origin, id=2, mesh_ca="", pod_cidrs=(), gateways=())
    tables.remotes.items[schema.remote(origin)] = remote
    world.settle()


def take_from(world: World, *origins: str) -> None:
    config = world.node.view.tables.config.items
    config[schema.CONFIG] = attrs.evolve(CLUSTER, policies_from=origins)
    world.node.view.observe()
    world.settle()


async def test_another_clusters_policies_hold_where_they_are_taken_and_only_close(
    world: World,
) -> None:
    await start(world, app="web")
    world.identity(API, app="api")
    world.identity(API + 1, app="client")
    asked(world, "west", OF_MESH % "api")
    assert world.row.policy_id == 0, "nobody's policies are taken unless the operator says so"
    take_from(world, "north")
    assert world.row.policy_id == 0
    take_from(world, "west")
    assert (world.judge(API, 80), world.judge(API + 1, 80)) == (ALLOW, DENY)
    world.apply((OF_MESH % "client").replace("mesh}", "cluster}"))
    assert (world.judge(API, 80), world.judge(API + 1, 80)) == (DENY, DENY), "both must allow"
    asked(world, "west", FROM_ALL)
    assert (world.judge(API, 80), world.judge(API + 1, 80)) == (DENY, ALLOW), "west opens nothing"
    titles = {title for title, _ in world.node.enforcement.rules.values()}
    assert titles == {
        "NetworkPolicy default/web of cluster west",
        "NetworkPolicy default/web",
    }, "two policies of one name"
    take_from(world)
    world.delete_all()
    assert world.row.policy_id == 0


async def test_a_cluster_that_left_asks_for_nothing(world: World) -> None:
    await start(world, app="web")
    take_from(world, "west")
    asked(world, "west", OF_MESH % "api")
    assert world.judge(API, 80) is DENY
    world.node.view.tables.remotes.items.clear()
    world.settle()
    assert world.row.policy_id == 0
