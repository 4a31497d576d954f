// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* receive_native: what arrives for other addresses than the underlay's, outside of a tunnel.
 *
 * Stage: STAGE_RECEIVE_NATIVE, from from_underlay.
 * In:    the frame as it came; `scratch` is empty.
 * Out:   STAGE_DELIVER_LOCAL for a packet of the mesh that is true and for an endpoint here,
 *        TC_ACT_OK for one to the node itself,
 *        TC_ACT_UNSPEC for all that is not the mesh's or passes through, untouched,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 *
 * There is no VNI to read an identity from: it is the one that ipcache has for the source.
 * So whoever can put packets on the underlay can forge it, and only a cluster that asked for
 * native routing takes such packets.
 */
#include "endpoint.h"
#include "fragment.h"
#include "ipcache.h"
#include "nesting.h"
#include "packet.h"
#include "parse.h"
#include "sender.h"

/* Is it an address that only nodes of the mesh have? */
static __always_inline bool
is_of_mesh(const struct address *address, const struct ipcache *row)
{
	return (row && row->node_index) || pod_cidr_owner(address);
}

/* In the PodCIDRs of this node, of which it has rows by each of its outer addresses. */
static __always_inline bool
is_of_this_node(const struct address *address)
{
	struct address own;
	const struct node *node;
	const __u32 *index;
	int i;

#pragma unroll
	for (i = 0; i < 4; i++)
		own.word[i] = CFG->underlay_ipv4.word[3] ? CFG->underlay_ipv4.word[i]
							 : CFG->underlay_ipv6.word[i];
	index = bpf_map_lookup_elem(MAP(node_by_address), &own);
	node = index ? bpf_map_lookup_elem(MAP(nodes), index) : NULL;
	return node && node_has_pod(node, address);
}

/* The node that ipcache names must be another one, and the address one of its own. */
static __always_inline enum drop_reason
verify_source(struct packet *pkt, const struct ipcache *row)
{
	const struct node *node;
	bool true_to_node;

	if (!CFG->accept_native)
		return REFUSE(pkt, DROP_NATIVE_REFUSED);
	node = row ? bpf_map_lookup_elem(MAP(nodes), &row->node_index) : NULL;
	if (!node || (node->flags & (NODE_PRESENT | NODE_LOCAL)) != NODE_PRESENT)
		return REFUSE(pkt, DROP_NATIVE_SOURCE);
	pkt->source_identity = row->identity;
	if (row->identity == IDENTITY_REMOTE_NODE)
		true_to_node = node_has_gateway(node, &pkt->source);
	else
		true_to_node = row->identity >> IDENTITY_CLUSTER_SHIFT == node->cluster_id &&
			       node_has_pod(node, &pkt->source);
	return true_to_node ? DROP_NONE : REFUSE(pkt, DROP_NATIVE_SOURCE);
}

int receive_native(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_INGRESS);
	const struct ipcache *row;
	enum drop_reason reason;
	bool endpoint, host;

	if (!pkt)
		return TC_ACT_SHOT;
	reason = parse_packet(skb, pkt, skb->protocol, ETH_HLEN);
	row = ipcache_lookup(&pkt->source);
	if (!is_of_mesh(&pkt->source, row))
		return TC_ACT_UNSPEC;
	endpoint = endpoint_choose(pkt);
	host = address_is(&pkt->destination, &CFG->gateway_ipv4) ||
	       address_is(&pkt->destination, &CFG->gateway_ipv6);
	if (!endpoint && !host && !is_of_this_node(&pkt->destination))
		return TC_ACT_UNSPEC;

	if (!reason)
		reason = verify_source(pkt, row);
	if (!reason && !endpoint && !host)
		reason = REFUSE(pkt, DROP_NOT_OURS);
	if (!reason && host)
		reason = check_nesting(pkt);
	if (!reason && endpoint)
		reason = fragment_follow(pkt);
	if (reason)
		return packet_drop(skb, pkt, reason);

	count(COUNTER_RECEIVED_NATIVE, skb->len);
	return host ? TC_ACT_OK : packet_continue(skb, pkt, STAGE_DELIVER_LOCAL);
}
