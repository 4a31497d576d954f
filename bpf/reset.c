// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* reset: tell an endpoint of this node that nobody takes its connection.
 *
 * Stage: STAGE_RESET, from service.
 * In:    a TCP segment of the endpoint, refused as `scratch` says.
 * Out:   TC_ACT_REDIRECT back into the sender: RST from the address it asked,
 *        TC_ACT_SHOT where there may be no answer. Either way it is a drop and counted so.
 *
 * An ICMP error would do for a SYN, too, but not at once: one that comes while connect() holds
 * the socket is not looked at before the SYN is sent again, a second later.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include "conntrack.h"
#include "packet.h"
#include "turn.h"

enum reset_limit { RESET_TTL = 64 };

struct reset_ipv4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct reset_ipv6 {
	struct ipv6hdr ip;
	struct tcphdr tcp;
};

/* RFC 9293 section 3.5.2: in the sequence that the segment acknowledges, or acknowledging it. */
static __always_inline bool
make_reset(struct __sk_buff *skb, const struct packet *pkt, struct tcphdr *reset)
{
	__u32 length = pkt->end - pkt->l4_offset;
	struct tcphdr tcp;

	if (pkt->later_fragment || pkt->l4_offset >= SLACK || pkt->tcp_flags & TCP_RST ||
	    bpf_skb_load_bytes(skb, pkt->l4_offset, &tcp, sizeof(tcp)))
		return false;
	reset->source = tcp.dest;
	reset->dest = tcp.source;
	reset->doff = sizeof(tcp) / 4;
	reset->rst = 1;
	if (tcp.ack) {
		reset->seq = tcp.ack_seq;
		return true;
	}
	reset->ack = 1;
	reset->ack_seq =
		bpf_htonl(bpf_ntohl(tcp.seq) + length - tcp.doff * 4 + tcp.syn + tcp.fin);
	return true;
}

/* The addresses of the pseudo header are right before the segment. */
static __always_inline bool
answer_ipv4(struct __sk_buff *skb, const struct packet *pkt)
{
	struct reset_ipv4 answer = {};

	if (!make_reset(skb, pkt, &answer.tcp))
		return false;
	answer.ip.version = 4;
	answer.ip.ihl = 5;
	answer.ip.tot_len = bpf_htons(sizeof(answer));
	answer.ip.ttl = RESET_TTL;
	answer.ip.protocol = IPPROTO_TCP;
	answer.ip.saddr = pkt->destination.word[3];
	answer.ip.daddr = pkt->source.word[3];
	answer.ip.check =
		fold(bpf_csum_diff(NULL, 0, (void *)&answer.ip, sizeof(answer.ip), 0));
	answer.tcp.check = fold(bpf_csum_diff(NULL, 0, (void *)&answer.ip.saddr,
					      2 * sizeof(__be32) + sizeof(answer.tcp),
					      bpf_htonl(sizeof(answer.tcp) + IPPROTO_TCP)));
	return resize(skb, ETH_HLEN + sizeof(answer)) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0);
}

static __always_inline bool
answer_ipv6(struct __sk_buff *skb, const struct packet *pkt)
{
	struct reset_ipv6 answer = {};

	if (!make_reset(skb, pkt, &answer.tcp))
		return false;
	answer.ip.version = 6;
	answer.ip.payload_len = bpf_htons(sizeof(answer.tcp));
	answer.ip.nexthdr = IPPROTO_TCP;
	answer.ip.hop_limit = RESET_TTL;
	__builtin_memcpy(&answer.ip.saddr, &pkt->destination, sizeof(pkt->destination));
	__builtin_memcpy(&answer.ip.daddr, &pkt->source, sizeof(pkt->source));
	answer.tcp.check = fold(bpf_csum_diff(NULL, 0, (void *)&answer.ip.saddr,
					      2 * sizeof(struct address) + sizeof(answer.tcp),
					      bpf_htonl(sizeof(answer.tcp) + IPPROTO_TCP)));
	return resize(skb, ETH_HLEN + sizeof(answer)) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0);
}

int reset(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	int verdict;

	if (!pkt)
		return TC_ACT_SHOT;
	verdict = packet_drop(skb, pkt, pkt->error);
	if (!(pkt->family == ETH_P_IP ? answer_ipv4(skb, pkt) : answer_ipv6(skb, pkt)) ||
	    !turn_frame(skb))
		return verdict;
	count(COUNTER_RESETS_SENT, skb->len);
	return bpf_redirect_peer(skb->ifindex, 0);
}
