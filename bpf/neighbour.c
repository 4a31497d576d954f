// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* neighbour: answers an endpoint that asks for its gateway's MAC.
 *
 * Stage: STAGE_NEIGHBOUR, from from_endpoint.
 * In:    ARP of any kind, or an ICMPv6 neighbour solicitation whose source was checked.
 * Out:   TC_ACT_REDIRECT: the answer, made of the question, back into the endpoint,
 *        TC_ACT_OK to the host's stack for all that does not ask for the gateway,
 *        TC_ACT_SHOT with a row in `drops` and an event.
 */
#include "endpoint.h"
#include "neighbour.h"
#include "packet.h"

static __always_inline void
gateway_mac(__u8 *mac)
{
	int i;

#pragma unroll
	for (i = 0; i < ETH_ALEN; i++)
		mac[i] = CFG->gateway_mac[i];
}

/* Whoever asked with this frame gets the next. */
static __always_inline void
turn_frame(struct ethhdr *frame)
{
	__builtin_memcpy(frame->h_dest, frame->h_source, ETH_ALEN);
	gateway_mac(frame->h_source);
}

static __always_inline bool
is_ipv4_over_ethernet(const struct arp *arp)
{
	return arp->hardware == bpf_htons(ARP_ETHERNET) &&
	       arp->protocol == bpf_htons(ETH_P_IP) && arp->hardware_length == ETH_ALEN &&
	       arp->protocol_length == sizeof(__be32);
}

/* The sender says who it is, and the host would remember it: so it must be true. */
static __always_inline enum drop_reason
check_sender(struct __sk_buff *skb, struct packet *pkt, const struct arp *arp)
{
	const struct endpoint *self = endpoint_of_interface(skb->ifindex);
	__be32 sender;

	if (!self)
		return REFUSE(pkt, DROP_UNKNOWN_ENDPOINT);
	pkt->source_identity = self->identity;
	__builtin_memcpy(&sender, arp->sender, sizeof(sender));
	address_from_ipv4(&pkt->source, sender);
	/* none: a probe whether anybody else has the address (RFC 5227) */
	if (sender && !address_equal(&pkt->source, &self->ipv4))
		return REFUSE(pkt, DROP_INVALID_SOURCE);
	return DROP_NONE;
}

static __always_inline enum drop_reason
answer_arp(struct __sk_buff *skb, struct packet *pkt, bool *answered)
{
	struct ethhdr *frame = packet_at(skb, 0, sizeof(*frame) + sizeof(struct arp));
	struct arp *arp = (void *)(frame + 1);
	enum drop_reason reason;
	struct address target;
	__be32 ipv4;

	if (!frame)
		return REFUSE(pkt, DROP_TRUNCATED);
	if (!is_ipv4_over_ethernet(arp))
		return DROP_NONE;
	reason = check_sender(skb, pkt, arp);
	if (reason)
		return reason;
	__builtin_memcpy(&ipv4, arp->target, sizeof(ipv4));
	address_from_ipv4(&target, ipv4);
	if (arp->operation != bpf_htons(ARP_REQUEST) ||
	    !address_is(&target, &CFG->gateway_ipv4))
		return DROP_NONE;

	turn_frame(frame);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->target, arp->sender, sizeof(arp->target));
	gateway_mac(arp->sender_mac);
	__builtin_memcpy(arp->sender, &ipv4, sizeof(ipv4));
	*answered = true;
	return DROP_NONE;
}

/* RFC 8200 section 8.1: over pseudo header and message, whose checksum is still zero. */
static __always_inline __sum16
checksum(const struct advertisement *answer)
{
	const __u16 *words = (const void *)&answer->head.ip.saddr;
	__u32 sum = bpf_htons(sizeof(*answer) - sizeof(answer->head.ip));
	__u32 i;

	sum += bpf_htons(IPPROTO_ICMPV6);
#pragma unroll
	for (i = 0; i < (sizeof(*answer) - offsetof(struct ipv6hdr, saddr)) / 2; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* RFC 4861 section 7.2.4. Who has no address yet looks for a duplicate: it is told by all. */
static __always_inline void
advertise(struct advertisement *answer, const struct solicitation *question)
{
	const struct address *asker = (const void *)&question->ip.saddr;
	struct address *to = (void *)&answer->head.ip.daddr;

	answer->head.ip.version = 6;
	answer->head.ip.payload_len = bpf_htons(sizeof(*answer) - sizeof(answer->head.ip));
	answer->head.ip.nexthdr = IPPROTO_ICMPV6;
	answer->head.ip.hop_limit = ND_HOP_LIMIT;
	__builtin_memcpy(&answer->head.ip.saddr, &question->target, sizeof(question->target));
	answer->head.type = ND_ADVERTISEMENT;
	answer->head.flags = ND_ROUTER | ND_OVERRIDE;
	if (address_is_none(asker)) {
		to->word[0] = bpf_htonl(0xff020000);
		to->word[3] = bpf_htonl(1);
	} else {
		*to = *asker;
		answer->head.flags |= ND_SOLICITED;
	}
	answer->head.target = question->target;
	answer->option = ND_TARGET_ADDRESS;
	answer->option_length = 1;
	gateway_mac(answer->mac);
	answer->head.checksum = checksum(answer);
}

static __always_inline enum drop_reason
answer_solicitation(struct __sk_buff *skb, struct packet *pkt, bool *answered)
{
	__u32 length = ETH_HLEN + sizeof(struct advertisement);
	struct advertisement answer = {};
	struct solicitation question;
	struct ethhdr *frame;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &question, sizeof(question)))
		return REFUSE(pkt, DROP_TRUNCATED);
	/* behind extension headers, or not as section 7.1.1 has it: the stack knows what to do */
	if (pkt->l4_offset != ETH_HLEN + sizeof(question.ip) || question.code ||
	    question.ip.hop_limit != ND_HOP_LIMIT ||
	    !address_is_gateway_ipv6(&question.target))
		return DROP_NONE;

	advertise(&answer, &question);
	if (skb->len != length && bpf_skb_change_tail(skb, length, 0))
		return REFUSE(pkt, DROP_NO_ROOM);
	frame = packet_at(skb, 0, sizeof(*frame));
	if (!frame)
		return REFUSE(pkt, DROP_TRUNCATED);
	turn_frame(frame);
	if (bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0))
		return REFUSE(pkt, DROP_TRUNCATED);
	*answered = true;
	return DROP_NONE;
}

int neighbour(struct __sk_buff *skb)
{
	struct packet *pkt = packet_current();
	enum drop_reason reason;
	bool answered = false;

	if (!pkt)
		return TC_ACT_SHOT;
	reason = skb->protocol == bpf_htons(ETH_P_ARP) ? answer_arp(skb, pkt, &answered)
						       : answer_solicitation(skb, pkt, &answered);
	if (reason)
		return packet_drop(skb, pkt, reason);
	if (!answered) {
		count(COUNTER_TO_STACK, skb->len);
		return TC_ACT_OK;
	}
	count(COUNTER_NEIGHBOURS_ANSWERED, skb->len);
	return bpf_redirect_peer(skb->ifindex, 0);
}
