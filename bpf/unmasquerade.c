// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* unmasquerade: the world's answer to a masqueraded packet finds its endpoint.
 *
 * Stage: STAGE_UNMASQUERADE, from from_underlay.
 * In:    a frame to this node's own address, which may be such an answer.
 * Out:   STAGE_DELIVER_LOCAL, with the endpoint's address and port in the packet,
 *        TC_ACT_UNSPEC, untouched, for all else: it is the node's own,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "endpoint.h"
#include "fragment.h"
#include "ipcache.h"
#include "nat.h"
#include "packet.h"
#include "parse.h"
#include "quote.h"
#include "rewrite.h"

/* Its endpoint is still here. An answer to one that is gone is the stack's to refuse. */
static __always_inline bool
choose_endpoint(struct packet *pkt, const struct nat *row)
{
	struct address own = pkt->destination;
	bool found;

	pkt->destination = row->address;
	found = endpoint_choose(pkt);
	pkt->destination = own;
	return found;
}

static __always_inline enum drop_reason
answer(struct __sk_buff *skb, struct packet *pkt, bool *found)
{
	const struct nat *row;
	struct nat_key key;

	nat_key_of(&key, pkt, NAT_DESTINATION);
	row = nat_lookup(&key, pkt, NAT_DESTINATION);
	*found = row && choose_endpoint(pkt, row);
	return *found ? rewrite(skb, pkt, NAT_DESTINATION, row) : DROP_NONE;
}

/* A host of the world tells us that a packet of the endpoint did not arrive. */
static __always_inline enum drop_reason
answer_error(struct __sk_buff *skb, struct packet *pkt, bool *found)
{
	const struct packet *quoted = icmp_quoted(skb, pkt);
	const struct nat *row;
	struct nat_key key;
	struct nat from;

	*found = false;
	if (!quoted)
		return DROP_NONE;
	nat_key_of(&key, quoted, NAT_SOURCE);
	row = nat_find(&key);
	*found = row && choose_endpoint(pkt, row);
	if (!*found)
		return DROP_NONE;
	from.address = key.local;
	from.port = key.local_port;
	return quote_rewrite(skb, pkt, quoted, NAT_DESTINATION, &from, row);
}

int unmasquerade(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	const struct ipcache *sender;
	enum drop_reason reason;
	bool found;

	if (!pkt)
		return TC_ACT_SHOT;
	__builtin_memset(&pkt->outer_source, 0, sizeof(pkt->outer_source));
	if (parse_packet(skb, pkt, skb->protocol, ETH_HLEN) || fragment_follow(pkt))
		return TC_ACT_UNSPEC;	/* the node's own stack may judge it */
	reason = icmp_is_error(pkt) ? answer_error(skb, pkt, &found) : answer(skb, pkt, &found);
	if (!found)
		return TC_ACT_UNSPEC;
	sender = ipcache_lookup(&pkt->source);
	pkt->source_identity = sender ? sender->identity : IDENTITY_WORLD;
	if (reason)
		return packet_drop(skb, pkt, reason);
	count(COUNTER_UNMASQUERADED, skb->len);
	return packet_continue(skb, pkt, STAGE_DELIVER_LOCAL);
}
