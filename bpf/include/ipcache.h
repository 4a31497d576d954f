// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Address -> identity and the node that has it.
 *
 * Whole addresses first (19 ns), the rest by longest prefix (124 ns). An address that
 * neither knows may still lie in a node's PodCIDR: then it is the mesh's, and nobody's.
 *
 * Needs: packet.h.  Maps: ipcache, ipcache_prefix, pod_cidrs.  Layout: abi/ipcache.h.
 */
#pragma once
#include "packet.h"

static __always_inline const struct ipcache *
ipcache_whole(const struct address *address)
{
	return bpf_map_lookup_elem(MAP(ipcache), address);
}

static __always_inline const struct ipcache *
ipcache_longest(const struct address *address)
{
	struct prefix key = {.length = 128, .address = *address};

	return bpf_map_lookup_elem(MAP(ipcache_prefix), &key);
}

static __always_inline const struct ipcache *
ipcache_lookup(const struct address *address)
{
	const struct ipcache *row = ipcache_whole(address);

	return row ? row : ipcache_longest(address);
}

/* The owner (struct node) of the PodCIDR this address lies in; 0: in nobody's. */
static __always_inline __u32
pod_cidr_owner(const struct address *address)
{
	struct prefix key = {.length = 128, .address = *address};
	const __u32 *owner = bpf_map_lookup_elem(MAP(pod_cidrs), &key);

	return owner ? *owner : 0;
}
