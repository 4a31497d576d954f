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
 * Needs: conntrack.h, policy.h.
 */
#pragma once
#include "conntrack.h"
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

/* `row`: what conntrack_lookup answered for this packet and side. */
static __always_inline enum drop_reason
flow_admit(struct packet *pkt, enum direction side, const struct policy_subject *subject,
	   struct conntrack *row)
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
	reason = flow_ask(pkt, side, subject, began);
	if (reason && guessed) {
		began = began == DIRECTION_EGRESS ? DIRECTION_INGRESS : DIRECTION_EGRESS;
		reason = flow_ask(pkt, side, subject, began);
	}
	if (reason)
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
