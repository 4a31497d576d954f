// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* deliver_local: the last stage before an endpoint of this node.
 *
 * Stage: STAGE_DELIVER_LOCAL, from from_endpoint, service, from_underlay, from_tunnel,
 *        receive_native and unmasquerade.
 * In:    a plain Ethernet frame; `scratch` names the endpoint and the verified sender.
 * Out:   TC_ACT_REDIRECT into the endpoint's namespace, past the host's stack,
 *        STAGE_SERVICE_ANSWER when a service's backend sent it,
 *        STAGE_ICMP_ERROR when its hops run out here,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "deliver.h"
#include "endpoint.h"
#include "flow.h"
#include "hop.h"
#include "packet.h"
#include "service_answer.h"
#include "too_big.h"

/* Conntrack and ingress policy of the receiver. */
static __always_inline enum drop_reason
admit(struct __sk_buff *skb, struct packet *pkt)
{
	struct policy_subject subject = {
		.endpoint_id = pkt->endpoint_id,
		.policy_id = pkt->policy_id,
		.epoch = pkt->policy_epoch,
		.flags = pkt->endpoint_flags,
		.remote_identity = pkt->source_identity,
	};

	struct conntrack *row;

	if (!(pkt->endpoint_flags & ENDPOINT_READY))
		return REFUSE(pkt, DROP_ENDPOINT_NOT_READY);
	row = conntrack_lookup(pkt, DIRECTION_INGRESS);
	if (is_service_answer(pkt, row))
		pkt->service |= SERVICE_ANSWER;
	return flow_admit(skb, pkt, DIRECTION_INGRESS, &subject, row);
}

int deliver_local(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	enum drop_reason reason;

	if (!pkt)
		return TC_ACT_SHOT;
	pkt->direction = DIRECTION_INGRESS;
	reason = admit(skb, pkt);
	if (!reason)
		reason = take_hop(skb, pkt);
	if (!reason)
		reason = address_frame(skb, pkt);
	if (reason == DROP_TTL_EXCEEDED)
		return packet_expired(skb, pkt);
	if (reason)
		return packet_drop(skb, pkt, reason);

	return pkt->service & SERVICE_ANSWER ? packet_continue(skb, pkt, STAGE_SERVICE_ANSWER)
					     : deliver(skb, pkt);
}
