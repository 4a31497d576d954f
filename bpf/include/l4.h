// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* From bytes to what tells flows apart: ports, TCP flags, and what stands for ports in ICMP
 * (abi/conntrack.h).
 *
 * Needs: packet.h.  Refuses: DROP_L4_TRUNCATED, DROP_L4_MALFORMED.
 */
#pragma once
#include <linux/in6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
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
	__be16 sequence;
};
_Static_assert(sizeof(struct icmp_head) == 8, "no ICMP message is shorter");

/* RFC 9260 section 3.1 */
struct sctp_head {
	__be16 source;
	__be16 destination;
	__be32 verification_tag;
	__be32 checksum;
};
_Static_assert(sizeof(struct sctp_head) == 12, "no SCTP packet is shorter");

enum tcp_place { TCP_FLAGS_OFFSET = 13 };	/* RFC 9293 */

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

static __always_inline enum drop_reason
l4_parse_tcp(struct __sk_buff *skb, struct packet *pkt, __u32 room)
{
	struct tcphdr tcp;

	if (room < sizeof(tcp) || bpf_skb_load_bytes(skb, pkt->l4_offset, &tcp, sizeof(tcp)))
		return REFUSE(pkt, DROP_L4_TRUNCATED);
	pkt->source_port = bpf_ntohs(tcp.source);
	pkt->destination_port = bpf_ntohs(tcp.dest);
	pkt->tcp_flags = ((const __u8 *)&tcp)[TCP_FLAGS_OFFSET];
	if (tcp.doff * 4 < sizeof(tcp) || tcp.doff * 4 > room)
		return REFUSE(pkt, DROP_L4_MALFORMED);
	return DROP_NONE;
}

/* In the first of several fragments UDP's length is that of all of them. */
static __always_inline enum drop_reason
l4_parse_udp(struct __sk_buff *skb, struct packet *pkt, __u32 room, bool more)
{
	struct udphdr udp;
	__u32 length;

	if (room < sizeof(udp) || bpf_skb_load_bytes(skb, pkt->l4_offset, &udp, sizeof(udp)))
		return REFUSE(pkt, DROP_L4_TRUNCATED);
	pkt->source_port = bpf_ntohs(udp.source);
	pkt->destination_port = bpf_ntohs(udp.dest);
	length = bpf_ntohs(udp.len);
	if (length < sizeof(udp) || (length > room && !more))
		return REFUSE(pkt, DROP_L4_MALFORMED);
	return DROP_NONE;
}

/* The header behind IP, where this packet has one: later fragments do not. `more`: it is
 * the first of several.
 */
static __always_inline enum drop_reason
l4_parse(struct __sk_buff *skb, struct packet *pkt, bool more)
{
	__u32 room = pkt->end - pkt->l4_offset;
	struct sctp_head sctp;
	struct icmp_head icmp;

	if (pkt->later_fragment)
		return DROP_NONE;
	if (pkt->protocol == IPPROTO_TCP)
		return l4_parse_tcp(skb, pkt, room);
	if (pkt->protocol == IPPROTO_UDP)
		return l4_parse_udp(skb, pkt, room, more);
	if (pkt->protocol == IPPROTO_SCTP) {
		if (room < sizeof(sctp) ||
		    bpf_skb_load_bytes(skb, pkt->l4_offset, &sctp, sizeof(sctp)))
			return REFUSE(pkt, DROP_L4_TRUNCATED);
		pkt->source_port = bpf_ntohs(sctp.source);
		pkt->destination_port = bpf_ntohs(sctp.destination);
	}
	if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6) {
		if (room < sizeof(icmp) ||
		    bpf_skb_load_bytes(skb, pkt->l4_offset, &icmp, sizeof(icmp)))
			return REFUSE(pkt, DROP_L4_TRUNCATED);
		l4_use_icmp(pkt, &icmp);
	}
	return DROP_NONE;
}
