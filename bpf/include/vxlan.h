// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The first word of a VXLAN header (RFC 7348). Needs: tunnel.h. */
#pragma once
#include "tunnel.h"

enum vxlan_head { VXLAN_FLAG_VNI = 0x08000000 };
