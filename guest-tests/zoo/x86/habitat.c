// SPDX-License-Identifier: GPL-2.0
/*
 * ICSAN's bug zoo: code to be patched, and loops that patch it and run it. Built into every kernel of the zoo, as kernel/icsan_zoo.c.
 *
 * Everything here goes by the rules: what is wrong in a kernel of the zoo is its patch. habitat.diff has text_poke() call zoo_poked(), which may wait.
 *
 * Patching loops, which the kernel's command line asks for, while the kernel's text can still be written (icsan_zoo=early+nops), and files
 * in debugfs:
 *   icsan_zoo/batch  N           patches all sites N times, by text_poke_queue() and text_poke_finish()
 *   icsan_zoo/met                how often the executor of the sites came in time for a sync that may be missing: first, second, third
 *   icsan_zoo/key    N           flips the static key N times, each time while the executor stands aside
 *   icsan_zoo/probe  1 or 0      plants or removes a kprobe on zoo_probed, while the executor stands aside
 *   icsan_zoo/wrong              how often the executor met, right after a patch, something else than that; and how often it looked
 *   icsan_zoo/burst  WHAT MICROSECONDS  runs what is patched: sites, probed, key
 *   icsan_zoo/flip   key or entry: flips the static key, or the instruction at the entry of system calls that habitat.diff put there. Nobody may
 *                    come by at that entry meanwhile: the caller sees to that
 *   icsan_zoo/keyed              runs what the static key decides, and tells
 *   icsan_zoo/hold   1 or 0      holds the timer of the CPU that asks, in user mode, too; or lets it go
 */
#include <linux/cpumask.h>
#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/init.h>
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/memory.h>
#include <linux/mutex.h>
#include <linux/objtool.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/stringify.h>
#include <linux/uaccess.h>
#include <asm/alternative.h>
#include <asm/apic.h>
#include <asm/cpufeatures.h>
#include <asm/irq_vectors.h>
#include <asm/linkage.h>
#include <asm/nops.h>
#include <asm/text-patching.h>
#include <asm/tsc.h>

#define FUNCTION(name)								\
	".globl " name "\n\t"							\
	".type " name ", @function\n"						\
	name ":\n\t"								\
	ANNOTATE_NOENDBR
#define RETURN(name)								\
	ASM_RET									\
	".size " name ", . - " name "\n\t"
/* A 5-byte NOP, or a jump over the NOP behind it, at a given place in a block of 32 bytes. */
#define SITE(name, place)							\
	".balign 32, 0xcc\n\t"							\
	".skip " __stringify(place) ", 0xcc\n"					\
	FUNCTION(name)								\
	".byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n\t"				\
	"nop\n\t"								\
	RETURN(name)
#define SITE_LEN	5
#define SITE_TARGET	6
/* A split one jumps farther, to another return. */
#define SPLIT_TARGET	16

/*
 * The sites of a batch, whole ones and ones that are split between two fetch chunks of 16 bytes, in turn. What is run behind a site lies in the
 * chunk of the site's last byte. A split one parts the first byte from the tail: so the old first byte with the new tail, which is UD2 (0f | 0b 00 00 00),
 * and the new first byte with the old tail, a jump to a place that counts it (e9 | 1f 44 00 00), are what never stood in memory.
 */
#define WHOLE		3
#define SPLIT		15
#define SITES		16
#define TORN_DISTANCE	0x441f

asm(".pushsection .text, \"ax\"\n"
	".balign 64, 0xcc\n"
	".globl zoo_sites\n"
	"zoo_sites:\n"
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n\t"
	SITE("zoo_whole_\\n", WHOLE)
	".balign 32, 0xcc\n\t"
	".skip " __stringify(SPLIT) ", 0xcc\n"
	FUNCTION("zoo_split_\\n")
	".byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n\t"
	"nop\n\t"
	RETURN("zoo_split_\\n")
	/* Where it jumps to: the last byte of its block. */
	".skip 31 - (. - zoo_sites) % 32, 0xcc\n\t"
	"ret\n\t"
	".endr\n\t"
	SITE("zoo_early_site", WHOLE)
	".balign 32, 0xcc\n"
	FUNCTION("zoo_nops_site")
	".byte 0x90, 0x90, 0x90, 0x90, 0x90\n\t"
	RETURN("zoo_nops_site")
	".balign 32, 0xcc\n"
	FUNCTION("zoo_probed")
	"movl $1, %eax\n\t"
	RETURN("zoo_probed")
	/* Where torn jumps go to, one behind each split site. */
	".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n\t"
	".skip zoo_sites + 64 * \\n + 32 + " __stringify(SPLIT) " + 5 + " __stringify(TORN_DISTANCE) " - ., 0xcc\n"
	FUNCTION("zoo_torn_\\n")
	"incl zoo_torn(%rip)\n\t"
	RETURN("zoo_torn_\\n")
	".endr\n\t"
	".popsection");

