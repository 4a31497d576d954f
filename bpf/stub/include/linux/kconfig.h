// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* BCC includes this first, before all other headers. */
#pragma once
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_64BIT 1
