// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* Layout of `ipcache` (whole addresses) and `ipcache_prefix` (the rest).
 * Reader: include/ipcache.h.  Writer: IpcacheMaps in meshnet/dataplane/maps.py.
 */
#pragma once
#include <linux/types.h>

enum reserved_identity {
	IDENTITY_UNKNOWN = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_HEALTH = 4,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_INGRESS = 8,
};

enum identity_limit {
	IDENTITY_CLUSTER_SHIFT = 16,	/* the cluster id is above, the local number below */
	IDENTITY_LOCAL_MASK = 0xffff,
	IDENTITY_FIRST_LOCAL = 256,
	IDENTITY_LAST_CLUSTER = 255,	/* above are numbers of this node alone */
	IDENTITY_LAST = 0xffffff,	/* that travels; above are prefixes that policy names */
};

struct ipcache {
	__u32 identity;
	__u32 node_index;	/* into `nodes`; 0: not tunnelled */
};
_Static_assert(sizeof(struct ipcache) == 8, "ipcache is ABI");
