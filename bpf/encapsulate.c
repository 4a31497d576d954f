// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* encapsulate: put a packet of an endpoint into the tunnel to another node.
 *
 * Stage: STAGE_ENCAPSULATE, from from_endpoint and service.
 * In:    the endpoint's frame; `scratch` has the node's index and the sender's identity.
 *        VXLAN or Geneve: as the node's row says.
 * Out:   TC_ACT_REDIRECT to the next hop on the underlay, its MAC found by the kernel,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "fits.h"
#include "flow_hash.h"
#include "geneve.h"
#include "hop.h"
#include "next_hop.h"
#include "packet.h"
#include "too_big.h"
#include "tunnel.h"
#include "vxlan.h"

enum encap_flag {
	ENCAP_COMMON = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		       BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
};

static __always_inline void
fill_tunnel(struct tunnel_header *tunnel, const struct packet *pkt, enum node_mode mode,
	    __u32 hash, __u32 length)
{
	int i;

	tunnel->udp.source = bpf_htons(TUNNEL_FIRST_PORT | (hash & TUNNEL_PORT_MASK));
	tunnel->udp.len = bpf_htons(length);
	if (mode == MODE_GENEVE) {
		tunnel->udp.dest = bpf_htons(CFG->geneve_port);
		tunnel->head = bpf_htonl(GENEVE_ETHERNET);
	} else {
		tunnel->udp.dest = bpf_htons(CFG->vxlan_port);
		tunnel->head = bpf_htonl(VXLAN_FLAG_VNI);
	}
	tunnel->vni = bpf_htonl(pkt->source_identity << 8);
	tunnel->inner.h_dest[0] = 2;	/* any unicast address: the receiver writes its own */
#pragma unroll
	for (i = 0; i < ETH_ALEN; i++)
		tunnel->inner.h_source[i] = CFG->gateway_mac[i];
	tunnel->inner.h_proto = bpf_htons(pkt->family);
}

static __always_inline enum drop_reason
encapsulate_ipv4(struct __sk_buff *skb, struct packet *pkt, const struct node *node)
{
	__u32 hash = flow_hash(skb, pkt);
	__u32 length = skb->len - ETH_HLEN + sizeof(struct tunnel_ipv4);
	struct tunnel_ipv4 header = {};

	if (!CFG->underlay_ipv4.word[3])
		return REFUSE(pkt, DROP_NO_UNDERLAY_ADDRESS);
	if (!fits(skb, pkt, node->path_mtu, sizeof(header)))
		return REFUSE(pkt, DROP_PACKET_TOO_BIG);
	header.ip.version = 4;
	header.ip.ihl = 5;
	header.ip.tot_len = bpf_htons(length);
	header.ip.frag_off = bpf_htons(0x4000);	/* DF: we know the path's MTU */
	header.ip.ttl = TUNNEL_TTL;
	header.ip.protocol = IPPROTO_UDP;
	header.ip.saddr = CFG->underlay_ipv4.word[3];
	header.ip.daddr = node->outer.word[3];
	header.ip.check = tunnel_checksum(&header);
	fill_tunnel(&header.tunnel, pkt, node_mode(node, pkt->family), hash,
		    length - sizeof(header.ip));

	if (bpf_skb_adjust_room(skb, sizeof(header), BPF_ADJ_ROOM_MAC,
				ENCAP_COMMON | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
					BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN)))
		return REFUSE(pkt, DROP_ENCAPSULATION_FAILED);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &header, sizeof(header), 0))
		return REFUSE(pkt, DROP_ENCAPSULATION_FAILED);
	return DROP_NONE;
}

static __always_inline enum drop_reason
encapsulate_ipv6(struct __sk_buff *skb, struct packet *pkt, const struct node *node)
{
	__u32 hash = flow_hash(skb, pkt);
	__u32 length = skb->len - ETH_HLEN + sizeof(struct tunnel_ipv6);
	struct tunnel_ipv6 header = {};
	int i;

	if (!CFG->underlay_ipv6.word[3])
		return REFUSE(pkt, DROP_NO_UNDERLAY_ADDRESS);
	if (!fits(skb, pkt, node->path_mtu, sizeof(header)))
		return REFUSE(pkt, DROP_PACKET_TOO_BIG);
	header.ip.version = 6;
	header.ip.payload_len = bpf_htons(length - sizeof(header.ip));
	header.ip.nexthdr = IPPROTO_UDP;
	header.ip.hop_limit = TUNNEL_TTL;
#pragma unroll
	for (i = 0; i < 4; i++)
		header.ip.saddr.in6_u.u6_addr32[i] = CFG->underlay_ipv6.word[i];
	__builtin_memcpy(&header.ip.daddr, &node->outer, sizeof(node->outer));
	fill_tunnel(&header.tunnel, pkt, node_mode(node, pkt->family), hash,
		    length - sizeof(header.ip));

	if (bpf_skb_adjust_room(skb, sizeof(header), BPF_ADJ_ROOM_MAC,
				ENCAP_COMMON | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 |
					BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN)))
		return REFUSE(pkt, DROP_ENCAPSULATION_FAILED);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &header, sizeof(header), 0))
		return REFUSE(pkt, DROP_ENCAPSULATION_FAILED);
	return DROP_NONE;
}

int encapsulate(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	const struct node *node;
	enum drop_reason reason;
	__u32 overhead = sizeof(struct tunnel_ipv4);
	__u16 outer = ETH_P_IP;
	__be16 protocol;

	if (!pkt)
		return TC_ACT_SHOT;
	node = bpf_map_lookup_elem(MAP(nodes), &pkt->node_index);
	if (!node || !(node->flags & NODE_PRESENT))
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNKNOWN_NODE));
	if (node->flags & NODE_LOCAL)	/* ours, and yet no endpoint here has it */
		return packet_drop(skb, pkt, REFUSE(pkt, DROP_UNKNOWN_DESTINATION));

	if (check_hop(pkt))
		return packet_expired(skb, pkt);

	if (node->flags & NODE_IPV6_UNDERLAY) {
		reason = encapsulate_ipv6(skb, pkt, node);
		outer = ETH_P_IPV6;
		overhead = sizeof(struct tunnel_ipv6);
	} else {
		reason = encapsulate_ipv4(skb, pkt, node);
	}
	protocol = bpf_htons(outer);
	if (!reason && bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol,
					   sizeof(protocol), 0))
		reason = REFUSE(pkt, DROP_ENCAPSULATION_FAILED);
	if (reason == DROP_PACKET_TOO_BIG)
		return packet_too_big(skb, pkt, node->path_mtu - overhead);
	if (reason)
		return packet_drop(skb, pkt, reason);

	count(COUNTER_ENCAPSULATED, skb->len);
	return next_hop_send(node, outer);
}
