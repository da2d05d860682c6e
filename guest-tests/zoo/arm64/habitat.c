// SPDX-License-Identifier: GPL-2.0
/*
 * ICSAN's bug zoo on arm64: code to be patched, and loops that patch it and run it. Built into every arm64 kernel of
 * the zoo, as kernel/icsan_zoo.c.
 *
 * Everything here goes by the rules: what is wrong in a kernel of the zoo is its patch.
 *
 * Files in debugfs:
 *   icsan_zoo/key    N           flips the static key N times, each time while the executor stands aside
 *   icsan_zoo/word   N           the same for one instruction, by aarch64_insn_patch_text_nosync() and
 *                                kick_all_cpus_sync()
 *   icsan_zoo/copy   N           the same by aarch64_insn_copy()
 *   icsan_zoo/wrong              how often the executor met, right after a patch, something else than that; and how
 *                                often it looked, since the kernel started
 *   icsan_zoo/burst  WHAT MICROSECONDS  runs what is patched: key, word, copy
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/jump_label.h>
#include <linux/kernel.h>
#include <linux/linkage.h>
#include <linux/memory.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/timex.h>
#include <linux/uaccess.h>
#include <asm/arch_timer.h>
#include <asm/patching.h>
#include <asm/sysreg.h>

/*
 * MOVZ W0, #n is none of the instructions that may change under a running CPU. Each function has a line of the caches
 * of its own: maintenance of a neighbour must not reach it.
 */
#define MOVZ_W0(n)	(0x52800000u | (u32)(n) << 5)
#define FUNCTION(name)								\
	".balign 256\n"								\
	".globl " name "\n\t"							\
	".type " name ", @function\n"						\
	name ":\n\t"								\
	"movz w0, #0\n\t"							\
	"ret\n\t"								\
	".size " name ", . - " name "\n\t"

asm(".pushsection .text, \"ax\"\n"
	FUNCTION("zoo_word")
	FUNCTION("zoo_copied")
	".balign 256\n\t"
	".popsection");

asmlinkage unsigned long zoo_word(void);
asmlinkage unsigned long zoo_copied(void);

static DEFINE_STATIC_KEY_FALSE(zoo_key);

static noinline notrace unsigned long zoo_keyed(void)
{
	return static_branch_unlikely(&zoo_key);
}

/* What the two functions return, once they are patched. */
static unsigned long word, copied;

static unsigned long key_now(void)
{
	return static_key_enabled(&zoo_key);
}

static unsigned long word_now(void)
{
	return READ_ONCE(word);
}

static unsigned long copied_now(void)
{
	return READ_ONCE(copied);
}

static u64 cycles(u32 microseconds)
{
	return div_u64((u64)microseconds * arch_timer_get_cntfrq(), 1000000);
}

/*
 * The timer has to wait, since its exception synchronizes. IPIs are let through. Behind it comes an ISB: what was
 * fetched before is fetched again.
 */
static void hold_timer(void)
{
	write_sysreg(read_sysreg(cntv_ctl_el0) | ARCH_TIMER_CTRL_IT_MASK, cntv_ctl_el0);
	isb();
}

static void release_timer(void)
{
	write_sysreg(read_sysreg(cntv_ctl_el0) & ~(u64)ARCH_TIMER_CTRL_IT_MASK, cntv_ctl_el0);
	isb();
}

/*
 * The executor stands aside while its code is patched, and runs it at once when that is done: nothing but an IPI comes
 * between. It does not matter how long the writer takes.
 */
enum { RUNNING, ASKED, ASIDE };
static int aside;
static u64 runs;
static unsigned int looked, wrong;

static void burst_of(unsigned long (*function)(void), unsigned long (*patched)(void))
{
	hold_timer();
	function();
	if (READ_ONCE(aside) == ASKED) {
		smp_store_release(&aside, ASIDE);
		while (smp_load_acquire(&aside) == ASIDE)
			cpu_relax();
		wrong += function() != patched();
		looked++;
	}
	smp_store_release(&runs, runs + 1);
	release_timer();
}

