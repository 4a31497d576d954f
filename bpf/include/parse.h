// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* From bytes to struct packet: addresses, protocol, ports, of IPv4 and IPv6 alike.
 *
 * `offset` counts from the Ethernet header and is where the IP header begins, so the same
 * functions read an endpoint's packet and the inner one of a tunnelled packet.
 *
 * Needs: address.h, l4.h, packet.h, wellformed.h.  Refuses: DROP_TRUNCATED, DROP_MALFORMED,
 * DROP_EXTENSION_HEADERS, DROP_UNSUPPORTED_L3, and what l4.h and wellformed.h refuse.
 */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "address.h"
#include "l4.h"
#include "packet.h"
#include "wellformed.h"

enum parse_limit {
	IPV4_FRAGMENT_OFFSET = 0x1fff,	/* in 8 bytes */
	IPV4_MORE_FRAGMENTS = 0x2000,
	IPV6_FRAGMENT_OFFSET = 0xfff8,	/* in bytes */
	IPV6_MORE_FRAGMENTS = 1,
	IPV6_EXTENSIONS = 4,	/* Linux itself sends two at most */
};

/* RFC 8200 section 4: the first two bytes are common to all that are followed here. */
struct extension {
	__u8 next;
	__u8 length;		/* in 8 bytes, without the first 8 */
	__be16 fragment;	/* the fragment header's offset and flags, */
	__be32 id;		/* and its identification */
};

static __always_inline enum drop_reason
parse_ipv4(struct __sk_buff *skb, struct packet *pkt, __u32 offset, bool *more)
{
	struct iphdr *ip = packet_at(skb, offset, sizeof(*ip));
	enum drop_reason reason = DROP_NONE;
	__u32 total, fragment;

	if (!ip)
		return REFUSE(pkt, DROP_TRUNCATED);
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || total < ip->ihl * 4)
		return REFUSE(pkt, DROP_MALFORMED);
	if (total > skb->len - offset)
		return REFUSE(pkt, DROP_TRUNCATED);

	address_from_ipv4(&pkt->source, ip->saddr);
	address_from_ipv4(&pkt->destination, ip->daddr);
	pkt->family = ETH_P_IP;
	pkt->protocol = ip->protocol;
	pkt->hops = ip->ttl;
	pkt->l4_offset = offset + ip->ihl * 4;
	pkt->end = offset + total;
	pkt->fragment_id = bpf_ntohs(ip->id);
	fragment = bpf_ntohs(ip->frag_off);
	*more = fragment & IPV4_MORE_FRAGMENTS;
	if (ip->ihl > 5)
		reason = check_options(skb, pkt, offset + sizeof(*ip), pkt->l4_offset);
	return reason ? reason
		      : check_fragment(pkt, (fragment & IPV4_FRAGMENT_OFFSET) * 8, *more);
}

static __always_inline bool
is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_FRAGMENT;
}

/* Follow the extension headers to what they hide; hop-by-hop options come first or never.
 * What a fragment header says is left in `fragment`.
 */
static __always_inline enum drop_reason
parse_extensions(struct __sk_buff *skb, struct packet *pkt, __u8 next, __u32 offset,
		 __u32 *fragment)
{
	struct extension extension;
	bool cut = false;
	int i;

#pragma unroll
	for (i = 0; i < IPV6_EXTENSIONS; i++) {
		if (!is_extension(next) || *fragment & IPV6_FRAGMENT_OFFSET)
			break;
		if (next == IPPROTO_ROUTING)
			return REFUSE(pkt, DROP_SOURCE_ROUTE);
		if ((next == IPPROTO_HOPOPTS && i) || (next == IPPROTO_FRAGMENT && cut))
			return REFUSE(pkt, DROP_MALFORMED);
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return REFUSE(pkt, DROP_TRUNCATED);
		offset += 8;
		if (next == IPPROTO_FRAGMENT) {
			cut = true;
			*fragment = bpf_ntohs(extension.fragment);
			pkt->fragment_id = bpf_ntohl(extension.id);
		} else {
			offset += extension.length * 8;
		}
		if (offset > pkt->end)
			return REFUSE(pkt, DROP_TRUNCATED);
		next = extension.next;
	}
	pkt->protocol = next;
	pkt->l4_offset = offset;
	if (is_extension(next) && !(*fragment & IPV6_FRAGMENT_OFFSET))
		return REFUSE(pkt, DROP_EXTENSION_HEADERS);
	return DROP_NONE;
}

static __always_inline enum drop_reason
parse_ipv6(struct __sk_buff *skb, struct packet *pkt, __u32 offset, bool *more)
{
	struct ipv6hdr *ip = packet_at(skb, offset, sizeof(*ip));
	enum drop_reason reason;
	__u32 fragment = 0;

	if (!ip)
		return REFUSE(pkt, DROP_TRUNCATED);
	if (ip->version != 6)
		return REFUSE(pkt, DROP_MALFORMED);
	pkt->end = offset + sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (pkt->end > skb->len)
		return REFUSE(pkt, DROP_TRUNCATED);

	__builtin_memcpy(&pkt->source, &ip->saddr, sizeof(pkt->source));
	__builtin_memcpy(&pkt->destination, &ip->daddr, sizeof(pkt->destination));
	/* ::ffff:a.b.c.d never is on the wire (RFC 6890); here it would pass for IPv4 */
	if (address_is_ipv4(&pkt->source) || address_is_ipv4(&pkt->destination))
		return REFUSE(pkt, DROP_MALFORMED);
	pkt->family = ETH_P_IPV6;
	pkt->hops = ip->hop_limit;
	reason = parse_extensions(skb, pkt, ip->nexthdr, offset + sizeof(*ip), &fragment);
	if (reason)
		return reason;
	*more = fragment & IPV6_MORE_FRAGMENTS;
	return check_fragment(pkt, fragment & IPV6_FRAGMENT_OFFSET, *more);
}

/* The IP packet at `offset`, of the family that the Ethernet header before it names. */
static __always_inline enum drop_reason
parse_packet(struct __sk_buff *skb, struct packet *pkt, __be16 family, __u32 offset)
{
	enum drop_reason reason;
	bool more = false;

	if (family == bpf_htons(ETH_P_IP))
		reason = parse_ipv4(skb, pkt, offset, &more);
	else if (family == bpf_htons(ETH_P_IPV6))
		reason = parse_ipv6(skb, pkt, offset, &more);
	else
		reason = REFUSE(pkt, DROP_UNSUPPORTED_L3);
	if (!reason)
		reason = check_addresses(pkt);
	pkt->first_fragment = more && !pkt->later_fragment;
	return reason ? reason : l4_parse(skb, pkt, more);
}
