// SPDX-License-Identifier: GPL-2.0
/* AArch64: the sites, and the kernel's own functions that change text. */
#include <linux/cpu.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include <asm/barrier.h>

#include "machine.h"

#define RET 0xd65f03c0
#define NOP 0xd503201f
#define MOVZ_W0(value) (0x52800000 | (value) << 5)
#define BRANCH(words) (0x14000000 | (words))

/* MOVZ may not be changed under a running CPU. */
struct icsan_site icsan_move = { .text = icsan_site_move, .version = { MOVZ_W0(1), MOVZ_W0(2) } };

/* NOP and B may. */
struct icsan_site icsan_branch = { .text = icsan_site_branch, .version = { NOP, BRANCH(2) } };

struct icsan_site icsan_key;

static DEFINE_STATIC_KEY_FALSE(key);

/* Found by name at run time. */
static int (*kernel_insn_write)(void *text, u32 word);
static int (*kernel_patch_nosync)(void *text, u32 word);
static int (*kernel_patch_text)(void *texts[], u32 words[], int count);

/* The empty interrupt by which the kernel has all CPUs synchronize. */
#define KICK 0
struct icsan_breakable icsan_breakable[] = { [KICK] = { "kick_all_cpus_sync" } };
const unsigned int icsan_breakable_count = ARRAY_SIZE(icsan_breakable);

/* NOP, or B to the other return: the kernel's own jump label. */
static noinline u32 icsan_target_key(void)
{
	if (static_branch_unlikely(&key))
		return 2;
	return 1;
}

u32 icsan_value(int version)
{
	return version ? 2 : 1;
}

u32 icsan_call(struct icsan_site *site)
{
	if (site == &icsan_move)
		return icsan_target_move();
	if (site == &icsan_branch)
		return icsan_target_branch();
	return icsan_target_key();
}

void icsan_sync(void)
{
	isb();
}

void icsan_write(u32 *text, u32 word)
{
	kernel_insn_write(text, word);
}

void icsan_patch_nosync(u32 *text, u32 word)
{
	kernel_patch_nosync(text, word);
}

void icsan_patch_stopped(u32 *text, u32 word)
{
	void *texts[] = { text };

	cpus_read_lock();
	kernel_patch_text(texts, &word, 1);
	cpus_read_unlock();
}

void icsan_flip_key(int version)
{
	if (version)
		static_branch_enable(&key);
	else
		static_branch_disable(&key);
}

void icsan_restore(struct icsan_site *site)
{
	if (site == &icsan_key)
		icsan_flip_key(0);
	else
		icsan_patch_nosync(site->text, site->version[0]);
}

/* One word; then each CPU synchronizes. Those that call the function meanwhile may execute either. */
static void put_word(void *text, u32 word)
{
	icsan_patch_nosync(text, word);
	icsan_sync_all();
}

u32 icsan_cut(void *text)
{
	u32 began = *(u32 *)text;

	put_word(text, RET);
	return began;
}

void icsan_mend(void *text, u32 began)
{
	put_word(text, began);
}

static u32 kick_began;

void icsan_cut_kick(void)
{
	kick_began = icsan_cut(icsan_breakable[KICK].text);
}

void icsan_mend_kick(void)
{
	icsan_mend(icsan_breakable[KICK].text, kick_began);
}

/* The page of the sites once more, writable. */
static void *alias;

static int __init map_sites(void)
{
	struct page *page = vmalloc_to_page(icsan_site_move);

	if (!page || page != vmalloc_to_page(icsan_site_branch))
		return -EFAULT;
	alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	if (!alias)
		return -ENOMEM;
	icsan_move.alias = alias + offset_in_page(icsan_site_move);
	icsan_branch.alias = alias + offset_in_page(icsan_site_branch);
	return 0;
}

int __init icsan_text_init(unsigned long (*lookup)(const char *name))
{
	kernel_insn_write = (void *)lookup("aarch64_insn_write");
	kernel_patch_nosync = (void *)lookup("aarch64_insn_patch_text_nosync");
	kernel_patch_text = (void *)lookup("aarch64_insn_patch_text");
	if (!kernel_insn_write || !kernel_patch_nosync || !kernel_patch_text || !icsan_breakable[KICK].text)
		return -ENOENT;
	return map_sites();
}

void icsan_text_exit(void)
{
	vunmap(alias);
}

/* The alias is writable already. */
int icsan_text_open(void)
{
	return 0;
}
