/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Counts executed blocks for each vCPU: by a callback (`callback`), or in place (`inline`).
 * cc -O2 -shared -fPIC $(pkg-config --cflags glib-2.0) -I QEMU/include/qemu -o vcpu-index.so qemu-plugin-vcpu-index.c
 * qemu-system-x86_64 -accel tcg,thread=single -smp 2 ... -plugin vcpu-index.so,mode=inline
 */
#include <qemu-plugin.h>
#include <stdio.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;
static qemu_plugin_u64 counter;
static int in_place;
static unsigned long called[8];

static void executed(unsigned vcpu, void *unused) { called[vcpu & 7]++; (void)unused; }

#if QEMU_PLUGIN_VERSION < 7
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
#else
static void translated(struct qemu_plugin_tb *tb, void *id)
#endif
{
	(void)id;
	if (in_place)
		qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, counter, 1);
	else
		qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, QEMU_PLUGIN_CB_NO_REGS, NULL);
}

#if QEMU_PLUGIN_VERSION < 7
static void at_exit(qemu_plugin_id_t id, void *unused)
#else
static void at_exit(void *unused)
#endif
{
	(void)unused;
#if QEMU_PLUGIN_VERSION < 7
	(void)id;
#endif
	for (int vcpu = 0; vcpu < qemu_plugin_num_vcpus(); vcpu++)
		fprintf(stderr, "COUNT vCPU %d: %lu\n", vcpu, in_place ? (unsigned long)qemu_plugin_u64_get(counter, vcpu) : called[vcpu & 7]);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	in_place = argc > 0 && !strcmp(argv[0], "mode=inline");
	counter = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
#if QEMU_PLUGIN_VERSION < 7
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
#else
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
#endif
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
