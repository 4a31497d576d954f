// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Why a packet was refused: the one list. Python's enum, the texts of `meshnet drops` and
 * docs/reference/drop-reasons.md are generated from it. Numbers are never used again.
 */
#pragma once
#include <linux/types.h>

enum drop_reason {
	DROP_NONE = 0, /* not refused */
	DROP_UNKNOWN_ENDPOINT = 1, /* the interface it came from belongs to no endpoint */
	DROP_INVALID_SOURCE = 2, /* the source address is not the sender's own */
	DROP_UNSUPPORTED_L3 = 3, /* neither IPv4 nor IPv6, or tagged with a VLAN */
	DROP_TRUNCATED = 4, /* it ends before its headers do */
	DROP_MALFORMED = 5, /* version, header length or total length cannot be right */
	DROP_EXTENSION_HEADERS = 6, /* more IPv6 extension headers than are followed */
	DROP_NESTED_ENCAPSULATION = 7, /* an endpoint spoke the tunnel's protocol itself */
	DROP_UNKNOWN_DESTINATION = 8, /* in a node's PodCIDR, but no known endpoint's */
	DROP_UNKNOWN_NODE = 9, /* the destination's node is not known any more */
	DROP_NO_UNDERLAY_ADDRESS = 10, /* no outer address of the other node's family */
	DROP_PACKET_TOO_BIG = 11, /* with outer headers, more than the path carries */
	DROP_ENCAPSULATION_FAILED = 12, /* the kernel made no room for outer headers */
	DROP_DECAPSULATION_FAILED = 13, /* the kernel did not take outer headers off */
	DROP_TAIL_CALL_MISSED = 14, /* a stage of the dataplane is not loaded */
	DROP_TTL_EXCEEDED = 15, /* the TTL or hop limit ended here */
	DROP_ENDPOINT_NOT_READY = 16, /* the endpoint's identity is not known everywhere yet */
	DROP_OUTER_TRUNCATED = 17, /* a tunnelled packet that ends inside its outer headers */
	DROP_OUTER_MALFORMED = 18, /* a VXLAN header without a VNI, a Geneve one without Ethernet */
	DROP_NO_TUNNEL_KEY = 19, /* it came by the tunnel device without a tunnel's metadata */
	DROP_UNKNOWN_OUTER_SOURCE = 20, /* tunnelled by an address that is no known node's */
	DROP_FOREIGN_IDENTITY = 21, /* an identity of another cluster than its node's */
	DROP_INVALID_IDENTITY = 22, /* a number that is no identity anyone could have */
	DROP_SOURCE_NOT_OF_NODE = 23, /* the inner source is not in its node's PodCIDRs */
	DROP_IDENTITY_HOST = 24, /* identity host, which never travels */
	DROP_IDENTITY_WORLD = 25, /* identity world, which nobody may tunnel to us */
	DROP_IDENTITY_HEALTH = 26, /* identity health, from an address without it */
	DROP_IDENTITY_INGRESS = 27, /* identity ingress, from an address without it */
	DROP_REMOTE_NODE_SOURCE = 28, /* remote-node, from an address that is not the node's */
	DROP_NOT_OURS = 29, /* sent to this node, but its destination is not here */
	DROP_FRAGMENT_WITHOUT_FIRST = 30, /* a later fragment, and the first was not seen */
	DROP_NO_ROOM = 35, /* the kernel made no room for the answer to a question */
	DROP_NAT_NO_PORT = 36, /* no port of the masquerading pool was found free */
	DROP_NAT_NO_ADDRESS = 37, /* the world is not behind the underlay, or that has no address */
	DROP_NAT_PROTOCOL = 38, /* masquerading needs ports: TCP, UDP or an ICMP echo */
	DROP_NAT_NO_FLOW = 39, /* an ICMP error about a flow that is not masqueraded here */
	DROP_NAT_FAILED = 40, /* the kernel did not let a packet's addresses be rewritten */
	DROP_GENEVE_OPTION = 45, /* a Geneve option that must be understood, and is not */
	DROP_NATIVE_REFUSED = 46, /* a mesh address outside of a tunnel, where routing is tunnel */
	DROP_NATIVE_SOURCE = 47, /* outside of a tunnel, from an address no other node has */
	DROP_L4_TRUNCATED = 50, /* it ends before its TCP, UDP or ICMP header does */
	DROP_L4_MALFORMED = 51, /* TCP's header length or UDP's length cannot be right */
	DROP_SOURCE_ROUTE = 52, /* it wants a way of its own: IPv4 option, IPv6 routing header */
	DROP_IPV4_OPTION = 53, /* an IPv4 option other than padding and router alert */
	DROP_BAD_FRAGMENT = 54, /* too long when whole, uneven, or on top of a TCP header */
	DROP_MARTIAN_SOURCE = 55, /* a source that no sender can have: group, loopback, none */
	DROP_MARTIAN_DESTINATION = 56, /* a destination that never is on a wire: loopback, none */
	DROP_NESTED_IP = 57, /* IP in IP or GRE to a node of the mesh */
	DROP_OUTER_LENGTH = 58, /* outer lengths contradict each other or the inner packet's */
	DROP_POLICY_DENIED = 65, /* a rule of policy denies it */
	DROP_POLICY_DEFAULT_DENY = 66, /* policy selects the endpoint, and no rule allows it */
	DROP_SERVICE_NO_BACKEND = 70, /* a service that nobody answers; the sender is told */
	DROP_SERVICE_AMBIGUOUS = 71, /* two flows to a backend, one by a service, look the same */
	DROP_SERVICE_NO_FLOW = 72, /* a backend's answer, and whom it answers is forgotten */
};

enum direction {
	DIRECTION_EGRESS = 0,	/* on the way from an endpoint */
	DIRECTION_INGRESS = 1,	/* on the way to one */
	DIRECTION_COUNT = 2,
};

/* A row of `drops` (index reason * DIRECTION_COUNT + direction) and of `counters`. */
struct count {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct count) == 16, "count is ABI");
