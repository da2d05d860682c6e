// SPDX-License-Identifier: GPL-2.0
/*
 * The ways to change code on AArch64, right and wrong. The function that stores has a name of its own, for the report to name it.
 *
 * A wrong role has the executor run the old version, changes the site, and has it run the new one, with interrupts off on that CPU: no tick
 * can synchronize it in between and rightly hide the mistake. Where a barrier is left out they are off on the writer's CPU as well: whatever
 * interrupted that may have barriers.
 */
#include <linux/irqflags.h>
#include <linux/smp.h>
#include <asm/barrier.h>
#include <asm/cacheflush.h>

#include "machine.h"

/* What stands between a store and what others fetch. */
enum step {
	CLEAN = 1,
	FIRST_BARRIER = 2,
	INVALIDATE = 4,
	SECOND_BARRIER = 8,
	ALL = CLEAN | FIRST_BARRIER | INVALIDATE | SECOND_BARRIER,
};

static noinline void icsan_write_word(u32 *alias, u32 word)
{
	WRITE_ONCE(*alias, word);
}

/* Stores through the alias, and takes these steps, in their order. */
static void change(struct icsan_site *site, int version, unsigned int steps)
{
	icsan_write_word(site->alias, site->version[version]);
	if (steps & CLEAN)
		asm volatile("dc cvau, %0" : : "r" (site->alias) : "memory");
	if (steps & FIRST_BARRIER)
		dsb(ish);
	if (steps & INVALIDATE)
		asm volatile("ic ivau, %0" : : "r" (site->text) : "memory");
	if (steps & SECOND_BARRIER)
		dsb(ish);
}

/* The kernel's protocol for what may be changed under a running CPU. */
static int icsan_role_good(struct icsan_run *run, int version)
{
	int error = icsan_let_run(run);

	if (error)
		return error;
	icsan_patch_nosync(run->site->text, run->site->version[version]);
	kick_all_cpus_sync();
	return icsan_finish(run, version, true);
}

/* The kernel's protocol for everything else: no CPU runs anything meanwhile, and all synchronize. */
static int icsan_role_stopped(struct icsan_run *run, int version)
{
	int error = icsan_let_run(run);

	if (error)
		return error;
	icsan_patch_stopped(run->site->text, run->site->version[version]);
	return icsan_finish(run, version, true);
}

/* A jump label of this module's, by the kernel. */
static int icsan_role_static_key(struct icsan_run *run, int version)
{
	int error = icsan_let_run(run);

	if (error)
		return error;
	icsan_flip_key(version);
	return icsan_finish(run, version, true);
}

/* The same without the interrupt. */
static int icsan_role_no_kick(struct icsan_run *run, int version)
{
	int error;

	icsan_cut_kick();
	error = icsan_quiet(run);
	if (!error) {
		icsan_flip_key(version);
		error = icsan_finish(run, version, false);
	}
	/* Giving it back interrupts the executor's CPU, and waits. */
	error = icsan_tell(run, ICSAN_RUN) ?: error;
	icsan_mend_kick();
	return error;
}

/* aarch64_insn_patch_text_nosync(), and nothing: the caller was meant to send the interrupt. */
static int icsan_role_no_ipi(struct icsan_run *run, int version)
{
	int error = icsan_quiet(run);

	if (error)
		return error;
	icsan_patch_nosync(run->site->text, run->site->version[version]);
	return icsan_finish(run, version, false);
}

/* The interrupt, and then the change that it was meant for. */
static int icsan_role_kick_first(struct icsan_run *run, int version)
{
	kick_all_cpus_sync();
	return icsan_role_no_ipi(run, version);
}

/* The change while the executor stands aside with interrupts on, and an interrupt before it comes back. */
static int icsan_role_kick(struct icsan_run *run, int version)
{
	int error = icsan_let_run(run) ?: icsan_tell(run, ICSAN_ASIDE);

	if (error)
		return error;
	icsan_patch_nosync(run->site->text, run->site->version[version]);
	kick_all_cpus_sync();
	error = icsan_tell(run, ICSAN_RUN);
	return error ?: icsan_finish(run, version, true);
}

/* The executor stands aside, and nobody interrupts it. */
static int aside(struct icsan_run *run)
{
	return icsan_quiet(run) ?: icsan_tell(run, ICSAN_ASIDE_QUIET);
}

/* It comes back, as the role says, and runs the site. */
static int back(struct icsan_run *run, int version, bool promised)
{
	int error = icsan_tell(run, ICSAN_RUN_QUIET);

	return error ?: icsan_finish(run, version, promised);
}

/* aarch64_insn_patch_text_nosync() while the executor stands aside; it synchronizes before it comes back. */
static int icsan_role_aside(struct icsan_run *run, int version)
{
	int error = aside(run);

	if (error)
		return error;
	icsan_patch_nosync(run->site->text, run->site->version[version]);
	return back(run, version, true);
}

