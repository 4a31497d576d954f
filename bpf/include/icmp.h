// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* ICMP and ICMPv6 errors: which packet are they about?
 *
 * An error quotes the IP header and at least 8 bytes more of the packet that made trouble
 * (RFC 792, RFC 4443), and goes to the sender of that packet.
 *
 * Needs: parse.h.  Map: scratch (its second slot is the quoted packet).
 */
#pragma once
#include "parse.h"

enum icmp_error {
	ICMP_UNREACHABLE = 3,	/* with "fragmentation needed" */
	ICMP_TIME_PASSED = 11,
	ICMP_BAD_PARAMETER = 12,
	ICMPV6_FIRST_ERROR = 1,	/* unreachable, too big, time exceeded, parameter problem */
	ICMPV6_LAST_ERROR = 4,
};

static __always_inline bool
icmp_is_error(const struct packet *pkt)
{
	if (pkt->later_fragment)
		return false;
	if (pkt->protocol == IPPROTO_ICMP)
		return pkt->icmp_type == ICMP_UNREACHABLE || pkt->icmp_type == ICMP_TIME_PASSED ||
		       pkt->icmp_type == ICMP_BAD_PARAMETER;
	return pkt->protocol == IPPROTO_ICMPV6 && pkt->icmp_type >= ICMPV6_FIRST_ERROR &&
	       pkt->icmp_type <= ICMPV6_LAST_ERROR;
}

static __always_inline bool
icmp_quoted_ipv4(struct __sk_buff *skb, struct packet *quoted, __u32 offset)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
	    bpf_ntohs(ip.frag_off) & IPV4_FRAGMENT_OFFSET)
		return false;
	address_from_ipv4(&quoted->source, ip.saddr);
	address_from_ipv4(&quoted->destination, ip.daddr);
	quoted->protocol = ip.protocol;
	quoted->l4_offset = offset + ip.ihl * 4;
	return true;
}

/* Of extension headers only a fragment's is followed: our own stacks send no other. */
static __always_inline bool
icmp_quoted_ipv6(struct __sk_buff *skb, struct packet *quoted, __u32 offset)
{
	struct extension extension;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	__builtin_memcpy(&quoted->source, &ip.saddr, sizeof(quoted->source));
	__builtin_memcpy(&quoted->destination, &ip.daddr, sizeof(quoted->destination));
	quoted->protocol = ip.nexthdr;
	quoted->l4_offset = offset + sizeof(ip);
	if (ip.nexthdr != IPPROTO_FRAGMENT)
		return true;
	if (bpf_skb_load_bytes(skb, quoted->l4_offset, &extension, sizeof(extension)) ||
	    bpf_ntohs(extension.fragment) & IPV6_FRAGMENT_OFFSET)
		return false;
	quoted->protocol = extension.next;
	quoted->l4_offset += sizeof(extension);
	return true;
}

/* Eight bytes are all that need be there: of TCP and UDP the ports are among them. */
static __always_inline bool
icmp_quoted_l4(struct __sk_buff *skb, struct packet *quoted)
{
	struct icmp_head head;

	if (bpf_skb_load_bytes(skb, quoted->l4_offset, &head, sizeof(head)))
		return false;
	if (quoted->protocol == IPPROTO_ICMP || quoted->protocol == IPPROTO_ICMPV6) {
		l4_use_icmp(quoted, &head);
	} else if (quoted->protocol == IPPROTO_TCP || quoted->protocol == IPPROTO_UDP) {
		quoted->source_port = head.type << 8 | head.code;
		quoted->destination_port = bpf_ntohs(head.checksum);
	}
	return true;
}

/* The packet that this error quotes, if it was sent by whom the error goes to; else NULL.
 * It has addresses, protocol and ports, and no more.
 */
static __always_inline const struct packet *
icmp_quoted(struct __sk_buff *skb, const struct packet *pkt)
{
	__u32 slot = SCRATCH_QUOTED;
	struct packet *quoted = bpf_map_lookup_elem(MAP(scratch), &slot);
	__u32 offset = pkt->l4_offset + sizeof(struct icmp_head);
	bool known;

	if (!quoted)
		return NULL;
	__builtin_memset(quoted, 0, sizeof(*quoted));
	known = pkt->protocol == IPPROTO_ICMP ? icmp_quoted_ipv4(skb, quoted, offset)
					      : icmp_quoted_ipv6(skb, quoted, offset);
	if (!known || !icmp_quoted_l4(skb, quoted) ||
	    !address_equal(&quoted->source, &pkt->destination))
		return NULL;
	return quoted;
}
