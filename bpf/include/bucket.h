// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* A token bucket, one a CPU and thing to limit. Layout: abi/event.h. */
#pragma once
#include "compiler.h"
#include "abi/event.h"

/* A token comes back every `interval_ns`, up to `burst` of them. */
static __always_inline bool
bucket_take(struct event_bucket *bucket, __u64 now, __u64 interval_ns, __u64 burst)
{
	__u64 earned = (now - bucket->refilled_ns) / interval_ns;

	if (earned) {
		bucket->tokens += earned;
		bucket->refilled_ns = now;
		if (bucket->tokens > burst)
			bucket->tokens = burst;
	}
	if (!bucket->tokens)
		return false;
	bucket->tokens--;
	return true;
}
