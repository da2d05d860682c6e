/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * After each store, compares what qemu_plugin_mem_get_value() says with what memory holds. For a guest with one thread that stores, as qemu-plugin-store-values.S.
 * cc -O2 -shared -fPIC $(pkg-config --cflags glib-2.0) -I QEMU/include/qemu -o store-values.so qemu-plugin-store-values.c
 * qemu-system-x86_64 -accel tcg,thread=multi -smp 2 ... -plugin store-values.so,from=0x7c00,to=0x7e00
 */
#include <qemu-plugin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;
static uint64_t from, to = UINT64_MAX;

static uint64_t low(qemu_plugin_mem_value value)
{
	switch (value.type) {
	case QEMU_PLUGIN_MEM_VALUE_U8: return value.data.u8;
	case QEMU_PLUGIN_MEM_VALUE_U16: return value.data.u16;
	case QEMU_PLUGIN_MEM_VALUE_U32: return value.data.u32;
	case QEMU_PLUGIN_MEM_VALUE_U64: return value.data.u64;
	default: return value.data.u128.low;
	}
}

static void stored(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *text)
{
	unsigned length = 1u << qemu_plugin_mem_size_shift(info);
	uint64_t told = low(qemu_plugin_mem_get_value(info)), held = 0;
	GByteArray *memory = g_byte_array_new();

	if (length <= 8 && qemu_plugin_read_memory_vaddr(address, memory, length)) {
		memcpy(&held, memory->data, length);
		fprintf(stderr, "%-40s told %#14lx, memory holds %#14lx%s\n", (char *)text, told, held, told == held ? "" : "   <-- untrue");
	}
	g_byte_array_free(memory, 1);
	(void)vcpu;
}

#if QEMU_PLUGIN_VERSION < 7
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
#else
static void translated(struct qemu_plugin_tb *tb, void *id)
#endif
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t pc = qemu_plugin_insn_vaddr(insn);

		if (pc >= from && pc < to)
			qemu_plugin_register_vcpu_mem_cb(insn, stored, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W, qemu_plugin_insn_disas(insn));
	}
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "from=", 5))
			from = strtoull(argv[i] + 5, NULL, 0);
		if (!strncmp(argv[i], "to=", 3))
			to = strtoull(argv[i] + 3, NULL, 0);
	}
#if QEMU_PLUGIN_VERSION < 7
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
#else
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated, NULL);
#endif
	return 0;
}
