// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The endpoints of this node: whose interface is this, and who has that address?
 *
 * Needs: address.h, packet.h.  Maps: endpoints, endpoints_by_address, seen_identities.
 * Layout: abi/endpoint.h.
 */
#pragma once
#include "address.h"
#include "packet.h"

static __always_inline const struct endpoint *
endpoint_of_interface(__u32 ifindex)
{
	return bpf_map_lookup_elem(MAP(endpoints), &ifindex);
}

static __always_inline bool
endpoint_has(const struct endpoint *endpoint, const struct address *address)
{
	return address_equal(address, &endpoint->ipv4) ||
	       (address_equal(address, &endpoint->ipv6) && !address_is_none(address));
}

static __always_inline const struct endpoint *
endpoint_of_address(const struct address *address)
{
	return bpf_map_lookup_elem(MAP(endpoints_by_address), address);
}

/* Is the destination here? Then STAGE_DELIVER_LOCAL knows where to. */
static __always_inline bool
endpoint_choose(struct packet *pkt)
{
	const struct endpoint *endpoint = endpoint_of_address(&pkt->destination);

	if (!endpoint)
		return false;
	pkt->ifindex = endpoint->ifindex;
	pkt->endpoint_id = endpoint->endpoint_id;
	pkt->destination_identity = endpoint->identity;
	pkt->endpoint_flags = endpoint->flags;
	pkt->policy_epoch = endpoint->policy_epoch;
	pkt->policy_id = endpoint->policy_id;
	__builtin_memcpy(pkt->endpoint_mac, endpoint->mac, sizeof(pkt->endpoint_mac));
	return true;
}

/* For `why` and the demo's matrix: this endpoint has had a packet from that identity. */
static __always_inline void
endpoint_saw(__u32 endpoint_id, __u32 identity)
{
	struct seen_key key = {.endpoint_id = endpoint_id, .identity = identity};
	__u64 *packets = bpf_map_lookup_elem(MAP(seen_identities), &key);
	__u64 one = 1;

	if (packets)
		__sync_fetch_and_add(packets, 1);
	else
		bpf_map_update_elem(MAP(seen_identities), &key, &one, BPF_ANY);
}