extern u8 zoo_sites[];
asmlinkage void zoo_early_site(void);
asmlinkage void zoo_nops_site(void);
asmlinkage unsigned long zoo_probed(void);

/* Counted where torn jumps go to. */
extern unsigned int zoo_torn;
unsigned int zoo_torn;

static u8 *site(unsigned int n)
{
	return zoo_sites + 32 * n + (n % 2 ? SPLIT : WHOLE);
}

static void run_site(unsigned int n)
{
	((void (*)(void))site(n))();
}

/* What stands there, as data: looking at it brings nothing into the buffers that instructions come from. */
static u8 head(unsigned int n)
{
	return READ_ONCE(*site(n));
}

static u32 tail(unsigned int n)
{
	return READ_ONCE(*(u32 *)(site(n) + 1));
}

/* Where habitat.diff put an instruction to be patched: in the entry of system calls, before the switch to the kernel's page table. */
extern u8 *const zoo_entry_site;

static DEFINE_STATIC_KEY_FALSE(zoo_key);

static noinline notrace unsigned long zoo_keyed(void)
{
	return static_branch_unlikely(&zoo_key);
}

/* The probe. What its handler counts is the executor's. */
static unsigned long hits;
static bool planted;

static int probe_hit(struct kprobe *probe, struct pt_regs *regs)
{
	hits++;
	return 0;
}

static struct kprobe probe = { .symbol_name = "zoo_probed", .pre_handler = probe_hit, .flags = KPROBE_FLAG_DISABLED };

static unsigned long run_probed(void)
{
	unsigned long before = hits;

	zoo_probed();
	return hits - before;
}

static unsigned long key_now(void)
{
	return static_key_enabled(&zoo_key);
}

static unsigned long probe_now(void)
{
	return READ_ONCE(planted);
}

static u32 random_state = 1;

static u32 zoo_random(void)
{
	u32 x = random_state;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return random_state = x;
}

static u64 cycles(u32 microseconds)
{
	return div_u64((u64)microseconds * tsc_khz, 1000);
}

/* Tells ICSAN which workload runs: the value is its place in the table of workloads. */
static void mark(unsigned long value)
{
	asm volatile(".byte 0x0f, 0x1f, 0x84, 0x00, 0x49, 0x43, 0x53, 0x4e" : : "a" (value));
}

/*
 * The executor of the sites. It watches the bytes of a batch that is going on, and runs a site at each moment at which that would be wrong for want of
 * one sync. It does not matter how fast it is: the writer, which is slow at times on real machines too, stands still behind a store until the executor has
 * done what it waited for. Whether the sync between was left out is not known here.
 */
enum { FIRST, SECOND, THIRD };
static unsigned int batches, armed, met[3];

enum moment { NONE, BEGUN, NEW_TAIL, FIRST_TAIL, NEW_HEAD, FIRST_HEAD };
static struct {
	unsigned int n;
	u32 old, old_first, old_last;
} watched;
static enum moment awaited;

static bool is_now(enum moment moment)
{
	unsigned int n = watched.n, last = SITES - 1;

	switch (moment) {
	case BEGUN:
		return head(0) == INT3_INSN_OPCODE && head(n) != INT3_INSN_OPCODE;
	case NEW_TAIL:
		return tail(n) != watched.old && tail(last) == watched.old_last;
	case FIRST_TAIL:
		return tail(0) != watched.old_first && tail(n) == watched.old;
	case NEW_HEAD:
		return head(n) != INT3_INSN_OPCODE && head(last) == INT3_INSN_OPCODE;
	case FIRST_HEAD:
		return head(0) != INT3_INSN_OPCODE && head(n) == INT3_INSN_OPCODE;
	default:
		return false;
	}
}

/* The writer, behind each store: text_poke() calls it. */
void zoo_poked(void);
void zoo_poked(void)
{
	enum moment moment = smp_load_acquire(&awaited);
	u64 start = rdtsc();

	if (moment == NONE || !is_now(moment))
		return;
	while (smp_load_acquire(&awaited) == moment && rdtsc() - start < cycles(1000000))
		cpu_relax();
}

