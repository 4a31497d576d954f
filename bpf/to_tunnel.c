// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* to_tunnel: what the node itself sends to endpoints and nodes elsewhere.
 *
 * Hook: tcx egress on the vxlan device (metadata mode), where the host's routes to remote
 *       PodCIDRs point.
 * In:   a frame of the host's own stack.
 * Out:  TC_ACT_OK with a tunnel key, identity remote-node: the kernel encapsulates,
 *       TC_ACT_UNSPEC for multicast: the device has no key for it and lets it go,
 *       TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "endpoint.h"
#include "ipcache.h"
#include "packet.h"
#include "parse.h"
#include "too_big.h"
#include "tunnel.h"

/* Receivers accept identity remote-node from a node's own addresses only. An endpoint's
 * packet is here only to be cut, or anybody on a link of ours could have us lend its name.
 */
static __always_inline enum drop_reason
choose_identity(struct packet *pkt, __u32 mark)
{
	const struct endpoint *endpoint;

	pkt->source_identity = IDENTITY_REMOTE_NODE;
	if (address_is(&pkt->source, &CFG->gateway_ipv4) ||
	    address_is(&pkt->source, &CFG->gateway_ipv6))
		return DROP_NONE;
	endpoint = mark == MARK_IN_PIECES ? endpoint_of_address(&pkt->source) : NULL;
	if (!endpoint)
		return REFUSE(pkt, DROP_INVALID_SOURCE);
	pkt->source_identity = endpoint->identity;
	return DROP_NONE;
}

static __always_inline enum drop_reason
choose_node(struct packet *pkt)
{
	const struct ipcache *row = ipcache_lookup(&pkt->destination);

	if (!row || !row->node_index)
		return REFUSE(pkt, DROP_UNKNOWN_DESTINATION);
	pkt->destination_identity = row->identity;
	pkt->node_index = row->node_index;
	return DROP_NONE;
}

static __always_inline enum drop_reason
set_key(struct __sk_buff *skb, struct packet *pkt)
{
	const struct node *node = bpf_map_lookup_elem(MAP(nodes), &pkt->node_index);
	struct bpf_tunnel_key key = {.tunnel_id = pkt->source_identity, .tunnel_ttl = TUNNEL_TTL};
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (!node || !(node->flags & NODE_PRESENT))
		return REFUSE(pkt, DROP_UNKNOWN_NODE);
	if (node->flags & NODE_LOCAL)
		return REFUSE(pkt, DROP_UNKNOWN_DESTINATION);
	if (node->flags & NODE_IPV6_UNDERLAY) {
		__builtin_memcpy(key.remote_ipv6, &node->outer, sizeof(node->outer));
		flags |= BPF_F_TUNINFO_IPV6;
	} else {
		key.remote_ipv4 = bpf_ntohl(node->outer.word[3]);
	}
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags))
		return REFUSE(pkt, DROP_ENCAPSULATION_FAILED);
	return DROP_NONE;
}

int to_tunnel(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_EGRESS);
	enum drop_reason reason;

	if (!pkt)
		return TC_ACT_SHOT;
	reason = parse_packet(skb, pkt, skb->protocol, ETH_HLEN);
	if (!reason && address_is_multicast(&pkt->destination))
		return TC_ACT_UNSPEC;
	if (!reason)
		reason = choose_identity(pkt, skb->mark);
	if (!reason)
		reason = choose_node(pkt);
	if (!reason)
		reason = set_key(skb, pkt);
	return reason ? packet_drop(skb, pkt, reason) : TC_ACT_OK;
}
