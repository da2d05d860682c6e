//! Which of Linux's arm64 functions finish a change of code when they return, and what makes them good.
//!
//! arm64 stores a word through the fixmap, cleans and invalidates it (`caches_clean_inval_pou()`), and that is all for
//! instructions that may change under a running CPU: B, BL, NOP, BRK. What must not be executed any more needs a
//! context synchronization event of every CPU as well. There are two ways to it:
//! - **an empty interrupt** (`kick_all_cpus_sync()`): it is its entry and its return that count;
//! - **`stop_machine()`**: one CPU patches while all others wait, and then execute ISB.
//!
//! Read for this: Debian's sources of 6.1.192, 6.12.117 and 7.3.4. [`ProtocolFunction::first`] and `last` are the
//! oldest and the newest of these three that have the function.
//!
//! # What to know when hooking them
//! - Under `stop_machine()` the stores are made by another task than the one that waits for them: the stopper of
//!   whichever CPU comes last ([`Effect::StoresFor`]).
//! - Jump labels store one by one in [`Effect::Queues`], and the function that makes the CPUs synchronize comes later.
//! - A CPU that has run the empty interrupt's function returns from the interrupt only later, and may have entered it
//!   for another reason, before the store: see [`SyncPlace::Around`].
//! - Ftrace synchronizes nobody: it changes NOP to BL and back, and the task that frees what was called waits for RCU.
//! - A `NAME.cold` is a part of the function, neither its entry nor its return.

use super::aarch64_entries::{ENTRIES, OTHER_CALLS};
use super::kaslr::{KaslrRange, OtherValues, PlaceEvidence};
use super::kernel::{ElfKind, LinuxKernel};
use super::protocol::{
    Effect, IntendedSync, MaintenanceFunction, MembarrierSync, PokeFunction, PokeValue, Protocol, ProtocolFunction,
    SyncPlace, SyncedCpus, Version,
};

/// Linux on AArch64.
pub static LINUX: LinuxKernel = LinuxKernel {
    arch: "aarch64",
    // EM_AARCH64 and R_AARCH64_RELATIVE. The kernel is linked with `--no-apply-dynamic-relocs` (arch/arm64/Makefile).
    // What begins the image fills 64 KiB (`SEGMENT_ALIGN`, kernel/vmlinux.lds.S).
    elf: ElfKind { machine: 183, relative: Some(1027), head: 64 << 10 },
    // `_PAGE_END(VA_BITS_MIN)` with 48 bits, the most that `VA_BITS_MIN` can be: arch/arm64/include/asm/memory.h.
    image_from: 0xffff_8000_0000_0000,
    anchors: &["vectors", "__primary_switched"],
    kaslr: KASLR,
    evidence: EVIDENCE,
    // SP_EL0 has it, while the kernel runs.
    current_task: None,
    entries: ENTRIES,
    other_calls: OTHER_CALLS,
    protocol: Protocol {
        functions: FUNCTIONS,
        steps: &[],
        pokes: POKES,
        switches_space: "",
        text_poke_syncs: TEXT_POKE_SYNCS,
        membarrier_syncs: MEMBARRIER_SYNCS,
        maintenance: MAINTENANCE,
    },
};

/// arch/arm64/kernel/pi/kaslr_early.c: from a quarter to three quarters of the 2^47 bytes above the lowest place, in
/// steps of 2 MiB (`MIN_KIMG_ALIGN`); pi/map_kernel.c (6.1: head.S) adds the image's physical place within 2 MiB, which
/// is a multiple of 64 KiB if EFI chose it (`EFI_KIMG_ALIGN`), and otherwise none.
pub const KASLR: KaslrRange = KaslrRange { alignment: 64 << 10, limit: 3 << 45 };

/// VBAR_EL1. Registers go by the word of the instruction that sets them, `MSR VBAR_EL1, X0`.
pub const VBAR_EL1: u64 = 0xd518_c000;

/// `__primary_switched` (head.S) sets VBAR_EL1 to `vectors`, its final place, and so does each CPU that is brought up.
/// Later the kernel sets it to tables outside of its image (the trampolines of `kpti`, in the fixmap), and to others
/// that mitigate branch predictors (proton-pack.c): these say nothing of its place. Firmware has tables of its own.
const EVIDENCE: &[PlaceEvidence] = &[PlaceEvidence {
    register: VBAR_EL1,
    symbols: &["vectors"],
    decides: true,
    // The table of one kernel fits the symbols of any other one: it is 0x10800 behind the start of Debian's.
    writers: &["__primary_switched", "__secondary_switched"],
    others: OtherValues::SayNothing { within: &["__bp_harden_el1_vectors"] },
}];