/* Runs the site until the moment has come; or only waits. */
static bool await(enum moment moment, unsigned int batch, bool run)
{
	u64 start = rdtsc();

	smp_store_release(&awaited, moment);
	if (moment == BEGUN)
		smp_store_release(&armed, batch + 1);
	while (!is_now(moment)) {
		if (READ_ONCE(batches) != batch)
			return false;
		/* There may be no further batch. */
		if (moment == BEGUN && rdtsc() - start > cycles(50000)) {
			WRITE_ONCE(armed, 0);
			return false;
		}
		if (run)
			run_site(watched.n);
		cpu_relax();
	}
	return true;
}

static bool meet(unsigned int which, unsigned int batch)
{
	if (!await(BEGUN, batch, true))
		return false;
	switch (which) {
	case FIRST:
		/* The old instruction was run; then its tail is changed, and it is run again. */
		if (!await(NEW_TAIL, batch, false))
			return false;
		run_site(watched.n);
		break;
	case SECOND:
		/* The breakpoint is run, and the old tail's chunk behind it; then both are changed. */
		if (!await(FIRST_TAIL, batch, false))
			return false;
		run_site(watched.n);
		if (!await(NEW_HEAD, batch, false))
			return false;
		run_site(watched.n);
		break;
	case THIRD:
		/* The breakpoint is run after the second sync, and its chunk behind it; then all is said to be done. */
		if (!await(FIRST_TAIL, batch, false) || !await(FIRST_HEAD, batch, false))
			return false;
		run_site(watched.n);
		smp_store_release(&awaited, NONE);
		while (smp_load_acquire(&batches) == batch)
			cpu_relax();
		run_site(watched.n);
		break;
	}
	return true;
}

/* The timer has to wait, since its IRET serializes. IPIs have a higher priority. */
static u32 hold_timer(void)
{
	u32 priority = apic_read(APIC_TASKPRI);

	apic_write(APIC_TASKPRI, LOCAL_TIMER_VECTOR & 0xf0);
	return priority;
}

static void burst_of_sites(void)
{
	unsigned int i, which = zoo_random() % 3, batch = READ_ONCE(batches);
	u32 priority;

	/* A site that is split, or a whole one, whose chunk is brought in again behind its breakpoint. The first and the last site are watched. */
	watched.n = 4 + 2 * (zoo_random() % 4) + (which != THIRD);
	watched.old = tail(watched.n);
	watched.old_first = tail(0);
	watched.old_last = tail(SITES - 1);
	for (i = 0; i < SITES; i++)
		run_site(i);
	priority = hold_timer();
	if (meet(which, batch))
		met[which]++;
	smp_store_release(&awaited, NONE);
	apic_write(APIC_TASKPRI, priority);
	while (smp_load_acquire(&batches) == batch && armed == batch + 1 && !signal_pending(current))
		cond_resched();
}

/*
 * Who runs the key, or what gets a probe, stands aside while it is patched, and runs it at once when that is done: nothing but an IPI comes between. It
 * does not matter how long the writer takes. And what is copied byte by byte must not be run half-way, or the machine dies.
 */
enum { RUNNING, ASKED, ASIDE };
static int aside;
static u64 runs;
static unsigned int looked, wrong;

static void burst_of(unsigned long (*function)(void), unsigned long (*patched)(void))
{
	u32 priority = hold_timer();

	function();
	if (READ_ONCE(aside) == ASKED) {
		smp_store_release(&aside, ASIDE);
		while (smp_load_acquire(&aside) == ASIDE)
			cpu_relax();
		wrong += function() != patched();
		looked++;
	}
	apic_write(APIC_TASKPRI, priority);
	WRITE_ONCE(runs, runs + 1);
}

static ssize_t burst_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	char what[32] = "", name[16];
	u32 microseconds;
	u64 start = rdtsc(), length;

	if (len >= sizeof(what) || copy_from_user(what, text, len))
		return -EFAULT;
	if (sscanf(what, "%15s %u", name, &microseconds) != 2)
		return -EINVAL;
	length = cycles(microseconds);
	while (rdtsc() - start < length) {
		if (!strcmp(name, "sites"))
			burst_of_sites();
		else if (!strcmp(name, "key"))
			burst_of(zoo_keyed, key_now);
		else if (!strcmp(name, "probed"))
			burst_of(run_probed, probe_now);
		else
			return -EINVAL;
		cond_resched();
	}
	return len;
}

static const void *instruction(u8 *place, bool jump, unsigned int target)
{
	/* Or objtool sees an address inside of a function. */
	OPTIMIZER_HIDE_VAR(place);
	return jump ? text_gen_insn(JMP32_INSN_OPCODE, place, place + target) : x86_nops[SITE_LEN];
}

