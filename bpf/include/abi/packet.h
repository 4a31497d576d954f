// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Index of `scratch`, on every CPU. */
enum scratch_slot {
	SCRATCH_PACKET = 0,
	SCRATCH_QUOTED = 1,	/* the packet that an ICMP error in hand is about */
	SCRATCH_COUNT = 2,
};

/* What the stages know of the packet in hand: one slot a CPU (`scratch`), written by the
 * first stage and read by those it tail-calls. A tc program is not preempted by another on
 * its CPU, except on PREEMPT_RT, which is therefore not supported.
 */
#pragma once
#include "address.h"
#include "event.h"
#include "policy.h"

/* Index of `stages`, the prog array of a generation. */
enum stage {
	STAGE_DELIVER_LOCAL = 0,
	STAGE_ENCAPSULATE = 1,
	STAGE_NEIGHBOUR = 2,
	STAGE_SEND_NATIVE = 3,
	STAGE_RECEIVE_NATIVE = 4,
	STAGE_MASQUERADE = 5,
	STAGE_UNMASQUERADE = 6,
	STAGE_ICMP_ERROR = 7,
	STAGE_SERVICE = 8,
	STAGE_SERVICE_ANSWER = 9,
	STAGE_RESET = 10,
	STAGE_COUNT = 11,
};

/* What services do to a packet. */
enum packet_service {
	SERVICE_TRANSLATED = 1,	/* it was sent to a frontend; `service_flows` has the way back */
	SERVICE_ANSWER = 2,	/* its source is yet to become the frontend */
};

struct packet {
	struct address source;
	struct address destination;
	struct address outer_source;	/* zero: not tunnelled */
	__u64 file[2];			/* where it was refused */
	__u32 line;
	__u32 direction;		/* enum direction */
	__u32 source_identity;
	__u32 destination_identity;
	__u32 vni;
	__u32 node_index;		/* STAGE_ENCAPSULATE, STAGE_SEND_NATIVE */
	__u32 ifindex;			/* STAGE_DELIVER_LOCAL: this endpoint */
	__u32 endpoint_id;
	__u32 l4_offset;		/* from the Ethernet header */
	__u16 source_port;		/* host order; of ICMP: abi/conntrack.h */
	__u16 destination_port;
	__u16 family;			/* ETH_P_IP or ETH_P_IPV6, host order */
	__u8 protocol;			/* IPPROTO_*, extension headers skipped */
	__u8 later_fragment;		/* no L4 header in here */
	__u16 endpoint_flags;
	__u8 endpoint_mac[6];
	__u32 policy_epoch;		/* STAGE_DELIVER_LOCAL: the receiver's */
	__u8 tcp_flags;			/* enum tcp_flag; 0: not TCP */
	__u8 icmp_type;
	__u8 first_fragment;		/* and more follow it */
	__u8 nat_rounds;		/* STAGE_MASQUERADE: how often it looked for a port */
	__u32 fragment_id;		/* host order */
	__u32 end;		/* of the IP packet, from the Ethernet header: padding follows */
	__u32 policy_id;	/* STAGE_DELIVER_LOCAL: the receiver's */
	__u32 rule;		/* the policy rule that decided; 0: none did */
	__u32 audited;		/* enum drop_reason: let through, where policy would refuse */
	__u32 error_mtu;	/* STAGE_ICMP_ERROR: what fits, when it is too big */
	__u16 error;		/* STAGE_ICMP_ERROR, STAGE_RESET: enum drop_reason */
	__u8 service;		/* enum packet_service */
	__u8 hops;		/* TTL, hop limit */
};
_Static_assert(sizeof(struct packet) == 152, "packet is ABI");
