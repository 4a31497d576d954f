// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Later fragments of an IP packet have no ports: they follow the first one.
 *
 * Every sender known sends the first one first. One that overtakes it is refused, and so is
 * the rest of a packet whose first fragment was. Call it when the sender is verified.
 *
 * Needs: packet.h.  Map: fragments (LRU).  Layout: abi/fragment.h.
 */
#pragma once
#include "packet.h"

/* After it, `pkt` has the ports of its flow, whichever fragment it is. */
static __always_inline enum drop_reason
fragment_follow(struct packet *pkt)
{
	struct fragment_key key = {.id = pkt->fragment_id};
	struct fragment first = {
		.source_port = pkt->source_port,
		.destination_port = pkt->destination_port,
		.protocol = pkt->protocol,
		.icmp_type = pkt->icmp_type,
	};
	const struct fragment *found;

	if (!pkt->first_fragment && !pkt->later_fragment)
		return DROP_NONE;
	key.source = pkt->source;
	key.destination = pkt->destination;
	key.protocol = pkt->family == ETH_P_IP ? pkt->protocol : 0;
	if (pkt->first_fragment) {
		bpf_map_update_elem(MAP(fragments), &key, &first, BPF_ANY);
		return DROP_NONE;
	}
	found = bpf_map_lookup_elem(MAP(fragments), &key);
	if (!found)
		return REFUSE(pkt, DROP_FRAGMENT_WITHOUT_FIRST);
	pkt->source_port = found->source_port;
	pkt->destination_port = found->destination_port;
	pkt->protocol = found->protocol;
	pkt->icmp_type = found->icmp_type;
	return DROP_NONE;
}
