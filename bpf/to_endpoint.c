// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* to_endpoint: what the host's own stack sends to an endpoint.
 *
 * Hook: tcx egress on the host side of the endpoint's veth. Packets of other endpoints do
 *       not pass here: redirect_peer goes straight into the namespace.
 * In:   a frame of the host itself, or one that its stack forwarded.
 * Out:  TC_ACT_OK, and the sender's identity is counted as seen.
 */
#include "address.h"
#include "endpoint.h"
#include "ipcache.h"
#include "packet.h"
#include "parse.h"

int to_endpoint(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_INGRESS);
	const struct endpoint *endpoint = endpoint_of_interface(skb->ifindex);
	const struct ipcache *row;

	if (!pkt)
		return TC_ACT_SHOT;
	if (!endpoint)
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNKNOWN_ENDPOINT));
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_OK;
	if (parse_packet(skb, pkt, skb->protocol, ETH_HLEN))
		return TC_ACT_OK;	/* the stack made it: what we cannot read is not refused */

	pkt->source_identity = IDENTITY_HOST;
	/* Nobody else can be on this link: a link-local source is the host's own, too. */
	if (!address_is_own(&pkt->source) && !address_is_link_local(&pkt->source)) {
		row = ipcache_lookup(&pkt->source);
		pkt->source_identity = row ? row->identity : IDENTITY_WORLD;
	}
	endpoint_saw(endpoint->endpoint_id, pkt->source_identity);
	count(COUNTER_FROM_STACK, skb->len);
	return TC_ACT_OK;
}
