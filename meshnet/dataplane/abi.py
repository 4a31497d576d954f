"""Generated from bpf/include/abi by `python -m meshnet.dataplane.abigen`: do not edit."""

from __future__ import annotations

import ctypes
import enum

HEADERS_SHA256 = "2cddd299fc732c46c7a2931d93e7a9f85ba1e4b86cb39612a18b91814da80b00"


class AddressLimit(enum.IntEnum):
    V4_OFFSET = 96


class ConntrackFlag(enum.IntEnum):
    PEER_BEGAN = 1
    GUESSED = 2
    ANSWERED = 4
    CLOSED = 8
    SERVICE = 16


class ClockUnit(enum.IntEnum):
    TICK_SHIFT = 30


class ConntrackLifetime(enum.IntEnum):
    TCP_OPENING = 56
    TCP_ESTABLISHED = 7451
    TCP_CLOSED = 10
    OTHER = 56


class DropReason(enum.IntEnum):
    NONE = 0
    UNKNOWN_ENDPOINT = 1
    INVALID_SOURCE = 2
    UNSUPPORTED_L3 = 3
    TRUNCATED = 4
    MALFORMED = 5
    EXTENSION_HEADERS = 6
    NESTED_ENCAPSULATION = 7
    UNKNOWN_DESTINATION = 8
    UNKNOWN_NODE = 9
    NO_UNDERLAY_ADDRESS = 10
    PACKET_TOO_BIG = 11
    ENCAPSULATION_FAILED = 12
    DECAPSULATION_FAILED = 13
    TAIL_CALL_MISSED = 14
    TTL_EXCEEDED = 15
    ENDPOINT_NOT_READY = 16
    OUTER_TRUNCATED = 17
    OUTER_MALFORMED = 18
    NO_TUNNEL_KEY = 19
    UNKNOWN_OUTER_SOURCE = 20
    FOREIGN_IDENTITY = 21
    INVALID_IDENTITY = 22
    SOURCE_NOT_OF_NODE = 23
    IDENTITY_HOST = 24
    IDENTITY_WORLD = 25
    IDENTITY_HEALTH = 26
    IDENTITY_INGRESS = 27
    REMOTE_NODE_SOURCE = 28
    NOT_OURS = 29
    FRAGMENT_WITHOUT_FIRST = 30
    NO_ROOM = 35
    NAT_NO_PORT = 36
    NAT_NO_ADDRESS = 37
    NAT_PROTOCOL = 38
    NAT_NO_FLOW = 39
    NAT_FAILED = 40
    GENEVE_OPTION = 45
    NATIVE_REFUSED = 46
    NATIVE_SOURCE = 47
    L4_TRUNCATED = 50
    L4_MALFORMED = 51
    SOURCE_ROUTE = 52
    IPV4_OPTION = 53
    BAD_FRAGMENT = 54
    MARTIAN_SOURCE = 55
    MARTIAN_DESTINATION = 56
    NESTED_IP = 57
    OUTER_LENGTH = 58
    POLICY_DENIED = 65
    POLICY_DEFAULT_DENY = 66
    SERVICE_NO_BACKEND = 70
    SERVICE_AMBIGUOUS = 71
    SERVICE_NO_FLOW = 72


class Direction(enum.IntEnum):
    EGRESS = 0
    INGRESS = 1
    COUNT = 2


class EndpointFlag(enum.IntEnum):
    READY = 1
    AUDIT = 2


class EventLimit(enum.IntEnum):
    FILE_NAME = 16
    BURST = 100
    INTERVAL_NS = 10000000


class Counter(enum.IntEnum):
    DELIVERED = 0
    ENCAPSULATED = 1
    DECAPSULATED = 2
    REASSEMBLED = 3
    TO_STACK = 4
    FROM_STACK = 5
    EVENTS_SUPPRESSED = 6
    EVENTS_LOST = 7
    NEIGHBOURS_ANSWERED = 8
    UNTRACKED = 9
    SENT_NATIVE = 10
    RECEIVED_NATIVE = 11
    RELATED = 12
    MASQUERADED = 13
    UNMASQUERADED = 14
    AUDITED = 15
    TO_BE_CUT = 16
    ICMP_ERRORS_SENT = 17
    SERVICE_ASKED = 18
    SERVICE_ANSWERED = 19
    QUESTIONS = 20
    RESETS_SENT = 21
    COUNT = 22


