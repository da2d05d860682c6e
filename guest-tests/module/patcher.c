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
 * Only for throw-away guests: it makes its own text writable.
 */
#include <linux/kdebug.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/smp.h>
#include <linux/vmalloc.h>
#include <asm/sync_core.h>

#include "patcher.h"

/* Even: a role ends with the version that it began with. */
#define PATCHES 16
#define PATIENCE (3 * NSEC_PER_SEC)
/*
 * Calls after which the executor serves its interrupts once although it is told not to: some seconds under TCG. Whatever sends this CPU an IPI and waits (a
 * worker that preempts the patcher) would wait for ever otherwise, and the patcher with it. That one change then counts for less: the interrupt serializes.
 */
#define QUIET_CALLS 4000000
#define INT3_PATIENCE (NSEC_PER_SEC / 20)

struct icsan_site icsan_quad = {
	.text = icsan_site_quad,
	.version = { { 0xb8, 1, 1, 1, 1 }, { 0xb8, 2, 2, 2, 2 } },
};

/* Mixes of the two are harmless: EAX is 0 before. */
struct icsan_site icsan_chunk = {
	.text = icsan_site_chunk,
	.version = { { 0xb8, 1, 1, 1, 1 }, { 0x0d, 2, 2, 2, 2 } },
};

struct icsan_site icsan_jump = {
	.text = icsan_site_jump,
	.version = { { 0x0f, 0x1f, 0x44, 0x00, 0x00 } },
};

static struct icsan_site *const sites[] = { &icsan_quad, &icsan_chunk, &icsan_jump };

/* Found by name at run time. */
static struct mutex *kernel_text_mutex;
static void *(*kernel_text_poke)(void *to, const void *from, size_t length);
static void (*kernel_protocol)(void *to, const void *from, size_t length, const void *emulate);
static int (*kernel_set_memory_rw)(unsigned long address, int pages);
static int (*kernel_set_memory_ro)(unsigned long address, int pages);

/*
 * Steps of the kernel's protocols that a byte can take away: called through a pointer, in the IPIs of text poking and of membarrier(SYNC_CORE).
 * (What sends the IPIs is inlined.)
 */
static struct {
	const char *name;
	void *text;
} breakable[] = { { "do_sync_core" }, { "ipi_sync_core" } };

static unsigned long expected_int3;	/* the address of an INT3 of our own */
static u32 expected_value;		/* what the code then returns */
static unsigned long trapped;

