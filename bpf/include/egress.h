// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Where does an endpoint's packet go, and may it? Asked by from_endpoint, and by `service`
 * once the packet is addressed to a backend.
 *
 * What another node or an endpoint here has is looked up first, so it costs nothing that there
 * are services; all else costs one look at `service_addresses` until its flow was answered.
 *
 * Needs: address.h, endpoint.h, flow.h, ipcache.h, nat.h, nesting.h, next_hop.h, packet.h,
 * service.h, service_flow.h.
 * Refuses: DROP_UNKNOWN_DESTINATION, DROP_SERVICE_AMBIGUOUS, and what flow.h and nesting.h do.
 */
#pragma once
#include "address.h"
#include "endpoint.h"
#include "flow.h"
#include "ipcache.h"
#include "nat.h"
#include "nesting.h"
#include "next_hop.h"
#include "packet.h"
#include "service.h"
#include "service_flow.h"

enum way { WAY_STACK, WAY_LOCAL, WAY_TUNNEL, WAY_NATIVE, WAY_WORLD, WAY_SERVICE };

/* `service` itself does not ask again: a backend is no frontend. */
enum egress_asks { EGRESS_ASKS_SERVICES, EGRESS_ASKS_NO_MORE };

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

/* The peer knows the endpoint by the node's address. That flow's row in conntrack may be younger:
 * it was forgotten, and the peer was the first to speak again.
 */
static __always_inline bool
is_hidden(const struct packet *pkt)
{
	struct nat_key key;

	nat_key_of(&key, pkt, NAT_SOURCE);
	return nat_find(&key);
}

/* Has a service translated packets of this flow? */
static __always_inline bool
is_translated(const struct packet *pkt)
{
	struct service_flow_key key;

	service_flow_key_of(&key, pkt, SERVICE_CLIENT);
	return service_flow_on(&key, SERVICE_THERE);
}

/* A flow that was answered, or that the peer began, is with the right one. Unless a service
 * translates it: then its row in conntrack is the backend's, and who says that he began it lies.
 */
static __always_inline bool
may_ask_service(const struct packet *pkt, const struct conntrack *flow)
{
	if (flow && flow->flags & CONNTRACK_PEER_BEGAN)
		return is_translated(pkt);
	if (flow && flow->flags & CONNTRACK_ANSWERED && !(flow->flags & CONNTRACK_SERVICE))
		return false;
	return service_has(&pkt->destination);
}

/* `flow`: the row of conntrack, or NULL. */
static __always_inline enum drop_reason
choose_way(struct packet *pkt, const struct conntrack *flow, enum egress_asks asks, enum way *way)
{
	bool own = address_is_own(&pkt->destination);
	const struct ipcache *row = NULL;

	*way = WAY_STACK;
	if (!own && address_is_local(&pkt->destination) && endpoint_choose(pkt)) {
		*way = WAY_LOCAL;
		return DROP_NONE;
	}
	if (!own)
		row = ipcache_whole(&pkt->destination);
	if (asks == EGRESS_ASKS_SERVICES && !(row && row->node_index) &&
	    may_ask_service(pkt, flow)) {
		*way = WAY_SERVICE;
		return DROP_NONE;
	}
	if (own) {
		pkt->destination_identity = IDENTITY_HOST;
		return DROP_NONE;
	}
	if (!row)
		row = ipcache_longest(&pkt->destination);
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

/* Conntrack and egress policy of the sender, around the choice of the way. WAY_SERVICE: it is
 * judged when it has a backend.
 */
static __always_inline enum drop_reason
egress_admit(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *self,
	     enum egress_asks asks, enum way *way)
{
	struct policy_subject subject = {
		.endpoint_id = self->endpoint_id,
		.policy_id = self->policy_id,
		.epoch = self->policy_epoch,
		.flags = self->flags,
	};
	struct conntrack *row = conntrack_lookup(pkt, DIRECTION_EGRESS);
	enum drop_reason reason = choose_way(pkt, row, asks, way);

	if (reason || *way == WAY_SERVICE)
		return reason;
	if (*way == WAY_STACK || *way == WAY_WORLD)
		reason = check_nesting(pkt);
	/* who began knows this address, and waits for an answer from it */
	if (*way == WAY_WORLD && row && conntrack_began(row) == DIRECTION_INGRESS &&
	    !is_hidden(pkt))
		*way = WAY_STACK;
	/* the answers to both would go to the one that a service translates */
	if (!reason && row && row->flags & CONNTRACK_SERVICE &&
	    !(pkt->service & SERVICE_TRANSLATED))
		reason = REFUSE(pkt, DROP_SERVICE_AMBIGUOUS);
	subject.remote_identity = pkt->destination_identity;
	if (!reason)
		reason = flow_admit(skb, pkt, DIRECTION_EGRESS, &subject, row);
	if (!reason && row && pkt->service & SERVICE_TRANSLATED &&
	    !(row->flags & CONNTRACK_SERVICE))
		row->flags |= CONNTRACK_SERVICE;
	return reason;
}

static __always_inline int
egress_send(struct __sk_buff *skb, struct packet *pkt, enum way way)
{
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
