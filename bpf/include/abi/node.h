// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `nodes`: where encapsulated packets go, and what may come from there.
 * Index 0 is nobody. A row's index is stable as long as the row exists.
 * Reader: include/sender.h, encapsulate.c.  Writer: NodeMaps in meshnet/dataplane/maps.py.
 */
#pragma once
#include "address.h"

enum node_limit {
	NODE_POD_CIDRS = 4,	/* inline; more set NODE_MORE_POD_CIDRS */
	NODE_GATEWAYS = 4,
};

enum node_flag {
	NODE_PRESENT = 1,
	NODE_LOCAL = 2,			/* this node: never a sender, never a tunnel's end */
	NODE_IPV6_UNDERLAY = 4,		/* `outer` is an IPv6 address */
	NODE_MORE_POD_CIDRS = 8,	/* `pod_cidrs` the map has the others */
};

struct node {
	struct address outer;
	struct address gateways[4];	/* the only inner sources with IDENTITY_REMOTE_NODE */
	struct block pod_cidrs[4];	/* the only inner sources of its endpoints */
	__u32 gateway_count;
	__u32 pod_cidr_count;
	__u32 cluster_id;
	__u32 owner;			/* the same in every row of one node: `pod_cidrs` has it */
	__u32 flags;			/* enum node_flag */
	__u32 path_mtu;			/* bytes, outer headers included */
};
_Static_assert(sizeof(struct node) == 232, "node is ABI");
