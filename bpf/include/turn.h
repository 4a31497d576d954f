// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* An endpoint's frame becomes the answer to itself: sums, its size, its way back.
 *
 * Needs: packet.h.
 */
#pragma once
#include "packet.h"

enum turn_limit {
	/* More than the old headers up to the L4 one. Pulled off, they take with them the
	 * kernel's plan to put a checksum there (CHECKSUM_PARTIAL).
	 */
	SLACK = 128,
};

/* What bpf_csum_diff found, as headers want it. */
static __always_inline __u16
fold(__s64 sum)
{
	__u32 folded = sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return ~folded;
}

/* A plain packet of this length, whatever it was: a super-packet, one without its sum. */
static __always_inline bool
resize(struct __sk_buff *skb, __u32 length)
{
	return !bpf_skb_change_tail(skb, length + SLACK, 0) &&
	       !bpf_skb_adjust_room(skb, -(__s32)SLACK, BPF_ADJ_ROOM_MAC, 0);
}

/* Back to where it came from. */
static __always_inline bool
turn_frame(struct __sk_buff *skb)
{
	struct ethhdr *frame = packet_at(skb, 0, sizeof(*frame));
	__u8 other[ETH_ALEN];

	if (!frame)
		return false;
	__builtin_memcpy(other, frame->h_dest, ETH_ALEN);
	__builtin_memcpy(frame->h_dest, frame->h_source, ETH_ALEN);
	__builtin_memcpy(frame->h_source, other, ETH_ALEN);
	return true;
}
