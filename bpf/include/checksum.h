// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Checksums of what is rewritten, by difference (RFC 1624), whoever made or makes them: the
 * sender (CHECKSUM_NONE), a device that is still to come (PARTIAL) or one that was (COMPLETE).
 *
 * `offset` is where the checksum itself is.  Needs: packet.h.
 */
#pragma once
#include "address.h"

/* Kernel 6.16, include/uapi/linux/bpf.h. Without it a sum that a device made over an IPv6
 * packet is spoilt, since there the address has no header checksum to make up for it.
 */
enum checksum_flag { CHECKSUM_IPV6 = 1 << 7 };

static __always_inline __u32
checksum_difference(const void *from, const void *to, __u32 length)
{
	return bpf_csum_diff((void *)from, length, (void *)to, length, 0);
}

/* An address of the pseudo header (RFC 8200, 8.1). IPv4's mapped form differs in as much. */
static __always_inline bool
checksum_use_address(struct __sk_buff *skb, __u32 offset, const struct address *from,
		     const struct address *to, __u64 flags)
{
	__u32 difference = checksum_difference(from, to, sizeof(*from));

	flags |= BPF_F_PSEUDO_HDR;
	if (!address_is_ipv4(to) &&
	    !l4_checksum_replace(skb, offset, 0, difference, flags | CHECKSUM_IPV6))
		return true;
	return !l4_checksum_replace(skb, offset, 0, difference, flags);
}

/* A sum in hand, not in a packet. */
static __always_inline __u16
checksum_adjusted(__u16 sum, __u32 difference)
{
	__u32 total = (difference & 0xffff) + (difference >> 16) + (__u16)~sum;

	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return ~total;
}
