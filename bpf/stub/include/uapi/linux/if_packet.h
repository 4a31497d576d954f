// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
#pragma once
#include_next <linux/if_packet.h>
