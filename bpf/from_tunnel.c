// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* from_tunnel: what the kernel's own tunnel device took the outer headers off.
 *
 * Hook: tcx ingress on the vxlan device (metadata mode).
 * In:   the inner frame of an outer packet that from_underlay let pass, since it was in
 *       fragments or had options; the kernel has put it together.
 * Out:  as from_underlay, by the same checks.
 */
#include "arrival.h"
#include "packet.h"

enum packet_type { PACKET_HOST = 0 };	/* linux/if_packet.h, which stub/ leaves out */

/* The outer source, the VNI, and: was it sent to an address of ours? */
static __always_inline enum drop_reason
read_key(struct __sk_buff *skb, struct packet *pkt)
{
	struct bpf_tunnel_key key = {};
	struct address local;

	if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
		address_from_ipv4(&pkt->outer_source, bpf_htonl(key.remote_ipv4));
		address_from_ipv4(&local, bpf_htonl(key.local_ipv4));
	} else if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6)) {
		__builtin_memcpy(&pkt->outer_source, key.remote_ipv6, sizeof(local));
		__builtin_memcpy(&local, key.local_ipv6, sizeof(local));
	} else {
		return REFUSE(pkt, DROP_NO_TUNNEL_KEY);
	}
	pkt->vni = key.tunnel_id;
	if (!address_is(&local, &CFG->underlay_ipv4) && !address_is(&local, &CFG->underlay_ipv6))
		return REFUSE(pkt, DROP_NOT_OURS);
	return DROP_NONE;
}

int from_tunnel(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_INGRESS);
	enum drop_reason reason;
	enum arrival arrival;

	if (!pkt)
		return TC_ACT_SHOT;
	reason = read_key(skb, pkt);
	if (!reason)
		reason = arrival_check(skb, pkt, skb->protocol, ETH_HLEN, &arrival);
	if (reason)
		return packet_drop(skb, pkt, reason);

	count(COUNTER_REASSEMBLED, skb->len);
	if (arrival == ARRIVAL_ENDPOINT)
		return packet_continue(skb, pkt, STAGE_DELIVER_LOCAL);
	/* its inner frame was addressed to nobody's MAC in particular */
	bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_OK;
}