class ReservedIdentity(enum.IntEnum):
    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    HEALTH = 4
    REMOTE_NODE = 6
    INGRESS = 8


class IdentityLimit(enum.IntEnum):
    CLUSTER_SHIFT = 16
    LOCAL_MASK = 65535
    FIRST_LOCAL = 256
    LAST_CLUSTER = 255
    LAST = 16777215


class NatFlag(enum.IntEnum):
    ANSWERED = 1
    FIN_OUT = 2
    FIN_BACK = 4
    RESET = 8


class NatLifetime(enum.IntEnum):
    TCP_ESTABLISHED = 7451
    TCP_TRANSITORY = 224
    UDP = 112
    ICMP = 56


class NatLimit(enum.IntEnum):
    TRIES = 8
    ROUNDS = 4


class NodeLimit(enum.IntEnum):
    POD_CIDRS = 4
    GATEWAYS = 4
    SERVANTS = 2


class NodeFlag(enum.IntEnum):
    PRESENT = 1
    LOCAL = 2
    IPV6_UNDERLAY = 4
    MORE_POD_CIDRS = 8


class NodeMode(enum.IntEnum):
    VXLAN = 0
    GENEVE = 1
    NATIVE = 2


class ScratchSlot(enum.IntEnum):
    PACKET = 0
    QUOTED = 1
    COUNT = 2


class Stage(enum.IntEnum):
    DELIVER_LOCAL = 0
    ENCAPSULATE = 1
    NEIGHBOUR = 2
    SEND_NATIVE = 3
    RECEIVE_NATIVE = 4
    MASQUERADE = 5
    UNMASQUERADE = 6
    ICMP_ERROR = 7
    SERVICE = 8
    SERVICE_ANSWER = 9
    RESET = 10
    COUNT = 11


class PacketService(enum.IntEnum):
    TRANSLATED = 1
    ANSWER = 2


class PolicyNumber(enum.IntEnum):
    NONE = 0
    ANYBODY = 0
    ALLOW_CLASS = 1


class Verdict(enum.IntEnum):
    DENY = 0
    ALLOW = 1
    AUDIT = 2


class BackendState(enum.IntEnum):
    ABSENT = 0
    ACTIVE = 1
    TERMINATING = 2


class ServiceWay(enum.IntEnum):
    THERE = 0
    BACK = 1


class ServiceFlowLimit(enum.IntEnum):
    FLOW_TRIES = 4
    FLOW_FIRST_PORT = 49152
    FLOW_PORT_MASK = 16383


class Address(ctypes.Structure):
    word: ctypes.Array[ctypes.c_uint32]
    _fields_ = [
        ("word", ctypes.c_uint32 * 4),
    ]


class Prefix(ctypes.Structure):
    length: int
    address: Address
    _fields_ = [
        ("length", ctypes.c_uint32),
        ("address", Address),
    ]


class Block(ctypes.Structure):
    network: Address
    mask: Address
    _fields_ = [
        ("network", Address),
        ("mask", Address),
    ]


class Config(ctypes.Structure):
    underlay_ipv4: Address
    underlay_ipv6: Address
    pod_cidr_ipv4: Block
    pod_cidr_ipv6: Block
    gateway_ipv4: Address
    gateway_ipv6: Address
    cluster_id: int
    underlay_ifindex: int
    vxlan_ifindex: int
    vxlan_port: int
    gateway_mac: ctypes.Array[ctypes.c_uint8]
    geneve_port: int
    accept_native: int
    nat_first_port: int
    nat_last_port: int
    has_unmasqueraded: int
    _fields_ = [
        ("underlay_ipv4", Address),
        ("underlay_ipv6", Address),
        ("pod_cidr_ipv4", Block),
        ("pod_cidr_ipv6", Block),
        ("gateway_ipv4", Address),
        ("gateway_ipv6", Address),
        ("cluster_id", ctypes.c_uint32),
        ("underlay_ifindex", ctypes.c_uint32),
        ("vxlan_ifindex", ctypes.c_uint32),
        ("vxlan_port", ctypes.c_uint16),
        ("gateway_mac", ctypes.c_uint8 * 6),
        ("geneve_port", ctypes.c_uint16),
        ("accept_native", ctypes.c_uint16),
        ("nat_first_port", ctypes.c_uint16),
        ("nat_last_port", ctypes.c_uint16),
        ("has_unmasqueraded", ctypes.c_uint32),
    ]


