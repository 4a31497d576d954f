// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Tunnels inside of tunnels: what an endpoint sends in a node's name.
 *
 * A packet that leaves the mesh by this node's stack may get the node's address, and with it
 * the trust of the other nodes; one that ends in a node's own stack is unpacked there by the
 * kernel. So neither may be a tunnel's packet. Between endpoints anything goes.
 *
 * Needs: address.h, packet.h.  Maps: node_by_address.
 * Refuses: DROP_NESTED_ENCAPSULATION, DROP_NESTED_IP.
 */
#pragma once
#include "address.h"
#include "packet.h"

static __always_inline bool
is_node_address(const struct address *a)
{
	return address_is_own(a) || bpf_map_lookup_elem(MAP(node_by_address), a);
}

static __always_inline enum drop_reason
check_nesting(struct packet *pkt)
{
	if (pkt->protocol == IPPROTO_UDP && !pkt->later_fragment &&
	    (pkt->destination_port == CFG->vxlan_port ||
	     pkt->destination_port == CFG->geneve_port))
		return REFUSE(pkt, DROP_NESTED_ENCAPSULATION);
	if ((pkt->protocol == IPPROTO_IPIP || pkt->protocol == IPPROTO_IPV6 ||
	     pkt->protocol == IPPROTO_GRE) &&
	    is_node_address(&pkt->destination))
		return REFUSE(pkt, DROP_NESTED_IP);
	return DROP_NONE;
}
