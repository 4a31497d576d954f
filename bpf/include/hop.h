// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* One hop of a packet's life, taken by each node that routes it: by the receiving one
 * always, by the sending one where no tunnel hides that there are two.
 *
 * Needs: packet.h.  Refuses: DROP_TRUNCATED, DROP_TTL_EXCEEDED.
 */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "packet.h"

/* RFC 1141: the header's sum stays what it was, and so does a checksum that a device made
 * over the whole packet (CHECKSUM_COMPLETE).
 */
static __always_inline enum drop_reason
take_hop_ipv4(struct __sk_buff *skb, struct packet *pkt)
{
	struct iphdr *ip = packet_at(skb, ETH_HLEN, sizeof(*ip));
	__u32 sum;

	if (!ip)
		return REFUSE(pkt, DROP_TRUNCATED);
	if (ip->ttl <= 1)
		return REFUSE(pkt, DROP_TTL_EXCEEDED);
	ip->ttl--;
	sum = ip->check + bpf_htons(0x0100);
	ip->check = sum + (sum >= 0xffff);
	return DROP_NONE;
}

/* IPv6 has no sum to compensate with, so the device's is recomputed. */
static __always_inline enum drop_reason
take_hop_ipv6(struct __sk_buff *skb, struct packet *pkt)
{
	__u32 offset = ETH_HLEN + offsetof(struct ipv6hdr, hop_limit);
	__u8 hops;

	if (bpf_skb_load_bytes(skb, offset, &hops, sizeof(hops)))
		return REFUSE(pkt, DROP_TRUNCATED);
	if (hops <= 1)
		return REFUSE(pkt, DROP_TTL_EXCEEDED);
	hops--;
	if (bpf_skb_store_bytes(skb, offset, &hops, sizeof(hops), BPF_F_RECOMPUTE_CSUM))
		return REFUSE(pkt, DROP_TRUNCATED);
	return DROP_NONE;
}

/* For who sends it on without taking one: the receiving node will, and must find it there. */
static __always_inline enum drop_reason
check_hop(struct packet *pkt)
{
	return pkt->hops > 1 ? DROP_NONE : REFUSE(pkt, DROP_TTL_EXCEEDED);
}

static __always_inline enum drop_reason
take_hop(struct __sk_buff *skb, struct packet *pkt)
{
	return pkt->family == ETH_P_IPV6 ? take_hop_ipv6(skb, pkt) : take_hop_ipv4(skb, pkt);
}
