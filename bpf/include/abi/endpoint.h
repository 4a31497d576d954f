// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `endpoints` (by ifindex) and `endpoints_by_address` (by address).
 * Reader: include/endpoint.h.  Writer: EndpointMaps in meshnet/dataplane/maps.py.
 */
#pragma once
#include "address.h"

enum endpoint_flag {
	ENDPOINT_READY = 1,	/* others know its identity: packets may flow */
	ENDPOINT_AUDIT = 2,	/* what policy denies passes, and is reported */
};

struct endpoint {
	struct address ipv4;
	struct address ipv6;
	__u32 ifindex;		/* host side of the veth */
	__u32 endpoint_id;
	__u32 identity;
	__u16 flags;		/* enum endpoint_flag */
	__u8 mac[6];		/* of the interface inside the endpoint */
	__u32 policy_epoch;	/* another one whenever its policy changes */
	__u32 policy_id;	/* of the policies that select it; 0: none does */
};
_Static_assert(sizeof(struct endpoint) == 60, "endpoint is ABI");

/* Layout of `seen_identities`: who has reached which endpoint here. */
struct seen_key {
	__u32 endpoint_id;
	__u32 identity;
};
_Static_assert(sizeof(struct seen_key) == 8, "seen_key is ABI");
