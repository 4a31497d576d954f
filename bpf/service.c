// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* service: an endpoint's packet to a frontend goes to a backend.
 *
 * Stage: STAGE_SERVICE, from from_endpoint; for clients whose sockets were not asked.
 * In:    the endpoint's frame to an address that services have; `scratch` has its addresses
 *        and ports.
 * Out:   as from_endpoint, which judges a packet by the same code: policy sees the backend,
 *        TC_ACT_REDIRECT back into the endpoint where it is its own backend,
 *        STAGE_RESET or, for datagrams, STAGE_ICMP_ERROR when nobody answers.
 *
 * A flow keeps its backend as long as that is there. What is no service's at this address goes
 * on as it is.
 */
#include "deliver.h"
#include "egress.h"
#include "endpoint.h"
#include "hop.h"
#include "packet.h"
#include "service.h"
#include "service_error.h"
#include "service_flow.h"
#include "too_big.h"

/* A backend that ends, or a connection that is over, gets no new one. */
static __always_inline bool
may_keep(const struct packet *pkt, const struct service_flow *row)
{
	const struct backend *backend = backend_at(row->backend);

	if (!backend || backend->protocol != row->other.protocol ||
	    backend->port != bpf_htons(row->other.server_port) ||
	    !address_equal(&backend->address, &row->other.server))
		return false;
	return (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN ||
	       (backend->state == BACKEND_ACTIVE && !nat_closed(row->flags));
}

/* For a new flow, and for one whose backend is gone. DROP_NONE without a backend: no frontend. */
static __always_inline enum drop_reason
choose(struct packet *pkt, const struct service_flow_key *key, struct service_flow *there)
{
	const struct service *service =
		service_find(&key->server, bpf_htons(key->server_port), key->protocol);
	struct affinity_key client = {.client = key->client};
	const struct backend *backend;

	if (!service)
		return DROP_NONE;
	client.service = service->id;
	there->backend = service_choose(service, &client, service->affinity_ticks, false);
	backend = there->backend ? backend_at(there->backend) : NULL;
	if (!backend)
		return REFUSE(pkt, DROP_SERVICE_NO_BACKEND);
	there->other = *key;
	there->other.server = backend->address;
	there->other.server_port = bpf_ntohs(backend->port);
	/* nobody takes a packet from himself, so it comes from the frontend */
	if (address_equal(&backend->address, &key->client))
		there->other.client = key->server;
	return service_flow_open(key, pkt, there) ? DROP_NONE
						  : REFUSE(pkt, DROP_SERVICE_AMBIGUOUS);
}

/* What becomes of a packet, or of the one that an ICMP error quotes. */
struct turn {
	struct service_flow_key from;
	struct service_flow_key to;
	enum service_end sender;
	bool found;	/* it is of a service's flow */
	bool itself;	/* the endpoint is its own backend, so that is where it goes */
};

/* The row of this packet, if `sender` sent it. */
static __always_inline struct service_flow *
turn_find(struct turn *turn, const struct packet *pkt, enum service_end sender,
	  enum service_way way)
{
	struct service_flow *row;

	service_flow_key_of(&turn->from, pkt, sender);
	row = service_flow_on(&turn->from, way);
	turn->sender = sender;
	turn->found = row;
	if (row)
		turn->to = row->other;
	return row;
}

/* An endpoint that is its own backend sends answers to the frontend, too. */
static __always_inline enum drop_reason
ask(struct packet *pkt, struct turn *turn)
{
	struct service_flow *row = turn_find(turn, pkt, SERVICE_CLIENT, SERVICE_THERE);
	struct service_flow there = {};
	enum drop_reason reason;

	if (row && may_keep(pkt, row)) {
		service_flow_refresh(&turn->from, row, pkt, SERVICE_CLIENT);
	} else {
		if (!row)
			row = turn_find(turn, pkt, SERVICE_SERVER, SERVICE_BACK);
		if (row && turn->sender == SERVICE_SERVER) {
			service_flow_refresh(&turn->from, row, pkt, SERVICE_SERVER);
			turn->itself = true;
			return DROP_NONE;
		}
		service_flow_key_of(&turn->from, pkt, SERVICE_CLIENT);
		turn->sender = SERVICE_CLIENT;
		reason = choose(pkt, &turn->from, &there);
		turn->found = there.backend;
		turn->to = there.other;
		if (reason || !turn->found)
			return reason;
	}
	turn->itself = address_equal(&turn->to.server, &turn->from.client);
	pkt->service |= SERVICE_TRANSLATED;
	return DROP_NONE;
}

/* The endpoint tells a frontend that what came from there is not welcome; or itself, as its own
 * backend, that what it asked is not. The quoted packet is one that it got, so translated.
 */
static __always_inline void
complain(const struct packet *pkt, const struct packet *quoted, struct turn *turn)
{
	if (!address_equal(&quoted->destination, &pkt->source))
		return;
	if (turn_find(turn, quoted, SERVICE_SERVER, SERVICE_THERE))
		turn->itself = address_equal(&turn->to.server, &pkt->source);
	else if (turn_find(turn, quoted, SERVICE_CLIENT, SERVICE_BACK))
		turn->itself = true;
}

static __always_inline enum drop_reason
translate(struct __sk_buff *skb, struct packet *pkt, struct turn *turn)
{
	const struct packet *quoted;
	enum drop_reason reason;

	if (icmp_is_error(pkt)) {
		quoted = icmp_quoted(skb, pkt);
		if (!quoted)
			return DROP_NONE;
		complain(pkt, quoted, turn);
		return turn->found ? service_error_rewrite(skb, pkt, quoted, &turn->from,
							   &turn->to, turn->sender)
				   : DROP_NONE;
	}
	reason = ask(pkt, turn);
	if (reason || !turn->found)
		return reason;
	count(turn->sender == SERVICE_CLIENT ? COUNTER_SERVICE_ASKED : COUNTER_SERVICE_ANSWERED,
	      skb->len);
	return service_flow_rewrite(skb, pkt, &turn->to, turn->sender);
}

/* No policy keeps an endpoint from itself. */
static __always_inline int
return_to_sender(struct __sk_buff *skb, struct packet *pkt)
{
	enum drop_reason reason = DROP_NONE;

	pkt->direction = DIRECTION_INGRESS;
	if (!endpoint_choose(pkt))
		reason = REFUSE(pkt, DROP_UNKNOWN_ENDPOINT);
	if (!reason)
		reason = take_hop(skb, pkt);
	if (!reason)
		reason = address_frame(skb, pkt);
	if (reason == DROP_TTL_EXCEEDED)
		return packet_expired(skb, pkt);
	return reason ? packet_drop(skb, pkt, reason) : deliver(skb, pkt);
}

int service(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	const struct endpoint *self = endpoint_of_interface(skb->ifindex);
	enum drop_reason reason;
	enum way way = WAY_STACK;
	struct turn turn = {};

	if (!pkt || !self)
		return TC_ACT_SHOT;
	reason = translate(skb, pkt, &turn);
	if (reason == DROP_SERVICE_NO_BACKEND)
		return packet_unanswered(skb, pkt, reason);
	if (!reason && turn.itself)
		return return_to_sender(skb, pkt);
	if (!reason)
		reason = egress_admit(skb, pkt, self, EGRESS_ASKS_NO_MORE, &way);
	return reason ? packet_drop(skb, pkt, reason) : egress_send(skb, pkt, way);
}
