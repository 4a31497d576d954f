// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* May this packet pass, for the endpoint at one end of it? Conntrack and policy together.
 *
 * A packet of a flow that policy allowed passes, in both directions. Policy is asked for a
 * flow's first packet, and again once the endpoint's policy or the peer's identity is not
 * what the row has; always for the direction in which the flow began.
 *
 * TCP whose row is gone (the LRU let it go, this node is new) has no first packet to judge:
 * it passes when policy allows the flow in either direction. That cannot open a connection:
 * a SYN is never taken for mid-stream, and what matches no socket is answered by RST.
 *
 * An ICMP error about a flow that passes, passes ("related"); it has no row of its own.
 *
 * Needs: conntrack.h, icmp.h, policy.h.
 */
#pragma once
#include "conntrack.h"
#include "icmp.h"
#include "policy.h"

static __always_inline bool
flow_is_midstream(const struct packet *pkt)
{
	return pkt->protocol == IPPROTO_TCP && (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
}

static __always_inline enum drop_reason
flow_ask(struct packet *pkt, enum direction side, const struct policy_subject *subject,
	 enum direction began)
{
	return policy_check(pkt, subject, began,
			    began == side ? pkt->destination_port : pkt->source_port);
}

static __always_inline enum direction
flow_opposite(enum direction side)
{
	return side == DIRECTION_EGRESS ? DIRECTION_INGRESS : DIRECTION_EGRESS;
}

/* The quoted packet went the other way: from the endpoint that now gets the error. */
static __always_inline bool
flow_is_related(struct __sk_buff *skb, struct packet *pkt, enum direction side,
		const struct policy_subject *subject)
{
	const struct packet *quoted = icmp_quoted(skb, pkt);
	const struct conntrack *row;

	if (!quoted)
		return false;
	if (side == DIRECTION_EGRESS && !address_equal(&quoted->destination, &pkt->source))
		return false;	/* not a packet that this endpoint got */
	row = conntrack_lookup(quoted, flow_opposite(side));
	if (row && row->flags & CONNTRACK_SERVICE && side == DIRECTION_INGRESS)
		pkt->service |= SERVICE_ANSWER;
	if (!row || row->policy_epoch != subject->epoch)
		return false;
	count(COUNTER_RELATED, skb->len);
	return true;
}

/* `row`: what conntrack_lookup answered for this packet and side. */
static __always_inline enum drop_reason
flow_admit(struct __sk_buff *skb, struct packet *pkt, enum direction side,
	   const struct policy_subject *subject, struct conntrack *row)
{
	enum direction began = row ? conntrack_began(row) : side;
	bool guessed = row ? row->flags & CONNTRACK_GUESSED : flow_is_midstream(pkt);
	enum drop_reason reason;
	__u8 flags = guessed ? CONNTRACK_GUESSED : 0;

	if (row && row->policy_epoch == subject->epoch &&
	    row->remote_identity == subject->remote_identity) {
		conntrack_update(row, pkt, side);
		return DROP_NONE;
	}
	if (!row && icmp_is_error(pkt) && flow_is_related(skb, pkt, side, subject))
		return DROP_NONE;
	reason = flow_ask(pkt, side, subject, began);
	if (reason && guessed) {
		began = flow_opposite(began);
		reason = flow_ask(pkt, side, subject, began);
	}
	if (reason || icmp_is_error(pkt))
		return reason;

	if (began == DIRECTION_INGRESS)
		flags |= CONNTRACK_PEER_BEGAN;
	if (!row) {
		conntrack_create(pkt, side, flags, subject->remote_identity, subject->epoch);
		return DROP_NONE;
	}
	row->flags = (row->flags & ~CONNTRACK_PEER_BEGAN) | flags;
	row->remote_identity = subject->remote_identity;
	row->policy_epoch = subject->epoch;
	conntrack_update(row, pkt, side);
	return DROP_NONE;
}
