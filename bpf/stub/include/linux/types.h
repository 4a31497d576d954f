// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-2-Clause
/* The uapi types, and the kernel-internal short names that BCC's own headers use. */
#pragma once
#include_next <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
typedef __s8 int8_t;
typedef __s16 int16_t;
typedef __s32 int32_t;
typedef __s64 int64_t;
typedef _Bool bool;
typedef unsigned long size_t;
typedef long ssize_t;
typedef unsigned long uintptr_t;
typedef int pid_t;
typedef unsigned int gfp_t;
typedef unsigned short umode_t;

enum { false = 0, true = 1 };
#define NULL ((void *)0)
#define offsetof(type, member) __builtin_offsetof(type, member)
