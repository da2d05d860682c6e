// A witness that shares nothing with ICSAN: what does a vCPU execute between two runs of different versions of one piece of code?
//
// The code is process/migrate's: at a user address, four NOPs or more, then `mov eax, imm32` with four equal bytes (the version). Every block that the
// vCPU enters from one run to the next is noted, and looked through for serializing instructions, by opcode. Blocks count as a whole, so the witness
// errs towards "something serialized". QEMU 10.x (its headers): -plugin migrate-witness.so,out=FILE
//
// gcc -O2 -shared -fPIC -I FOLDER-OF-qemu-plugin.h $(pkg-config --cflags glib-2.0) migrate-witness.c -o migrate-witness.so
#include <qemu-plugin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { CPUS = 64, BLOCKS = 40000, PATHS = 3 };
typedef struct { uint64_t va; int version; char what[64]; } Block;                          // version: -1 if it is not the code
typedef struct { Block *block[BLOCKS]; int n, lost, version; uint64_t at; } Window;
static Window windows[CPUS];
static FILE *out;
static int paths = PATHS;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *serializing(const uint8_t *b, size_t n)
{
    size_t i = 0;
    while (i < n && memchr("\x66\xf2\xf3\x2e\x36\x3e\x26\x64\x65\xf0", b[i], 10)) i++;
    if (i < n && (b[i] & 0xf0) == 0x40) i++;
    if (i < n && b[i] == 0xcf) return "iret";
    if (i + 1 >= n || b[i] != 0x0f) return NULL;
    int modrm = i + 2 < n ? b[i + 2] : 0, reg = modrm >> 3 & 7, memory = modrm >> 6 != 3;
    switch (b[i + 1]) {
    case 0x00: return reg == 2 ? "lldt" : reg == 3 ? "ltr" : NULL;
    case 0x01: return modrm == 0xe8 ? "serialize" : !memory ? NULL : reg == 2 ? "lgdt" : reg == 3 ? "lidt" : reg == 7 ? "invlpg" : NULL;
    case 0x08: return "invd";
    case 0x09: return "wbinvd";
    case 0x22: return "mov cr";
    case 0x23: return "mov dr";
    case 0x30: return "wrmsr";
    case 0x38: return modrm >= 0x80 && modrm <= 0x82 ? "invpcid" : NULL;
    case 0xa2: return "cpuid";
    case 0xaa: return "rsm";
    }
    return NULL;
}

static void say(unsigned cpu, Window *w, Block *now)
{
    const char *what = NULL;
    for (int i = 0; i < w->n && !what; i++) if (*w->block[i]->what) what = w->block[i]->what;
    pthread_mutex_lock(&lock);
    fprintf(out, "vCPU %u ran version %#x, then %#x: %d blocks between, %s\n", cpu, w->version, now->version, w->n + w->lost, what ? what : "NOTHING SERIALIZES");
    if (!what && paths-- > 0) {
        fprintf(out, "  path:");
        for (int i = 0; i < w->n; i++) fprintf(out, " %#lx", (unsigned long)w->block[i]->va);
        fprintf(out, "\n");
    }
    fflush(out);
    pthread_mutex_unlock(&lock);
}

static void execute(unsigned cpu, void *data)
{
    Block *b = data;
    Window *w = &windows[cpu];
    if (b->version >= 0) {
        if (w->at == b->va && w->version != b->version && b->version) say(cpu, w, b);       // version 0: a new page
        w->at = b->va, w->version = b->version, w->n = w->lost = 0;
    }
    if (!w->at) return;
    if (w->n == BLOCKS) {                                                                    // what serializes is never lost
        w->lost++;
        if (*b->what) w->block[BLOCKS - 1] = b;
    } else {
        w->block[w->n++] = b;
    }
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    Block *block = calloc(1, sizeof *block);
    int nops = 0;
    block->va = qemu_plugin_tb_vaddr(tb), block->version = -1;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        uint8_t b[16] = {0};
        size_t n = qemu_plugin_insn_data(instruction, b, sizeof b);
        const char *what = serializing(b, n);
        if (what && !*block->what) snprintf(block->what, sizeof block->what, "%s at %#lx", what, (unsigned long)qemu_plugin_insn_vaddr(instruction));
        if (block->va >> 47 == 0) {
            if (nops >= 4 && n == 5 && b[0] == 0xb8 && b[1] == b[2] && b[2] == b[3] && b[3] == b[4]) block->version = b[1];
            nops = n == 1 && b[0] == 0x90 ? nops + 1 : 0;
        }
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, execute, QEMU_PLUGIN_CB_NO_REGS, block);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    out = fopen(argc && strchr(argv[0], '=') ? strchr(argv[0], '=') + 1 : "witness.txt", "w");
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return !out;
}
