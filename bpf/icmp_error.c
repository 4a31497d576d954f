// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* icmp_error: tell an endpoint of this node why its packet did not go on.
 *
 * Stage: STAGE_ICMP_ERROR, from encapsulate, send_native, deliver_local and service.
 * In:    the endpoint's frame, refused as `scratch` says: too big (`error_mtu` is what would
 *        have fitted), out of hops, or for a service without a backend.
 * Out:   TC_ACT_REDIRECT back into the sender, with "fragmentation needed" or "packet too
 *        big", "time exceeded" or "port unreachable" (RFC 792, RFC 1191, RFC 4443) in the
 *        gateway's name,
 *        TC_ACT_SHOT where there may be no answer. Either way it is a drop and counted so.
 *
 * What was addressed to a service is quoted as its sender knows it.
 *
 * What is quoted of the packet has one of two fixed lengths, since bpf_csum_diff wants them
 * constant; both have the ports. No ICMP answers ICMP errors, later fragments or multicast
 * (RFC 1122 section 3.2.2), and so many a second at most.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "bucket.h"
#include "endpoint.h"
#include "packet.h"
#include "service_flow.h"
#include "turn.h"

enum icmp_error_limit {
	QUOTE_IPV4 = 64,
	QUOTE_IPV4_SHORT = 28,		/* header without options, and 8 bytes: RFC 792 */
	QUOTE_IPV6 = 96,
	QUOTE_IPV6_SHORT = 48,
	ERROR_TTL = 64,
	ERROR_BURST = 50,		/* as Linux's icmp_msgs_burst and icmp_msgs_per_sec */
	ERROR_INTERVAL_NS = 1000000,
	IPV6_MTU_LEAST = 1280,		/* RFC 8200 */
};

enum icmp_number {
	ICMP_UNREACHABLE = 3,
	ICMP_PORT_UNREACHABLE = 3,	/* a code, as is */
	ICMP_FRAGMENTATION_NEEDED = 4,
	ICMP_REDIRECTED = 5,
	ICMP_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMPV6_UNREACHABLE = 1,
	ICMPV6_PORT_UNREACHABLE = 4,	/* a code */
	ICMPV6_TOO_BIG = 2,
	ICMPV6_EXCEEDED = 3,
	ICMPV6_FIRST_INFORMATION = 128,
};

struct error_head {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu;	/* IPv4: in the lower half (RFC 1191); of "time exceeded" unused */
};

struct error_ipv4 {
	struct iphdr ip;
	struct error_head icmp;
	__u8 quote[QUOTE_IPV4];
} __attribute__((packed));

struct error_ipv6 {
	struct ipv6hdr ip;
	struct error_head icmp;
	__u8 quote[QUOTE_IPV6];
} __attribute__((packed));

static __always_inline bool
is_icmp_error(const struct packet *pkt)
{
	if (pkt->protocol == IPPROTO_ICMPV6)
		return pkt->icmp_type < ICMPV6_FIRST_INFORMATION;
	return pkt->protocol == IPPROTO_ICMP &&
	       (pkt->icmp_type == ICMP_UNREACHABLE || pkt->icmp_type == ICMP_REDIRECTED ||
		pkt->icmp_type == ICMP_EXCEEDED || pkt->icmp_type == ICMP_PARAMETER);
}

/* The sender is the endpoint behind this very interface, and may be told. */
static __always_inline bool
may_answer(struct __sk_buff *skb, const struct packet *pkt)
{
	const struct endpoint *sender = endpoint_of_interface(skb->ifindex);
	struct event_bucket *bucket;
	__u32 slot = 0;

	if (!sender || !endpoint_has(sender, &pkt->source) || pkt->later_fragment ||
	    pkt->l4_offset >= SLACK || is_icmp_error(pkt) ||
	    address_is_multicast(&pkt->destination))
		return false;
	bucket = bpf_map_lookup_elem(MAP(icmp_budget), &slot);
	return bucket &&
	       bucket_take(bucket, bpf_ktime_get_ns(), ERROR_INTERVAL_NS, ERROR_BURST);
}

static __always_inline struct error_head
error_head_ipv4(const struct packet *pkt)
{
	struct error_head head = {.type = ICMP_UNREACHABLE, .mtu = bpf_htonl(pkt->error_mtu)};

	if (pkt->error == DROP_TTL_EXCEEDED)
		head.type = ICMP_EXCEEDED;
	else if (pkt->error == DROP_SERVICE_NO_BACKEND)
		head.code = ICMP_PORT_UNREACHABLE;
	else
		head.code = ICMP_FRAGMENTATION_NEEDED;
	return head;
}

