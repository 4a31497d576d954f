// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* from_underlay: what arrives at the node from other nodes.
 *
 * Hook: tcx ingress on the underlay.
 * In:   every frame of that interface, merged by the kernel's GRO where it can.
 * Out:  STAGE_DELIVER_LOCAL for a tunnelled packet that is true and for an endpoint here:
 *       VXLAN and Geneve alike, whatever this node itself sends,
 *       STAGE_RECEIVE_NATIVE for what is not sent to an address of the underlay,
 *       STAGE_UNMASQUERADE for what may answer a masqueraded packet,
 *       TC_ACT_OK for one to the node itself,
 *       TC_ACT_UNSPEC for all that is not our tunnel's, untouched, and for outer packets
 *       with options or in fragments: the kernel's tunnel device puts those together and
 *       from_tunnel sees them again,
 *       TC_ACT_SHOT for a question of a join: who asked for it has heard it on the wire,
 *       TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "arrival.h"
#include "geneve.h"
#include "packet.h"
#include "reply.h"
#include "tunnel.h"
#include "vxlan.h"

enum fragment_mask { IPV4_FRAGMENTED = 0x3fff };	/* more fragments, or an offset */

/* Is it for our tunnel? Then its outer source is noted, and the outer IP header's length
 * is the answer; 0 otherwise.
 */
static __always_inline __u32
outer_length(struct __sk_buff *skb, struct packet *pkt)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		ip4 = packet_at(skb, ETH_HLEN, sizeof(*ip4));
		if (!ip4 || ip4->protocol != IPPROTO_UDP || ip4->ihl != 5 ||
		    bpf_ntohs(ip4->frag_off) & IPV4_FRAGMENTED || !ip4->daddr ||
		    ip4->daddr != CFG->underlay_ipv4.word[3])
			return 0;
		address_from_ipv4(&pkt->outer_source, ip4->saddr);
		return sizeof(*ip4);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		ip6 = packet_at(skb, ETH_HLEN, sizeof(*ip6));
		if (!ip6 || ip6->nexthdr != IPPROTO_UDP ||
		    !address_is((void *)&ip6->daddr, &CFG->underlay_ipv6))
			return 0;
		__builtin_memcpy(&pkt->outer_source, &ip6->saddr, sizeof(ip6->saddr));
		return sizeof(*ip6);
	}
	return 0;
}

/* Not to the underlay's own address: then it may be for an endpoint here. */
static __always_inline bool
is_passing(struct __sk_buff *skb)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		ip4 = packet_at(skb, ETH_HLEN, sizeof(*ip4));
		return ip4 && ip4->daddr != CFG->underlay_ipv4.word[3];
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		ip6 = packet_at(skb, ETH_HLEN, sizeof(*ip6));
		return ip6 && !address_is((void *)&ip6->daddr, &CFG->underlay_ipv6);
	}
	return false;
}

/* The mode that a UDP port stands for; MODE_NATIVE: neither tunnel's. */
static __always_inline enum node_mode
mode_of_port(struct __sk_buff *skb, __u32 offset)
{
	struct udphdr *udp = packet_at(skb, offset, sizeof(*udp));

	if (udp && udp->dest == bpf_htons(CFG->vxlan_port))
		return MODE_VXLAN;
	if (udp && udp->dest == bpf_htons(CFG->geneve_port))
		return MODE_GENEVE;
	return MODE_NATIVE;
}

/* Reads VNI and inner family, then checks. `offset`: the outer UDP header; afterwards, where
 * the inner IP header begins.
 */
static __always_inline enum drop_reason
read_tunnel(struct __sk_buff *skb, struct packet *pkt, enum node_mode mode, __u32 *offset,
	    enum arrival *arrival)
{
	struct tunnel_header *tunnel = packet_at(skb, *offset, sizeof(*tunnel));
	__u32 head, end, options = 0;
	enum drop_reason reason;
	__be16 family;

	if (!tunnel)
		return REFUSE(pkt, DROP_OUTER_TRUNCATED);
	end = *offset + bpf_ntohs(tunnel->udp.len);
	if (end > skb->len || bpf_ntohs(tunnel->udp.len) < sizeof(*tunnel))
		return REFUSE(pkt, DROP_OUTER_LENGTH);
	head = bpf_ntohl(tunnel->head);
	pkt->vni = bpf_ntohl(tunnel->vni) >> 8;
	if (mode == MODE_GENEVE) {
		reason = geneve_read(pkt, head, &options);
		if (reason)
			return reason;
	} else if (!(head & VXLAN_FLAG_VNI)) {
		return REFUSE(pkt, DROP_OUTER_MALFORMED);
	}
	*offset += sizeof(*tunnel) + options;
	if (bpf_skb_load_bytes(skb, *offset - sizeof(family), &family, sizeof(family)))
		return REFUSE(pkt, DROP_OUTER_TRUNCATED);
	if (family == bpf_htons(TUNNEL_QUESTION) && !pkt->vni) {
		*arrival = ARRIVAL_QUESTION;
		return DROP_NONE;
	}
	reason = arrival_check(skb, pkt, family, *offset, arrival);
	if (!reason && pkt->end > end)
		reason = REFUSE(pkt, DROP_OUTER_LENGTH);
	return reason;
}

/* Without DECAP_L3 for the inner family, IPv6 out of IPv4 never reaches the endpoint:
 * skb->protocol would stay the outer one.
 */
static __always_inline enum drop_reason
decapsulate(struct __sk_buff *skb, struct packet *pkt, __u32 overhead)
{
	__be16 family = bpf_htons(pkt->family);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	flags |= pkt->family == ETH_P_IPV6 ? DECAP_L3_IPV6 : DECAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, -(__s32)overhead, BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &family,
				sizeof(family), 0))
		return REFUSE(pkt, DROP_DECAPSULATION_FAILED);
	pkt->l4_offset -= overhead;
	pkt->end -= overhead;
	count(COUNTER_DECAPSULATED, skb->len);
	return DROP_NONE;
}

/* What is not our tunnel's: it may be for an endpoint, or answer one; else it is the node's. */
static __always_inline int
receive_plain(struct __sk_buff *skb, struct packet *pkt)
{
	if (is_passing(skb))
		return packet_continue(skb, pkt, STAGE_RECEIVE_NATIVE);
	return may_be_reply(skb) ? packet_continue(skb, pkt, STAGE_UNMASQUERADE) : TC_ACT_UNSPEC;
}

int from_underlay(struct __sk_buff *skb)
{
	struct packet *pkt = packet_begin(DIRECTION_INGRESS);
	enum drop_reason reason;
	enum arrival arrival;
	enum node_mode mode;
	__u32 offset;

	if (!pkt)
		return TC_ACT_SHOT;
	offset = outer_length(skb, pkt);
	mode = offset ? mode_of_port(skb, ETH_HLEN + offset) : MODE_NATIVE;
	if (mode == MODE_NATIVE)
		return receive_plain(skb, pkt);
	offset += ETH_HLEN;

	reason = read_tunnel(skb, pkt, mode, &offset, &arrival);
	if (!reason && arrival == ARRIVAL_QUESTION) {
		count(COUNTER_QUESTIONS, skb->len);
		return TC_ACT_SHOT;
	}
	if (!reason)
		reason = decapsulate(skb, pkt, offset - ETH_HLEN);
	if (reason)
		return packet_drop(skb, pkt, reason);

	return arrival == ARRIVAL_HOST ? TC_ACT_OK
				       : packet_continue(skb, pkt, STAGE_DELIVER_LOCAL);
}
