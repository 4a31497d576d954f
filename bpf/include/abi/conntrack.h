// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `conntrack`: one row for each flow of an endpoint of this node, seen from that
 * endpoint. A flow between two endpoints of one node has two rows, one for each, since each
 * has its own policy.
 * Reader and writer: include/conntrack.h.  Sweeper: FlowMap in meshnet/dataplane/conntrack.py.
 */
#pragma once
#include "address.h"

/* Ports in host order. ICMP echo: who asks has the identifier as its port, who is asked the
 * request's type, so that question and answer are one row and questions both ways are two.
 * Other ICMP: the receiver's port is the type. Protocols without ports: 0.
 */
struct conntrack_key {
	struct address endpoint;
	struct address peer;
	__u16 endpoint_port;
	__u16 peer_port;
	__u8 protocol;
	__u8 reserved[3];
};
_Static_assert(sizeof(struct conntrack_key) == 40, "conntrack_key is ABI");

enum conntrack_flag {
	CONNTRACK_PEER_BEGAN = 1,	/* the peer sent the first packet; else the endpoint */
	CONNTRACK_GUESSED = 2,		/* TCP in mid-stream: who began was not seen */
	CONNTRACK_ANSWERED = 4,		/* packets went both ways */
	CONNTRACK_CLOSED = 8,		/* RST, or FIN both ways */
	CONNTRACK_SERVICE = 16,		/* the endpoint asked a frontend: rows in `service_flows` */
};

struct conntrack {
	__u32 expires;		/* in ticks of 2^30 ns (1.07 s) of CLOCK_MONOTONIC */
	__u32 remote_identity;	/* the peer's, when policy was last asked */
	__u32 policy_epoch;	/* the endpoint's, when policy was last asked */
	__u8 flags;		/* enum conntrack_flag */
	__u8 tcp_sent;		/* TCP flags that the endpoint has sent, and */
	__u8 tcp_received;	/* those that the peer has */
	__u8 reserved;
};
_Static_assert(sizeof(struct conntrack) == 16, "conntrack is ABI");

/* Ticks are nanoseconds shifted by this. */
enum clock_unit { CLOCK_TICK_SHIFT = 30 };

/* In ticks; the seconds are Cilium's defaults (--bpf-ct-timeout-*). */
enum conntrack_lifetime {
	CONNTRACK_TCP_OPENING = 56,		/* 60 s: until both sides sent an ACK */
	CONNTRACK_TCP_ESTABLISHED = 7451,	/* 8 000 s */
	CONNTRACK_TCP_CLOSED = 10,		/* 10 s */
	CONNTRACK_OTHER = 56,			/* 60 s */
};
