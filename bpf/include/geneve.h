// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The first word of a Geneve header (RFC 8926 section 3.4).
 *
 * What we send has no option: the VNI holds all 24 bits of an identity, and option-less
 * packets are merged by the kernel. What others put in is skipped, unless they say that it
 * must be understood.
 *
 * Needs: tunnel.h.  Refuses: DROP_OUTER_MALFORMED, DROP_GENEVE_OPTION.
 */
#pragma once
#include "tunnel.h"

enum geneve_head {
	GENEVE_ETHERNET = 0x6558,	/* Transparent Ethernet Bridging; all other bits 0 */
	GENEVE_PROTOCOL_MASK = 0xffff,
	GENEVE_CRITICAL = 1 << 22,
	GENEVE_CONTROL = 1 << 23,	/* for the tunnel's end itself, with no packet in it */
	GENEVE_VERSION_MASK = 0xc0000000,
	GENEVE_OPTIONS_SHIFT = 24,	/* their length in 4 bytes, six bits */
	GENEVE_OPTIONS_MASK = 0x3f,
};

/* `options`: how many bytes of them lie between header and inner frame. */
static __always_inline enum drop_reason
geneve_read(struct packet *pkt, __u32 head, __u32 *options)
{
	if (head & (GENEVE_VERSION_MASK | GENEVE_CONTROL) ||
	    (head & GENEVE_PROTOCOL_MASK) != GENEVE_ETHERNET)
		return REFUSE(pkt, DROP_OUTER_MALFORMED);
	if (head & GENEVE_CRITICAL)
		return REFUSE(pkt, DROP_GENEVE_OPTION);
	*options = (head >> GENEVE_OPTIONS_SHIFT & GENEVE_OPTIONS_MASK) * 4;
	return DROP_NONE;
}
