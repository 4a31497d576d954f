// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `fragments`: what the first fragment of an IP packet said of its flow.
 * Reader and writer: include/fragment.h.
 */
#pragma once
#include "address.h"

struct fragment_key {
	struct address source;
	struct address destination;
	__u32 id;		/* host order */
	__u8 protocol;		/* IPv4 only: in IPv6 the fragments need not agree on it */
	__u8 reserved[3];
};
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key is ABI");

struct fragment {
	__u16 source_port;	/* as in struct packet */
	__u16 destination_port;
	__u8 protocol;
	__u8 icmp_type;
	__u8 reserved[2];
};
_Static_assert(sizeof(struct fragment) == 8, "fragment is ABI");
