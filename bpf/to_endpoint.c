// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* to_endpoint: what the host's own stack sends to an endpoint.
 *
 * Hook: tcx egress on the host side of the endpoint's veth. Packets of other endpoints do
 *       not pass here: redirect_peer goes straight into the namespace.
 * In:   a frame of the host itself, or one that its stack forwarded.
 * Out:  TC_ACT_OK, and the sender's identity is counted as seen,
 *       STAGE_SERVICE_ANSWER when a service's backend sent it,
 *       TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "address.h"
#include "endpoint.h"
#include "flow.h"
#include "fragment.h"
#include "ipcache.h"
#include "packet.h"
#include "parse.h"
#include "service_answer.h"

/* Nobody else can be on this link: a link-local source is the host's, too. What the host makes
 * is not refused because we cannot read it; what it forwards is, or policy could be passed by.
 */
static __always_inline bool
is_of_host(const struct packet *pkt)
{
	return address_is_own(&pkt->source) || address_is_link_local(&pkt->source);
}

static __always_inline __u32
identity_of_source(const struct packet *pkt)
{
	const struct ipcache *row;

	if (is_of_host(pkt))
		return IDENTITY_HOST;
	row = ipcache_lookup(&pkt->source);
	return row ? row->identity : IDENTITY_WORLD;
}

static __always_inline enum drop_reason
admit(struct __sk_buff *skb, struct packet *pkt, const struct endpoint *endpoint)
{
	struct policy_subject subject = {
		.endpoint_id = endpoint->endpoint_id,
		.policy_id = endpoint->policy_id,
		.epoch = endpoint->policy_epoch,
		.flags = endpoint->flags,
		.remote_identity = pkt->source_identity,
	};

	enum drop_reason reason = fragment_follow(pkt);
	struct conntrack *row;

	if (address_is_link_local(&pkt->source) || address_is_multicast(&pkt->destination))
		return DROP_NONE;	/* neighbour discovery and the like */
	if (reason)
		return reason;
	row = conntrack_lookup(pkt, DIRECTION_INGRESS);
	if (is_service_answer(pkt, row))
		pkt->service |= SERVICE_ANSWER;
	return flow_admit(skb, pkt, DIRECTION_INGRESS, &subject, row);
}

int to_endpoint(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_INGRESS);
	const struct endpoint *endpoint = endpoint_of_interface(skb->ifindex);
	enum drop_reason reason;

	if (!pkt)
		return TC_ACT_SHOT;
	if (!endpoint)
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNKNOWN_ENDPOINT));
	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_OK;
	reason = parse_packet(skb, pkt, skb->protocol, ETH_HLEN);
	if (reason)
		return is_of_host(pkt) ? TC_ACT_OK : packet_drop(skb, pkt, reason);

	pkt->source_identity = identity_of_source(pkt);
	pkt->destination_identity = endpoint->identity;
	reason = admit(skb, pkt, endpoint);
	if (reason)
		return packet_drop(skb, pkt, reason);
	policy_report(skb, pkt);
	endpoint_saw(endpoint->endpoint_id, pkt->source_identity);
	count(COUNTER_FROM_STACK, skb->len);
	return pkt->service & SERVICE_ANSWER ? packet_continue(skb, pkt, STAGE_SERVICE_ANSWER)
					     : TC_ACT_OK;
}
