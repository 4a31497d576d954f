// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* No program of ours asks; BCC's headers do. */
#pragma once
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 6, 0)
