"""What is wrong is said, each with a fix, and nothing else is."""

from meshnet.agent import problems
from meshnet.agent.loop import Loop
from meshnet.dataplane.bpf import MapType
from meshnet.dataplane.schema import Sizes, schema
from meshnet.errors import Unreachable
from meshnet.model.dataplane import MapUsage
from meshnet.model.remote import MirrorStatus, RefusedKey


def test_a_map_is_a_problem_from_four_fifths_on() -> None:
    rows = [MapUsage(name="ipcache", entries=entries, max_entries=1000) for entries in (799, 800)]
    counters = MapUsage(name="counters", entries=1000, max_entries=1000)  # it cannot fill up
    (found,) = problems.of_maps([*rows, counters])
    assert found.message == "BPF map ipcache has 800 of at most 1000 entries"


def test_a_map_whose_rows_go_only_for_newer_ones_is_none_when_it_is_full() -> None:
    kept = {spec.name for spec in schema(Sizes()) if spec.type is MapType.LRU_HASH}
    swept = {"conntrack", "nat", "service_flows"}
    rows = [MapUsage(name=name, entries=1000, max_entries=1000) for name in kept]
    assert {found.message.split()[2] for found in problems.of_maps(rows)} == swept


def test_a_map_that_forgets_says_so_and_what_to_set() -> None:
    (found,) = problems.of_maps([MapUsage(name="conntrack", entries=850, max_entries=1000)])
    assert found.message == "BPF map conntrack has 850 of at most 1000 entries"
    assert "conntrack_entries higher in meshnet.toml" in found.fix


def test_keys_of_a_remote_that_are_not_believed_are_problems() -> None:
    refusal = RefusedKey("cilium/state/ip/v1/default/10.1.0.9", "outside its PodCIDRs")
    report = MirrorStatus(name="west", id=2, refused=1, refusals=(refusal,))
    (found,) = problems.of_remotes([report, MirrorStatus(name="north", id=3)])
    assert found.message == (
        "cilium/state/ip/v1/default/10.1.0.9 of cluster west is not believed: outside its PodCIDRs"
    )
    assert found.id == "refused-key"


async def test_a_loop_is_a_problem_when_it_failed_three_times_in_a_row() -> None:
    async def reconcile() -> None:
        raise Unreachable("etcd at h:1 refused the connection")

    loop = Loop("routes", reconcile)
    for failures in range(1, 4):
        assert problems.of_loops([loop]) == []
        await loop._one_pass()
        assert loop.status.failures == failures
    (found,) = problems.of_loops([loop])
    assert found.message == "routes failed 3 times: etcd at h:1 refused the connection"


def test_a_lost_block_tells_the_way_out() -> None:
    assert problems.of_ownership(None) == []
    (found,) = problems.of_ownership("PodCIDR 10.1.4.0/22 (epoch 1) belongs to node b, epoch 2")
    assert "cluster leave" in found.fix


def test_a_path_without_room_for_ipv6_is_a_problem() -> None:
    paths = {
        "node west-1 of cluster west": (1329, 1279),
        "node east-2 of cluster east": (1330, 1280),
    }
    (found,) = problems.of_paths(paths)
    assert found.message == (
        "the path to node west-1 of cluster west takes 1329 bytes: 1279 for an endpoint's packet"
    )
    assert found.id == "narrow-path"