/// The oldest version that was read.
pub const OLDEST: Version = (6, 1);
/// The newest version that was read.
pub const NEWEST: Version = (7, 3);

/// What text patching means to happen on the online CPUs.
const TEXT_POKE_SYNCS: &[IntendedSync] = &[
    IntendedSync {
        function: "caches_clean_inval_pou",
        events: &["isb"],
        place: SyncPlace::Inside,
        cpus: SyncedCpus::Patcher,
        source: "arch/arm64/mm/cache.S: caches_clean_inval_pou_macro ends in ISB, with CTR_EL0.DIC and without \
                 (asm/assembler.h: invalidate_icache_by_line)",
    },
    IntendedSync {
        function: "do_nothing",
        events: &["exception-entry", "exception-return"],
        place: SyncPlace::Around,
        cpus: SyncedCpus::Others,
        source: "kernel/smp.c: kick_all_cpus_sync(): smp_call_function(do_nothing, NULL, 1); \
                 arch/arm64/include/asm/cacheflush.h, flush_icache_range(): the interrupt is the context \
                 synchronization event",
    },
    IntendedSync {
        function: "aarch64_insn_patch_text_cb",
        events: &["isb"],
        place: SyncPlace::Inside,
        cpus: SyncedCpus::Others,
        source: "patching.c: aarch64_insn_patch_text_cb(): all CPUs but the one that patches wait for it, then isb()",
    },
    IntendedSync {
        function: "__apply_alternatives_multi_stop",
        events: &["isb"],
        place: SyncPlace::Inside,
        cpus: SyncedCpus::All,
        source: "alternative.c: __apply_alternatives_multi_stop(): all CPUs but CPU 0 wait for it, then isb(); \
                 __apply_alternatives() may be inlined",
    },
    IntendedSync {
        function: "__apply_alternatives",
        events: &["isb"],
        place: SyncPlace::Inside,
        cpus: SyncedCpus::Patcher,
        source: "alternative.c: __apply_alternatives(): isb() behind the invalidation, for the kernel's own text",
    },
];

/// As 6.1, 6.12 and 7.3 have them: `ARCH_HAS_MEMBARRIER_SYNC_CORE` without `ARCH_HAS_SYNC_CORE_BEFORE_USERMODE`.
const MEMBARRIER_SYNCS: &[MembarrierSync] = &[
    MembarrierSync {
        what: "the exception return of membarrier's interrupt",
        source: "kernel/sched/membarrier.c: ipi_mb() on every CPU that runs the process; \
                 Documentation/features/sched/membarrier-sync-core/arch-support.txt: arm64 relies on ERET",
    },
    MembarrierSync {
        what: "the exception return to user mode, on the caller's CPU and after a switch to the process",
        source: "arch/arm64/kernel/entry.S, kernel_exit: every way to user mode is ERET; \
                 kernel/sched/membarrier.c, membarrier_private_expedited(): CPUs that run another process are left out",
    },
];

/// What stores one instruction. The other ones that do so call it.
const POKES: &[PokeFunction] = &[PokeFunction {
    name: "aarch64_insn_patch_text_nosync",
    address: 0,
    value: PokeValue::Argument,
    source: "patching.c: aarch64_insn_patch_text_nosync(void *addr, u32 insn)",
}];

/// What cleans and invalidates. Each waits for its own maintenance (DSB), and synchronizes at most its own CPU.
const MAINTENANCE: &[MaintenanceFunction] = &[
    MaintenanceFunction {
        name: "caches_clean_inval_pou",
        source: "arch/arm64/mm/cache.S: DC CVAU of each line, DSB ISH, IC IVAU of each line, DSB ISH, ISB",
    },
    MaintenanceFunction {
        name: "caches_clean_inval_user_pou",
        source: "arch/arm64/mm/cache.S: as caches_clean_inval_pou(), for 32-bit programs' cacheflush system call",
    },
    MaintenanceFunction {
        name: "icache_inval_pou",
        source: "arch/arm64/mm/cache.S: IC IVAU of each line, DSB ISH, ISB; for what was cleaned before",
    },
    MaintenanceFunction { name: "dcache_clean_pou", source: "arch/arm64/mm/cache.S: DC CVAU of each line, DSB ISH" },
    MaintenanceFunction {
        name: "sync_icache_aliases",
        source: "arch/arm64/mm/flush.c: for pages of programs, without an interrupt: caches_clean_inval_pou(), or \
                 dcache_clean_pou() and IC IALLUIS where the instruction cache goes by virtual addresses",
    },
];

