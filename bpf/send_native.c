// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* send_native: a packet of an endpoint to another node, as it is.
 *
 * Stage: STAGE_SEND_NATIVE, from from_endpoint and service, where the node's row says native.
 * In:    the endpoint's frame; `scratch` has the node's index.
 * Out:   TC_ACT_REDIRECT to the next hop on the underlay, its MAC found by the kernel,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "fits.h"
#include "hop.h"
#include "next_hop.h"
#include "packet.h"
#include "too_big.h"

int send_native(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	enum drop_reason reason = DROP_NONE;
	const struct node *node;

	if (!pkt)
		return TC_ACT_SHOT;
	node = bpf_map_lookup_elem(MAP(nodes), &pkt->node_index);
	if (!node || !(node->flags & NODE_PRESENT))
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNKNOWN_NODE));
	if (!fits(skb, pkt, node->path_mtu, 0))
		reason = REFUSE(pkt, DROP_PACKET_TOO_BIG);
	if (!reason)
		reason = take_hop(skb, pkt);
	if (reason == DROP_PACKET_TOO_BIG)
		return packet_too_big(skb, pkt, node->path_mtu);
	if (reason == DROP_TTL_EXCEEDED)
		return packet_expired(skb, pkt);
	if (reason)
		return packet_drop(skb, pkt, reason);

	count(COUNTER_SENT_NATIVE, skb->len);
	return next_hop_send(node, pkt->family);
}
