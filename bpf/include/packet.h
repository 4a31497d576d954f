// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The packet in hand: its state between stages, and how a step refuses it.
 *
 * Every step answers an enum drop_reason; DROP_NONE means "go on". A step refuses with
 * `return REFUSE(pkt, reason)`, which notes file and line, and the program's one exit for
 * refusals is packet_drop: it counts every drop, and sends an event for as many as the
 * token bucket of its reason and CPU lets through.
 *
 * Maps: scratch, counters, drops, event_buckets, events.  Layout: abi/packet.h, abi/drop.h.
 */
#pragma once
#include "bucket.h"
#include "maps.h"

#define REFUSE(pkt, reason) refuse(pkt, reason, FILE_WORD(0), FILE_WORD(8), __LINE__)

static __always_inline enum drop_reason
refuse(struct packet *pkt, enum drop_reason reason, __u64 file0, __u64 file1, __u32 line)
{
	pkt->file[0] = file0;
	pkt->file[1] = file1;
	pkt->line = line;
	return reason;
}

/* The state that an earlier stage left. NULL cannot be: the map has this slot. */
static __always_inline struct packet *
packet_current(void)
{
	__u32 slot = SCRATCH_PACKET;

	return bpf_map_lookup_elem(MAP(scratch), &slot);
}

/* The state for a packet that just arrived. */
static __always_inline struct packet *
packet_begin(enum direction direction)
{
	struct packet *pkt = packet_current();

	if (pkt) {
		__builtin_memset(pkt, 0, sizeof(*pkt));
		pkt->direction = direction;
	}
	return pkt;
}

/* Volatile, or LLVM merges the reads of two branches and widens the result by shifts, which
 * the verifier takes for arithmetic on a packet's end.
 */
static __always_inline void *
packet_start(struct __sk_buff *skb)
{
	return (void *)(long)*(volatile __u32 *)&skb->data;
}

static __always_inline void *
packet_end(struct __sk_buff *skb)
{
	return (void *)(long)*(volatile __u32 *)&skb->data_end;
}

/* One pointer, checked and used: where the offset varies, LLVM would otherwise add it twice,
 * and the verifier does not know that both sums are the same.
 */
static __always_inline void *
packet_pointer(struct __sk_buff *skb, __u32 offset)
{
	void *at = packet_start(skb) + offset;

	asm volatile("" : "+r"(at));
	return at;
}

/* `length` bytes at `offset`, pulled into the linear part when they are not there yet.
 * NULL: the packet is shorter. Pointers taken before are dead afterwards.
 */
static __always_inline void *
packet_at(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	void *at = packet_pointer(skb, offset);

	if (at + length > packet_end(skb)) {
		if (bpf_skb_pull_data(skb, offset + length))
			return NULL;
		at = packet_pointer(skb, offset);
		if (at + length > packet_end(skb))
			return NULL;
	}
	return at;
}

static __always_inline void
count(enum counter counter, __u32 bytes)
{
	__u32 index = counter;
	struct count *row = bpf_map_lookup_elem(MAP(counters), &index);

	if (row) {
		row->packets++;
		row->bytes += bytes;
	}
}

static __always_inline bool
event_allowed(enum drop_reason reason, __u64 now)
{
	__u32 index = reason;
	struct event_bucket *bucket = bpf_map_lookup_elem(MAP(event_buckets), &index);

	return bucket && bucket_take(bucket, now, EVENT_INTERVAL_NS, EVENT_BURST);
}

static __always_inline void
event_send(struct __sk_buff *skb, const struct packet *pkt, enum drop_reason reason,
	   enum verdict verdict)
{
	__u64 now = bpf_ktime_get_ns();
	struct event *event;

	if (!event_allowed(reason, now)) {
		count(COUNTER_EVENTS_SUPPRESSED, skb->len);
		return;
	}
	event = bpf_ringbuf_reserve(MAP(events), sizeof(*event), 0);
	if (!event) {
		count(COUNTER_EVENTS_LOST, skb->len);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now;
	event->source = pkt->source;
	event->destination = pkt->destination;
	event->outer_source = pkt->outer_source;
	event->file[0] = pkt->file[0];
	event->file[1] = pkt->file[1];
	event->line = pkt->line;
	event->reason = reason;
	event->direction = pkt->direction;
	event->source_identity = pkt->source_identity;
	event->destination_identity = pkt->destination_identity;
	event->vni = pkt->vni;
	event->ifindex = skb->ifindex;
	event->length = skb->len;
	event->source_port = pkt->source_port;
	event->destination_port = pkt->destination_port;
	event->protocol = pkt->protocol;
	event->rule = pkt->rule;
	event->verdict = verdict;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline int
packet_drop(struct __sk_buff *skb, const struct packet *pkt, enum drop_reason reason)
{
	__u32 index = reason * DIRECTION_COUNT + pkt->direction;
	struct count *row = bpf_map_lookup_elem(MAP(drops), &index);

	if (row) {
		row->packets++;
		row->bytes += skb->len;
	}
	event_send(skb, pkt, reason, VERDICT_DENY);
	return TC_ACT_SHOT;
}

/* Go on in another program of this generation. Comes back only when it is not loaded. */
static __always_inline int
packet_continue(struct __sk_buff *skb, struct packet *pkt, enum stage stage)
{
	bpf_tail_call_((__u64)MAP(stages), skb, stage);
	return packet_drop(skb, pkt, REFUSE(pkt, DROP_TAIL_CALL_MISSED));
}
