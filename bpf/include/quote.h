// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* An ICMP error about a translated flow is translated, and so is the packet that it quotes
 * (RFC 5508): its IP header and the eight bytes more that RFC 792 and RFC 4443 promise.
 *
 * `from` and `to`: a host's address and port as they are, and as they are to be.
 *
 * Needs: icmp.h, nat.h, packet.h, rewrite.h.  Refuses: DROP_NAT_FAILED.
 */
#pragma once
#include "icmp.h"
#include "nat.h"
#include "packet.h"
#include "rewrite.h"

enum quote_limit { QUOTED_TRANSPORT = 8 };	/* bytes of it; a TCP checksum comes later */

/* Its port, and its checksum where that is among them. */
static __always_inline bool
quote_write_transport(struct __sk_buff *skb, const struct packet *quoted, enum nat_end end,
		      const struct nat *from, const struct nat *to)
{
	__u32 place = quoted->l4_offset + checksum_offset(quoted->protocol);
	__u32 difference = checksum_difference(&from->address, &to->address, sizeof(from->address));
	__be16 before = bpf_htons(from->port), after = bpf_htons(to->port);
	__u16 sum;

	if (bpf_skb_store_bytes(skb, quoted->l4_offset + port_offset(quoted->protocol, end),
				&after, sizeof(after), 0))
		return false;
	if (quoted->protocol == IPPROTO_TCP)
		return true;
	if (bpf_skb_load_bytes(skb, place, &sum, sizeof(sum)))
		return false;
	if (quoted->protocol == IPPROTO_UDP && !sum)
		return true;	/* it has none */
	if (quoted->protocol != IPPROTO_ICMP)
		sum = checksum_adjusted(sum, difference);
	sum = checksum_adjusted(sum, (__u16)~before + after);
	return !bpf_skb_store_bytes(skb, place, &sum, sizeof(sum), 0);
}

/* The first bytes of the quoted transport header, and their part in the error's checksum. */
static __always_inline enum drop_reason
quote_rewrite_transport(struct __sk_buff *skb, struct packet *pkt, const struct packet *quoted,
			enum nat_end end, const struct nat *from, const struct nat *to)
{
	__u8 before[QUOTED_TRANSPORT], after[QUOTED_TRANSPORT];

	if (bpf_skb_load_bytes(skb, quoted->l4_offset, before, sizeof(before)) ||
	    !quote_write_transport(skb, quoted, end, from, to) ||
	    bpf_skb_load_bytes(skb, quoted->l4_offset, after, sizeof(after)) ||
	    l4_checksum_replace(skb, pkt->l4_offset + ICMP_CHECKSUM, 0,
				checksum_difference(before, after, sizeof(after)), 0))
		return REFUSE(pkt, DROP_NAT_FAILED);
	return DROP_NONE;
}

/* An error about a flow: `end` of the error itself, where it is that host's and not a router's,
 * and the same host's end in its quote. The quoted IPv4 header's checksum makes up for its
 * address; in IPv6 the error's must.
 */
static __always_inline enum drop_reason
quote_rewrite(struct __sk_buff *skb, struct packet *pkt, const struct packet *quoted,
	      enum nat_end end, const struct nat *from, const struct nat *to)
{
	enum nat_end other = end == NAT_SOURCE ? NAT_DESTINATION : NAT_SOURCE;
	__u32 checksum = pkt->l4_offset + ICMP_CHECKSUM;
	enum drop_reason reason;

	reason = quote_rewrite_transport(skb, pkt, quoted, other, from, to);
	if (!reason)
		reason = rewrite_address(skb, pkt, pkt->l4_offset + sizeof(struct icmp_head), other,
					 &from->address, &to->address);
	if (reason)
		return reason;
	if (pkt->family == ETH_P_IPV6 &&
	    l4_checksum_replace(skb, checksum, 0,
				checksum_difference(&from->address, &to->address,
						    sizeof(from->address)),
				0))
		return REFUSE(pkt, DROP_NAT_FAILED);
	if (!address_equal(end == NAT_SOURCE ? &pkt->source : &pkt->destination, &from->address))
		return DROP_NONE;
	if (pkt->family == ETH_P_IPV6 &&
	    !checksum_use_address(skb, checksum, &from->address, &to->address, 0))
		return REFUSE(pkt, DROP_NAT_FAILED);
	reason = rewrite_address(skb, pkt, ETH_HLEN, end, &from->address, &to->address);
	if (end == NAT_SOURCE)
		pkt->source = to->address;
	else
		pkt->destination = to->address;
	return reason;
}
