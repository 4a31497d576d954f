// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `nat`: two rows for each flow of an endpoint to the world, one for each way.
 *
 *   way   key.local                 row.address, row.port
 *   out   the endpoint's address    this node's underlay address, a port of the pool
 *   back  that address              the endpoint's
 *
 * So each row is found from the other, and refreshes it. Reader and writer: include/nat.h.
 * Sweeper: FlowMap in meshnet/dataplane/conntrack.py.
 */
#pragma once
#include "address.h"

/* Ports in host order; ICMP echo: the identifier, and as the remote's the request's type. */
struct nat_key {
	struct address local;
	struct address remote;
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 reserved[3];
};
_Static_assert(sizeof(struct nat_key) == 40, "nat_key is ABI");

enum nat_flag {
	NAT_ANSWERED = 1,	/* the world has answered */
	NAT_FIN_OUT = 2,	/* the endpoint has closed, or */
	NAT_FIN_BACK = 4,	/* the world has; both: closed */
	NAT_RESET = 8,
};

struct nat {
	struct address address;
	__u32 expires;		/* in ticks of 2^30 ns of CLOCK_MONOTONIC */
	__u16 port;
	__u8 flags;		/* enum nat_flag */
	__u8 reserved;
};
_Static_assert(sizeof(struct nat) == 24, "nat is ABI");

/* In ticks. No less than what the RFCs ask of a NAT. */
enum nat_lifetime {
	NAT_TCP_ESTABLISHED = 7451,	/* 8 000 s; RFC 5382, REQ-5: 2 hours 4 minutes */
	NAT_TCP_TRANSITORY = 224,	/* 240 s: opening and closed; RFC 5382, REQ-5 */
	NAT_UDP = 112,			/* 120 s; RFC 4787, REQ-5 */
	NAT_ICMP = 56,			/* 60 s; RFC 5508, REQ-2 */
};

enum nat_limit {
	NAT_TRIES = 8,		/* ports tried a run of the program, */
	NAT_ROUNDS = 4,		/* and how often it calls itself for more */
};
