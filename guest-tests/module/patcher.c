// SPDX-License-Identifier: GPL-2.0
/*
 * icsan_patcher: a kernel text patcher, good and bad, for ICSAN to judge.
 *
 * Writing "ROLE CPU" to /sys/module/icsan_patcher/parameters/role has this CPU change an instruction of this module back and forth while a
 * kthread on that CPU runs it; the caller pins itself. Reading it back gives "PATCHES SEEN OUTDATED" (struct icsan_run). The two talk
 * through memory alone: whatever serializes the executor is the role's own doing.
 *
 * Writing a name to /sys/module/icsan_patcher/parameters/broken makes one of the kernel's own functions return at once, so that its patching
 * protocol lacks a step; an empty line gives the function back.
 *
 * What is changed, and how, is in a folder of each architecture. Only for throw-away guests: it makes its own text writable.
 */
#include <linux/irqflags.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "patcher.h"

/* Even: a role ends with the version that it began with. */
#define PATCHES 16
#define PATIENCE (3 * NSEC_PER_SEC)
/*
 * Calls after which the executor serves its interrupts once although it is told not to: some seconds under TCG. Whatever sends this CPU an IPI and waits (a
 * worker that preempts the patcher) would wait for ever otherwise, and the patcher with it. That one change then counts for less: the interrupt serializes.
 */
#define QUIET_CALLS 4000000

static bool is_quiet(enum icsan_order order)
{
	return order == ICSAN_RUN_QUIET || order == ICSAN_ASIDE_QUIET;
}

static int executor(void *data)
{
	struct icsan_run *run = data;
	enum icsan_order last = ICSAN_RUN;
	unsigned long quiet = 0;

	while (!kthread_should_stop()) {
		enum icsan_order order = smp_load_acquire(&run->order);
		bool aside = order == ICSAN_ASIDE || order == ICSAN_ASIDE_QUIET;

		if (is_quiet(order) && !is_quiet(last))
			local_irq_disable();
		if (!is_quiet(order) && is_quiet(last))
			local_irq_enable();
		if (order != last)
			quiet = 0;
		if (is_quiet(order) && ++quiet % QUIET_CALLS == 0) {
			local_irq_enable();
			cpu_relax();
			local_irq_disable();
		}
		if (run->yields && !is_quiet(order))
			cond_resched();
		if (!aside) {
			if (run->sync_on_return && (last == ICSAN_ASIDE || last == ICSAN_ASIDE_QUIET))
				icsan_sync();
			WRITE_ONCE(run->value, icsan_call(run->site));
			smp_store_release(&run->calls, run->calls + 1);
		}
		smp_store_release(&run->obeyed, order);
		last = order;
		cpu_relax();
	}
	if (is_quiet(last))
		local_irq_enable();
	return 0;
}

#define AWAIT(condition) ICSAN_AWAIT_FOR(PATIENCE, condition)

/* Gives an order and waits until it is carried out. */
int icsan_tell(struct icsan_run *run, enum icsan_order order)
{
	smp_store_release(&run->order, order);
	return AWAIT(smp_load_acquire(&run->obeyed) == order);
}

/* Waits until the executor has run the code as it is now: the first call may have begun before. */
int icsan_let_run(struct icsan_run *run)
{
	unsigned long calls = smp_load_acquire(&run->calls);

	return AWAIT(smp_load_acquire(&run->calls) - calls >= 2);
}

/* The executor has run the old version, and runs on; nobody interrupts it. */
int icsan_quiet(struct icsan_run *run)
{
	return icsan_tell(run, ICSAN_RUN_QUIET) ?: icsan_let_run(run);
}

/* The executor runs on; its interrupts are served again. */
int icsan_finish(struct icsan_run *run, int version, bool promised)
{
	int error = icsan_let_run(run);

	if (error)
		return error;
	icsan_check(run, READ_ONCE(run->value), version, promised);
	return icsan_tell(run, ICSAN_RUN);
}

void icsan_check(struct icsan_run *run, u32 value, int version, bool promised)
{
	run->patches++;
	if (value == icsan_value(version))
		run->seen++;
	else if (promised)
		run->outdated++;
}

static void sync_this_cpu(void *unused)
{
	icsan_sync();
}

void icsan_sync_all(void)
{
	on_each_cpu(sync_this_cpu, NULL, 1);
}

