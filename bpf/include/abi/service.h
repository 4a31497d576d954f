// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `services`, `backends`, `backend_slots`, `service_affinity`, `socket_peers` and
 * `service_flows`.
 *
 * A service's backends are a range of `backend_slots`, one slot for each unit of weight; a
 * slot is the index of a row of `backends`. A change writes a fresh range and then flips the
 * service's row, so that no connect sees half of it.
 * Reader: include/service.h.  Writer: ServiceMaps in meshnet/dataplane/services.py; of
 * `service_flows` include/service_flow.h.
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

/* Where no socket could be asked, packets are translated. Two rows for each flow of an endpoint
 * of this node to a frontend, one for each way; each row's value is the other's key.
 *
 *   way    client                       server
 *   there  the endpoint, as it asked    the frontend
 *   back   the endpoint, as it is seen  the backend
 *
 * It is seen as itself, but where two of its flows would look alike, by another port; where
 * it is its own backend, by the frontend's address. Ports in host order.
 */
struct service_flow_key {
	struct address client;
	struct address server;
	__u16 client_port;
	__u16 server_port;
	__u8 protocol;
	__u8 reserved[3];
};
_Static_assert(sizeof(struct service_flow_key) == 40, "service_flow_key is ABI");

/* Whose packets a row of `service_flows` is for: the client's to the frontend, or those between
 * it and the backend, by whose addresses its key is.
 */
enum service_way {
	SERVICE_THERE = 0,
	SERVICE_BACK = 1,
};

struct service_flow {
	struct service_flow_key other;
	__u32 expires;		/* in ticks, as in `nat` */
	__u32 backend;		/* its index */
	__u8 flags;		/* enum nat_flag */
	__u8 way;		/* enum service_way */
	__u8 reserved[2];
};
_Static_assert(sizeof(struct service_flow) == 52, "service_flow is ABI");

enum service_flow_limit {
	SERVICE_FLOW_TRIES = 4,			/* ports of the client's end, its own first */
	SERVICE_FLOW_FIRST_PORT = 0xc000,	/* of the others: RFC 6335's dynamic ports */
	SERVICE_FLOW_PORT_MASK = 0x3fff,
};
