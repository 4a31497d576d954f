// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Flows that are translated packet by packet: from an endpoint here, by a frontend, to a
 * backend and back.
 *
 * As with `nat`, both rows of a flow are written at once, once a tick at most unless there is
 * news, and one that was lost comes back from the other. A row past its expiry is as good as
 * none.
 *
 * Needs: address.h, clock.h, conntrack.h, nat.h, packet.h, rewrite.h.  Map: service_flows.
 * Layout: abi/service.h.
 */
#pragma once
#include "address.h"
#include "clock.h"
#include "conntrack.h"
#include "nat.h"
#include "packet.h"
#include "rewrite.h"

/* Who sent a packet: the endpoint that asked, or who answers it. */
enum service_end { SERVICE_CLIENT, SERVICE_SERVER };

static __always_inline void
service_flow_key_of(struct service_flow_key *key, const struct packet *pkt, enum service_end sender)
{
	bool asks = sender == SERVICE_CLIENT;

	key->client = asks ? pkt->source : pkt->destination;
	key->server = asks ? pkt->destination : pkt->source;
	key->client_port = asks ? pkt->source_port : pkt->destination_port;
	key->server_port = asks ? pkt->destination_port : pkt->source_port;
	key->protocol = pkt->protocol;
	__builtin_memset(key->reserved, 0, sizeof(key->reserved));
}

static __always_inline bool
service_flow_same(const struct service_flow_key *a, const struct service_flow_key *b)
{
	return a->client_port == b->client_port && a->server_port == b->server_port &&
	       a->protocol == b->protocol && address_equal(&a->client, &b->client) &&
	       address_equal(&a->server, &b->server);
}

static __always_inline struct service_flow *
service_flow_find(const struct service_flow_key *key)
{
	struct service_flow *row = bpf_map_lookup_elem(MAP(service_flows), key);

	return row && row->expires > clock_ticks() ? row : NULL;
}

/* Of one way alone: what says it is from a frontend is no answer of a backend's. */
static __always_inline struct service_flow *
service_flow_on(const struct service_flow_key *key, enum service_way way)
{
	struct service_flow *row = service_flow_find(key);

	return row && row->way == way ? row : NULL;
}

/* The twin may be another flow's by now, which is then left alone. */
static __always_inline void
service_flow_refresh(const struct service_flow_key *key, struct service_flow *row,
		     const struct packet *pkt, enum service_end sender)
{
	__u8 flags = nat_flags(row->flags, pkt, sender == SERVICE_SERVER);
	__u32 expires = clock_ticks() + nat_lifetime(pkt->protocol, flags);
	struct service_flow back = {
		.backend = row->backend,
		.flags = flags,
		.expires = expires,
		.way = row->way == SERVICE_THERE ? SERVICE_BACK : SERVICE_THERE,
	};
	struct service_flow_key other = row->other;
	struct service_flow *twin;

	if (row->flags == flags && row->expires == expires)
		return;
	row->flags = flags;
	row->expires = expires;
	twin = bpf_map_lookup_elem(MAP(service_flows), &other);
	if (!twin) {
		back.other = *key;
		bpf_map_update_elem(MAP(service_flows), &other, &back, BPF_NOEXIST);
	} else if (service_flow_same(&twin->other, key)) {
		twin->flags = flags;
		twin->expires = expires;
	}
}

/* Does the endpoint talk to this backend directly, from the port that it would be seen by? */
static __always_inline bool
service_flow_meets(const struct service_flow_key *seen)
{
	struct conntrack_key key = {
		.endpoint = seen->client,
		.peer = seen->server,
		.endpoint_port = seen->client_port,
		.peer_port = seen->server_port,
		.protocol = seen->protocol,
	};
	const struct conntrack *row = bpf_map_lookup_elem(MAP(conntrack), &key);

	return row && row->expires > clock_ticks() &&
	       !(row->flags & (CONNTRACK_CLOSED | CONNTRACK_SERVICE));
}

/* The row back, if nobody else has it: NOEXIST. What is over, or was this flow's, is free. */
static __always_inline bool
service_flow_claim(const struct service_flow_key *seen, const struct service_flow *back)
{
	const struct service_flow *row;

	if (!bpf_map_update_elem(MAP(service_flows), seen, back, BPF_NOEXIST))
		return true;
	row = service_flow_find(seen);
	if (row && !nat_closed(row->flags) && !service_flow_same(&row->other, &back->other))
		return false;
	return !bpf_map_update_elem(MAP(service_flows), seen, back, BPF_ANY);
}

/* Both rows of a new flow. `there` has `other.client`'s address, `other.server` and the
 * backend, and gets the port that the client will be seen by. False: none was found.
 */
static __always_inline bool
service_flow_open(const struct service_flow_key *key, const struct packet *pkt,
		  struct service_flow *there)
{
	struct service_flow back = {.other = *key, .backend = there->backend, .way = SERVICE_BACK};
	int i;

	there->flags = back.flags = nat_flags(0, pkt, false);
	there->expires = back.expires = clock_ticks() + nat_lifetime(pkt->protocol, back.flags);
#pragma unroll
	for (i = 0; i < SERVICE_FLOW_TRIES; i++) {
		there->other.client_port =
			i ? SERVICE_FLOW_FIRST_PORT |
				    (bpf_get_prandom_u32() & SERVICE_FLOW_PORT_MASK)
			  : key->client_port;
		if (service_flow_meets(&there->other) ||
		    !service_flow_claim(&there->other, &back))
			continue;
		return !bpf_map_update_elem(MAP(service_flows), key, there, BPF_ANY);
	}
	return false;
}

/* The ends of the packet become those of `to`, where they are not. */
static __always_inline enum drop_reason
service_flow_rewrite(struct __sk_buff *skb, struct packet *pkt, const struct service_flow_key *to,
		     enum service_end sender)
{
	struct nat client = {.address = to->client, .port = to->client_port};
	struct nat server = {.address = to->server, .port = to->server_port};
	const struct nat *source = sender == SERVICE_CLIENT ? &client : &server;
	const struct nat *destination = sender == SERVICE_CLIENT ? &server : &client;
	enum drop_reason reason = DROP_NONE;

	if (pkt->source_port != source->port || !address_equal(&pkt->source, &source->address))
		reason = rewrite(skb, pkt, NAT_SOURCE, source);
	if (!reason && (pkt->destination_port != destination->port ||
			!address_equal(&pkt->destination, &destination->address)))
		reason = rewrite(skb, pkt, NAT_DESTINATION, destination);
	return reason;
}