static int play(const struct icsan_role *role, unsigned int cpu, struct icsan_run *run)
{
	struct task_struct *task = NULL;
	int error = icsan_text_open();

	if (error)
		return error;
	run->site = role->site;
	run->sync_on_return = role->sync_on_return;
	run->yields = role->yields;
	run->order = ICSAN_RUN;
	if (!role->own) {
		if (cpu >= nr_cpu_ids || !cpu_online(cpu) || cpu == raw_smp_processor_id())
			return -EINVAL;
		task = kthread_create(executor, run, "icsan/%u", cpu);
		if (IS_ERR(task))
			return PTR_ERR(task);
		kthread_bind(task, cpu);
		wake_up_process(task);
		error = icsan_tell(run, ICSAN_RUN);
	}
	while (!error && run->patches < PATCHES)
		error = role->patch(run, !(run->patches & 1));
	if (task)
		kthread_stop(task);
	/* Cut short, the site may be in any state. Nobody runs it now. */
	icsan_restore(run->site);
	icsan_sync_all();
	return error;
}

/* Its functions are found. */
static bool ready;

/* The last run; the kernel lets one caller in at a time. */
static struct icsan_run last_run;

static int set_role(const char *text, const struct kernel_param *param)
{
	char name[32];
	unsigned int cpu, i;

	if (!ready)
		return -EBUSY; /* as a parameter of insmod: not initialized yet */
	if (sscanf(text, "%31s %u", name, &cpu) != 2)
		return -EINVAL;
	for (i = 0; i < icsan_role_count; i++) {
		if (strcmp(icsan_roles[i].name, name))
			continue;
		memset(&last_run, 0, sizeof(last_run));
		return play(&icsan_roles[i], cpu, &last_run);
	}
	return -ENOENT;
}

static int get_role(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%u %u %u\n", last_run.patches, last_run.seen, last_run.outdated);
}

static const struct kernel_param_ops role_ops = { .set = set_role, .get = get_role };
module_param_cb(role, &role_ops, NULL, 0600);
MODULE_PARM_DESC(role, "ROLE CPU: plays a role, with its executor on that CPU");

/* The function that returns at once, and what it began with. */
static void *broken;
static u32 broken_began;

static int set_broken(const char *text, const struct kernel_param *param)
{
	char name[32] = "";
	unsigned int i;

	if (!ready)
		return -EBUSY; /* as a parameter of insmod: not initialized yet */
	sscanf(text, "%31s", name);
	if (broken)
		icsan_mend(broken, broken_began);
	broken = NULL;
	if (!*name)
		return 0;
	for (i = 0; i < icsan_breakable_count; i++) {
		if (!icsan_breakable[i].text || strcmp(icsan_breakable[i].name, name))
			continue;
		broken = icsan_breakable[i].text;
		broken_began = icsan_cut(broken);
		return 0;
	}
	return -ENOENT;
}

static const struct kernel_param_ops broken_ops = { .set = set_broken };
module_param_cb(broken, &broken_ops, NULL, 0200);
MODULE_PARM_DESC(broken, "NAME: makes this function of the kernel's return at once; nothing: gives it back");

/* What kallsyms knows, a kprobe may be planted at; a disabled one is never written. */
static unsigned long (*find_lookup(void))(const char *name)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name", .flags = KPROBE_FLAG_DISABLED };
	void *found;

	if (register_kprobe(&probe) < 0)
		return NULL;
	found = probe.addr;
	unregister_kprobe(&probe);
	return found;
}

static int __init patcher_init(void)
{
	unsigned long (*lookup)(const char *name) = find_lookup();
	unsigned int i;
	int error;

	if (!lookup)
		return -ENOENT;
	for (i = 0; i < icsan_breakable_count; i++)
		icsan_breakable[i].text = (void *)lookup(icsan_breakable[i].name);
	error = icsan_text_init(lookup);
	ready = !error;
	return error;
}

static void __exit patcher_exit(void)
{
	if (broken)
		icsan_mend(broken, broken_began);
	icsan_text_exit();
}

module_init(patcher_init);
module_exit(patcher_exit);
MODULE_DESCRIPTION("Patches its own text, well and badly, for ICSAN's guest tests");
MODULE_LICENSE("GPL");
