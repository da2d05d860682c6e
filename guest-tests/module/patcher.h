/* SPDX-License-Identifier: GPL-2.0 */
/* What the executor and the roles share, and what each architecture's folder has. */
#ifndef ICSAN_PATCHER_H
#define ICSAN_PATCHER_H

#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/types.h>

/* What is executed and changed: the folder's own. */
struct icsan_site;

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
	bool yields;		/* with interrupts on the executor lets the other tasks of its CPU run in between */

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
	bool yields;
	int (*patch)(struct icsan_run *run, int version);
};

/* A function of the kernel's that is a step of its protocols: without what it does they lack that step. */
struct icsan_breakable {
	const char *name;
	void *text;
};

/* Waits for the other CPU without telling it anything. */
#define ICSAN_AWAIT_FOR(patience, condition)					\
({										\
	u64 end = ktime_get_ns() + (patience);					\
	int error = 0;								\
										\
	while (!(condition)) {							\
		if (ktime_get_ns() > end) {					\
			error = -ETIMEDOUT;					\
			break;							\
		}								\
		cpu_relax();							\
	}									\
	error;									\
})

/* patcher.c */
int icsan_tell(struct icsan_run *run, enum icsan_order order);
int icsan_let_run(struct icsan_run *run);
int icsan_quiet(struct icsan_run *run);
int icsan_finish(struct icsan_run *run, int version, bool promised);
void icsan_check(struct icsan_run *run, u32 value, int version, bool promised);
void icsan_sync_all(void);

/* roles.c of the folder */
extern const struct icsan_role icsan_roles[];
extern const unsigned int icsan_role_count;

/* text.c of the folder */
extern struct icsan_breakable icsan_breakable[];
extern const unsigned int icsan_breakable_count;

/* Finds the kernel's functions by name, and the sites. */
int icsan_text_init(unsigned long (*lookup)(const char *name));
/* What the module leaves as it found it. */
void icsan_text_exit(void);
/* Called before each role: the sites can be written from then on. */
int icsan_text_open(void);
/* Runs the site's code. */
u32 icsan_call(struct icsan_site *site);
/* What it returns, by version. */
u32 icsan_value(int version);
/* Writes the first version, whatever stands there. Nobody runs it. */
void icsan_restore(struct icsan_site *site);
/* This CPU serializes. */
void icsan_sync(void);
/* Makes a function of the kernel's return at once, and answers with how it began; every CPU has serialized then. */
u32 icsan_cut(void *text);
/* Gives it back. */
void icsan_mend(void *text, u32 began);

#endif
