// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* One form for both families, so that nothing else asks which it is.
 * IPv4 a.b.c.d is ::ffff:a.b.c.d; all zero means "none" (as a source, :: is checked first).
 */
#pragma once
#include <linux/types.h>

enum address_limit {
	ADDRESS_V4_OFFSET = 96,	/* bits before the IPv4 part, in prefix lengths */
};

struct address {
	__be32 word[4];
};
_Static_assert(sizeof(struct address) == 16, "address is ABI");

/* Key of a longest-prefix map; `length` counts from bit 0 of the 128, so IPv4 /8 is 104. */
struct prefix {
	__u32 length;
	struct address address;
};
_Static_assert(sizeof(struct prefix) == 20, "prefix is ABI");

/* The same for a comparison without a map: (a & mask) == network. */
struct block {
	struct address network;
	struct address mask;
};
_Static_assert(sizeof(struct block) == 32, "block is ABI");
