/* SPDX-License-Identifier: GPL-2.0 */
/* What the executor, the ways to write, and the roles share. */
#ifndef ICSAN_PATCHER_H
#define ICSAN_PATCHER_H

#include <linux/types.h>

#define ICSAN_LENGTH 5

/* What icsan_target_*() returns, by version. */
#define ICSAN_VALUE(version) ((version) ? 0x02020202U : 0x01010101U)

/* A place that is patched: where it is executed, where it can be written, and its two versions. */
struct icsan_site {
	u8 *text;
	u8 *alias;
	u8 version[2][ICSAN_LENGTH];
};

/* What the executor is told to do. It looks in each iteration, and nothing about the order serializes it. */
enum icsan_order {
	ICSAN_RUN = 1,		/* call the target, again and again */
	ICSAN_RUN_QUIET,	/* the same with interrupts off: nothing else gets at this CPU */
	ICSAN_ASIDE,		/* do not call it */
	ICSAN_ASIDE_QUIET,
};

/* One run of a role. */
struct icsan_run {
	struct icsan_site *site;
	bool sync_on_return;	/* the executor serializes before it comes back from standing aside */

	/* Written by the writer. */
	enum icsan_order order;
	/* Written by the executor. */
	enum icsan_order obeyed;
	unsigned long calls;
	u32 value;

	/* The outcome. */
	unsigned int patches;
	unsigned int seen;	/* changes after which the executor ran the new version */
	unsigned int outdated;	/* changes after which it ran another one, though that was forbidden */
};

/* A role: how one change is made. */
struct icsan_role {
	const char *name;
	struct icsan_site *site;
	bool own;		/* the writer executes, too: no executor */
	bool sync_on_return;
	int (*patch)(struct icsan_run *run, int version);
};

extern struct icsan_site icsan_quad, icsan_chunk, icsan_jump;
extern const struct icsan_role icsan_roles[];
extern const unsigned int icsan_role_count;

u32 icsan_target_quad(u32 other);
u32 icsan_target_chunk(u32 other);
u32 icsan_target_jump(u32 other);
extern u8 icsan_site_quad[], icsan_site_chunk[], icsan_site_jump[];
extern const u8 icsan_jump_insn[ICSAN_LENGTH];

/* patcher.c */
u32 icsan_call(struct icsan_site *site);
int icsan_tell(struct icsan_run *run, enum icsan_order order);
int icsan_let_run(struct icsan_run *run);
void icsan_check(struct icsan_run *run, u32 value, int version, bool promised);
void icsan_sync_all(void);

/* The kernel's own functions that no module may link with. */
void icsan_poke(void *text, const void *bytes, size_t length);
void icsan_poke_protocol(void *text, const void *bytes, size_t length);

/* The INT3 handler of protocols of this module's own. */
void icsan_expect_int3(struct icsan_site *site, int version);
void icsan_await_int3(void);

#endif