/* Direct calls, so that there is no thunk between. */
u32 icsan_call(struct icsan_site *site)
{
	if (site == &icsan_quad)
		return icsan_target_quad(0);
	if (site == &icsan_chunk)
		return icsan_target_chunk(0);
	return icsan_target_jump(0);
}

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
		if (!aside) {
			if (run->sync_on_return && (last == ICSAN_ASIDE || last == ICSAN_ASIDE_QUIET))
				sync_core();
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

/* Waits for the other CPU without telling it anything. */
#define AWAIT_FOR(patience, condition)						\
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
#define AWAIT(condition) AWAIT_FOR(PATIENCE, condition)

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

void icsan_check(struct icsan_run *run, u32 value, int version, bool promised)
{
	run->patches++;
	if (value == ICSAN_VALUE(version))
		run->seen++;
	else if (promised)
		run->outdated++;
}

static void sync_this_cpu(void *unused)
{
	sync_core();
}

void icsan_sync_all(void)
{
	on_each_cpu(sync_this_cpu, NULL, 1);
}

void icsan_poke(void *text, const void *bytes, size_t length)
{
	mutex_lock(kernel_text_mutex);
	kernel_text_poke(text, bytes, length);
	mutex_unlock(kernel_text_mutex);
}

void icsan_poke_protocol(void *text, const void *bytes, size_t length)
{
	mutex_lock(kernel_text_mutex);
	kernel_protocol(text, bytes, length, NULL);
	mutex_unlock(kernel_text_mutex);
}

void icsan_expect_int3(struct icsan_site *site, int version)
{
	WRITE_ONCE(expected_value, ICSAN_VALUE(version));
	WRITE_ONCE(trapped, 0);
	smp_store_release(&expected_int3, (unsigned long)site->text);
}

/*
 * Waits until the executor met the INT3, but not for long: with its interrupts off it may run the old instruction for as long as it likes, and
 * does so where old instructions are executed on purpose.
 */
void icsan_await_int3(void)
{
	AWAIT_FOR(INT3_PATIENCE, READ_ONCE(trapped) > 0);
}

/*
 * Carries out the new version of the instruction under an INT3. One that is gone from memory can still be met: multi-threaded QEMU runs
 * outdated blocks, and then the kernel's own handler has forgotten it already. It must not end in an oops.
 */
static int on_die(struct notifier_block *self, unsigned long event, void *data)
{
	struct pt_regs *regs = ((struct die_args *)data)->regs;
	unsigned long at = regs->ip - 1;
	unsigned int i;

	if (event != DIE_INT3 || user_mode(regs))
		return NOTIFY_DONE;
	if (at == smp_load_acquire(&expected_int3)) {
		regs->ax = READ_ONCE(expected_value);
		regs->ip = at + ICSAN_LENGTH;
		WRITE_ONCE(trapped, trapped + 1);
		return NOTIFY_STOP;
	}
	for (i = 0; i < ARRAY_SIZE(sites); i++) {
		if (at == (unsigned long)sites[i]->text && READ_ONCE(*sites[i]->text) != 0xcc) {
			regs->ip = at;
			return NOTIFY_STOP;
		}
	}
	return NOTIFY_DONE;
}

static struct notifier_block die_notifier = { .notifier_call = on_die };

/* The page of all targets in the direct map. */
static u8 *direct_map;
static bool writable;

/* The kernel makes it read-only with the module's text, in 6.1 once more when the module is initialized: so not before. */
static int make_writable(void)
{
	int error = writable ? 0 : kernel_set_memory_rw((unsigned long)direct_map, 1);

	writable = !error;
	return error;
}

static int play(const struct icsan_role *role, unsigned int cpu, struct icsan_run *run)
{
	struct task_struct *task = NULL;
	int error = make_writable();

	if (error)
		return error;
	run->site = role->site;
	run->sync_on_return = role->sync_on_return;
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
	icsan_poke(run->site->text, run->site->version[0], ICSAN_LENGTH);
	icsan_sync_all();
	WRITE_ONCE(expected_int3, 0);
	return error;
}

/* The last run; the kernel lets one caller in at a time. */
static struct icsan_run last_run;

static int set_role(const char *text, const struct kernel_param *param)
{
	char name[32];
	unsigned int cpu, i;

	if (!kernel_set_memory_ro)
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

/* The function that returns at once, and the byte that it began with. */
static void *broken;
static u8 broken_byte;

/* One byte, which every CPU may execute before or after; then each serializes. */
static void put_byte(void *text, u8 byte)
{
	icsan_poke(text, &byte, 1);
	icsan_sync_all();
}

static int set_broken(const char *text, const struct kernel_param *param)
{
	static const u8 ret = 0xc3;
	char name[32] = "";
	unsigned int i;

	if (!kernel_set_memory_ro)
		return -EBUSY; /* as a parameter of insmod: not initialized yet */
	sscanf(text, "%31s", name);
	if (broken)
		put_byte(broken, broken_byte);
	broken = NULL;
	if (!*name)
		return 0;
	for (i = 0; i < ARRAY_SIZE(breakable); i++) {
		if (!breakable[i].text || strcmp(breakable[i].name, name))
			continue;
		broken = breakable[i].text;
		broken_byte = *(u8 *)broken;
		put_byte(broken, ret);
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

static int __init find_functions(void)
{
	unsigned long (*lookup)(const char *name) = find_lookup();
	unsigned int i;

	if (!lookup)
		return -ENOENT;
	for (i = 0; i < ARRAY_SIZE(breakable); i++)
		breakable[i].text = (void *)lookup(breakable[i].name);
	kernel_text_mutex = (void *)lookup("text_mutex");
	kernel_text_poke = (void *)lookup("text_poke");
	kernel_protocol = (void *)lookup("smp_text_poke_single"); /* since 6.16 */
	if (!kernel_protocol)
		kernel_protocol = (void *)lookup("text_poke_bp");
	kernel_set_memory_rw = (void *)lookup("set_memory_rw");
	kernel_set_memory_ro = (void *)lookup("set_memory_ro");
	if (!kernel_text_mutex || !kernel_text_poke || !kernel_protocol || !kernel_set_memory_rw || !kernel_set_memory_ro)
		return -ENOENT;
	return 0;
}

static int __init map_sites(void)
{
	struct page *page = vmalloc_to_page(icsan_site_quad);
	unsigned int i;

	if (!page || page != vmalloc_to_page(icsan_site_jump + ICSAN_LENGTH - 1))
		return -EFAULT;
	memcpy(icsan_jump.version[1], icsan_jump_insn, ICSAN_LENGTH);
	direct_map = page_address(page);
	for (i = 0; i < ARRAY_SIZE(sites); i++)
		sites[i]->alias = direct_map + offset_in_page(sites[i]->text);
	return 0;
}

static int __init patcher_init(void)
{
	int error = find_functions() ?: map_sites();

	if (error)
		return error;
	return register_die_notifier(&die_notifier);
}

static void __exit patcher_exit(void)
{
	if (broken)
		put_byte(broken, broken_byte);
	unregister_die_notifier(&die_notifier);
	if (writable)
		kernel_set_memory_ro((unsigned long)direct_map, 1);
}

module_init(patcher_init);
module_exit(patcher_exit);
MODULE_DESCRIPTION("Patches its own text, well and badly, for ICSAN's guest tests");
MODULE_LICENSE("GPL");
