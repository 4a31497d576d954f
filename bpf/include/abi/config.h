// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `config`: the constants of this node. Frozen before a program loads, so the
 * verifier knows every value and removes what this node does not use.
 * Reader: all programs, as CFG.  Writer: generation.py, once a generation.
 */
#pragma once
#include "address.h"

struct config {
	struct address underlay_ipv4;	/* our outer addresses; zero: no such underlay */
	struct address underlay_ipv6;
	struct block pod_cidr_ipv4;	/* where this node's endpoints are; mask zero: none */
	struct block pod_cidr_ipv6;
	struct address gateway_ipv4;	/* the node's own addresses inside its PodCIDRs */
	struct address gateway_ipv6;
	__u32 cluster_id;
	__u32 underlay_ifindex;
	__u32 vxlan_ifindex;
	__u16 vxlan_port;		/* host order */
	__u8 gateway_mac[6];		/* host side of every endpoint's veth */
	__u16 geneve_port;		/* host order */
	__u16 accept_native;		/* 0: a mesh address on the wire is a forged one */
	__u16 nat_first_port;		/* the pool for masquerading; 0: it is turned off */
	__u16 nat_last_port;
	__u32 has_unmasqueraded;	/* the map of that name has rows */
};
_Static_assert(sizeof(struct config) == 160, "config is ABI");
