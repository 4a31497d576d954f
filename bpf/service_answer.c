// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* service_answer: what a backend sends back comes from the frontend that was asked.
 *
 * Stage: STAGE_SERVICE_ANSWER, from deliver_local and to_endpoint.
 * In:    a frame that they let pass, of a flow that `service` translated, or an ICMP error
 *        about one; `ifindex` of `scratch` is 0 when the host's stack sent it.
 * Out:   TC_ACT_REDIRECT into the endpoint's namespace, or TC_ACT_OK for to_endpoint's,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "deliver.h"
#include "packet.h"
#include "service_error.h"
#include "service_flow.h"

static __always_inline enum drop_reason
answer(struct __sk_buff *skb, struct packet *pkt)
{
	struct service_flow_key key;
	struct service_flow *row;

	service_flow_key_of(&key, pkt, SERVICE_SERVER);
	row = service_flow_on(&key, SERVICE_BACK);
	if (!row)
		return REFUSE(pkt, DROP_SERVICE_NO_FLOW);
	service_flow_refresh(&key, row, pkt, SERVICE_SERVER);
	return service_flow_rewrite(skb, pkt, &row->other, SERVICE_SERVER);
}

/* A packet of the endpoint did not arrive. */
static __always_inline enum drop_reason
answer_error(struct __sk_buff *skb, struct packet *pkt)
{
	const struct packet *quoted = icmp_quoted(skb, pkt);
	const struct service_flow *row = NULL;
	struct service_flow_key key;

	if (quoted) {
		service_flow_key_of(&key, quoted, SERVICE_CLIENT);
		row = service_flow_on(&key, SERVICE_BACK);
	}
	if (!row)
		return REFUSE(pkt, DROP_SERVICE_NO_FLOW);
	return service_error_rewrite(skb, pkt, quoted, &key, &row->other, SERVICE_CLIENT);
}

int service_answer(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	enum drop_reason reason;

	if (!pkt)
		return TC_ACT_SHOT;
	reason = icmp_is_error(pkt) ? answer_error(skb, pkt) : answer(skb, pkt);
	if (reason)
		return packet_drop(skb, pkt, reason);
	count(COUNTER_SERVICE_ANSWERED, skb->len);
	return pkt->ifindex ? deliver(skb, pkt) : TC_ACT_OK;
}
