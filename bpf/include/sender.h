// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* May this node say that? The identity check on everything that comes by a tunnel.
 *
 * The outer source must be a known node's. An endpoint's identity must be of that node's
 * cluster and its inner source of that node's PodCIDRs. Reserved identities have rules of
 * their own: remote-node only from the node's own addresses, health and ingress only
 * from those that the node's key names for them (Cilium's nodes have some), all others not
 * at all.
 * Cilium trusts the VNI; we do not (docs/packet-walk.md).
 *
 * Needs: address.h, ipcache.h, packet.h.  Maps: nodes, node_by_address, pod_cidrs.
 * Layout: abi/node.h.
 */
#pragma once
#include "address.h"
#include "ipcache.h"
#include "packet.h"

static __always_inline bool
node_has_pod(const struct node *node, const struct address *source)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < NODE_POD_CIDRS; i++)
		if (i < node->pod_cidr_count && address_in_block(source, &node->pod_cidrs[i]))
			return true;
	return node->flags & NODE_MORE_POD_CIDRS && pod_cidr_owner(source) == node->owner;
}

static __always_inline bool
node_has_gateway(const struct node *node, const struct address *source)
{
	__u32 i;

#pragma unroll
	for (i = 0; i < NODE_GATEWAYS; i++)
		if (i < node->gateway_count && address_equal(source, &node->gateways[i]))
			return true;
	return false;
}

static __always_inline bool
is_one_of(const struct address *servants, const struct address *source)
{
	return address_equal(source, &servants[0]) || address_equal(source, &servants[1]);
}

static __always_inline enum drop_reason
sender_verify_reserved(struct packet *pkt, const struct node *node)
{
	if (pkt->vni == IDENTITY_REMOTE_NODE)
		return node_has_gateway(node, &pkt->source)
			       ? DROP_NONE
			       : REFUSE(pkt, DROP_REMOTE_NODE_SOURCE);
	if (pkt->vni == IDENTITY_HOST)
		return REFUSE(pkt, DROP_IDENTITY_HOST);
	if (pkt->vni == IDENTITY_WORLD)
		return REFUSE(pkt, DROP_IDENTITY_WORLD);
	if (pkt->vni == IDENTITY_HEALTH)
		return is_one_of(node->health, &pkt->source)
			       ? DROP_NONE
			       : REFUSE(pkt, DROP_IDENTITY_HEALTH);
	if (pkt->vni == IDENTITY_INGRESS)
		return is_one_of(node->ingress, &pkt->source)
			       ? DROP_NONE
			       : REFUSE(pkt, DROP_IDENTITY_INGRESS);
	return REFUSE(pkt, DROP_INVALID_IDENTITY);
}

/* `pkt` has outer_source, vni and the inner packet's addresses. */
static __always_inline enum drop_reason
sender_verify(struct packet *pkt)
{
	const __u32 *index = bpf_map_lookup_elem(MAP(node_by_address), &pkt->outer_source);
	const struct node *node = index ? bpf_map_lookup_elem(MAP(nodes), index) : NULL;

	if (!node || !(node->flags & NODE_PRESENT) || node->flags & NODE_LOCAL)
		return REFUSE(pkt, DROP_UNKNOWN_OUTER_SOURCE);
	pkt->source_identity = pkt->vni;
	if (!(pkt->vni >> IDENTITY_CLUSTER_SHIFT))
		return sender_verify_reserved(pkt, node);
	if (pkt->vni >> IDENTITY_CLUSTER_SHIFT != node->cluster_id)
		return REFUSE(pkt, DROP_FOREIGN_IDENTITY);
	if (!node_has_pod(node, &pkt->source))
		return REFUSE(pkt, DROP_SOURCE_NOT_OF_NODE);
	return DROP_NONE;
}
