/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What QEMU's own mechanisms cost, with nothing in them: no callback here does anything, and the conditional one never comes.
 *   mode=0  a translation callback            mode=1  and a conditional callback at each block
 *   mode=2  and a callback on each store      mode=3  both
 * cc -O2 -shared -fPIC $(pkg-config --cflags glib-2.0) -I QEMU/include/plugins -o costs.so qemu-plugin-costs.c
 * time qemu-system-x86_64 ... -plugin costs.so,mode=3
 */
#include <qemu-plugin.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;
#define SLOTS (1u << 18)
static struct qemu_plugin_scoreboard *slots;
static unsigned mode, next;

static void at_block(unsigned vcpu, void *nothing)
{
	(void)vcpu, (void)nothing;
}

static void at_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t linear, void *nothing)
{
	(void)vcpu, (void)info, (void)linear, (void)nothing;
}

static void translate(struct qemu_plugin_tb *block)
{
	if (mode & 1) {
		qemu_plugin_u64 slot = { slots, next++ % SLOTS * sizeof(uint64_t) };
		qemu_plugin_register_vcpu_tb_exec_cond_cb(block, at_block, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_COND_EQ, slot, 5, NULL);
	}
	for (size_t i = 0; mode & 2 && i < qemu_plugin_tb_n_insns(block); i++)
		qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(block, i), at_store, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W, NULL);
}

#if QEMU_PLUGIN_VERSION >= 7
static void on_translation(struct qemu_plugin_tb *block, void *nothing)
{
	(void)nothing;
	translate(block);
}
#else
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	(void)id;
	translate(block);
}
#endif

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "mode=", 5))
			mode = atoi(argv[i] + 5);
	slots = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
#if QEMU_PLUGIN_VERSION >= 7
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation, NULL);
#else
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
#endif
	return 0;
}
