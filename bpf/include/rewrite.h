// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* One end of a packet gets another address and port, and every checksum follows.
 *
 * Needs: address.h, checksum.h, nat.h, packet.h.  Refuses: DROP_NAT_FAILED.
 */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "address.h"
#include "checksum.h"
#include "nat.h"
#include "packet.h"

enum l4_offset {
	TCP_CHECKSUM = 16,
	UDP_CHECKSUM = 6,
	ICMP_CHECKSUM = 2,
	ICMP_ID = 4,
};

static __always_inline bool
is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* Where the checksum is, in a transport header. */
static __always_inline __u32
checksum_offset(__u8 protocol)
{
	if (protocol == IPPROTO_TCP)
		return TCP_CHECKSUM;
	return protocol == IPPROTO_UDP ? UDP_CHECKSUM : ICMP_CHECKSUM;
}

/* Where the port of one end is, or what stands for it. */
static __always_inline __u32
port_offset(__u8 protocol, enum nat_end end)
{
	if (is_icmp(protocol))
		return ICMP_ID;
	return end == NAT_SOURCE ? 0 : 2;
}

/* In the IP header at `offset`, with the header's own checksum. */
static __always_inline enum drop_reason
rewrite_address(struct __sk_buff *skb, struct packet *pkt, __u32 offset, enum nat_end end,
		const struct address *from, const struct address *to)
{
	__u32 check = offset + offsetof(struct iphdr, check);
	bool source = end == NAT_SOURCE;

	if (pkt->family == ETH_P_IPV6) {
		offset += source ? offsetof(struct ipv6hdr, saddr)
				 : offsetof(struct ipv6hdr, daddr);
		return bpf_skb_store_bytes(skb, offset, to, sizeof(*to), 0)
			       ? REFUSE(pkt, DROP_NAT_FAILED)
			       : DROP_NONE;
	}
	offset += source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr);
	if (l3_checksum_replace(skb, check, from->word[3], to->word[3], sizeof(__be32)) ||
	    bpf_skb_store_bytes(skb, offset, &to->word[3], sizeof(__be32), 0))
		return REFUSE(pkt, DROP_NAT_FAILED);
	return DROP_NONE;
}

/* ICMP of IPv4 has no pseudo header. A UDP checksum of zero is none, and stays so. */
static __always_inline enum drop_reason
rewrite_transport(struct __sk_buff *skb, struct packet *pkt, enum nat_end end,
		  const struct address *from, __u16 from_port, const struct nat *to)
{
	__u32 checksum = pkt->l4_offset + checksum_offset(pkt->protocol);
	__u64 flags = pkt->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be16 before = bpf_htons(from_port), after = bpf_htons(to->port);

	if (pkt->protocol != IPPROTO_ICMP &&
	    !checksum_use_address(skb, checksum, from, &to->address, flags))
		return REFUSE(pkt, DROP_NAT_FAILED);
	if (l4_checksum_replace(skb, checksum, before, after, flags | sizeof(after)) ||
	    bpf_skb_store_bytes(skb, pkt->l4_offset + port_offset(pkt->protocol, end), &after,
				sizeof(after), 0))
		return REFUSE(pkt, DROP_NAT_FAILED);
	return DROP_NONE;
}

/* The packet and what is known of it. A later fragment has no transport header. */
static __always_inline enum drop_reason
rewrite(struct __sk_buff *skb, struct packet *pkt, enum nat_end end, const struct nat *to)
{
	bool source = end == NAT_SOURCE;
	struct address from = source ? pkt->source : pkt->destination;
	__u16 port = source ? pkt->source_port : pkt->destination_port;
	enum drop_reason reason = DROP_NONE;

	if (!pkt->later_fragment)
		reason = rewrite_transport(skb, pkt, end, &from, port, to);
	if (!reason)
		reason = rewrite_address(skb, pkt, ETH_HLEN, end, &from, &to->address);
	if (source) {
		pkt->source = to->address;
		pkt->source_port = to->port;
	} else {
		pkt->destination = to->address;
		pkt->destination_port = to->port;
	}
	return reason;
}
