// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Every map of the dataplane, as C sees it. Shapes and sizes: meshnet/dataplane/schema.py.
 *
 * name                  key -> value                        writer    lives
 * config                0 -> struct config                  agent     as the generation
 * stages                enum stage -> program               agent     as the generation
 * scratch               slot -> struct packet, per CPU      programs  as the pins
 * endpoints             ifindex -> struct endpoint          agent     as the pins
 * endpoints_by_address  struct address -> struct endpoint   agent     as the pins
 * ipcache               struct address -> struct ipcache    agent     as the pins
 * ipcache_prefix        struct prefix -> struct ipcache     agent     as the pins
 * nodes                 index -> struct node                agent     as the pins
 * node_by_address       struct address -> index             agent     as the pins
 * pod_cidrs             struct prefix -> owner of a node    agent     as the pins
 * drops                 reason, direction -> struct count   programs  as the pins
 * counters              enum counter -> struct count        programs  as the pins
 * seen_identities       struct seen_key -> packets (LRU)    programs  as the pins
 * events                ring of struct event                programs  as the pins
 * event_buckets         reason -> struct event_bucket       programs  as the pins
 * conntrack             struct conntrack_key -> row (LRU)   programs  as the pins
 * services              struct service_key -> service       agent     as the pins
 * backends              index -> struct backend             agent     as the pins
 * backend_slots         slot -> index of a backend          agent     as the pins
 * backend_hits          index of a backend -> connects      programs  as the pins
 * service_affinity      struct affinity_key -> affinity     programs  as the pins
 * socket_peers          struct socket_peer_key -> peer      programs  as the pins
 * fragments             struct fragment_key -> ports (LRU)  programs  as the pins
 * nat                   struct nat_key -> struct nat (LRU)  programs  as the pins
 * unmasqueraded         struct prefix -> nothing            agent     as the pins
 * policy                struct policy_key -> class          agent     as the pins
 * policy_classes        struct policy_class_key -> ruling   agent     as the pins
 * icmp_budget           0 -> struct event_bucket            programs  as the pins
 * service_addresses     struct address -> not zero          agent     as the pins
 * service_flows         service_flow_key -> flow (LRU)      programs  as the pins
 */
#pragma once
#include "compiler.h"
#include "abi/conntrack.h"
#include "abi/drop.h"
#include "abi/endpoint.h"
#include "abi/event.h"
#include "abi/fragment.h"
#include "abi/ipcache.h"
#include "abi/nat.h"
#include "abi/node.h"
#include "abi/packet.h"
#include "abi/service.h"
#include "abi/policy.h"
