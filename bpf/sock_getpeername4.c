// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* sock_getpeername4: whom a socket is connected to, as an IPv4 socket is told.
 *
 * Hook: cgroup/getpeername4 on the node's own cgroup.
 * In:   the address that getpeername() is about to give.
 * Out:  a backend becomes the frontend that this socket asked for, all else stays.
 */
#include "socket.h"

int sock_getpeername4(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	peer_from_ipv4(ctx, &peer);
	socket_reverse(ctx, &peer);
	peer_to_ipv4(ctx, &peer);
	return SOCKET_GO;
}
