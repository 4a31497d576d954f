// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* masquerade: an endpoint's packet leaves for the world with this node's address.
 *
 * Stage: STAGE_MASQUERADE, from from_endpoint and service, and from itself to look for more
 *        ports.
 * In:    the endpoint's frame; `scratch` has its addresses and ports, and policy allowed it.
 * Out:   TC_ACT_REDIRECT to the underlay, the next hop by the host's routing table,
 *        TC_ACT_OK to the host's stack for what that would not forward,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "hop.h"
#include "nat.h"
#include "packet.h"
#include "quote.h"
#include "rewrite.h"
#include "route.h"

static __always_inline bool
has_ports(const struct packet *pkt)
{
	return pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP ||
	       (pkt->protocol == IPPROTO_ICMP && pkt->icmp_type == ICMP_ECHO_REQUEST) ||
	       (pkt->protocol == IPPROTO_ICMPV6 && pkt->icmp_type == ICMPV6_ECHO_REQUEST_TYPE);
}

/* The endpoint tells a host of the world that a packet of its flow did not arrive. Of a flow
 * that the world began, the stack sends it as it is.
 */
static __always_inline enum drop_reason
hide_error(struct __sk_buff *skb, struct packet *pkt, bool *stack)
{
	const struct packet *quoted = icmp_quoted(skb, pkt);
	const struct conntrack *flow;
	const struct nat *row;
	struct nat_key key;
	struct nat from;

	if (!quoted || !address_equal(&quoted->destination, &pkt->source))
		return REFUSE(pkt, DROP_NAT_NO_FLOW);
	nat_key_of(&key, quoted, NAT_DESTINATION);
	row = nat_find(&key);
	if (row) {
		from.address = key.local;
		from.port = key.local_port;
		return quote_rewrite(skb, pkt, quoted, NAT_SOURCE, &from, row);
	}
	flow = conntrack_lookup(quoted, DIRECTION_INGRESS);
	*stack = flow && conntrack_began(flow) == DIRECTION_INGRESS;
	return *stack ? DROP_NONE : REFUSE(pkt, DROP_NAT_NO_FLOW);
}

/* DROP_NAT_NO_PORT: none found yet. */
static __always_inline enum drop_reason
hide(struct __sk_buff *skb, struct packet *pkt)
{
	const struct nat *row;
	struct nat_key key;
	struct nat to = {};

	if (!has_ports(pkt))
		return REFUSE(pkt, DROP_NAT_PROTOCOL);
	nat_key_of(&key, pkt, NAT_SOURCE);
	nat_own_address(&to.address, pkt->family);
	row = nat_lookup(&key, pkt, NAT_SOURCE);
	if (row && address_equal(&row->address, &to.address))
		to.port = row->port;
	else if (!nat_open(pkt, &key, &to))
		return REFUSE(pkt, DROP_NAT_NO_PORT);
	return rewrite(skb, pkt, NAT_SOURCE, &to);
}

int masquerade(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	struct bpf_redir_neigh hop = {};
	enum drop_reason reason;
	bool stack = false;

	if (!pkt)
		return TC_ACT_SHOT;
	reason = route_to_world(skb, pkt, &hop, &stack);
	if (!reason && !stack)
		reason = icmp_is_error(pkt) ? hide_error(skb, pkt, &stack) : hide(skb, pkt);
	if (!reason && stack) {
		count(COUNTER_TO_STACK, skb->len);
		return TC_ACT_OK;
	}
	if (reason == DROP_NAT_NO_PORT && pkt->nat_rounds < NAT_ROUNDS) {
		pkt->nat_rounds++;
		return packet_continue(skb, pkt, STAGE_MASQUERADE);
	}
	if (!reason)
		reason = take_hop(skb, pkt);
	if (reason)
		return packet_drop(skb, pkt, reason);

	count(COUNTER_MASQUERADED, skb->len);
	return redirect_neigh(CFG->underlay_ifindex, &hop, sizeof(hop), 0);
}
