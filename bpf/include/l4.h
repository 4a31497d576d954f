// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* From bytes to what tells flows apart: ports, TCP flags, and what stands for ports in ICMP
 * (abi/conntrack.h).
 *
 * Needs: packet.h.  Refuses: DROP_TRUNCATED.
 */
#pragma once
#include <linux/in6.h>
#include "packet.h"

enum icmp_type {
	ICMP_ECHO_REPLY = 0,
	ICMP_ECHO_REQUEST = 8,
	ICMPV6_ECHO_REQUEST_TYPE = 128,
	ICMPV6_ECHO_REPLY_TYPE = 129,
};

/* RFC 792, RFC 4443: common to all, and the identifier of an echo. */
struct icmp_head {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
};

/* Both ports and the flags of TCP (RFC 9293); of UDP only the ports are there. */
struct ports {
	__be16 source;
	__be16 destination;
	__u8 numbers[9];
	__u8 flags;
};
_Static_assert(sizeof(struct ports) == 14, "up to the flags of a TCP header");

static __always_inline void
l4_use_icmp(struct packet *pkt, const struct icmp_head *icmp)
{
	bool ipv6 = pkt->protocol == IPPROTO_ICMPV6;
	__u8 request = ipv6 ? ICMPV6_ECHO_REQUEST_TYPE : ICMP_ECHO_REQUEST;
	__u8 reply = ipv6 ? ICMPV6_ECHO_REPLY_TYPE : ICMP_ECHO_REPLY;

	pkt->icmp_type = icmp->type;
	pkt->destination_port = icmp->type;
	if (icmp->type == request) {
		pkt->source_port = bpf_ntohs(icmp->id);
	} else if (icmp->type == reply) {
		pkt->source_port = request;
		pkt->destination_port = bpf_ntohs(icmp->id);
	}
}

/* Later fragments have no L4 header. */
static __always_inline enum drop_reason
l4_parse(struct __sk_buff *skb, struct packet *pkt)
{
	struct icmp_head icmp;
	struct ports ports;

	if (pkt->later_fragment)
		return DROP_NONE;
	if (pkt->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &ports, sizeof(ports)))
			return REFUSE(pkt, DROP_TRUNCATED);
		pkt->tcp_flags = ports.flags;
	} else if (pkt->protocol == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &ports, 4))
			return REFUSE(pkt, DROP_TRUNCATED);
	} else if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, pkt->l4_offset, &icmp, sizeof(icmp)))
			return REFUSE(pkt, DROP_TRUNCATED);
		l4_use_icmp(pkt, &icmp);
		return DROP_NONE;
	} else {
		return DROP_NONE;
	}
	pkt->source_port = bpf_ntohs(ports.source);
	pkt->destination_port = bpf_ntohs(ports.destination);
	return DROP_NONE;
}
