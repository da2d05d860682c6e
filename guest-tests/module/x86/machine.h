/* SPDX-License-Identifier: GPL-2.0 */
/* What is changed on x86-64, and what roles can do with it. */
#ifndef ICSAN_MACHINE_H
#define ICSAN_MACHINE_H

#include "patcher.h"

#define ICSAN_LENGTH 5

/* A place that is patched: where it is executed, where it can be written, and its two versions. */
struct icsan_site {
	u8 *text;
	u8 *alias;
	u8 version[2][ICSAN_LENGTH];
};

/* text.c */
extern struct icsan_site icsan_quad, icsan_chunk, icsan_jump;

/* The kernel's own functions that no module may link with. */
void icsan_poke(void *text, const void *bytes, size_t length);
void icsan_poke_protocol(void *text, const void *bytes, size_t length);

/* The INT3 handler of protocols of this module's own. */
void icsan_expect_int3(struct icsan_site *site, int version);
void icsan_await_int3(void);

/* targets.S */
u32 icsan_target_quad(u32 other);
u32 icsan_target_chunk(u32 other);
u32 icsan_target_jump(u32 other);
extern u8 icsan_site_quad[], icsan_site_chunk[], icsan_site_jump[];
extern const u8 icsan_jump_insn[ICSAN_LENGTH];

#endif
