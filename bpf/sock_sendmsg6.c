// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* sock_sendmsg6: a datagram with an address of its own, from an IPv6 UDP socket.
 *
 * Hook: cgroup/sendmsg6 on the node's own cgroup. A connected socket does not pass here.
 * In:   the address of this datagram.
 * Out:  a frontend becomes the backend that the socket has, or one drawn for it,
 *       SOCKET_REFUSED with ECONNREFUSED when a service has no backend.
 */
#include "socket.h"

int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	peer_from_ipv6(ctx, &peer);
	if (socket_forward(ctx, &peer, true) == SOCKET_REFUSED)
		return SOCKET_REFUSED;
	peer_to_ipv6(ctx, &peer);
	return SOCKET_GO;
}