static int batch(u32 times)
{
	static bool jump;
	unsigned int i;
	u64 start;

	while (times-- && !signal_pending(current)) {
		start = rdtsc();
		while (smp_load_acquire(&armed) != batches + 1) {
			if (rdtsc() - start > cycles(2000000))
				return -ETIMEDOUT;
			cond_resched();
		}
		jump = !jump;
		mutex_lock(&text_mutex);
		for (i = 0; i < SITES; i++)
			text_poke_queue(site(i), instruction(site(i), jump, i % 2 ? SPLIT_TARGET : SITE_TARGET), SITE_LEN, NULL);
		text_poke_finish();
		smp_store_release(&batches, batches + 1);
		mutex_unlock(&text_mutex);
	}
	return 0;
}

static ssize_t met_read(struct file *file, char __user *text, size_t len, loff_t *at)
{
	char line[48];
	int length = scnprintf(line, sizeof(line), "%u %u %u\n", met[FIRST], met[SECOND], met[THIRD]);

	return simple_read_from_buffer(text, len, at, line, length);
}

static ssize_t wrong_read(struct file *file, char __user *text, size_t len, loff_t *at)
{
	char line[48];
	int length = scnprintf(line, sizeof(line), "%u %u\n", wrong + zoo_torn, looked);

	return simple_read_from_buffer(text, len, at, line, length);
}

static bool executor_comes(int wanted, u64 after)
{
	u64 start = rdtsc(), patience = cycles(2000000);

	while (smp_load_acquire(&aside) != wanted || READ_ONCE(runs) < after) {
		if (rdtsc() - start > patience)
			return false;
		cpu_relax();
		cond_resched();
	}
	return true;
}

static int stand_aside(u32 wanted)
{
	if (!wanted) {
		smp_store_release(&aside, RUNNING);
		return executor_comes(RUNNING, READ_ONCE(runs) + 3) ? 0 : -ETIMEDOUT;
	}
	if (!executor_comes(RUNNING, READ_ONCE(runs) + 3))
		return -ETIMEDOUT;
	smp_store_release(&aside, ASKED);
	return executor_comes(ASIDE, 0) ? 0 : -ETIMEDOUT;
}

static void flip_key(void)
{
	if (static_key_enabled(&zoo_key))
		static_branch_disable(&zoo_key);
	else
		static_branch_enable(&zoo_key);
}

static int key(u32 times)
{
	int error = 0;

	while (times-- && !error) {
		error = stand_aside(1);
		if (error)
			break;
		flip_key();
		error = stand_aside(0);
	}
	return error;
}

/* A jump to the next instruction does what the NOP does. */
static void flip_entry(void)
{
	static bool jump;

	jump = !jump;
	mutex_lock(&text_mutex);
	text_poke_bp(zoo_entry_site, instruction(zoo_entry_site, jump, SITE_LEN), SITE_LEN, NULL);
	mutex_unlock(&text_mutex);
}

static ssize_t flip_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	char what[8] = "";

	if (len >= sizeof(what) || copy_from_user(what, text, len))
		return -EFAULT;
	if (!strcmp(what, "key"))
		flip_key();
	else if (!strcmp(what, "entry"))
		flip_entry();
	else
		return -EINVAL;
	return len;
}

static ssize_t keyed_read(struct file *file, char __user *text, size_t len, loff_t *at)
{
	char line[4];
	int length = scnprintf(line, sizeof(line), "%lu\n", zoo_keyed());

	return simple_read_from_buffer(text, len, at, line, length);
}

/* The executor stays on its CPU, and asks in pairs. */
static int hold(u32 wanted)
{
	static u32 priority;

	if (wanted)
		priority = hold_timer();
	else
		apic_write(APIC_TASKPRI, priority);
	return 0;
}

static int plant(u32 wanted)
{
	static bool registered;
	int error;

	/* The first one allocates, and needs the other CPUs for that. */
	error = registered ? 0 : register_kprobe(&probe);
	registered |= !error;
	if (!error && wanted != planted)
		error = stand_aside(1);
	if (error || wanted == planted)
		return error;
	error = wanted ? enable_kprobe(&probe) : disable_kprobe(&probe);
	if (!error)
		WRITE_ONCE(planted, wanted);
	return stand_aside(0) ?: error;
}

static ssize_t times_write(int (*function)(u32), const char __user *text, size_t len)
{
	u32 times;
	int error = kstrtou32_from_user(text, len, 10, &times);

	if (!error)
		error = function(times);
	return error ?: len;
}

