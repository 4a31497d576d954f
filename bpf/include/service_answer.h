// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Is that what an endpoint here waits for from a frontend? Asked of what is sent to an endpoint.
 *
 * The flow's row in conntrack says so, which was looked up anyway. Where that row is gone, the
 * row back of `service_flows` does: an answer that kept its backend's address would have the
 * endpoint reset the connection. A SYN is never an answer.
 *
 * Needs: conntrack.h, packet.h, service_flow.h.
 */
#pragma once
#include "conntrack.h"
#include "packet.h"
#include "service_flow.h"

static __always_inline bool
is_service_answer(const struct packet *pkt, const struct conntrack *row)
{
	struct service_flow_key key;

	if (row)
		return row->flags & CONNTRACK_SERVICE;
	if ((pkt->protocol != IPPROTO_TCP && pkt->protocol != IPPROTO_UDP) ||
	    (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return false;
	service_flow_key_of(&key, pkt, SERVICE_SERVER);
	return service_flow_on(&key, SERVICE_BACK);
}
