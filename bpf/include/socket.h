// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* A socket's peer, seen from a cgroup's sock_addr hooks: there to the backend, back to the
 * frontend. Translated once a connection, so that packets need no translation at all.
 *
 * An IPv6 socket that talks IPv4 has mapped addresses, which is the form of struct address
 * anyway. Errors reach the caller as connect()'s or sendmsg()'s own.
 *
 * Maps: socket_peers and those of service.h.  Layout: abi/service.h.
 */
#pragma once
#include <linux/errno.h>
#include <linux/socket.h>
#include "address.h"
#include "service.h"

enum socket_verdict { SOCKET_REFUSED = 0, SOCKET_GO = 1 };

/* Where the socket wants to go; rewritten by socket_forward and socket_reverse. */
struct peer {
	struct address address;
	__be16 port;
	__u8 protocol;
};

static __always_inline void
peer_read(struct peer *peer, __u32 port, __u32 protocol)
{
	peer->port = (__be16)port;
	peer->protocol = (__u8)protocol;
}

static __always_inline void
client_of(struct affinity_key *client, __u64 cookie, __u32 service)
{
	__builtin_memset(client, 0, sizeof(*client));
	client->client.word[0] = (__u32)cookie;
	client->client.word[1] = (__u32)(cookie >> 32);
	client->service = service;
}

static __always_inline void
socket_remember(struct bpf_sock_addr *ctx, const struct peer *asked, const struct backend *given)
{
	struct socket_peer_key key = {};
	struct socket_peer peer = {};

	key.cookie = bpf_get_socket_cookie(ctx);
	key.address = given->address;
	key.port = given->port;
	key.protocol = asked->protocol;
	peer.address = asked->address;
	peer.port = asked->port;
	bpf_map_update_elem(MAP(socket_peers), &key, &peer, BPF_ANY);
}

/* SOCKET_GO with `peer` as it was: no service's. SOCKET_GO with another: the backend.
 * `datagram`: each sendmsg() asks, and the socket keeps its backend meanwhile.
 */
static __always_inline enum socket_verdict
socket_forward(struct bpf_sock_addr *ctx, struct peer *peer, bool datagram)
{
	const struct service *service = service_find(&peer->address, peer->port, peer->protocol);
	const struct backend *backend;
	struct affinity_key client;
	__u32 index;

	if (!service)
		return SOCKET_GO;
	if (service->affinity_ticks || !datagram)
		client_of(&client, bpf_get_netns_cookie(ctx), service->id);
	else
		client_of(&client, bpf_get_socket_cookie(ctx), service->id);
	index = service_choose(service, &client,
			       service->affinity_ticks ? service->affinity_ticks
			       : datagram	       ? SERVICE_DATAGRAM_TICKS
						       : 0,
			       datagram);
	backend = index ? backend_at(index) : NULL;
	if (!backend) {
		bpf_set_retval(-ECONNREFUSED);
		return SOCKET_REFUSED;
	}
	socket_remember(ctx, peer, backend);
	peer->address = backend->address;
	peer->port = backend->port;
	return SOCKET_GO;
}

/* The frontend that this socket asked for, in the place of the backend. */
static __always_inline void
socket_reverse(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_peer_key key = {};
	const struct socket_peer *asked;

	key.cookie = bpf_get_socket_cookie(ctx);
	key.address = peer->address;
	key.port = peer->port;
	key.protocol = peer->protocol;
	asked = bpf_map_lookup_elem(MAP(socket_peers), &key);
	if (!asked)
		return;
	peer->address = asked->address;
	peer->port = asked->port;
}

static __always_inline void
peer_from_ipv4(struct bpf_sock_addr *ctx, struct peer *peer)
{
	__builtin_memset(peer, 0, sizeof(*peer));
	address_from_ipv4(&peer->address, ctx->user_ip4);
	peer_read(peer, ctx->user_port, ctx->protocol);
}

static __always_inline void
peer_to_ipv4(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip4 = peer->address.word[3];
	ctx->user_port = peer->port;
}

static __always_inline void
peer_from_ipv6(struct bpf_sock_addr *ctx, struct peer *peer)
{
	__builtin_memset(peer, 0, sizeof(*peer));
	peer->address.word[0] = ctx->user_ip6[0];
	peer->address.word[1] = ctx->user_ip6[1];
	peer->address.word[2] = ctx->user_ip6[2];
	peer->address.word[3] = ctx->user_ip6[3];
	peer_read(peer, ctx->user_port, ctx->protocol);
}

static __always_inline void
peer_to_ipv6(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip6[0] = peer->address.word[0];
	ctx->user_ip6[1] = peer->address.word[1];
	ctx->user_ip6[2] = peer->address.word[2];
	ctx->user_ip6[3] = peer->address.word[3];
	ctx->user_port = peer->port;
}
