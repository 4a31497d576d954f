// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* ICMP errors about flows that `service_flows` has: the packet that one quotes becomes what its
 * sender sent, and the error comes from the frontend where the backend itself sent it.
 *
 * Needs: quote.h, service_flow.h.  Refuses: DROP_NAT_FAILED.
 */
#pragma once
#include "quote.h"
#include "service_flow.h"

/* `key`: of the quoted packet, and whose it is; `to`: what the row of that key says. */
static __always_inline enum drop_reason
service_error_rewrite(struct __sk_buff *skb, struct packet *pkt, const struct packet *quoted,
		      const struct service_flow_key *key, const struct service_flow_key *to,
		      enum service_end sender)
{
	bool asked = sender == SERVICE_CLIENT;
	struct nat told = {.address = asked ? to->client : to->server,
			   .port = asked ? to->client_port : to->server_port};
	struct nat teller = {.address = asked ? to->server : to->client,
			     .port = asked ? to->server_port : to->client_port};
	struct nat told_before = {.address = asked ? key->client : key->server,
				  .port = asked ? key->client_port : key->server_port};
	struct nat teller_before = {.address = asked ? key->server : key->client,
				    .port = asked ? key->server_port : key->client_port};
	enum drop_reason reason;

	reason = quote_rewrite(skb, pkt, quoted, NAT_DESTINATION, &told_before, &told);
	return reason ? reason
		      : quote_rewrite(skb, pkt, quoted, NAT_SOURCE, &teller_before, &teller);
}
