"""What a host is on, read from routing tables as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from meshnet.host import networks

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0000000A\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
"""
ZERO = "0" * 32
IPV6_ROUTE = f"""\
fd000000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000002 00000000 00000001     eth0
{ZERO} 00 {ZERO} 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
20010db8000000000000000000000000 20 {ZERO} 00 fd000000000000000000000000000001 00000400 00000002 \
00000000 00000003     eth0
fd000000000000000000000000000002 80 {ZERO} 00 {ZERO} 00000000 00000003 00000000 80200001     eth0
ff000000000000000000000000000000 08 {ZERO} 00 {ZERO} 00000100 00000004 00000000 00000001     eth0
"""


def test_own_prefixes_and_routes_are_told_apart_and_defaults_left_out(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ipv6_route").write_text(IPV6_ROUTE)

    found = networks.read(tmp_path)

    assert [str(prefix) for prefix in found.on_link] == ["192.0.2.0/24", "fd00::/64"]
    assert [str(prefix) for prefix in found.routed] == ["10.0.0.0/8", "2001:db8::/32"]


def test_a_kernel_without_ipv6_is_on_no_ipv6_network(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(ROUTE)

    assert all(prefix.version == 4 for prefix in networks.read(tmp_path).on_link)