static ssize_t burst_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	char what[32] = "", name[16];
	u32 microseconds;
	u64 start = get_cycles(), length;

	if (len >= sizeof(what) || copy_from_user(what, text, len))
		return -EFAULT;
	if (sscanf(what, "%15s %u", name, &microseconds) != 2)
		return -EINVAL;
	length = cycles(microseconds);
	while (get_cycles() - start < length) {
		if (!strcmp(name, "key"))
			burst_of(zoo_keyed, key_now);
		else if (!strcmp(name, "word"))
			burst_of(zoo_word, word_now);
		else if (!strcmp(name, "copy"))
			burst_of(zoo_copied, copied_now);
		else
			return -EINVAL;
		cond_resched();
	}
	return len;
}

/*
 * The writer waits for the executor, and stays on its CPU: a switch of tasks has a DSB, which would complete what a
 * patch has left out.
 */
static bool executor_comes(int wanted, u64 after)
{
	u64 start = get_cycles(), patience = cycles(2000000);

	while (smp_load_acquire(&aside) != wanted || smp_load_acquire(&runs) < after) {
		if (get_cycles() - start > patience)
			return false;
		cpu_relax();
	}
	return true;
}

static int stand_aside(void)
{
	if (!executor_comes(RUNNING, READ_ONCE(runs) + 3))
		return -ETIMEDOUT;
	smp_store_release(&aside, ASKED);
	return executor_comes(ASIDE, 0) ? 0 : -ETIMEDOUT;
}

static int go_on(void)
{
	u64 after = READ_ONCE(runs) + 1;

	smp_store_release(&aside, RUNNING);
	return executor_comes(RUNNING, after) ? 0 : -ETIMEDOUT;
}

static void patch_key(void)
{
	if (static_key_enabled(&zoo_key))
		static_branch_disable(&zoo_key);
	else
		static_branch_enable(&zoo_key);
}

static void patch_word(void)
{
	WRITE_ONCE(word, (word + 1) % 1000);
	mutex_lock(&text_mutex);
	aarch64_insn_patch_text_nosync(zoo_word, MOVZ_W0(word));
	kick_all_cpus_sync();
	mutex_unlock(&text_mutex);
}

static void patch_copied(void)
{
	u32 instruction;

	WRITE_ONCE(copied, (copied + 1) % 1000);
	instruction = MOVZ_W0(copied);
	mutex_lock(&text_mutex);
	aarch64_insn_copy(zoo_copied, &instruction, sizeof(instruction));
	mutex_unlock(&text_mutex);
}

static ssize_t patches(void (*patch)(void), const char __user *text, size_t len)
{
	u32 times;
	int error = kstrtou32_from_user(text, len, 10, &times);

	while (!error && times--) {
		error = stand_aside();
		if (error)
			break;
		patch();
		error = go_on();
	}
	return error ?: len;
}

static ssize_t key_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return patches(patch_key, text, len);
}

static ssize_t word_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return patches(patch_word, text, len);
}

static ssize_t copy_write(struct file *file, const char __user *text, size_t len, loff_t *at)
{
	return patches(patch_copied, text, len);
}

static ssize_t wrong_read(struct file *file, char __user *text, size_t len, loff_t *at)
{
	char line[48];
	int length = scnprintf(line, sizeof(line), "%u %u\n", wrong, looked);

	return simple_read_from_buffer(text, len, at, line, length);
}

static const struct file_operations key_file = { .open = simple_open, .write = key_write };
static const struct file_operations word_file = { .open = simple_open, .write = word_write };
static const struct file_operations copy_file = { .open = simple_open, .write = copy_write };
static const struct file_operations wrong_file = { .open = simple_open, .read = wrong_read };
static const struct file_operations burst_file = { .open = simple_open, .write = burst_write };

static int __init zoo_init(void)
{
	struct dentry *folder = debugfs_create_dir("icsan_zoo", NULL);

	debugfs_create_file("key", 0200, folder, NULL, &key_file);
	debugfs_create_file("word", 0200, folder, NULL, &word_file);
	debugfs_create_file("copy", 0200, folder, NULL, &copy_file);
	debugfs_create_file("wrong", 0400, folder, NULL, &wrong_file);
	debugfs_create_file("burst", 0200, folder, NULL, &burst_file);
	return 0;
}
late_initcall(zoo_init);
