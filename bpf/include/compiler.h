// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The dialect: what every file here may use beside the C and the kernel's uapi headers.
 *
 * Two compilers build it: BCC, which brings its own declarations of the helpers, and plain
 * clang with stub/clang.h in their place. No globals, no out-of-line functions, loops with
 * constant bounds, stages joined by tail calls. There is no compile-time switch: what
 * differs from node to node is a field of struct config.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include "abi/config.h"

/* linux/stddef.h has a weaker one, by which a function may stay one. */
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

/* The loader puts the real file descriptor where the placeholder number FD_x stands. */
#define MAP(x) ((void *)bpf_pseudo_fd(1, FD_##x))

/* The node's constants: a frozen map's value, so the verifier folds every read of it. */
#define CFG ((const volatile struct config *)bpf_pseudo_fd(2, FD_config))

/* The name of the file that this very line is in, as two words of eight bytes each: a
 * literal would need .rodata, which BCC cannot give.
 */
#define FILE_BYTE(i)                                                                     \
	((__u64)__FILE_NAME__[(i) < sizeof(__FILE_NAME__) ? (i) : sizeof(__FILE_NAME__) - 1])
#define FILE_WORD(i)                                                                     \
	(FILE_BYTE(i) | FILE_BYTE(i + 1) << 8 | FILE_BYTE(i + 2) << 16 |                 \
	 FILE_BYTE(i + 3) << 24 | FILE_BYTE(i + 4) << 32 | FILE_BYTE(i + 5) << 40 |      \
	 FILE_BYTE(i + 6) << 48 | FILE_BYTE(i + 7) << 56)

/* BCC 0.26 declares this helper with three arguments; the kernel has four. */
static long (*redirect_neigh)(__u32 ifindex, struct bpf_redir_neigh *next_hop, int size,
			      __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

/* BCC calls these by other names, and without all their flags. */
static long (*l3_checksum_replace)(void *skb, __u32 offset, __u64 from, __u64 to,
				   __u64 flags) = (void *)BPF_FUNC_l3_csum_replace;
static long (*l4_checksum_replace)(void *skb, __u32 offset, __u64 from, __u64 to,
				   __u64 flags) = (void *)BPF_FUNC_l4_csum_replace;

/* Newer than BCC 0.26's copy of the uapi header (kernel 6.3, include/uapi/linux/bpf.h). */
enum decap_flag {
	DECAP_L3_IPV4 = 1 << 7,
	DECAP_L3_IPV6 = 1 << 8,
};