class ConntrackKey(ctypes.Structure):
    endpoint: Address
    peer: Address
    endpoint_port: int
    peer_port: int
    protocol: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("endpoint", Address),
        ("peer", Address),
        ("endpoint_port", ctypes.c_uint16),
        ("peer_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
    ]


class Conntrack(ctypes.Structure):
    expires: int
    remote_identity: int
    policy_epoch: int
    flags: int
    tcp_sent: int
    tcp_received: int
    reserved: int
    _fields_ = [
        ("expires", ctypes.c_uint32),
        ("remote_identity", ctypes.c_uint32),
        ("policy_epoch", ctypes.c_uint32),
        ("flags", ctypes.c_uint8),
        ("tcp_sent", ctypes.c_uint8),
        ("tcp_received", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    ]


class Count(ctypes.Structure):
    packets: int
    bytes: int
    _fields_ = [
        ("packets", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    ]


class Endpoint(ctypes.Structure):
    ipv4: Address
    ipv6: Address
    ifindex: int
    endpoint_id: int
    identity: int
    flags: int
    mac: ctypes.Array[ctypes.c_uint8]
    policy_epoch: int
    policy_id: int
    _fields_ = [
        ("ipv4", Address),
        ("ipv6", Address),
        ("ifindex", ctypes.c_uint32),
        ("endpoint_id", ctypes.c_uint32),
        ("identity", ctypes.c_uint32),
        ("flags", ctypes.c_uint16),
        ("mac", ctypes.c_uint8 * 6),
        ("policy_epoch", ctypes.c_uint32),
        ("policy_id", ctypes.c_uint32),
    ]


class SeenKey(ctypes.Structure):
    endpoint_id: int
    identity: int
    _fields_ = [
        ("endpoint_id", ctypes.c_uint32),
        ("identity", ctypes.c_uint32),
    ]


class Event(ctypes.Structure):
    time_ns: int
    source: Address
    destination: Address
    file: ctypes.Array[ctypes.c_uint64]
    line: int
    reason: int
    direction: int
    source_identity: int
    destination_identity: int
    ifindex: int
    length: int
    source_port: int
    destination_port: int
    protocol: int
    vni: int
    outer_source: Address
    rule: int
    verdict: int
    reserved: int
    _fields_ = [
        ("time_ns", ctypes.c_uint64),
        ("source", Address),
        ("destination", Address),
        ("file", ctypes.c_uint64 * 2),
        ("line", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("direction", ctypes.c_uint32),
        ("source_identity", ctypes.c_uint32),
        ("destination_identity", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint32),
        ("vni", ctypes.c_uint32),
        ("outer_source", Address),
        ("rule", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("reserved", ctypes.c_uint64),
    ]


class EventBucket(ctypes.Structure):
    refilled_ns: int
    tokens: int
    _fields_ = [
        ("refilled_ns", ctypes.c_uint64),
        ("tokens", ctypes.c_uint64),
    ]


class FragmentKey(ctypes.Structure):
    source: Address
    destination: Address
    id: int
    protocol: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("source", Address),
        ("destination", Address),
        ("id", ctypes.c_uint32),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
    ]


class Fragment(ctypes.Structure):
    source_port: int
    destination_port: int
    protocol: int
    icmp_type: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("icmp_type", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 2),
    ]


class Ipcache(ctypes.Structure):
    identity: int
    node_index: int
    _fields_ = [
        ("identity", ctypes.c_uint32),
        ("node_index", ctypes.c_uint32),
    ]


class NatKey(ctypes.Structure):
    local: Address
    remote: Address
    local_port: int
    remote_port: int
    protocol: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("local", Address),
        ("remote", Address),
        ("local_port", ctypes.c_uint16),
        ("remote_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
    ]


class Nat(ctypes.Structure):
    address: Address
    expires: int
    port: int
    flags: int
    reserved: int
    _fields_ = [
        ("address", Address),
        ("expires", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    ]


class Node(ctypes.Structure):
    outer: Address
    gateways: ctypes.Array[Address]
    pod_cidrs: ctypes.Array[Block]
    next_hop_ipv4: Address
    next_hop_ipv6: Address
    gateway_count: int
    pod_cidr_count: int
    cluster_id: int
    owner: int
    flags: int
    path_mtu: int
    ifindex: int
    mode_ipv4: int
    mode_ipv6: int
    health: ctypes.Array[Address]
    ingress: ctypes.Array[Address]
    _fields_ = [
        ("outer", Address),
        ("gateways", Address * 4),
        ("pod_cidrs", Block * 4),
        ("next_hop_ipv4", Address),
        ("next_hop_ipv6", Address),
        ("gateway_count", ctypes.c_uint32),
        ("pod_cidr_count", ctypes.c_uint32),
        ("cluster_id", ctypes.c_uint32),
        ("owner", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("path_mtu", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("mode_ipv4", ctypes.c_uint16),
        ("mode_ipv6", ctypes.c_uint16),
        ("health", Address * 2),
        ("ingress", Address * 2),
    ]


class Packet(ctypes.Structure):
    source: Address
    destination: Address
    outer_source: Address
    file: ctypes.Array[ctypes.c_uint64]
    line: int
    direction: int
    source_identity: int
    destination_identity: int
    vni: int
    node_index: int
    ifindex: int
    endpoint_id: int
    l4_offset: int
    source_port: int
    destination_port: int
    family: int
    protocol: int
    later_fragment: int
    endpoint_flags: int
    endpoint_mac: ctypes.Array[ctypes.c_uint8]
    policy_epoch: int
    tcp_flags: int
    icmp_type: int
    first_fragment: int
    nat_rounds: int
    fragment_id: int
    end: int
    policy_id: int
    rule: int
    audited: int
    error_mtu: int
    error: int
    service: int
    hops: int
    _fields_ = [
        ("source", Address),
        ("destination", Address),
        ("outer_source", Address),
        ("file", ctypes.c_uint64 * 2),
        ("line", ctypes.c_uint32),
        ("direction", ctypes.c_uint32),
        ("source_identity", ctypes.c_uint32),
        ("destination_identity", ctypes.c_uint32),
        ("vni", ctypes.c_uint32),
        ("node_index", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("endpoint_id", ctypes.c_uint32),
        ("l4_offset", ctypes.c_uint32),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("family", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("later_fragment", ctypes.c_uint8),
        ("endpoint_flags", ctypes.c_uint16),
        ("endpoint_mac", ctypes.c_uint8 * 6),
        ("policy_epoch", ctypes.c_uint32),
        ("tcp_flags", ctypes.c_uint8),
        ("icmp_type", ctypes.c_uint8),
        ("first_fragment", ctypes.c_uint8),
        ("nat_rounds", ctypes.c_uint8),
        ("fragment_id", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
        ("policy_id", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("audited", ctypes.c_uint32),
        ("error_mtu", ctypes.c_uint32),
        ("error", ctypes.c_uint16),
        ("service", ctypes.c_uint8),
        ("hops", ctypes.c_uint8),
    ]


class PolicyKey(ctypes.Structure):
    policy_id: int
    direction: int
    remote: int
    _fields_ = [
        ("policy_id", ctypes.c_uint32),
        ("direction", ctypes.c_uint32),
        ("remote", ctypes.c_uint32),
    ]


class PolicyClassKey(ctypes.Structure):
    length: int
    policy_class: int
    protocol: int
    reserved: int
    port: int
    _fields_ = [
        ("length", ctypes.c_uint32),
        ("policy_class", ctypes.c_uint32),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("port", ctypes.c_uint16),
    ]


class PolicyRuling(ctypes.Structure):
    rule: int
    verdict: int
    _fields_ = [
        ("rule", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
    ]


class ServiceKey(ctypes.Structure):
    address: Address
    port: int
    protocol: int
    reserved: int
    _fields_ = [
        ("address", Address),
        ("port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    ]


class Service(ctypes.Structure):
    id: int
    base: int
    size: int
    affinity_ticks: int
    _fields_ = [
        ("id", ctypes.c_uint32),
        ("base", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("affinity_ticks", ctypes.c_uint32),
    ]


class Backend(ctypes.Structure):
    address: Address
    port: int
    protocol: int
    state: int
    _fields_ = [
        ("address", Address),
        ("port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("state", ctypes.c_uint8),
    ]


class AffinityKey(ctypes.Structure):
    client: Address
    service: int
    _fields_ = [
        ("client", Address),
        ("service", ctypes.c_uint32),
    ]


class Affinity(ctypes.Structure):
    backend: int
    used: int
    _fields_ = [
        ("backend", ctypes.c_uint32),
        ("used", ctypes.c_uint32),
    ]


class SocketPeerKey(ctypes.Structure):
    cookie: int
    address: Address
    port: int
    protocol: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("cookie", ctypes.c_uint64),
        ("address", Address),
        ("port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 5),
    ]


class SocketPeer(ctypes.Structure):
    address: Address
    port: int
    reserved: int
    _fields_ = [
        ("address", Address),
        ("port", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
    ]


class ServiceFlowKey(ctypes.Structure):
    client: Address
    server: Address
    client_port: int
    server_port: int
    protocol: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("client", Address),
        ("server", Address),
        ("client_port", ctypes.c_uint16),
        ("server_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
    ]


class ServiceFlow(ctypes.Structure):
    other: ServiceFlowKey
    expires: int
    backend: int
    flags: int
    way: int
    reserved: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("other", ServiceFlowKey),
        ("expires", ctypes.c_uint32),
        ("backend", ctypes.c_uint32),
        ("flags", ctypes.c_uint8),
        ("way", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 2),
    ]


SIZES: dict[type[ctypes.Structure], int] = {
    Address: 16,
    Prefix: 20,
    Block: 32,
    Config: 160,
    ConntrackKey: 40,
    Conntrack: 16,
    Count: 16,
    Endpoint: 60,
    SeenKey: 8,
    Event: 128,
    EventBucket: 16,
    FragmentKey: 40,
    Fragment: 8,
    Ipcache: 8,
    NatKey: 40,
    Nat: 24,
    Node: 336,
    Packet: 152,
    PolicyKey: 12,
    PolicyClassKey: 12,
    PolicyRuling: 8,
    ServiceKey: 20,
    Service: 16,
    Backend: 20,
    AffinityKey: 20,
    Affinity: 8,
    SocketPeerKey: 32,
    SocketPeer: 20,
    ServiceFlowKey: 40,
    ServiceFlow: 52,
}

DROP_TEXTS: dict[DropReason, str] = {
    DropReason.NONE: 'not refused',
    DropReason.UNKNOWN_ENDPOINT: 'the interface it came from belongs to no endpoint',
    DropReason.INVALID_SOURCE: "the source address is not the sender's own",
    DropReason.UNSUPPORTED_L3: 'neither IPv4 nor IPv6, or tagged with a VLAN',
    DropReason.TRUNCATED: 'it ends before its headers do',
    DropReason.MALFORMED: 'version, header length or total length cannot be right',
    DropReason.EXTENSION_HEADERS: 'more IPv6 extension headers than are followed',
    DropReason.NESTED_ENCAPSULATION: "an endpoint spoke the tunnel's protocol itself",
    DropReason.UNKNOWN_DESTINATION: "in a node's PodCIDR, but no known endpoint's",
    DropReason.UNKNOWN_NODE: "the destination's node is not known any more",
    DropReason.NO_UNDERLAY_ADDRESS: "no outer address of the other node's family",
    DropReason.PACKET_TOO_BIG: 'with outer headers, more than the path carries',
    DropReason.ENCAPSULATION_FAILED: 'the kernel made no room for outer headers',
    DropReason.DECAPSULATION_FAILED: 'the kernel did not take outer headers off',
    DropReason.TAIL_CALL_MISSED: 'a stage of the dataplane is not loaded',
    DropReason.TTL_EXCEEDED: 'the TTL or hop limit ended here',
    DropReason.ENDPOINT_NOT_READY: "the endpoint's identity is not known everywhere yet",
    DropReason.OUTER_TRUNCATED: 'a tunnelled packet that ends inside its outer headers',
    DropReason.OUTER_MALFORMED: 'a VXLAN header without a VNI, a Geneve one without Ethernet',
    DropReason.NO_TUNNEL_KEY: "it came by the tunnel device without a tunnel's metadata",
    DropReason.UNKNOWN_OUTER_SOURCE: "tunnelled by an address that is no known node's",
    DropReason.FOREIGN_IDENTITY: "an identity of another cluster than its node's",
    DropReason.INVALID_IDENTITY: 'a number that is no identity anyone could have',
    DropReason.SOURCE_NOT_OF_NODE: "the inner source is not in its node's PodCIDRs",
    DropReason.IDENTITY_HOST: 'identity host, which never travels',
    DropReason.IDENTITY_WORLD: 'identity world, which nobody may tunnel to us',
    DropReason.IDENTITY_HEALTH: 'identity health, from an address without it',
    DropReason.IDENTITY_INGRESS: 'identity ingress, from an address without it',
    DropReason.REMOTE_NODE_SOURCE: "remote-node, from an address that is not the node's",
    DropReason.NOT_OURS: 'sent to this node, but its destination is not here',
    DropReason.FRAGMENT_WITHOUT_FIRST: 'a later fragment, and the first was not seen',
    DropReason.NO_ROOM: 'the kernel made no room for the answer to a question',
    DropReason.NAT_NO_PORT: 'no port of the masquerading pool was found free',
    DropReason.NAT_NO_ADDRESS: 'the world is not behind the underlay, or that has no address',
    DropReason.NAT_PROTOCOL: 'masquerading needs ports: TCP, UDP or an ICMP echo',
    DropReason.NAT_NO_FLOW: 'an ICMP error about a flow that is not masqueraded here',
    DropReason.NAT_FAILED: "the kernel did not let a packet's addresses be rewritten",
    DropReason.GENEVE_OPTION: 'a Geneve option that must be understood, and is not',
    DropReason.NATIVE_REFUSED: 'a mesh address outside of a tunnel, where routing is tunnel',
    DropReason.NATIVE_SOURCE: 'outside of a tunnel, from an address no other node has',
    DropReason.L4_TRUNCATED: 'it ends before its TCP, UDP or ICMP header does',
    DropReason.L4_MALFORMED: "TCP's header length or UDP's length cannot be right",
    DropReason.SOURCE_ROUTE: 'it wants a way of its own: IPv4 option, IPv6 routing header',
    DropReason.IPV4_OPTION: 'an IPv4 option other than padding and router alert',
    DropReason.BAD_FRAGMENT: 'too long when whole, uneven, or on top of a TCP header',
    DropReason.MARTIAN_SOURCE: 'a source that no sender can have: group, loopback, none',
    DropReason.MARTIAN_DESTINATION: 'a destination that never is on a wire: loopback, none',
    DropReason.NESTED_IP: 'IP in IP or GRE to a node of the mesh',
    DropReason.OUTER_LENGTH: "outer lengths contradict each other or the inner packet's",
    DropReason.POLICY_DENIED: 'a rule of policy denies it',
    DropReason.POLICY_DEFAULT_DENY: 'policy selects the endpoint, and no rule allows it',
    DropReason.SERVICE_NO_BACKEND: 'a service that nobody answers; the sender is told',
    DropReason.SERVICE_AMBIGUOUS: 'two flows to a backend, one by a service, look the same',
    DropReason.SERVICE_NO_FLOW: "a backend's answer, and whom it answers is forgotten",
}