static ssize_t batch_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return times_write(batch, text, len);
}

static ssize_t key_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return times_write(key, text, len);
}

static ssize_t probe_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return times_write(plant, text, len);
}

static ssize_t hold_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return times_write(hold, text, len);
}

static const struct file_operations batch_file = { .open = simple_open, .write = batch_write };
static const struct file_operations met_file = { .open = simple_open, .read = met_read };
static const struct file_operations key_file = { .open = simple_open, .write = key_write };
static const struct file_operations probe_file = { .open = simple_open, .write = probe_write };
static const struct file_operations wrong_file = { .open = simple_open, .read = wrong_read };
static const struct file_operations burst_file = { .open = simple_open, .write = burst_write };
static const struct file_operations flip_file = { .open = simple_open, .write = flip_write };
static const struct file_operations keyed_file = { .open = simple_open, .read = keyed_read };
static const struct file_operations hold_file = { .open = simple_open, .write = hold_write };

/*
 * text_poke_early() in a loop, and a timer whose interrupt runs what was just patched. It comes at any moment, so some come while interrupts are off,
 * and are taken as soon as they are on again.
 */
static bool fired;

static enum hrtimer_restart fire(struct hrtimer *timer)
{
	zoo_early_site();
	WRITE_ONCE(fired, true);
	return HRTIMER_NORESTART;
}

static void __init early(void)
{
	struct hrtimer timer;
	bool jump = false;
	unsigned int i;

	hrtimer_init(&timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	timer.function = fire;
	for (i = 0; i < 300; i++) {
		WRITE_ONCE(fired, false);
		hrtimer_start(&timer, ns_to_ktime(20000 + zoo_random() % 100000), HRTIMER_MODE_REL_PINNED_HARD);
		while (!READ_ONCE(fired)) {
			jump = !jump;
			zoo_early_site();
			text_poke_early(zoo_early_site, instruction((u8 *)zoo_early_site, jump, SITE_TARGET), SITE_LEN);
		}
		hrtimer_cancel(&timer);
	}
}

/* An alternative for a CPU that this one is not: what is left to do is to join its NOPs. */
static void __init nops(void)
{
	static struct alt_instr alternative __initdata = {
		.cpuid = X86_FEATURE_XENPV, .instrlen = SITE_LEN, .replacementlen = SITE_LEN,
	};
	static const u8 single[SITE_LEN] __initconst = { 0x90, 0x90, 0x90, 0x90, 0x90 };
	unsigned int i;

	alternative.instr_offset = (s32)((u8 *)zoo_nops_site - (u8 *)&alternative.instr_offset);
	alternative.repl_offset = (s32)((u8 *)zoo_nops_site - (u8 *)&alternative.repl_offset);
	for (i = 0; i < 50; i++) {
		text_poke_early(zoo_nops_site, single, SITE_LEN);
		zoo_nops_site();
		apply_alternatives(&alternative, &alternative + 1);
		zoo_nops_site();
	}
}

static char wanted[32] __initdata;

static int __init zoo_setup(char *text)
{
	strscpy(wanted, text, sizeof(wanted));
	return 1;
}
__setup("icsan_zoo=", zoo_setup);

static int __init zoo_init(void)
{
	struct dentry *folder = debugfs_create_dir("icsan_zoo", NULL);

	debugfs_create_file("batch", 0200, folder, NULL, &batch_file);
	debugfs_create_file("met", 0400, folder, NULL, &met_file);
	debugfs_create_file("key", 0200, folder, NULL, &key_file);
	debugfs_create_file("probe", 0200, folder, NULL, &probe_file);
	debugfs_create_file("wrong", 0400, folder, NULL, &wrong_file);
	debugfs_create_file("burst", 0200, folder, NULL, &burst_file);
	debugfs_create_file("flip", 0200, folder, NULL, &flip_file);
	debugfs_create_file("keyed", 0400, folder, NULL, &keyed_file);
	debugfs_create_file("hold", 0200, folder, NULL, &hold_file);
	if (!wanted[0])
		return 0;
	/* The executor and the writer are the same CPU, the first one. */
	set_cpus_allowed_ptr(current, cpumask_of(0));
	if (strstr(wanted, "early")) {
		mark(0x100010001);
		early();
		mark(0);
	}
	if (strstr(wanted, "nops")) {
		mark(0x100010002);
		nops();
		mark(0);
	}
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	pr_notice("icsan_zoo: %s done\n", wanted);
	return 0;
}
late_initcall(zoo_init);
