// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* A tunnelled packet whose outer headers are read: is it true, and is it for us?
 *
 * Two programs ask: from_underlay, which takes the outer headers off itself, and
 * from_tunnel, behind the kernel's device. The answer may not depend on the way.
 *
 * Needs: endpoint.h, fragment.h, nesting.h, packet.h, parse.h, sender.h.
 */
#pragma once
#include "endpoint.h"
#include "fragment.h"
#include "nesting.h"
#include "packet.h"
#include "parse.h"
#include "sender.h"

enum arrival { ARRIVAL_ENDPOINT, ARRIVAL_HOST, ARRIVAL_QUESTION };

/* `offset` is where the inner IP header begins; `pkt` has outer_source and vni. */
static __always_inline enum drop_reason
arrival_check(struct __sk_buff *skb, struct packet *pkt, __be16 family, __u32 offset,
	      enum arrival *arrival)
{
	enum drop_reason reason = parse_packet(skb, pkt, family, offset);

	if (!reason && address_is_none(&pkt->source))
		reason = REFUSE(pkt, DROP_MARTIAN_SOURCE);
	if (!reason)
		reason = sender_verify(pkt);
	if (reason)
		return reason;

	*arrival = ARRIVAL_ENDPOINT;
	if (endpoint_choose(pkt))
		return fragment_follow(pkt);
	*arrival = ARRIVAL_HOST;
	if (address_is(&pkt->destination, &CFG->gateway_ipv4) ||
	    address_is(&pkt->destination, &CFG->gateway_ipv6))
		return check_nesting(pkt);
	return REFUSE(pkt, DROP_NOT_OURS);
}
