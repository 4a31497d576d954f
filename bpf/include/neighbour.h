// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* ARP (RFC 826) and neighbour discovery (RFC 4861) on the wire, and which addresses are the
 * gateway's: each veth is a link of its own with the endpoint at one end and us at the other.
 *
 * Needs: address.h.
 */
#pragma once
#include <linux/ipv6.h>
#include "address.h"

enum neighbour_number {
	ARP_ETHERNET = 1,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	ND_SOLICITATION = 135,
	ND_ADVERTISEMENT = 136,
	ND_TARGET_ADDRESS = 2,		/* the option with a link-layer address */
	ND_HOP_LIMIT = 255,		/* so it cannot have come from farther away */
	ND_ROUTER = 0x80,
	ND_SOLICITED = 0x40,
	ND_OVERRIDE = 0x20,
};

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
};
_Static_assert(sizeof(struct arp) == 28, "ARP for IPv4 over Ethernet");

/* A solicitation as far as it is read, and the advertisement that answers it. */
struct solicitation {
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__u8 flags;
	__u8 reserved[3];
	struct address target;
};
_Static_assert(sizeof(struct solicitation) == 64, "solicitation");

struct advertisement {
	struct solicitation head;
	__u8 option;
	__u8 option_length;	/* in 8 bytes */
	__u8 mac[6];
};
_Static_assert(sizeof(struct advertisement) == 72, "advertisement");

/* fe80::/64 and the gateway's MAC as EUI-64 (RFC 4291 appendix A). */
static __always_inline void
gateway_link_local(struct address *a)
{
	const volatile __u8 *mac = CFG->gateway_mac;

	a->word[0] = bpf_htonl(0xfe800000);
	a->word[1] = 0;
	a->word[2] = bpf_htonl((__u32)(mac[0] ^ 2) << 24 | mac[1] << 16 | mac[2] << 8 | 0xff);
	a->word[3] = bpf_htonl(0xfe000000 | mac[3] << 16 | mac[4] << 8 | mac[5]);
}

static __always_inline bool
address_is_gateway_ipv6(const struct address *a)
{
	struct address link_local;

	gateway_link_local(&link_local);
	return address_is(a, &CFG->gateway_ipv6) || address_equal(a, &link_local);
}
