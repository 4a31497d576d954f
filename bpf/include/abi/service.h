// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `services`, `backends`, `backend_slots`, `service_affinity` and `socket_peers`.
 *
 * A service's backends are a range of `backend_slots`, one slot for each unit of weight; a
 * slot is the index of a row of `backends`. A change writes a fresh range and then flips the
 * service's row, so that no connect sees half of it.
 * Reader: include/service.h.  Writer: ServiceMaps in meshnet/dataplane/services.py.
 */
#pragma once
#include "address.h"

/* A frontend. */
struct service_key {
	struct address address;
	__be16 port;
	__u8 protocol;		/* IPPROTO_TCP, IPPROTO_UDP */
	__u8 reserved;
};
_Static_assert(sizeof(struct service_key) == 20, "service_key is ABI");

struct service {
	__u32 id;		/* of the frontend; not used again before 2^32 others */
	__u32 base;		/* its first slot */
	__u32 size;		/* 0: nobody answers, which connect() is told at once */
	__u32 affinity_ticks;	/* a client keeps its backend so long; 0: no affinity */
};
_Static_assert(sizeof(struct service) == 16, "service is ABI");

enum backend_state {
	BACKEND_ABSENT = 0,
	BACKEND_ACTIVE = 1,
	BACKEND_TERMINATING = 2,	/* finishes what it has */
};

/* Index 0 is nobody. */
struct backend {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 state;		/* enum backend_state */
};
_Static_assert(sizeof(struct backend) == 20, "backend is ABI");

/* Who a client is depends on where it is asked: at the socket, the cookie of its network
 * namespace, or of the socket for a datagram; on a packet, its address.
 */
struct affinity_key {
	struct address client;
	__u32 service;
};
_Static_assert(sizeof(struct affinity_key) == 20, "affinity_key is ABI");

struct affinity {
	__u32 backend;
	__u32 used;		/* tick of the last use */
};
_Static_assert(sizeof(struct affinity) == 8, "affinity is ABI");

/* A socket talks to a backend and must see the frontend that it asked for. */
struct socket_peer_key {
	__u64 cookie;
	struct address address;	/* of the backend */
	__be16 port;
	__u8 protocol;
	__u8 reserved[5];
};
_Static_assert(sizeof(struct socket_peer_key) == 32, "socket_peer_key is ABI");

struct socket_peer {
	struct address address;	/* of the frontend */
	__be16 port;
	__u16 reserved;
};
_Static_assert(sizeof(struct socket_peer) == 20, "socket_peer is ABI");
