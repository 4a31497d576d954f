// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* What becomes of an endpoint's packet that does not go on as it is.
 *
 * Too big: an IPv4 packet that may be cut (no DF) goes to the host's stack, whose route to
 * the destination has the path's MTU: it cuts the *inner* packet and hands the pieces to the
 * vxlan device, where to_tunnel knows them by their mark. (Cut outside, the pieces would be
 * as large as the interface allows, not the path.) All others are told the MTU by ICMP.
 *
 * Needs: packet.h.
 */
#pragma once
#include <linux/ip.h>
#include "packet.h"

enum piece_mark { MARK_IN_PIECES = 0x6d65 };	/* "me"; only we set it, only on these */

enum ipv4_flag { IPV4_DONT_FRAGMENT = 0x4000 };

static __always_inline bool
may_be_cut(struct __sk_buff *skb, const struct packet *pkt)
{
	__be16 fragment;

	return pkt->family == ETH_P_IP &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, frag_off), &fragment,
				   sizeof(fragment)) &&
	       !(fragment & bpf_htons(IPV4_DONT_FRAGMENT));
}

/* `mtu`: what of the endpoint's packets fits the path. */
static __always_inline int
packet_too_big(struct __sk_buff *skb, struct packet *pkt, __u32 mtu)
{
	if (may_be_cut(skb, pkt)) {
		skb->mark = MARK_IN_PIECES;
		count(COUNTER_TO_BE_CUT, skb->len);
		return TC_ACT_OK;
	}
	pkt->error_mtu = mtu;
	pkt->error = DROP_PACKET_TOO_BIG;
	return packet_continue(skb, pkt, STAGE_ICMP_ERROR);
}

/* For a reason that ICMP has a word for beside "too big". */
static __always_inline int
packet_answer(struct __sk_buff *skb, struct packet *pkt, enum drop_reason reason)
{
	pkt->error_mtu = 0;
	pkt->error = reason;
	return packet_continue(skb, pkt, STAGE_ICMP_ERROR);
}

/* TCP is told in its own words. */
static __always_inline int
packet_unanswered(struct __sk_buff *skb, struct packet *pkt, enum drop_reason reason)
{
	if (pkt->protocol != IPPROTO_TCP)
		return packet_answer(skb, pkt, reason);
	pkt->error = reason;
	return packet_continue(skb, pkt, STAGE_RESET);
}

static __always_inline int
packet_expired(struct __sk_buff *skb, struct packet *pkt)
{
	return packet_answer(skb, pkt, DROP_TTL_EXCEEDED);
}
