/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Goes past every NOP with a memory operand (0f 1f) by qemu_plugin_set_pc(), as if it had carried it out. That should change nothing.
 * `mode=restore` brings the CPU's state up to date before, by functions that only a QEMU with all symbols exported has (--enable-modules).
 * `mode=read` only reads the register eflags there, and counts how often CF is set.
 * cc -O2 -shared -fPIC $(pkg-config --cflags glib-2.0) -I QEMU/include/plugins -o set-pc.so qemu-plugin-set-pc.c
 * qemu-system-x86_64 -machine q35 -accel tcg -display none -nodefaults -debugcon stdio -device isa-debug-exit,iobase=0xf4 \
 *     -drive file=boot.bin,format=raw -plugin set-pc.so
 */
#define _GNU_SOURCE
#include <qemu-plugin.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;
static int only_read, restore;
static struct qemu_plugin_register *eflags;
static unsigned long sites, carry;

static void at_nop(unsigned vcpu, void *next)
{
	(void)vcpu;
	if (only_read) {
		GByteArray *value = g_byte_array_new();
		qemu_plugin_read_register(eflags, value);
		sites++;
		carry += value->data[0] & 1;
		g_byte_array_free(value, TRUE);
	} else {
		if (restore) {
			void **current_cpu = dlsym(RTLD_DEFAULT, "current_cpu");
			bool (*restore_state)(void *, uintptr_t) = (bool (*)(void *, uintptr_t))dlsym(RTLD_DEFAULT, "cpu_restore_state");
			restore_state(*current_cpu, (uintptr_t)__builtin_return_address(0));
		}
		qemu_plugin_set_pc((uint64_t)next);
	}
}

static void translated(struct qemu_plugin_tb *tb, void *unused)
{
	(void)unused;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		unsigned char bytes[2];
		uint64_t at = qemu_plugin_insn_vaddr(insn);
		if (at < 0x7c00 || at >= 0x7e00 || qemu_plugin_insn_data(insn, bytes, 2) < 2 || bytes[0] != 0x0f || bytes[1] != 0x1f)
			continue;
		qemu_plugin_register_vcpu_insn_exec_cb(insn, at_nop, QEMU_PLUGIN_CB_RW_REGS_PC, (void *)(at + qemu_plugin_insn_size(insn)));
	}
}

static void started(unsigned vcpu, void *unused)
{
	GArray *registers = qemu_plugin_get_registers();
	(void)vcpu, (void)unused;
	for (guint i = 0; i < registers->len; i++) {
		qemu_plugin_reg_descriptor *found = &g_array_index(registers, qemu_plugin_reg_descriptor, i);
		if (!strcmp(found->name, "eflags"))
			eflags = found->handle;
	}
	g_array_free(registers, TRUE);
}

static void at_exit(void *unused)
{
	(void)unused;
	if (only_read)
		fprintf(stderr, "CF was set at %lu of %lu NOPs\n", carry, sites);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	restore = argc > 0 && !strcmp(argv[0], "mode=restore");
	only_read = argc > 0 && !strcmp(argv[0], "mode=read");
	qemu_plugin_register_vcpu_init_cb(id, started, NULL);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
