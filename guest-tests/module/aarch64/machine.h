/* SPDX-License-Identifier: GPL-2.0 */
/* What is changed on AArch64, and what roles can do with it. */
#ifndef ICSAN_MACHINE_H
#define ICSAN_MACHINE_H

#include "patcher.h"

/* A place that is patched: where it is executed, where it can be written, and its two versions. The kernel alone writes a static key's. */
struct icsan_site {
	u32 *text;
	u32 *alias;
	u32 version[2];
};

/* text.c */
extern struct icsan_site icsan_move, icsan_branch, icsan_key;

/* The kernel's own functions, most of which no module may link with. */
void icsan_write(u32 *text, u32 word);		/* only stores */
void icsan_patch_nosync(u32 *text, u32 word);	/* and does the maintenance */
void icsan_patch_stopped(u32 *text, u32 word);	/* and stops all CPUs meanwhile */
void icsan_flip_key(int version);
/* kick_all_cpus_sync() does nothing from now on, or does again. */
void icsan_cut_kick(void);
void icsan_mend_kick(void);

/* targets.S */
u32 icsan_target_move(void);
u32 icsan_target_branch(void);
extern u32 icsan_site_move[], icsan_site_branch[];

#endif
