// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `nodes`: where packets for other nodes go and how, and what may come from there.
 * Index 0 is nobody. A row's index is stable as long as the row exists.
 * Reader: include/{sender,next_hop}.h, encapsulate.c, send_native.c.
 * Writer: NodeMaps in meshnet/dataplane/maps.py.
 */
#pragma once
#include "address.h"

enum node_limit {
	NODE_POD_CIDRS = 4,	/* inline; more set NODE_MORE_POD_CIDRS */
	NODE_GATEWAYS = 4,
	NODE_SERVANTS = 2,	/* one a family */
};

enum node_flag {
	NODE_PRESENT = 1,
	NODE_LOCAL = 2,			/* this node: never a sender, never a tunnel's end */
	NODE_IPV6_UNDERLAY = 4,		/* `outer` is an IPv6 address */
	NODE_MORE_POD_CIDRS = 8,	/* `pod_cidrs` the map has the others */
};

/* How packets to a node travel. What arrives is taken in whichever mode it comes. */
enum node_mode {
	MODE_VXLAN = 0,
	MODE_GENEVE = 1,
	MODE_NATIVE = 2,	/* as they are: the underlay routes between the nodes */
};

struct node {
	struct address outer;
	struct address gateways[4];	/* the only inner sources with IDENTITY_REMOTE_NODE */
	struct block pod_cidrs[4];	/* the only inner sources of its endpoints */
	struct address next_hop_ipv4;	/* on the way to it; zero: the routing table is asked */
	struct address next_hop_ipv6;
	__u32 gateway_count;
	__u32 pod_cidr_count;
	__u32 cluster_id;
	__u32 owner;			/* the same in every row of one node: `pod_cidrs` has it */
	__u32 flags;			/* enum node_flag */
	__u32 path_mtu;			/* bytes, outer headers included */
	__u32 ifindex;			/* it is reached by this interface; 0: the underlay */
	__u16 mode_ipv4;		/* enum node_mode: of the IPv4 packets of endpoints */
	__u16 mode_ipv6;
	struct address health[2];	/* the only inner sources with IDENTITY_HEALTH; or zero */
	struct address ingress[2];	/* the same, IDENTITY_INGRESS */
};
_Static_assert(sizeof(struct node) == 336, "node is ABI");
