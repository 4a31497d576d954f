// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Services: whose frontend is that, and which backend takes this client?
 *
 * The choice is random over the slots, so weights are numbers of slots and nothing is
 * counted. A client with a backend of its own keeps it: for the service's affinity time, or,
 * a datagram socket, while it goes on sending.
 *
 * Maps: services, service_addresses, backends, backend_slots, backend_hits,
 * service_affinity.
 * Layout: abi/service.h.
 */
#pragma once
#include "clock.h"
#include "maps.h"

enum service_limit { SERVICE_DATAGRAM_TICKS = 60 };

/* Is it the address of any frontend? */
static __always_inline bool
service_has(const struct address *address)
{
	return bpf_map_lookup_elem(MAP(service_addresses), address);
}

static __always_inline const struct service *
service_find(const struct address *address, __be16 port, __u8 protocol)
{
	struct service_key key = {.address = *address, .port = port, .protocol = protocol};

	return bpf_map_lookup_elem(MAP(services), &key);
}

static __always_inline const struct backend *
backend_at(__u32 index)
{
	const struct backend *backend = bpf_map_lookup_elem(MAP(backends), &index);

	return backend && backend->state != BACKEND_ABSENT ? backend : NULL;
}

static __always_inline void
backend_hit(__u32 index)
{
	__u64 *hits = bpf_map_lookup_elem(MAP(backend_hits), &index);

	if (hits)
		(*hits)++;
}

/* The backend this client has, if it may go on with it. */
static __always_inline __u32
service_kept(const struct affinity_key *client, __u32 ticks, bool terminating)
{
	struct affinity *kept = bpf_map_lookup_elem(MAP(service_affinity), client);
	const struct backend *backend;
	__u32 now = clock_ticks();

	if (!kept || now - kept->used > ticks)
		return 0;
	backend = backend_at(kept->backend);
	if (!backend || (backend->state == BACKEND_TERMINATING && !terminating))
		return 0;
	if (kept->used != now)
		kept->used = now;
	return kept->backend;
}

static __always_inline __u32
service_draw(const struct service *service)
{
	__u32 slot, *index;

	if (!service->size)
		return 0;
	slot = service->base + bpf_get_prandom_u32() % service->size;
	index = bpf_map_lookup_elem(MAP(backend_slots), &slot);
	return index ? *index : 0;
}

/* `ticks`: how long the client keeps what it is given; 0: not at all. A datagram socket
 * (`terminating`) may go on with a backend that takes no new ones. Answers the index of a
 * backend, 0 when there is none.
 */
static __always_inline __u32
service_choose(const struct service *service, const struct affinity_key *client, __u32 ticks,
	       bool terminating)
{
	struct affinity given = {.used = clock_ticks()};

	if (ticks) {
		given.backend = service_kept(client, ticks, terminating);
		if (given.backend)
			return given.backend;
	}
	given.backend = service_draw(service);
	if (given.backend)
		backend_hit(given.backend);
	if (given.backend && ticks)
		bpf_map_update_elem(MAP(service_affinity), client, &given, BPF_ANY);
	return given.backend;
}
