// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Arithmetic on struct address. Needs nothing. */
#pragma once
#include "compiler.h"

static __always_inline bool
address_equal(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/* The same against one of this node's own, which may be "none". */
static __always_inline bool
address_is(const struct address *a, const volatile struct address *own)
{
	return own->word[3] && a->word[3] == own->word[3] && a->word[2] == own->word[2] &&
	       a->word[1] == own->word[1] && a->word[0] == own->word[0];
}

static __always_inline bool
address_is_none(const struct address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

static __always_inline bool
address_in_block(const struct address *a, const struct block *block)
{
	return (a->word[0] & block->mask.word[0]) == block->network.word[0] &&
	       (a->word[1] & block->mask.word[1]) == block->network.word[1] &&
	       (a->word[2] & block->mask.word[2]) == block->network.word[2] &&
	       (a->word[3] & block->mask.word[3]) == block->network.word[3];
}

static __always_inline void
address_from_ipv4(struct address *a, __be32 ipv4)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = ipv4;
}

static __always_inline bool
address_is_ipv4(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

/* fe80::/10 */
static __always_inline bool
address_is_link_local(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* ff00::/8, 224.0.0.0/4 and 255.255.255.255 */
static __always_inline bool
address_is_multicast(const struct address *a)
{
	if (address_is_ipv4(a))
		return (a->word[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) ||
		       a->word[3] == bpf_htonl(0xffffffff);
	return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool
address_is_in(const struct address *a, const volatile struct block *own)
{
	return own->mask.word[0] && (a->word[3] & own->mask.word[3]) == own->network.word[3] &&
	       (a->word[2] & own->mask.word[2]) == own->network.word[2] &&
	       (a->word[1] & own->mask.word[1]) == own->network.word[1] &&
	       (a->word[0] & own->mask.word[0]) == own->network.word[0];
}

/* In this node's PodCIDRs: an endpoint of another node never is. */
static __always_inline bool
address_is_local(const struct address *a)
{
	return address_is_in(a, &CFG->pod_cidr_ipv4) || address_is_in(a, &CFG->pod_cidr_ipv6);
}

/* An address of this node: what the host's own stack answers for. */
static __always_inline bool
address_is_own(const struct address *a)
{
	return address_is(a, &CFG->gateway_ipv4) || address_is(a, &CFG->gateway_ipv6) ||
	       address_is(a, &CFG->underlay_ipv4) || address_is(a, &CFG->underlay_ipv6);
}