/* The kernel's store, and no maintenance. */
static int icsan_role_no_maintenance(struct icsan_run *run, int version)
{
	int error = aside(run);

	if (error)
		return error;
	icsan_write(run->site->text, run->site->version[version]);
	return back(run, version, false);
}

/* A store of our own, and these steps. */
static int by_steps(struct icsan_run *run, int version, unsigned int steps)
{
	unsigned long flags;
	int error = aside(run);

	if (error)
		return error;
	local_irq_save(flags);
	change(run->site, version, steps);
	error = icsan_tell(run, ICSAN_RUN_QUIET) ?: icsan_let_run(run);
	local_irq_restore(flags);
	return error ?: icsan_finish(run, version, steps == ALL);
}

static int icsan_role_all(struct icsan_run *run, int version)
{
	return by_steps(run, version, ALL);
}

static int icsan_role_nothing(struct icsan_run *run, int version)
{
	return by_steps(run, version, 0);
}

static int icsan_role_no_clean(struct icsan_run *run, int version)
{
	return by_steps(run, version, ALL & ~CLEAN);
}

static int icsan_role_no_first_barrier(struct icsan_run *run, int version)
{
	return by_steps(run, version, ALL & ~FIRST_BARRIER);
}

static int icsan_role_no_invalidate(struct icsan_run *run, int version)
{
	return by_steps(run, version, ALL & ~INVALIDATE);
}

static int icsan_role_no_second_barrier(struct icsan_run *run, int version)
{
	return by_steps(run, version, ALL & ~SECOND_BARRIER);
}

/* A store of our own, and the kernel's maintenance. */
static int icsan_role_kernel_steps(struct icsan_run *run, int version)
{
	struct icsan_site *site = run->site;
	int error = aside(run);

	if (error)
		return error;
	change(site, version, 0);
	caches_clean_inval_pou((unsigned long)site->text, (unsigned long)(site->text + 1));
	return back(run, version, true);
}

/* This CPU stores through the alias, takes these steps, and executes. */
static int own(struct icsan_run *run, int version, unsigned int steps)
{
	unsigned long flags;
	u32 value;

	local_irq_save(flags);
	icsan_call(run->site);
	change(run->site, version, steps);
	value = icsan_call(run->site);
	local_irq_restore(flags);
	icsan_check(run, value, version, false);
	return 0;
}

static int icsan_role_own_nothing(struct icsan_run *run, int version)
{
	return own(run, version, 0);
}

static int icsan_role_own_no_synchronization(struct icsan_run *run, int version)
{
	return own(run, version, ALL);
}

/* The same with the kernel's maintenance, which ends in ISB. */
static int icsan_role_own_kernel_steps(struct icsan_run *run, int version)
{
	struct icsan_site *site = run->site;
	unsigned long flags;
	u32 value;

	local_irq_save(flags);
	icsan_call(site);
	change(site, version, 0);
	caches_clean_inval_pou((unsigned long)site->text, (unsigned long)(site->text + 1));
	value = icsan_call(site);
	local_irq_restore(flags);
	icsan_check(run, value, version, true);
	return 0;
}

const struct icsan_role icsan_roles[] = {
	{ "good", &icsan_branch, .patch = icsan_role_good },
	{ "stopped", &icsan_move, .yields = true, .patch = icsan_role_stopped },
	{ "static-key", &icsan_key, .patch = icsan_role_static_key },
	{ "no-kick", &icsan_key, .patch = icsan_role_no_kick },
	{ "no-ipi", &icsan_move, .patch = icsan_role_no_ipi },
	{ "kick-first", &icsan_move, .patch = icsan_role_kick_first },
	{ "kick", &icsan_move, .patch = icsan_role_kick },
	{ "aside", &icsan_move, .sync_on_return = true, .patch = icsan_role_aside },
	{ "all", &icsan_move, .sync_on_return = true, .patch = icsan_role_all },
	{ "nothing", &icsan_move, .sync_on_return = true, .patch = icsan_role_nothing },
	{ "no-clean", &icsan_move, .sync_on_return = true, .patch = icsan_role_no_clean },
	{ "no-first-barrier", &icsan_move, .sync_on_return = true, .patch = icsan_role_no_first_barrier },
	{ "no-invalidate", &icsan_move, .sync_on_return = true, .patch = icsan_role_no_invalidate },
	{ "no-second-barrier", &icsan_move, .sync_on_return = true, .patch = icsan_role_no_second_barrier },
	{ "kernel-steps", &icsan_move, .sync_on_return = true, .patch = icsan_role_kernel_steps },
	{ "no-maintenance", &icsan_move, .sync_on_return = true, .patch = icsan_role_no_maintenance },
	{ "own-nothing", &icsan_move, .own = true, .patch = icsan_role_own_nothing },
	{ "own-no-synchronization", &icsan_move, .own = true, .patch = icsan_role_own_no_synchronization },
	{ "own-kernel-steps", &icsan_move, .own = true, .patch = icsan_role_own_kernel_steps },
};
const unsigned int icsan_role_count = ARRAY_SIZE(icsan_roles);
