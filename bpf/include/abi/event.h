// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of a record in the `events` ring, and of the token bucket before it.
 * Reader: meshnet/dataplane/events.py.  Writer: include/drop.h.
 */
#pragma once
#include "address.h"

enum event_limit {
	EVENT_FILE_NAME = 16,		/* bytes, padded with zeros */
	EVENT_BURST = 100,		/* tokens, a reason and CPU */
	EVENT_INTERVAL_NS = 10000000,	/* a token comes back after this: 100 a second */
};

struct event {
	__u64 time_ns;			/* CLOCK_MONOTONIC */
	struct address source;
	struct address destination;
	__u64 file[2];			/* name of the C file that refused it, as bytes */
	__u32 line;
	__u32 reason;			/* enum drop_reason */
	__u32 direction;		/* enum direction */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 ifindex;			/* the hook's */
	__u32 length;
	__u16 source_port;		/* host order; 0 where the protocol has none */
	__u16 destination_port;
	__u32 protocol;			/* IPPROTO_*; 0: not known */
	__u32 vni;			/* as it came, for a tunnelled packet */
	struct address outer_source;	/* zero: not tunnelled */
	__u32 rule;			/* of policy; 0: none decided */
	__u32 verdict;			/* enum verdict: DENY, or AUDIT for what passed */
	__u64 reserved;
};
_Static_assert(sizeof(struct event) == 128, "event is ABI");

struct event_bucket {
	__u64 refilled_ns;
	__u64 tokens;
};
_Static_assert(sizeof(struct event_bucket) == 16, "event_bucket is ABI");

/* Index of `counters`. */
enum counter {
	COUNTER_DELIVERED = 0,		/* to an endpoint here */
	COUNTER_ENCAPSULATED = 1,
	COUNTER_DECAPSULATED = 2,	/* by us; the kernel's own are COUNTER_REASSEMBLED */
	COUNTER_REASSEMBLED = 3,	/* came by the tunnel device */
	COUNTER_TO_STACK = 4,		/* from an endpoint to the host's own stack */
	COUNTER_FROM_STACK = 5,		/* from the host's own stack to an endpoint */
	COUNTER_EVENTS_SUPPRESSED = 6,	/* drops without an event: the bucket was empty */
	COUNTER_EVENTS_LOST = 7,	/* drops without an event: the ring was full */
	COUNTER_NEIGHBOURS_ANSWERED = 8,	/* ARP and ND for the gateway */
	COUNTER_UNTRACKED = 9,		/* flows without a row: no room in `conntrack` */
	COUNTER_SENT_NATIVE = 10,	/* to another node, without a tunnel */
	COUNTER_RECEIVED_NATIVE = 11,
	COUNTER_RELATED = 12,		/* ICMP errors about a flow that passes */
	COUNTER_MASQUERADED = 13,	/* to the world, with this node's address */
	COUNTER_UNMASQUERADED = 14,	/* the answers */
	COUNTER_AUDITED = 15,		/* let through in audit mode */
	COUNTER_TO_BE_CUT = 16,		/* too big without DF: the host's stack cuts them */
	COUNTER_ICMP_ERRORS_SENT = 17,	/* to an endpoint: too big, out of hops, or unreachable */
	COUNTER_SERVICE_ASKED = 18,	/* from an endpoint to a frontend, translated */
	COUNTER_SERVICE_ANSWERED = 19,	/* back to it, from a backend */
	COUNTER_QUESTIONS = 20,		/* of a join: does the tunnel pass? heard already */
	COUNTER_RESETS_SENT = 21,	/* to an endpoint: nobody takes its connection */
	COUNTER_COUNT = 22,
};