const fn row(
    name: &'static str,
    first: Version,
    last: Version,
    effect: Effect,
    source: &'static str,
) -> ProtocolFunction {
    ProtocolFunction { name, first, last, effect, source }
}

use Effect::{Commits, CommitsThrough, Queues, StoresFor, StoresOnly, SyncsOnly};

/// The first version of the three that has what came after 6.1.
const NEW: Version = (6, 12);

#[rustfmt::skip]
const FUNCTIONS: &[ProtocolFunction] = &[
    // Under stop_machine().
    row("aarch64_insn_patch_text", OLDEST, NEWEST, Commits, "patching.c: stop_machine(): one CPU stores all, the others wait, then isb()"),
    row("arch_arm_kprobe", OLDEST, NEWEST, CommitsThrough, "probes/kprobes.c: aarch64_insn_patch_text() of one BRK"),
    row("arch_disarm_kprobe", OLDEST, NEWEST, CommitsThrough, "probes/kprobes.c: aarch64_insn_patch_text() of the instruction"),

    row("apply_alternatives_all", OLDEST, NEWEST, Commits, "alternative.c: while booting: stop_machine(): CPU 0 stores all, the others wait, then isb()"),

    // By an empty interrupt.
    row("arch_jump_label_transform_apply", OLDEST, NEWEST, Commits, "jump_label.c: kick_all_cpus_sync(), for what arch_jump_label_transform_queue() stored (before cfb00a357864 of 2024 there was none: a bug, not another meaning)"),
    row("aarch64_insn_copy", NEW, NEWEST, Commits, "patching.c: __text_poke(): stores, then flush_icache_range()"),
    row("aarch64_insn_set", NEW, NEWEST, Commits, "patching.c: as aarch64_insn_copy()"),
    row("bpf_arch_text_copy", OLDEST, NEWEST, CommitsThrough, "arch/arm64/net/bpf_jit_comp.c: aarch64_insn_copy() (6.1: kernel/bpf/core.c: only an error)"),
    row("bpf_arch_text_invalidate", OLDEST, NEWEST, CommitsThrough, "arch/arm64/net/bpf_jit_comp.c: aarch64_insn_set() of BRK (6.1: kernel/bpf/core.c: only an error)"),
    // Those that must not commit.
    row("arch_jump_label_transform_queue", OLDEST, NEWEST, Queues, "jump_label.c: aarch64_insn_patch_text_nosync(); arch_jump_label_transform_apply() does the rest"),
    row("aarch64_insn_patch_text_cb", OLDEST, NEWEST, StoresFor("aarch64_insn_patch_text"), "patching.c: the last CPU to come stores, as the task that stops it"),
    row("__apply_alternatives_multi_stop", OLDEST, NEWEST, StoresFor("apply_alternatives_all"), "alternative.c: CPU 0 stores, as the task that stops it"),
    row("kick_all_cpus_sync", OLDEST, NEWEST, SyncsOnly, "kernel/smp.c: smp_call_function(do_nothing, NULL, 1): the others enter an interrupt and return from it"),
    row("aarch64_insn_patch_text_nosync", OLDEST, NEWEST, StoresOnly, "patching.c: aarch64_insn_write() and caches_clean_inval_pou(): nobody else synchronizes"),
    row("aarch64_insn_write", OLDEST, NEWEST, StoresOnly, "patching.c: no maintenance either"),
    row("aarch64_insn_write_literal_u64", NEW, NEWEST, StoresOnly, "patching.c: data between functions, which is loaded and never executed"),
    row("bpf_arch_text_poke", OLDEST, NEWEST, StoresOnly, "arch/arm64/net/bpf_jit_comp.c: aarch64_insn_patch_text_nosync(): \"another CPU executes the old instruction\" for a while, and RCU waits for it"),
    row("ftrace_make_call", OLDEST, NEWEST, StoresOnly, "ftrace.c: ftrace_modify_code(), which is aarch64_insn_patch_text_nosync()"),
    row("ftrace_make_nop", OLDEST, NEWEST, StoresOnly, "ftrace.c: as ftrace_make_call()"),
    row("ftrace_update_ftrace_func", OLDEST, NEWEST, StoresOnly, "ftrace.c: as ftrace_make_call(); with DYNAMIC_FTRACE_WITH_CALL_OPS nothing"),
    row("ftrace_modify_all_code", OLDEST, NEWEST, StoresOnly, "kernel/trace/ftrace.c: the three above, as the command says; it interrupts the others only before it changes which function is called"),
    row("ftrace_modify_call", OLDEST, NEWEST, StoresOnly, "ftrace.c: as ftrace_make_call(): another BL"),
    row("ftrace_init_nop", OLDEST, NEWEST, StoresOnly, "ftrace.c: as ftrace_make_call(): NOP to MOV X9, LR, while booting and in modules that load"),
    row("bpf_int_jit_compile", OLDEST, NEWEST, StoresOnly, "arch/arm64/net/bpf_jit_comp.c: stores to a buffer, which may lie where code was before, and bpf_arch_text_copy() commits the copy (6.1: it stores in place, then flush_icache_range())"),
    row("arch_prepare_bpf_trampoline", OLDEST, NEWEST, StoresOnly, "arch/arm64/net/bpf_jit_comp.c: 6.1 writes in place without maintenance; since then bpf_arch_text_copy()"),
    row("arch_prepare_kprobe", OLDEST, NEWEST, StoresOnly, "probes/kprobes.c: arch_prepare_ss_slot(): aarch64_insn_patch_text_nosync() of a slot that is executed after the BRK's exception only"),
    row("apply_boot_alternatives", OLDEST, NEWEST, StoresOnly, "alternative.c: __apply_alternatives(), before any other CPU runs"),
    row("__apply_alternatives", OLDEST, NEWEST, StoresOnly, "alternative.c: stores, DC CIVAC of each line, IC IALLUIS, isb() of this CPU"),
    row("apply_alternatives_module", OLDEST, NEWEST, StoresOnly, "alternative.c: plain stores to a module that loads; load_module() flushes all of it"),
    row("apply_relocate_add", OLDEST, NEWEST, StoresOnly, "module.c: plain stores to a module that loads (7.3: for a live one aarch64_insn_copy() of each)"),
    row("arch_uprobe_copy_ixol", OLDEST, NEWEST, StoresOnly, "probes/uprobes.c: user code that is executed after the BRK's exception only; sync_icache_aliases()"),
    row("set_swbp", OLDEST, NEWEST, StoresOnly, "kernel/events/uprobes.c: uprobe_write_opcode(): BRK in user code, or a new page, without a sync"),
    row("set_orig_insn", OLDEST, NEWEST, StoresOnly, "kernel/events/uprobes.c: as set_swbp()"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_make_sense() {
        for (index, function) in FUNCTIONS.iter().enumerate() {
            assert!(FUNCTIONS[..index].iter().all(|other| other.name != function.name), "{} twice", function.name);
            assert!(
                function.first <= function.last && function.first >= OLDEST && function.last <= NEWEST,
                "{function:?}"
            );
            assert!(function.source.contains(".c: "), "{function:?}");
        }
    }

    #[test]
    fn who_stores_for_another_function_names_one_that_commits() {
        let mut found = 0;
        for function in FUNCTIONS {
            let StoresFor(waits) = function.effect else { continue };
            found += 1;
            assert!(LINUX.protocol.committing().any(|row| row.name == waits && row.effect == Commits), "{function:?}");
        }
        assert_eq!(found, 2);
    }

    #[test]
    fn what_stores_and_leaves_the_rest_to_others_does_not_commit() {
        let names: Vec<&str> = LINUX.protocol.committing().map(|f| f.name).collect();
        for name in ["aarch64_insn_patch_text", "arch_disarm_kprobe", "arch_jump_label_transform_apply"] {
            assert!(names.contains(&name), "{name}");
        }
        for name in [
            "aarch64_insn_patch_text_nosync",
            "aarch64_insn_patch_text_cb",
            "arch_jump_label_transform_queue",
            "ftrace_make_call",
            "kick_all_cpus_sync",
            "bpf_arch_text_poke",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        for poke in POKES {
            assert!(
                FUNCTIONS.iter().any(|function| function.name == poke.name && function.effect == StoresOnly),
                "{poke:?}"
            );
        }
    }

    #[test]
    fn registers_go_by_the_instruction_that_sets_them() {
        // op0, op1, CRn, CRm and op2 are bits 20 to 5; S3_0_C12_C0_0.
        assert_eq!(VBAR_EL1 >> 5 & 0xffff, 3 << 14 | 12 << 7);
        assert!(LINUX.evidence_of(VBAR_EL1).is_some_and(|evidence| evidence.decides && !evidence.writers.is_empty()));
        assert_eq!(LINUX.evidence_of(0xd518_4100), None);
    }
}
