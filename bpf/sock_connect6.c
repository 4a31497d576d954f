// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* sock_connect6: connect() of an IPv6 socket, stream or datagram.
 *
 * Hook: cgroup/connect6 on the node's own cgroup.
 * In:   the address that the caller asked for.
 * Out:  a frontend of a service becomes one of its backends, all else stays,
 *       SOCKET_REFUSED with ECONNREFUSED when a service has no backend.
 */
#include "socket.h"

int sock_connect6(struct bpf_sock_addr *ctx)
{
	struct peer peer;

	peer_from_ipv6(ctx, &peer);
	if (socket_forward(ctx, &peer, false) == SOCKET_REFUSED)
		return SOCKET_REFUSED;
	peer_to_ipv6(ctx, &peer);
	return SOCKET_GO;
}
