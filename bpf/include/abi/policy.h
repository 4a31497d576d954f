// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `policy` (who is the peer to this endpoint's policy: a class) and of
 * `policy_classes` (what may that class do), and how a verdict is told.
 * Reader: include/policy.h.  Writer: PolicyMaps in meshnet/dataplane/policy_maps.py.
 */
#pragma once
#include <linux/types.h>

enum policy_number {
	POLICY_NONE = 0,	/* policy id of an endpoint that no policy selects */
	POLICY_ANYBODY = 0,	/* the remote of a policy's default class */
	POLICY_ALLOW_CLASS = 1,	/* the class without rows: everything is allowed */
};

struct policy_key {
	__u32 policy_id;
	__u32 direction;	/* enum direction, of the flow's first packet */
	__u32 remote;		/* identity, or the number of a prefix */
};
_Static_assert(sizeof(struct policy_key) == 12, "policy_key is ABI");

/* Key of a longest-prefix map; `length` is 32 for all protocols of a class, 40 for all ports
 * of a protocol, 48 and more for so many bits of the port. ICMP: the type is the port.
 */
struct policy_class_key {
	__u32 length;
	__u32 policy_class;
	__u8 protocol;
	__u8 reserved;
	__be16 port;
};
_Static_assert(sizeof(struct policy_class_key) == 12, "policy_class_key is ABI");

enum verdict {
	VERDICT_DENY = 0,
	VERDICT_ALLOW = 1,
	VERDICT_AUDIT = 2,	/* passes, and is reported as what would have been denied */
};

struct policy_ruling {
	__u32 rule;		/* its number in the agent; 0: no rule, but the default */
	__u32 verdict;		/* enum verdict */
};
_Static_assert(sizeof(struct policy_ruling) == 8, "policy_ruling is ABI");
