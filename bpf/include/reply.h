// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Could this frame of the underlay answer a masqueraded packet? A look at as little as can
 * tell, so that the node's own traffic pays next to nothing: who answers yes looks for the row.
 *
 * Needs: address.h, packet.h.
 */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "address.h"
#include "packet.h"

/* `offset`: of the transport header, when there is one right here. */
static __always_inline bool
protocol_may_be_reply(struct __sk_buff *skb, __u8 protocol, __u32 offset)
{
	__be16 *ports;
	__u16 port;

	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return true;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return false;
	ports = packet_at(skb, offset, 2 * sizeof(*ports));
	if (!ports)
		return false;
	port = bpf_ntohs(ports[1]);
	return port >= CFG->nat_first_port && port <= CFG->nat_last_port;
}

static __always_inline bool
may_be_reply(struct __sk_buff *skb)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

	if (!CFG->nat_first_port || skb->vlan_present)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		ip4 = packet_at(skb, ETH_HLEN, sizeof(*ip4));
		if (!ip4 || !ip4->daddr || ip4->daddr != CFG->underlay_ipv4.word[3])
			return false;
		if (ip4->ihl != 5 || ip4->frag_off & bpf_htons(0x1fff))
			return true;
		return protocol_may_be_reply(skb, ip4->protocol, ETH_HLEN + sizeof(*ip4));
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		ip6 = packet_at(skb, ETH_HLEN, sizeof(*ip6));
		if (!ip6 || !address_is((void *)&ip6->daddr, &CFG->underlay_ipv6))
			return false;
		return ip6->nexthdr == IPPROTO_FRAGMENT || ip6->nexthdr == IPPROTO_DSTOPTS ||
		       protocol_may_be_reply(skb, ip6->nexthdr, ETH_HLEN + sizeof(*ip6));
	}
	return false;
}
