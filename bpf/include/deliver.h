// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The last step to an endpoint of this node: a frame for it, into its namespace.
 *
 * Needs: endpoint.h, packet.h, policy.h.  Refuses: DROP_TRUNCATED.
 */
#pragma once
#include "endpoint.h"
#include "packet.h"
#include "policy.h"

static __always_inline enum drop_reason
address_frame(struct __sk_buff *skb, struct packet *pkt)
{
	struct ethhdr *frame = packet_at(skb, 0, sizeof(*frame));
	int i;

	if (!frame)
		return REFUSE(pkt, DROP_TRUNCATED);
	__builtin_memcpy(frame->h_dest, pkt->endpoint_mac, ETH_ALEN);
#pragma unroll
	for (i = 0; i < ETH_ALEN; i++)
		frame->h_source[i] = CFG->gateway_mac[i];
	return DROP_NONE;
}

/* `pkt` names the endpoint. */
static __always_inline int
deliver(struct __sk_buff *skb, struct packet *pkt)
{
	policy_report(skb, pkt);
	endpoint_saw(pkt->endpoint_id, pkt->source_identity);
	count(COUNTER_DELIVERED, skb->len);
	return bpf_redirect_peer(pkt->ifindex, 0);
}
