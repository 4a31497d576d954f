// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* from_endpoint: the first program a packet meets after it left an endpoint.
 *
 * Hook: tcx ingress on the host side of the endpoint's veth; one program for all of them.
 * In:   an Ethernet frame the endpoint sent.
 * Out:  STAGE_DELIVER_LOCAL, STAGE_ENCAPSULATE or STAGE_SEND_NATIVE when the mesh has the
 *       destination,
 *       STAGE_NEIGHBOUR for ARP and neighbour solicitations,
 *       STAGE_MASQUERADE when the world has it,
 *       TC_ACT_OK to the host's stack when the node itself has it, or nothing is masqueraded,
 *       TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "address.h"
#include "endpoint.h"
#include "flow.h"
#include "fragment.h"
#include "ipcache.h"
#include "neighbour.h"
#include "nesting.h"
#include "next_hop.h"
#include "packet.h"
#include "parse.h"

enum way { WAY_STACK, WAY_LOCAL, WAY_TUNNEL, WAY_NATIVE, WAY_WORLD };

/* Neighbour discovery and the like: it lives on one link and the stack never forwards it. */
static __always_inline bool
stays_on_link(const struct packet *pkt)
{
	return (address_is_none(&pkt->source) || address_is_link_local(&pkt->source)) &&
	       (address_is_link_local(&pkt->destination) ||
		address_is_multicast(&pkt->destination));
}

/* Who has this address? Asked of all, or of one that is known, from any address of its own. */
static __always_inline bool
is_solicitation(const struct packet *pkt)
{
	return pkt->protocol == IPPROTO_ICMPV6 && !pkt->later_fragment &&
	       pkt->icmp_type == ND_SOLICITATION;
}

static __always_inline enum drop_reason
check_source(struct packet *pkt, const struct endpoint *self)
{
	if (!self)
		return REFUSE(pkt, DROP_UNKNOWN_ENDPOINT);
	pkt->source_identity = self->identity;
	if (stays_on_link(pkt))
		return DROP_NONE;
	if (!endpoint_has(self, &pkt->source))
		return REFUSE(pkt, DROP_INVALID_SOURCE);
	if (!(self->flags & ENDPOINT_READY))
		return REFUSE(pkt, DROP_ENDPOINT_NOT_READY);
	return DROP_NONE;
}

/* A node that is gone or our own is the tunnel's to refuse. */
static __always_inline enum way
way_to_node(const struct packet *pkt)
{
	const struct node *node = bpf_map_lookup_elem(MAP(nodes), &pkt->node_index);

	if (!node || (node->flags & (NODE_PRESENT | NODE_LOCAL)) != NODE_PRESENT)
		return WAY_TUNNEL;
	return node_mode(node, pkt->family) == MODE_NATIVE ? WAY_NATIVE : WAY_TUNNEL;
}

/* By the node's address, unless the settings say that the way back is routed, or who has it
 * is an endpoint of the mesh that is reached without a tunnel.
 */
static __always_inline bool
is_masqueraded(const struct packet *pkt)
{
	__u32 cluster = pkt->destination_identity >> IDENTITY_CLUSTER_SHIFT;
	struct prefix key = {.length = 128, .address = pkt->destination};

	if (!CFG->nat_first_port || address_is_multicast(&pkt->destination) ||
	    (cluster && cluster <= IDENTITY_LAST_CLUSTER))
		return false;
	return !CFG->has_unmasqueraded || !bpf_map_lookup_elem(MAP(unmasqueraded), &key);
}

static __always_inline enum drop_reason
choose_way(struct packet *pkt, enum way *way)
{
	const struct ipcache *row;

	*way = WAY_STACK;
	if (address_is_own(&pkt->destination)) {
		pkt->destination_identity = IDENTITY_HOST;
		return DROP_NONE;
	}
	if (endpoint_choose(pkt)) {
		*way = WAY_LOCAL;
		return DROP_NONE;
	}
	row = ipcache_lookup(&pkt->destination);
	pkt->destination_identity = row ? row->identity : IDENTITY_WORLD;
	if (row && row->node_index) {
		pkt->node_index = row->node_index;
		*way = way_to_node(pkt);
		return DROP_NONE;
	}
	/* a prefix that policy names does not make its addresses the world's */
	if ((!row || row->identity > IDENTITY_LAST) && pod_cidr_owner(&pkt->destination))
		return REFUSE(pkt, DROP_UNKNOWN_DESTINATION);
	if (is_masqueraded(pkt))
		*way = WAY_WORLD;
	return DROP_NONE;
}

/* Conntrack and egress policy of the sender, around the choice of the way. */
static __always_inline enum drop_reason
admit(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *self, enum way *way)
{
	struct policy_subject subject = {
		.endpoint_id = self->endpoint_id,
		.policy_id = self->policy_id,
		.epoch = self->policy_epoch,
		.flags = self->flags,
	};
	enum drop_reason reason = fragment_follow(pkt);
	struct conntrack *row;

	if (reason)
		return reason;
	row = conntrack_lookup(pkt, DIRECTION_EGRESS);
	reason = choose_way(pkt, way);
	if (!reason && (*way == WAY_STACK || *way == WAY_WORLD))
		reason = check_nesting(pkt);
	/* who began knows this address, and waits for an answer from it */
	if (*way == WAY_WORLD && row && conntrack_began(row) == DIRECTION_INGRESS)
		*way = WAY_STACK;
	subject.remote_identity = pkt->destination_identity;
	return reason ? reason : flow_admit(skb, pkt, DIRECTION_EGRESS, &subject, row);
}

int from_endpoint(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_EGRESS);
	const struct endpoint *self = endpoint_of_interface(skb->ifindex);
	enum drop_reason reason;
	enum way way = WAY_STACK;

	if (!pkt)
		return TC_ACT_SHOT;
	if (skb->vlan_present)
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNSUPPORTED_L3));
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return packet_continue(skb, pkt, STAGE_NEIGHBOUR);

	reason = parse_packet(skb, pkt, skb->protocol, ETH_HLEN);
	if (!reason)
		reason = check_source(pkt, self);
	if (!reason && is_solicitation(pkt))
		return packet_continue(skb, pkt, STAGE_NEIGHBOUR);
	if (!reason && self && !stays_on_link(pkt))
		reason = admit(skb, pkt, self, &way);
	if (reason)
		return packet_drop(skb, pkt, reason);
	policy_report(skb, pkt);

	if (way == WAY_LOCAL)
		return packet_continue(skb, pkt, STAGE_DELIVER_LOCAL);
	if (way == WAY_TUNNEL)
		return packet_continue(skb, pkt, STAGE_ENCAPSULATE);
	if (way == WAY_NATIVE)
		return packet_continue(skb, pkt, STAGE_SEND_NATIVE);
	if (way == WAY_WORLD)
		return packet_continue(skb, pkt, STAGE_MASQUERADE);
	count(COUNTER_TO_STACK, skb->len);
	return TC_ACT_OK;
}
