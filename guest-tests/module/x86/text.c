// SPDX-License-Identifier: GPL-2.0
/* x86-64: the sites, the kernel's own functions that change text, and INT3 of this module's own. */
#include <linux/kdebug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/vmalloc.h>
#include <asm/sync_core.h>

#include "machine.h"

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
 * In the IPIs of text poking and of membarrier(SYNC_CORE), where they are called through a pointer. (What sends the IPIs is inlined.)
 */
struct icsan_breakable icsan_breakable[] = { { "do_sync_core" }, { "ipi_sync_core" } };
const unsigned int icsan_breakable_count = ARRAY_SIZE(icsan_breakable);

static unsigned long expected_int3;	/* the address of an INT3 of our own */
static u32 expected_value;		/* what the code then returns */
static unsigned long trapped;

u32 icsan_value(int version)
{
	return version ? 0x02020202U : 0x01010101U;
}

/* Direct calls, so that there is no thunk between. */
u32 icsan_call(struct icsan_site *site)
{
	if (site == &icsan_quad)
		return icsan_target_quad(0);
	if (site == &icsan_chunk)
		return icsan_target_chunk(0);
	return icsan_target_jump(0);
}

void icsan_sync(void)
{
	sync_core();
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

void icsan_restore(struct icsan_site *site)
{
	icsan_poke(site->text, site->version[0], ICSAN_LENGTH);
	WRITE_ONCE(expected_int3, 0);
}

/* One byte, which every CPU may execute before or after; then each serializes. */
static void put_byte(void *text, u8 byte)
{
	icsan_poke(text, &byte, 1);
	icsan_sync_all();
}

u32 icsan_cut(void *text)
{
	static const u8 ret = 0xc3;
	u8 began = *(u8 *)text;

	put_byte(text, ret);
	return began;
}

void icsan_mend(void *text, u32 began)
{
	put_byte(text, began);
}

void icsan_expect_int3(struct icsan_site *site, int version)
{
	WRITE_ONCE(expected_value, icsan_value(version));
	WRITE_ONCE(trapped, 0);
	smp_store_release(&expected_int3, (unsigned long)site->text);
}

/*
 * Waits until the executor met the INT3, but not for long: with its interrupts off it may run the old instruction for as long as it likes, and
 * does so where old instructions are executed on purpose.
 */
void icsan_await_int3(void)
{
	ICSAN_AWAIT_FOR(INT3_PATIENCE, READ_ONCE(trapped) > 0);
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
int icsan_text_open(void)
{
	int error = writable ? 0 : kernel_set_memory_rw((unsigned long)direct_map, 1);

	writable = !error;
	return error;
}

static int __init find_functions(unsigned long (*lookup)(const char *name))
{
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

int __init icsan_text_init(unsigned long (*lookup)(const char *name))
{
	return find_functions(lookup) ?: map_sites() ?: register_die_notifier(&die_notifier);
}

void icsan_text_exit(void)
{
	unregister_die_notifier(&die_notifier);
	if (writable)
		kernel_set_memory_ro((unsigned long)direct_map, 1);
}
