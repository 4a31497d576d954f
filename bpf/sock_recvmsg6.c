// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* sock_recvmsg6: whom a datagram came from, as an IPv6 socket is told.
 *
 * Hook: cgroup/recvmsg6 on the node's own cgroup.
 * In:   the address that recvmsg() of a UDP socket is about to give.
 * Out:  a backend becomes the frontend that this socket asked for, all else stays.
 */
#include "socket.h"

int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	peer_from_ipv6(ctx, &peer);
	socket_reverse(ctx, &peer);
	peer_to_ipv6(ctx, &peer);
	return SOCKET_GO;
}
