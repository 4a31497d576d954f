// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* What a packet must be beside "addressed right": whole, and without ways to hide.
 *
 * parse.h asks for every packet, an endpoint's own and the inner one of a tunnelled packet
 * alike. Nothing here keeps state. tests/support/wellformed.py says the same in Python.
 *
 * Needs: address.h, packet.h.  Refuses: DROP_SOURCE_ROUTE, DROP_IPV4_OPTION,
 * DROP_BAD_FRAGMENT, DROP_MARTIAN_SOURCE, DROP_MARTIAN_DESTINATION.
 */
#pragma once
#include "address.h"
#include "packet.h"

enum ipv4_option {		/* RFC 791, RFC 2113 */
	OPTION_END = 0,
	OPTION_PAD = 1,
	OPTION_LOOSE_ROUTE = 131,
	OPTION_STRICT_ROUTE = 137,
	OPTION_ROUTER_ALERT = 148,
};

enum wellformed_limit {
	OPTION_WORDS = 10,	/* the longest IPv4 header has so many behind its 20 bytes */
	ROUTER_ALERT_REST = 3,	/* its bytes after the first */
	PACKET_BYTES_MAX = 0xffff,
};

/* One option byte. `skip` counts the bytes still to pass over, or is -1 after the end. */
static __always_inline enum drop_reason
check_option(struct packet *pkt, __u8 kind, int *skip)
{
	if (*skip < 0)
		return DROP_NONE;
	if (*skip) {
		(*skip)--;
		return DROP_NONE;
	}
	if (kind == OPTION_END)
		*skip = -1;
	else if (kind == OPTION_ROUTER_ALERT)
		*skip = ROUTER_ALERT_REST;
	else if (kind == OPTION_LOOSE_ROUTE || kind == OPTION_STRICT_ROUTE)
		return REFUSE(pkt, DROP_SOURCE_ROUTE);
	else if (kind != OPTION_PAD)
		return REFUSE(pkt, DROP_IPV4_OPTION);
	return DROP_NONE;
}

/* RFC 7126: options are dropped unless something needs them; only IGMP and RSVP's does. */
static __always_inline enum drop_reason
check_options(struct __sk_buff *skb, struct packet *pkt, __u32 offset, __u32 end)
{
	enum drop_reason reason;
	int skip = 0;
	__u8 kind;
	int i;

	for (i = 0; i < OPTION_WORDS * 4; i++) {
		if (offset + i >= end)
			break;
		if (bpf_skb_load_bytes(skb, offset + i, &kind, sizeof(kind)))
			return REFUSE(pkt, DROP_TRUNCATED);
		reason = check_option(pkt, kind, &skip);
		if (reason)
			return reason;
	}
	return skip > 0 ? REFUSE(pkt, DROP_IPV4_OPTION) : DROP_NONE;
}

/* `offset` in bytes; `more`: others follow. A TCP fragment at 8 would write over the flags
 * of the first one (RFC 3128).
 */
static __always_inline enum drop_reason
check_fragment(struct packet *pkt, __u32 offset, bool more)
{
	__u32 length = pkt->end - pkt->l4_offset;

	if (!offset && !more)
		return DROP_NONE;
	pkt->later_fragment = offset != 0;
	if (offset + length > PACKET_BYTES_MAX || (more && length & 7) ||
	    (offset == 8 && pkt->protocol == IPPROTO_TCP))
		return REFUSE(pkt, DROP_BAD_FRAGMENT);
	return DROP_NONE;
}

/* Loopback, "this network" and the reserved class E with its broadcast address. */
static __always_inline bool
address_is_martian(const struct address *a)
{
	__u32 top = bpf_ntohl(a->word[3]) >> 24;

	if (address_is_ipv4(a))
		return top == 0 || top == 127 || top >= 240;
	return !a->word[0] && !a->word[1] && !a->word[2] && a->word[3] == bpf_htonl(1);
}

static __always_inline bool
address_is_broadcast(const struct address *a)
{
	return address_is_ipv4(a) && a->word[3] == bpf_htonl(0xffffffff);
}

/* A source of :: is left to the caller: neighbour discovery begins so (RFC 4861). */
static __always_inline enum drop_reason
check_addresses(struct packet *pkt)
{
	if (address_is_martian(&pkt->source) || address_is_multicast(&pkt->source))
		return REFUSE(pkt, DROP_MARTIAN_SOURCE);
	if (address_is_none(&pkt->destination) ||
	    (address_is_martian(&pkt->destination) && !address_is_broadcast(&pkt->destination)))
		return REFUSE(pkt, DROP_MARTIAN_DESTINATION);
	return DROP_NONE;
}
