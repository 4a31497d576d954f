// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Connection tracking: rows of flows, from the side of one endpoint of this node.
 *
 * `side` says which end of the packet the endpoint is at: DIRECTION_EGRESS, it sends it;
 * DIRECTION_INGRESS, it gets it. A row past its expiry is as good as none. Rows are not
 * locked: two CPUs may write one at once, and what can then be lost is one TCP flag, which
 * the next packet brings again.
 *
 * Needs: clock.h, packet.h.  Map: conntrack (LRU).  Layout: abi/conntrack.h.
 */
#pragma once
#include <linux/tcp.h>
#include "clock.h"
#include "packet.h"

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

static __always_inline void
conntrack_key(struct conntrack_key *key, const struct packet *pkt, enum direction side)
{
	bool sends = side == DIRECTION_EGRESS;

	key->endpoint = sends ? pkt->source : pkt->destination;
	key->peer = sends ? pkt->destination : pkt->source;
	key->endpoint_port = sends ? pkt->source_port : pkt->destination_port;
	key->peer_port = sends ? pkt->destination_port : pkt->source_port;
	key->protocol = pkt->protocol;
	__builtin_memset(key->reserved, 0, sizeof(key->reserved));
}

/* The direction of the flow's first packet. */
static __always_inline enum direction
conntrack_began(const struct conntrack *row)
{
	return row->flags & CONNTRACK_PEER_BEGAN ? DIRECTION_INGRESS : DIRECTION_EGRESS;
}

/* A SYN that cannot belong to the connection of this row: that one is closed, or the SYN
 * comes from the side that was called. It opens another one, so policy is asked.
 */
static __always_inline bool
conntrack_reopened(const struct conntrack *row, const struct packet *pkt, enum direction side)
{
	if ((pkt->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	return row->flags & CONNTRACK_CLOSED || conntrack_began(row) != side;
}

/* NULL: the packet is the first of its flow, as far as this node remembers. */
static __always_inline struct conntrack *
conntrack_lookup(const struct packet *pkt, enum direction side)
{
	struct conntrack_key key;
	struct conntrack *row;

	conntrack_key(&key, pkt, side);
	row = bpf_map_lookup_elem(MAP(conntrack), &key);
	if (!row || row->expires <= clock_ticks() || conntrack_reopened(row, pkt, side))
		return NULL;
	return row;
}

static __always_inline __u32
conntrack_lifetime(const struct conntrack *row, __u8 protocol)
{
	if (protocol != IPPROTO_TCP)	/* a service's row outlives no translation of its flow */
		return row->flags & CONNTRACK_SERVICE ? NAT_UDP : CONNTRACK_OTHER;
	if (row->flags & CONNTRACK_CLOSED)
		return CONNTRACK_TCP_CLOSED;
	return row->tcp_sent & row->tcp_received & TCP_ACK ? CONNTRACK_TCP_ESTABLISHED
							    : CONNTRACK_TCP_OPENING;
}

/* What this packet tells of its flow. Once closed, nothing keeps a row alive. A row is
 * written to once a tick at most, unless there is news.
 */
static __always_inline void
conntrack_update(struct conntrack *row, const struct packet *pkt, enum direction side)
{
	bool sends = side == DIRECTION_EGRESS;
	__u8 seen = (sends ? row->tcp_sent : row->tcp_received) | pkt->tcp_flags;
	__u32 expires;

	if (row->flags & CONNTRACK_CLOSED)
		return;
	if (sends && row->tcp_sent != seen)
		row->tcp_sent = seen;
	if (!sends && row->tcp_received != seen)
		row->tcp_received = seen;
	if (!(row->flags & CONNTRACK_ANSWERED) && conntrack_began(row) != side)
		row->flags |= CONNTRACK_ANSWERED;
	if (pkt->tcp_flags & TCP_RST || row->tcp_sent & row->tcp_received & TCP_FIN)
		row->flags |= CONNTRACK_CLOSED;
	expires = clock_ticks() + conntrack_lifetime(row, pkt->protocol);
	if (row->expires != expires)
		row->expires = expires;
}

/* Without a row, since the kernel found no room, the flow's next packet tries again. */
static __always_inline void
conntrack_create(struct packet *pkt, enum direction side, __u8 flags, __u32 remote_identity,
		 __u32 policy_epoch)
{
	__u8 of_service = side == DIRECTION_EGRESS ? SERVICE_TRANSLATED : SERVICE_ANSWER;
	struct conntrack row = {
		.remote_identity = remote_identity,
		.policy_epoch = policy_epoch,
		.flags = flags,
	};
	struct conntrack_key key;

	if (pkt->service & of_service)
		row.flags |= CONNTRACK_SERVICE;
	conntrack_key(&key, pkt, side);
	conntrack_update(&row, pkt, side);
	if (bpf_map_update_elem(MAP(conntrack), &key, &row, BPF_ANY))
		count(COUNTER_UNTRACKED, 0);
}
