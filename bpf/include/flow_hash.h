// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* A number for the flow of a packet, so that all of it takes one way through the underlay's
 * parallel links and queues, and others take others (RFC 7348 section 5, RFC 6438).
 *
 * A connected socket has one of its own, which changes when the connection stalls: so the
 * flow leaves a path that is dead. For the rest, the kernel would dissect the packet anew
 * (200 ns); `pkt` knows all that it would find.
 *
 * Needs: packet.h.
 */
#pragma once
#include "packet.h"

static __always_inline __u32
flow_hash_mix(__u32 hash, __u32 word)
{
	hash ^= word;
	hash = (hash ^ hash >> 16) * 0x85ebca6b;	/* as MurmurHash3 ends, by Appleby */
	return hash ^ hash >> 13;
}

static __always_inline __u32
flow_hash_fold(const struct address *address)
{
	return address->word[0] ^ address->word[1] ^ address->word[2] ^ address->word[3];
}

/* Never 0, so that nobody dissects the packet later on. */
static __always_inline __u32
flow_hash(struct __sk_buff *skb, const struct packet *pkt)
{
	__u32 hash = skb->hash;

	if (hash)
		return hash;
	hash = flow_hash_mix(pkt->protocol, flow_hash_fold(&pkt->source));
	hash = flow_hash_mix(hash, flow_hash_fold(&pkt->destination));
	hash = flow_hash_mix(hash, (__u32)pkt->source_port << 16 | pkt->destination_port);
	hash = hash ? hash : 1;
	bpf_set_hash(skb, hash);
	return hash;
}
