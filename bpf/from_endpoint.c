// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* from_endpoint: the first program a packet meets after it left an endpoint.
 *
 * Hook: tcx ingress on the host side of the endpoint's veth; one program for all of them.
 * In:   an Ethernet frame the endpoint sent.
 * Out:  STAGE_DELIVER_LOCAL, STAGE_ENCAPSULATE or STAGE_SEND_NATIVE when the mesh has the
 *       destination,
 *       STAGE_NEIGHBOUR for ARP and neighbour solicitations,
 *       STAGE_SERVICE when it is to an address of services,
 *       STAGE_MASQUERADE when the world has it,
 *       TC_ACT_OK to the host's stack when the node itself has it, or nothing is masqueraded,
 *       TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "address.h"
#include "egress.h"
#include "endpoint.h"
#include "fragment.h"
#include "neighbour.h"
#include "packet.h"
#include "parse.h"

/* Neighbour discovery and the like: it lives on one link and the stack never forwards it. */
static __always_inline bool
stays_on_link(const struct packet *pkt)
{
	return (address_is_none(&pkt->source) || address_is_link_local(&pkt->source)) &&
	       (address_is_link_local(&pkt->destination) ||
		address_is_multicast(&pkt->destination));
}

/* Who has this address? Asked of all, or of one that is known, from any address of its own. */
static __always_inline bool
is_solicitation(const struct packet *pkt)
{
	return pkt->protocol == IPPROTO_ICMPV6 && !pkt->later_fragment &&
	       pkt->icmp_type == ND_SOLICITATION;
}

static __always_inline enum drop_reason
check_source(struct packet *pkt, const struct endpoint *self)
{
	if (!self)
		return REFUSE(pkt, DROP_UNKNOWN_ENDPOINT);
	pkt->source_identity = self->identity;
	if (stays_on_link(pkt))
		return DROP_NONE;
	if (!endpoint_has(self, &pkt->source))
		return REFUSE(pkt, DROP_INVALID_SOURCE);
	if (!(self->flags & ENDPOINT_READY))
		return REFUSE(pkt, DROP_ENDPOINT_NOT_READY);
	return DROP_NONE;
}

int from_endpoint(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_EGRESS);
	const struct endpoint *self = endpoint_of_interface(skb->ifindex);
	enum drop_reason reason;
	enum way way = WAY_STACK;

	if (!pkt)
		return TC_ACT_SHOT;
	if (skb->vlan_present)
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNSUPPORTED_L3));
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return packet_continue(skb, pkt, STAGE_NEIGHBOUR);

	reason = parse_packet(skb, pkt, skb->protocol, ETH_HLEN);
	if (!reason)
		reason = check_source(pkt, self);
	if (!reason && is_solicitation(pkt))
		return packet_continue(skb, pkt, STAGE_NEIGHBOUR);
	if (!reason && self && !stays_on_link(pkt)) {
		reason = fragment_follow(pkt);
		if (!reason)
			reason = egress_admit(skb, pkt, self, EGRESS_ASKS_SERVICES, &way);
	}
	if (reason)
		return packet_drop(skb, pkt, reason);
	return way == WAY_SERVICE ? packet_continue(skb, pkt, STAGE_SERVICE)
				  : egress_send(skb, pkt, way);
}
