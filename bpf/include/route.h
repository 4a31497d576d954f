// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Where does the host's routing table send this packet to the world, and may it go?
 *
 * What the kernel would not forward is left to its stack, which knows what to do: deliver it
 * to an address of the host that we do not know, or tell the sender by ICMP.
 *
 * Needs: packet.h.  Refuses: DROP_NAT_NO_ADDRESS, DROP_PACKET_TOO_BIG, DROP_TRUNCATED.
 */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "packet.h"

enum route_number {
	ROUTE_IPV4 = 2,			/* AF_INET */
	ROUTE_IPV6 = 10,		/* AF_INET6 */
	ROUTE_SKIP_NEIGHBOUR = 1 << 2,	/* kernel 6.3, BPF_FIB_LOOKUP_SKIP_NEIGH */
	IPV4_DONT_FRAGMENT = 0x4000,
};

/* One packet of it as it will be on the wire, from the IP header on. */
static __always_inline __u16
route_length(struct __sk_buff *skb, const struct packet *pkt)
{
	__u8 words = 0x20;	/* in the upper half, in 4 bytes: 8, as for UDP */

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	if (pkt->protocol == IPPROTO_TCP)
		bpf_skb_load_bytes(skb, pkt->l4_offset + 12, &words, 1);
	return pkt->l4_offset - ETH_HLEN + (words >> 4) * 4 + skb->gso_size;
}

/* Its last hop is here: the stack says so to the sender. And may it be cut on the way? */
static __always_inline enum drop_reason
route_read(struct __sk_buff *skb, struct packet *pkt, bool *expired, bool *cut)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

	*cut = false;
	if (pkt->family == ETH_P_IPV6) {
		ip6 = packet_at(skb, ETH_HLEN, sizeof(*ip6));
		if (!ip6)
			return REFUSE(pkt, DROP_TRUNCATED);
		*expired = ip6->hop_limit <= 1;
		return DROP_NONE;
	}
	ip4 = packet_at(skb, ETH_HLEN, sizeof(*ip4));
	if (!ip4)
		return REFUSE(pkt, DROP_TRUNCATED);
	*expired = ip4->ttl <= 1;
	*cut = !(ip4->frag_off & bpf_htons(IPV4_DONT_FRAGMENT));
	return DROP_NONE;
}

static __always_inline long
route_lookup(struct __sk_buff *skb, const struct packet *pkt, struct bpf_fib_lookup *fib)
{
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = pkt->protocol;
	fib->sport = bpf_htons(pkt->source_port);
	fib->dport = bpf_htons(pkt->destination_port);
	fib->tot_len = route_length(skb, pkt);
	if (pkt->family == ETH_P_IPV6) {
		fib->family = ROUTE_IPV6;
		__builtin_memcpy(fib->ipv6_src, &pkt->source, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &pkt->destination, sizeof(fib->ipv6_dst));
	} else {
		fib->family = ROUTE_IPV4;
		fib->ipv4_src = pkt->source.word[3];
		fib->ipv4_dst = pkt->destination.word[3];
	}
	return bpf_fib_lookup(skb, fib, sizeof(*fib), ROUTE_SKIP_NEIGHBOUR);
}

static __always_inline bool
underlay_has(__u16 family)
{
	return family == ETH_P_IPV6 ? CFG->underlay_ipv6.word[3] : CFG->underlay_ipv4.word[3];
}

/* `stack`: the host's stack shall have it. Else `hop` is who is next, on the underlay. */
static __always_inline enum drop_reason
route_to_world(struct __sk_buff *skb, struct packet *pkt, struct bpf_redir_neigh *hop,
	       bool *stack)
{
	struct bpf_fib_lookup fib = {};
	enum drop_reason reason;
	bool expired, cut;
	long answer;

	reason = route_read(skb, pkt, &expired, &cut);
	if (reason)
		return reason;
	answer = route_lookup(skb, pkt, &fib);
	if (answer == BPF_FIB_LKUP_RET_FRAG_NEEDED && cut)
		return REFUSE(pkt, DROP_PACKET_TOO_BIG);
	*stack = expired || (answer >= BPF_FIB_LKUP_RET_BLACKHOLE &&
			     answer <= BPF_FIB_LKUP_RET_FWD_DISABLED) ||
		 answer == BPF_FIB_LKUP_RET_FRAG_NEEDED;
	if (*stack)
		return DROP_NONE;
	if (answer || fib.ifindex != CFG->underlay_ifindex || !underlay_has(pkt->family))
		return REFUSE(pkt, DROP_NAT_NO_ADDRESS);
	hop->nh_family = fib.family;
	__builtin_memcpy(hop->ipv6_nh, fib.ipv6_dst, sizeof(hop->ipv6_nh));
	return DROP_NONE;
}
