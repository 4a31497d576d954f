// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Rows of masqueraded flows: found, kept alive, made.
 *
 * A row that is past its expiry is as good as none. Both rows of a flow are written at once,
 * once a tick at most unless there is news: so the way that is quiet does not lose its row to
 * the LRU, and a port is free again when neither way has been used.
 *
 * Needs: address.h, clock.h, conntrack.h, packet.h.  Map: nat.  Layout: abi/nat.h.
 */
#pragma once
#include "address.h"
#include "clock.h"
#include "conntrack.h"
#include "packet.h"

/* Which end of a packet is rewritten: the source on the way out, the destination back. */
enum nat_end { NAT_SOURCE, NAT_DESTINATION };

static __always_inline void
nat_key_of(struct nat_key *key, const struct packet *pkt, enum nat_end end)
{
	bool out = end == NAT_SOURCE;

	key->local = out ? pkt->source : pkt->destination;
	key->remote = out ? pkt->destination : pkt->source;
	key->local_port = out ? pkt->source_port : pkt->destination_port;
	key->remote_port = out ? pkt->destination_port : pkt->source_port;
	key->protocol = pkt->protocol;
	__builtin_memset(key->reserved, 0, sizeof(key->reserved));
}

static __always_inline void
nat_own_address(struct address *own, __u16 family)
{
	const volatile struct address *address =
		family == ETH_P_IPV6 ? &CFG->underlay_ipv6 : &CFG->underlay_ipv4;
	int i;

#pragma unroll
	for (i = 0; i < 4; i++)
		own->word[i] = address->word[i];
}

/* A SYN on its way out begins another connection, whatever the row says of the last one.
 * `back`: the packet is an answer.
 */
static __always_inline __u8
nat_flags(__u8 flags, const struct packet *pkt, bool back)
{
	if (back)
		flags |= NAT_ANSWERED;
	else if ((pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		flags = 0;
	if (pkt->tcp_flags & TCP_FIN)
		flags |= back ? NAT_FIN_BACK : NAT_FIN_OUT;
	if (pkt->tcp_flags & TCP_RST)
		flags |= NAT_RESET;
	return flags;
}

/* Of TCP: it was reset, or both sides are done. */
static __always_inline bool
nat_closed(__u8 flags)
{
	__u8 both = NAT_FIN_OUT | NAT_FIN_BACK;

	return flags & NAT_RESET || (flags & both) == both;
}

static __always_inline __u32
nat_lifetime(__u8 protocol, __u8 flags)
{
	if (protocol == IPPROTO_UDP)
		return NAT_UDP;
	if (protocol != IPPROTO_TCP)
		return NAT_ICMP;
	if (flags & NAT_ANSWERED && !nat_closed(flags))
		return NAT_TCP_ESTABLISHED;
	return NAT_TCP_TRANSITORY;
}

/* The row for this key, as it is: an ICMP error keeps nothing alive (RFC 5508, REQ-7). */
static __always_inline struct nat *
nat_find(const struct nat_key *key)
{
	struct nat *row = bpf_map_lookup_elem(MAP(nat), key);

	return row && row->expires > clock_ticks() ? row : NULL;
}

/* False: the other way is another flow's by now. */
static __always_inline bool
nat_refresh(const struct nat_key *key, struct nat *row, const struct packet *pkt,
	    enum nat_end end)
{
	__u8 flags = nat_flags(row->flags, pkt, end == NAT_DESTINATION);
	__u32 expires = clock_ticks() + nat_lifetime(pkt->protocol, flags);
	struct nat back = {.address = key->local, .port = key->local_port};
	struct nat_key other = *key;
	struct nat *twin;

	if (row->flags == flags && row->expires == expires)
		return true;
	other.local = row->address;
	other.local_port = row->port;
	row->flags = back.flags = flags;
	row->expires = back.expires = expires;
	twin = bpf_map_lookup_elem(MAP(nat), &other);
	if (!twin)
		return !bpf_map_update_elem(MAP(nat), &other, &back, BPF_NOEXIST);
	if (twin->port != back.port || !address_equal(&twin->address, &back.address))
		return false;
	twin->flags = flags;
	twin->expires = expires;
	return true;
}

/* The row for this packet. NULL: it is the first of its flow. */
static __always_inline struct nat *
nat_lookup(const struct nat_key *key, const struct packet *pkt, enum nat_end end)
{
	struct nat *row = nat_find(key);

	return row && nat_refresh(key, row, pkt, end) ? row : NULL;
}

/* The endpoint's own port where the pool has it: nothing then changes but the address. */
static __always_inline __u16
nat_candidate(const struct packet *pkt, bool first)
{
	__u32 size = CFG->nat_last_port - CFG->nat_first_port + 1;

	if (first && !pkt->nat_rounds && pkt->source_port >= CFG->nat_first_port &&
	    pkt->source_port <= CFG->nat_last_port)
		return pkt->source_port;
	return CFG->nat_first_port + bpf_get_prandom_u32() % size;
}

/* Only one of two CPUs can have it: NOEXIST. What has expired is free. */
static __always_inline bool
nat_claim(const struct nat_key *key, const struct nat *row)
{
	if (!bpf_map_update_elem(MAP(nat), key, row, BPF_NOEXIST))
		return true;
	return !nat_find(key) && !bpf_map_update_elem(MAP(nat), key, row, BPF_ANY);
}

/* Both rows for a new flow; `out` is what the packet is to become. False: no port found. */
static __always_inline bool
nat_open(struct packet *pkt, const struct nat_key *key, struct nat *out)
{
	struct nat back = {.address = key->local, .port = key->local_port};
	struct nat_key other = *key;
	int i;

	out->flags = back.flags = nat_flags(0, pkt, false);
	out->expires = back.expires = clock_ticks() + nat_lifetime(pkt->protocol, back.flags);
	nat_own_address(&out->address, pkt->family);
	other.local = out->address;
#pragma unroll
	for (i = 0; i < NAT_TRIES; i++) {
		other.local_port = nat_candidate(pkt, i == 0);
		if (!nat_claim(&other, &back))
			continue;
		out->port = other.local_port;
		return !bpf_map_update_elem(MAP(nat), key, out, BPF_ANY);
	}
	return false;
}
