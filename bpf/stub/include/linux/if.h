// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The real one needs glibc's sys/socket.h, which is not there under -nostdinc. */
#pragma once
#define IFNAMSIZ 16
