// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* What BCC gives every program, for plain clang (-include this file): types, helpers and
 * byte order under BCC's names. Only the helpers that bpf/ calls.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>

typedef _Bool bool;
typedef __u32 u32;
typedef __u64 u64;
enum { false = 0, true = 1 };
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)

#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_ntohs(x) __builtin_bswap16(x)
#define bpf_htonl(x) __builtin_bswap32(x)
#define bpf_ntohl(x) __builtin_bswap32(x)

__u64 bpf_pseudo_fd(__u64 kind, __u64 fd) asm("llvm.bpf.pseudo");

static void *(*bpf_map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;
static __u64 (*bpf_get_netns_cookie)(void *ctx) = (void *)BPF_FUNC_get_netns_cookie;
static int (*bpf_set_retval)(int value) = (void *)BPF_FUNC_set_retval;
static __u32 (*bpf_set_hash)(void *skb, __u32 hash) = (void *)BPF_FUNC_set_hash;
static long (*bpf_skb_pull_data)(void *skb, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*bpf_skb_load_bytes)(void *skb, __u32 offset, void *to, __u32 length) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 length,
				   __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*bpf_skb_adjust_room)(void *skb, __s32 difference, __u32 mode, __u64 flags) =
	(void *)BPF_FUNC_skb_adjust_room;
static long (*bpf_skb_change_tail)(void *skb, __u32 length, __u64 flags) =
	(void *)BPF_FUNC_skb_change_tail;
static long (*bpf_skb_change_type)(void *skb, __u32 type) = (void *)BPF_FUNC_skb_change_type;
static long (*bpf_skb_get_tunnel_key)(void *skb, void *key, __u32 size, __u64 flags) =
	(void *)BPF_FUNC_skb_get_tunnel_key;
static long (*bpf_skb_set_tunnel_key)(void *skb, void *key, __u32 size, __u64 flags) =
	(void *)BPF_FUNC_skb_set_tunnel_key;
static __s64 (*bpf_csum_diff)(__be32 *from, __u32 from_size, __be32 *to, __u32 to_size,
			      __u32 seed) = (void *)BPF_FUNC_csum_diff;
static long (*bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int size, __u32 flags) =
	(void *)BPF_FUNC_fib_lookup;
static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect_peer;
static void *(*bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) =
	(void *)BPF_FUNC_ringbuf_reserve;
static void (*bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)BPF_FUNC_ringbuf_submit;

static inline __attribute__((always_inline)) void
bpf_tail_call_(__u64 map, void *skb, __u32 index)
{
	((long (*)(void *, __u64, __u32))BPF_FUNC_tail_call)(skb, map, index);
}
