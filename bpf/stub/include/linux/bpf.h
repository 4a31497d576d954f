// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* BCC has put its own copy before everything; a second one would redefine it. */
#pragma once
