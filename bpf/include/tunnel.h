// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* A tunnel on the wire, over IPv4 and IPv6. VXLAN and Geneve without options have headers of
 * one shape: eight bytes, the VNI (= identity) in the upper 24 bits of the second word. The
 * checksum of the outer UDP header is zero (RFC 6935 for IPv6): the inner packet has its own.
 *
 * Needs: packet.h.
 */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include "packet.h"

enum tunnel_limit {
	TUNNEL_TTL = 64,
	TUNNEL_FIRST_PORT = 0xc000,	/* source ports: 49152 and up, by the flow's hash */
	TUNNEL_PORT_MASK = 0x3fff,
	TUNNEL_QUESTION = 0x88b5,	/* as inner protocol, with VNI 0: logic/tunnel_probe.py */
};

/* What both outer families have in common. Packed: Ethernet ends at no boundary. */
struct tunnel_header {
	struct udphdr udp;
	__be32 head;	/* VXLAN's flags; Geneve's version, options' length, flags, protocol */
	__be32 vni;	/* in the upper 24 bits */
	struct ethhdr inner;
} __attribute__((packed));

struct tunnel_ipv4 {
	struct iphdr ip;
	struct tunnel_header tunnel;
} __attribute__((packed));
_Static_assert(sizeof(struct tunnel_ipv4) == 50, "overhead over IPv4");

struct tunnel_ipv6 {
	struct ipv6hdr ip;
	struct tunnel_header tunnel;
} __attribute__((packed));
_Static_assert(sizeof(struct tunnel_ipv6) == 70, "overhead over IPv6");

/* RFC 791: over the ten words of the outer header, its checksum still zero. */
static __always_inline __u16
tunnel_checksum(const struct tunnel_ipv4 *header)
{
	const __u16 *words = (const void *)header;
	__u32 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}
