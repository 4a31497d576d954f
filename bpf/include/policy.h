// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* May this endpoint and that peer talk? Asked once a flow, and again when the endpoint's
 * policy or the peer's identity changed (flow.h).
 *
 * No policy is loaded yet, so every flow is allowed.
 */
#pragma once
#include "packet.h"

/* Who asks, and about whom. */
struct policy_subject {
	__u32 endpoint_id;
	__u32 epoch;		/* the endpoint's policy_epoch */
	__u32 remote_identity;
};

/* `direction`: of the flow's first packet, from the endpoint or to it. `port`: where that
 * packet goes to; its type for ICMP. `pkt` has the protocol.
 */
static __always_inline enum drop_reason
policy_check(struct packet *pkt, const struct policy_subject *subject,
	     enum direction direction, __u16 port)
{
	(void)pkt;
	(void)subject;
	(void)direction;
	(void)port;
	return DROP_NONE;
}
