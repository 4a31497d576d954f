// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* May this endpoint and that peer talk? Asked once a flow, and again when the endpoint's
 * policy or the peer's identity changed (flow.h).
 *
 * Two lookups: which class of peers is that to the endpoint's policy, and what may that class
 * do on this protocol and port. Deny, precedence and ranges were resolved by the agent
 * (meshnet/logic/port_rows.py), so the longest prefix is the answer.
 *
 * Needs: packet.h.  Maps: policy, policy_classes.  Layout: abi/policy.h.
 */
#pragma once
#include "packet.h"

/* Who asks, and about whom. */
struct policy_subject {
	__u32 endpoint_id;
	__u32 policy_id;	/* the endpoint's; POLICY_NONE: everything is allowed */
	__u32 epoch;		/* the endpoint's policy_epoch */
	__u32 remote_identity;
	__u32 flags;		/* enum endpoint_flag */
};

/* POLICY_ANYBODY's class where the peer has none of its own; 0: the policy has no rows. */
static __always_inline __u32
policy_class(const struct policy_subject *subject, enum direction direction)
{
	struct policy_key key = {
		.policy_id = subject->policy_id,
		.direction = direction,
		.remote = subject->remote_identity,
	};
	const __u32 *number = bpf_map_lookup_elem(MAP(policy), &key);

	if (!number) {
		key.remote = POLICY_ANYBODY;
		number = bpf_map_lookup_elem(MAP(policy), &key);
	}
	return number ? *number : 0;
}

/* `direction`: of the flow's first packet, from the endpoint or to it. `port`: where that
 * packet goes to; its type for ICMP. `pkt` has the protocol. What would be denied and is
 * only audited is noted in `pkt` for policy_report.
 */
static __always_inline enum drop_reason
policy_check(struct packet *pkt, const struct policy_subject *subject,
	     enum direction direction, __u16 port)
{
	struct policy_class_key key = {
		.length = 64,
		.protocol = pkt->protocol,
		.port = bpf_htons(port),
	};
	const struct policy_ruling *ruling;

	pkt->audited = 0;
	if (subject->policy_id == POLICY_NONE)
		return DROP_NONE;
	key.policy_class = policy_class(subject, direction);
	if (key.policy_class == POLICY_ALLOW_CLASS)
		return DROP_NONE;
	ruling = bpf_map_lookup_elem(MAP(policy_classes), &key);
	if (ruling && ruling->verdict == VERDICT_ALLOW)
		return DROP_NONE;
	pkt->rule = ruling ? ruling->rule : 0;
	if ((ruling && ruling->verdict == VERDICT_AUDIT) || subject->flags & ENDPOINT_AUDIT) {
		pkt->audited = pkt->rule ? DROP_POLICY_DENIED : DROP_POLICY_DEFAULT_DENY;
		return DROP_NONE;
	}
	if (pkt->rule)
		return REFUSE(pkt, DROP_POLICY_DENIED);
	return REFUSE(pkt, DROP_POLICY_DEFAULT_DENY);
}

/* After a packet was let through: tell of it where policy in force would not have. */
static __always_inline void
policy_report(struct __sk_buff *skb, struct packet *pkt)
{
	if (!pkt->audited)
		return;
	count(COUNTER_AUDITED, skb->len);
	event_send(skb, pkt, pkt->audited, VERDICT_AUDIT);
	pkt->audited = 0;
}