static __always_inline struct error_head
error_head_ipv6(const struct packet *pkt)
{
	struct error_head head = {.type = ICMPV6_TOO_BIG};
	__u32 mtu = pkt->error_mtu;

	if (pkt->error == DROP_TTL_EXCEEDED) {
		head.type = ICMPV6_EXCEEDED;
	} else if (pkt->error == DROP_SERVICE_NO_BACKEND) {
		head.type = ICMPV6_UNREACHABLE;
		head.code = ICMPV6_PORT_UNREACHABLE;
	} else {
		head.mtu = bpf_htonl(mtu < IPV6_MTU_LEAST ? IPV6_MTU_LEAST : mtu);
	}
	return head;
}

static __always_inline bool
answer_ipv4(struct __sk_buff *skb, const struct packet *pkt, const __u32 quote)
{
	const __u32 length = sizeof(struct error_ipv4) - QUOTE_IPV4 + quote;
	struct error_ipv4 answer = {};

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer.quote, quote))
		return false;
	answer.icmp = error_head_ipv4(pkt);
	answer.icmp.checksum = fold(
		bpf_csum_diff(NULL, 0, (void *)&answer.icmp, sizeof(answer.icmp) + quote, 0));
	answer.ip.version = 4;
	answer.ip.ihl = 5;
	answer.ip.tot_len = bpf_htons(length);
	answer.ip.ttl = ERROR_TTL;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.saddr = CFG->gateway_ipv4.word[3];
	answer.ip.daddr = pkt->source.word[3];
	answer.ip.check =
		fold(bpf_csum_diff(NULL, 0, (void *)&answer.ip, sizeof(answer.ip), 0));
	return resize(skb, ETH_HLEN + length) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN, &answer, length, 0);
}

static __always_inline bool
answer_ipv6(struct __sk_buff *skb, const struct packet *pkt, const __u32 quote)
{
	const __u32 payload = sizeof(struct error_head) + quote;
	struct error_ipv6 answer = {};
	int i;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, answer.quote, quote))
		return false;
	answer.icmp = error_head_ipv6(pkt);
	answer.ip.version = 6;
	answer.ip.payload_len = bpf_htons(payload);
	answer.ip.nexthdr = IPPROTO_ICMPV6;
	answer.ip.hop_limit = ERROR_TTL;
#pragma unroll
	for (i = 0; i < 4; i++)
		answer.ip.saddr.in6_u.u6_addr32[i] = CFG->gateway_ipv6.word[i];
	__builtin_memcpy(&answer.ip.daddr, &pkt->source, sizeof(pkt->source));
	answer.icmp.checksum = fold(bpf_csum_diff(
		NULL, 0, (void *)&answer.ip.saddr, 2 * sizeof(struct address) + payload,
		bpf_htonl(payload + IPPROTO_ICMPV6)));
	return resize(skb, ETH_HLEN + sizeof(answer.ip) + payload) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer.ip) + payload, 0);
}

/* As it was before `service` addressed it to a backend. */
static __always_inline bool
restore(struct __sk_buff *skb, struct packet *pkt)
{
	const struct service_flow *row;
	struct service_flow_key key;

	if (!(pkt->service & SERVICE_TRANSLATED))
		return true;
	service_flow_key_of(&key, pkt, SERVICE_CLIENT);
	row = service_flow_on(&key, SERVICE_BACK);
	return row && !service_flow_rewrite(skb, pkt, &row->other, SERVICE_CLIENT);
}

int icmp_error(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	bool answered;
	int verdict;

	if (!pkt)
		return TC_ACT_SHOT;
	verdict = packet_drop(skb, pkt, pkt->error);
	if (!restore(skb, pkt) || !may_answer(skb, pkt))
		return verdict;
	if (pkt->family == ETH_P_IP)
		answered = skb->len >= ETH_HLEN + QUOTE_IPV4
				   ? answer_ipv4(skb, pkt, QUOTE_IPV4)
				   : answer_ipv4(skb, pkt, QUOTE_IPV4_SHORT);
	else
		answered = skb->len >= ETH_HLEN + QUOTE_IPV6
				   ? answer_ipv6(skb, pkt, QUOTE_IPV6)
				   : answer_ipv6(skb, pkt, QUOTE_IPV6_SHORT);
	if (!answered || !turn_frame(skb))
		return verdict;
	count(COUNTER_ICMP_ERRORS_SENT, skb->len);
	return bpf_redirect_peer(skb->ifindex, 0);
}
