// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Does a packet fit the path to its node, with what is put around it?
 *
 * Needs: packet.h.
 */
#pragma once
#include "packet.h"

enum wire_limit { IP_LENGTH_MAX = 0xffff };

/* As one packet of it will be on the wire: a super-packet is cut to gso_size later. */
static __always_inline bool
fits(struct __sk_buff *skb, const struct packet *pkt, __u32 path_mtu, __u32 overhead)
{
	__u32 length = skb->len - ETH_HLEN;
	__u8 tcp_offset = 0x20;	/* in the upper half, in 4 bytes: 8, as for UDP */

	if (length + overhead > IP_LENGTH_MAX)
		return false;
	if (skb->gso_size) {
		if (pkt->protocol == IPPROTO_TCP)
			bpf_skb_load_bytes(skb, pkt->l4_offset + 12, &tcp_offset, 1);
		length = pkt->l4_offset - ETH_HLEN + (tcp_offset >> 4) * 4 + skb->gso_size;
	}
	return length + overhead <= path_mtu;
}
