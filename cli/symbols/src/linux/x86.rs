//! Which of Linux's x86 functions finish a change of code when they return.
//!
//! The last step of those that commit ([`super::protocol`]) makes every CPU serialize: `text_poke_sync()`, since 6.16
//! `smp_text_poke_sync_each_cpu()`, an IPI to all, waited for.
//!
//! Read for this: Debian's sources of 6.1.192, 6.12.117 and 7.3.4. [`ProtocolFunction::first`] and `last` are the
//! oldest and the newest of these three that have the function, except that 6.15 and 6.16 are exact (the renaming of
//! "Simplify, reorganize and clean up the x86 text-patching code"). Whether a kernel has it as a symbol is for its
//! symbol table to say: static functions may be inlined.
//!
//! # What to know when hooking them
//! - They sleep (`cond_resched()` before the first byte, mutexes): enter and leave by task, not by vCPU.
//! - Many end in a jump to another one (`smp_text_poke_single` to `smp_text_poke_batch_finish`,
//!   `arch_ftrace_update_code` to `ftrace_modify_all_code`): the return to the caller's address is the return,
//!   whichever RET executes it.
//! - They nest. An outer one ([`Effect::CommitsThrough`]) says nothing new where the inner one is a symbol.
//! - While the kernel boots (`SYSTEM_BOOTING`, one CPU) `arch_jump_label_transform` and `arch_static_call_transform`
//!   store with `text_poke_early()`. Their return commits that as well: there is no other CPU, and this one has
//!   serialized.
//! - A `NAME.cold` is a part of the function, neither its entry nor its return.

use super::kaslr::{KaslrRange, OtherValues, PlaceEvidence};
use super::kernel::{ElfKind, LinuxKernel};
use super::protocol::{
    Effect, IntendedSync, MembarrierSync, PokeFunction, PokeValue, Protocol, ProtocolFunction, SyncPlace, SyncedCpus,
    Version,
};
use super::x86_entries::{ENTRIES, OTHER_CALLS};
use crate::btf::KernelLayout;
use crate::symbolizer::Symbolizer;
use crate::table::KERNEL_HALF;

/// Linux on x86-64.
pub static LINUX: LinuxKernel = LinuxKernel {
    arch: "x86_64",
    // EM_X86_64. Where it is relocated, the values are in their places (arch/x86/tools/relocs.c).
    elf: ElfKind { machine: 62, relative: None, head: 0 },
    // `__START_KERNEL_map`.
    image_from: 0xffff_ffff_8000_0000,
    anchors: &["startup_64", "entry_SYSCALL_64"],
    kaslr: KASLR,
    evidence: EVIDENCE,
    current_task: Some(current_task_offset),
    entries: ENTRIES,
    other_calls: OTHER_CALLS,
    protocol: Protocol {
        functions: FUNCTIONS,
        steps: STEPS,
        pokes: POKES,
        switches_space: SWITCHES_SPACE,
        text_poke_syncs: TEXT_POKE_SYNCS,
        membarrier_syncs: MEMBARRIER_SYNCS,
        maintenance: &[],
    },
};

/// With `CONFIG_PHYSICAL_ALIGN=0x200000`, the default, and `CONFIG_RANDOMIZE_BASE`'s 1 GiB (`KERNEL_IMAGE_SIZE`).
pub const KASLR: KaslrRange = KaslrRange { alignment: 2 << 20, limit: 1 << 30 };

/// The MSRs that hold addresses of the kernel's entries (SDM vol. 4: IA32_LSTAR, IA32_CSTAR, IA32_SYSENTER_EIP), and
/// Linux's names for what may be there. LSTAR alone proves nothing: its target is 0x80 behind a whole 2 MiB in every
/// Debian kernel, and so it fits the symbols of any of them.
const EVIDENCE: &[PlaceEvidence] = &[
    PlaceEvidence {
        register: 0xc000_0082,
        symbols: &["entry_SYSCALL_64"],
        decides: true,
        writers: &[],
        others: OtherValues::Contradict,
    },
    PlaceEvidence {
        register: 0xc000_0083,
        symbols: &["entry_SYSCALL_compat", "entry_SYSCALL32_ignore", "ignore_sysret"],
        decides: false,
        writers: &[],
        others: OtherValues::Contradict,
    },
    PlaceEvidence {
        register: 0x176,
        symbols: &["entry_SYSENTER_compat"],
        decides: false,
        writers: &[],
        others: OtherValues::Contradict,
    },
];

/// What to add (with [`u64::wrapping_add`]) to the GS base that a vCPU has in the kernel to find the pointer to its
/// running `task_struct`: the per-CPU variable `current_task`, or in 6.2 to 6.14 a member of `pcpu_hot`. Since 6.15
/// per-CPU variables are linked, and moved by KASLR, like others, so the offset must be known.
#[must_use]
pub fn current_task_offset(symbols: &Symbolizer) -> Option<u64> {
    let table = symbols.kernel_table()?;
    let inside =
        |layout: &KernelLayout| Some(table.address_of("pcpu_hot")?.wrapping_add(layout.pcpu_hot_current_task?.into()));
    let link = table.layout().and_then(inside).or_else(|| table.address_of("current_task"))?;
    if link < KERNEL_HALF { Some(link) } else { Some(link.wrapping_add(symbols.offset()?)) }
}

/// The oldest version that was read.
pub const OLDEST: Version = (6, 1);
/// The newest version that was read.
pub const NEWEST: Version = (7, 3);

/// What text poking means to happen on every online CPU, the one that patches included, before it goes on.
const TEXT_POKE_SYNCS: &[IntendedSync] = &[IntendedSync {
    function: "do_sync_core",
    events: &["iret-to-self", "serialize", "cpuid"],
    place: SyncPlace::Inside,
    cpus: SyncedCpus::All,
    source: "alternative.c: text_poke_sync(), smp_text_poke_sync_each_cpu(): on_each_cpu(do_sync_core, NULL, 1); \
             arch/x86/include/asm/sync_core.h: SERIALIZE, or IRET to itself (CPUID before 9998a9832c40 of 2020)",
}];

/// All of them, as 6.1, 6.12 and 7.3 have them.
const MEMBARRIER_SYNCS: &[MembarrierSync] = &[
    MembarrierSync {
        what: "iret-to-self, serialize or cpuid in sync_core()",
        source: "kernel/sched/membarrier.c: ipi_sync_core() on every CPU that runs the process, the caller's included; \
                 kernel/sched/core.c, finish_task_switch(): membarrier_mm_sync_core_before_usermode(), after a kernel \
                 thread; \
                 arch/x86/include/asm/sync_core.h, sync_core_before_usermode(): sync_core(), unless page tables are \
                 isolated",
    },
    MembarrierSync {
        what: "with page-table isolation the CR3 write of the return to user mode",
        source: "arch/x86/include/asm/sync_core.h, sync_core_before_usermode(): with it nothing else is done; \
                 arch/x86/entry/calling.h, SWITCH_TO_USER_CR3",
    },
    MembarrierSync {
        what: "on another CPU than the caller's the CR3 write of a switch to the process",
        source: "kernel/sched/membarrier.c, membarrier_private_expedited(): CPUs that run another process are left \
            out; \
                 arch/x86/mm/tlb.c, switch_mm_irqs_off(): load_new_mm_cr3()",
    },
];

/// These, the better one first: the second one calls (or jumps to) the first, and is inlined in some callers.
const POKES: &[PokeFunction] = &[
    PokeFunction {
        name: "__text_poke",
        address: 1,
        value: PokeValue::Pointer,
        source: "alternative.c: __text_poke(text_poke_f func, void *addr, const void *src, size_t len)",
    },
    PokeFunction {
        name: "text_poke",
        address: 0,
        value: PokeValue::Pointer,
        source: "alternative.c: text_poke(void *addr, const void *opcode, size_t len)",
    },
];

/// Functions that change code in steps, each followed by a serialization of every CPU. Which step a store belongs to
/// is in the arguments of [`POKES`]: one byte INT3, more than one byte (the tail), one byte that is not INT3.
const STEPS: &[&str] = &[
    "text_poke_bp_batch",
    "smp_text_poke_batch_finish",
    "arch_unoptimize_kprobe",
    "int3_update_optimize",
    "int3_update_unoptimize",
];

/// The function that stores through an address space of its own (alternative.c): it writes CR3 before its store and
/// after it, and its CPU serializes by that.
const SWITCHES_SPACE: &str = "__text_poke";

const fn row(
    name: &'static str,
    first: Version,
    last: Version,
    effect: Effect,
    source: &'static str,
) -> ProtocolFunction {
    ProtocolFunction { name, first, last, effect, source }
}

/// The last version before the renaming.
const OLD: Version = (6, 15);
/// The first version after it.
const NEW: Version = (6, 16);

use Effect::{Commits, CommitsThrough, Queues, StoresOnly, SyncsOnly};

#[rustfmt::skip]
const FUNCTIONS: &[ProtocolFunction] = &[
    // The INT3 protocol itself. Bytes that end as INT3 are not synced in the third step but were in the first.
    row("text_poke_bp_batch", OLDEST, OLD, Commits, "alternative.c: INT3, sync, tail, sync, first byte, sync; then waits for INT3 handlers"),
    row("smp_text_poke_batch_finish", NEW, NEWEST, Commits, "alternative.c: text_poke_bp_batch() of before, on the one queue; returns at once if that is empty"),
    row("text_poke_bp", OLDEST, OLD, CommitsThrough, "alternative.c: text_poke_bp_batch() of one site"),
    row("smp_text_poke_single", NEW, NEWEST, CommitsThrough, "alternative.c: smp_text_poke_batch_add(), then jumps to smp_text_poke_batch_finish()"),
    row("text_poke_finish", OLDEST, OLD, CommitsThrough, "alternative.c: text_poke_flush(NULL), which is text_poke_bp_batch() of the queue"),
    row("text_poke_flush", OLDEST, OLD, CommitsThrough, "alternative.c: text_poke_bp_batch() if the queue is full, out of order or to be emptied"),

    // Kprobes: protocols of their own.
    row("arch_arm_kprobe", OLDEST, NEWEST, Commits, "kprobes/core.c: text_poke() of INT3, sync (without the sync before 5c02ece81848 of 2019: a bug, not another meaning)"),
    row("arch_disarm_kprobe", OLDEST, NEWEST, Commits, "kprobes/core.c: text_poke() of the first byte, sync (as above)"),
    row("arch_unoptimize_kprobe", OLDEST, NEWEST, Commits, "kprobes/opt.c: INT3 over JMP32, sync, the four bytes behind it, sync; the INT3 stays"),
    row("arch_unoptimize_kprobes", OLDEST, NEWEST, CommitsThrough, "kprobes/opt.c: arch_unoptimize_kprobe() of each"),
    row("arch_optimize_kprobes", OLDEST, NEWEST, CommitsThrough, "kprobes/opt.c: text_poke_bp() or smp_text_poke_single() of each"),

    // Jump labels and static calls.
    row("arch_jump_label_transform", OLDEST, NEWEST, CommitsThrough, "jump_label.c: text_poke_bp() or smp_text_poke_single(); text_poke_early() while booting"),
    row("arch_jump_label_transform_apply", OLDEST, NEWEST, CommitsThrough, "jump_label.c: text_poke_finish() or smp_text_poke_batch_finish()"),
    row("arch_static_call_transform", OLDEST, NEWEST, CommitsThrough, "static_call.c: text_poke_bp() or smp_text_poke_single(); text_poke_early() while booting"),

    // Ftrace.
    row("ftrace_replace_code", OLDEST, NEWEST, CommitsThrough, "ftrace.c: queues each site, then text_poke_finish() or smp_text_poke_batch_finish()"),
    row("ftrace_update_ftrace_func", OLDEST, NEWEST, CommitsThrough, "ftrace.c: text_poke_bp() or smp_text_poke_single(), twice"),
    row("ftrace_enable_ftrace_graph_caller", OLDEST, NEWEST, CommitsThrough, "ftrace.c: ftrace_mod_jmp(), which is text_poke_bp() or smp_text_poke_single()"),
    row("ftrace_disable_ftrace_graph_caller", OLDEST, NEWEST, CommitsThrough, "ftrace.c: as above"),
    row("ftrace_modify_all_code", OLDEST, NEWEST, CommitsThrough, "kernel/trace/ftrace.c: the four above, as the command says"),
    row("arch_ftrace_update_code", OLDEST, NEWEST, CommitsThrough, "ftrace.c: jumps to ftrace_modify_all_code()"),
    row("ftrace_arch_code_modify_post_process", OLDEST, NEWEST, CommitsThrough, "ftrace.c: finishes the queue of ftrace_make_call() and ftrace_make_nop()"),

    // BPF.
    row("__bpf_arch_text_poke", OLDEST, NEWEST, CommitsThrough, "arch/x86/net/bpf_jit_comp.c: text_poke_bp() or smp_text_poke_single(), or stores nothing (-EBUSY)"),
    row("bpf_arch_text_poke", OLDEST, NEWEST, CommitsThrough, "arch/x86/net/bpf_jit_comp.c: __bpf_arch_text_poke()"),
    row("bpf_arch_poke_desc_update", OLDEST, NEWEST, CommitsThrough, "arch/x86/net/bpf_jit_comp.c: __bpf_arch_text_poke(), twice"),

    // Others that sync by themselves.
    row("clear_relocate_add", (6, 12), NEWEST, Commits, "module.c: livepatch takes relocations of a live module back: text_poke() of each, one sync"),
    row("arch_uprobe_optimize", (7, 3), NEWEST, Commits, "uprobes.c: user code, int3_update_optimize(): tail, sync, first byte, sync; syncs in its error path too"),
    row("int3_update_optimize", (7, 3), NEWEST, Commits, "uprobes.c: as above, where it is not inlined"),
    row("int3_update_unoptimize", (7, 3), NEWEST, Commits, "uprobes.c: INT3, sync, tail, sync, first byte, sync, where it is not inlined into set_orig_insn()"),

    // Those that must not commit.
    row("text_poke_queue", OLDEST, OLD, Queues, "alternative.c: adds to tp_vec"),
    row("smp_text_poke_batch_add", NEW, NEWEST, Queues, "alternative.c: adds to text_poke_array"),
    row("arch_jump_label_transform_queue", OLDEST, NEWEST, Queues, "jump_label.c: queues (while booting: arch_jump_label_transform())"),
    row("ftrace_make_call", OLDEST, NEWEST, Queues, "ftrace.c: ftrace_modify_code_direct() queues, or text_poke_early() before ftrace_poke_late"),
    row("ftrace_make_nop", OLDEST, NEWEST, Queues, "ftrace.c: as above"),
    row("text_poke_sync", OLDEST, OLD, SyncsOnly, "alternative.c: between the steps of every protocol"),
    row("smp_text_poke_sync_each_cpu", NEW, NEWEST, SyncsOnly, "alternative.c: as text_poke_sync()"),
    row("text_poke", OLDEST, NEWEST, StoresOnly, "alternative.c: one step; this CPU serializes by its CR3 writes, the others later"),
    row("__text_poke", OLDEST, NEWEST, StoresOnly, "alternative.c: as text_poke()"),
    row("text_poke_kgdb", OLDEST, NEWEST, StoresOnly, "alternative.c: the others are stopped by kgdb and have not serialized yet"),
    row("text_poke_copy", OLDEST, NEWEST, StoresOnly, "alternative.c: \"into an unused part\", \"not safe against concurrent execution\": the caller waits for RCU and publishes"),
    row("text_poke_copy_locked", (6, 12), NEWEST, StoresOnly, "alternative.c: as text_poke_copy()"),
    row("text_poke_set", OLDEST, NEWEST, StoresOnly, "alternative.c: as text_poke_copy(), with one byte"),
    row("bpf_arch_text_copy", OLDEST, NEWEST, StoresOnly, "arch/x86/net/bpf_jit_comp.c: text_poke_copy()"),
    row("bpf_arch_text_invalidate", OLDEST, NEWEST, StoresOnly, "arch/x86/net/bpf_jit_comp.c: text_poke_set(INT3)"),
    row("text_poke_early", OLDEST, NEWEST, StoresOnly, "alternative.c: sync_core() on this CPU only, for module text none at all: no other CPU can be there yet"),
    row("__static_call_update_early", OLDEST, NEWEST, StoresOnly, "static_call.c: sync_core() on this CPU, while booting only"),
    row("__static_call_fixup", OLDEST, NEWEST, StoresOnly, "static_call.c: text_poke_early(), out of apply_returns()"),
    row("apply_alternatives", OLDEST, NEWEST, StoresOnly, "alternative.c: text_poke_early(), at boot and in modules that load"),
    row("apply_retpolines", OLDEST, NEWEST, StoresOnly, "alternative.c: as above"),
    row("apply_returns", OLDEST, NEWEST, StoresOnly, "alternative.c: as above"),
    row("apply_relocate_add", OLDEST, NEWEST, StoresOnly, "module.c: memcpy() into a module that loads; only for a live module (livepatch) text_poke() and a sync at the end"),
    row("arch_ftrace_update_trampoline", OLDEST, NEWEST, StoresOnly, "ftrace.c: writes a new trampoline; only a change of an old one is text_poke_bp() or smp_text_poke_single()"),
    row("set_swbp", OLDEST, NEWEST, StoresOnly, "kernel/events/uprobes.c: uprobe_write_opcode(): one byte of user code, or a new page, without a sync"),
    row("set_orig_insn", OLDEST, NEWEST, StoresOnly, "kernel/events/uprobes.c, 7.3 uprobes.c: as set_swbp(); only an optimized probe goes through int3_update_unoptimize()"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SymbolTable;

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
        // Every version has the protocol exactly once, under its old or its new name.
        for version in [OLDEST, (6, 12), OLD, NEW, NEWEST] {
            let has = |name: &str| FUNCTIONS.iter().any(|f| f.name == name && (f.first..=f.last).contains(&version));
            for (old, new) in [
                ("text_poke_bp", "smp_text_poke_single"),
                ("text_poke_finish", "smp_text_poke_batch_finish"),
                ("text_poke_queue", "smp_text_poke_batch_add"),
                ("text_poke_sync", "smp_text_poke_sync_each_cpu"),
            ] {
                assert!(has(old) != has(new), "{version:?}: {old} {new}");
            }
        }
    }

    #[test]
    fn functions_with_steps_are_in_the_table_and_commit() {
        for name in STEPS {
            assert!(
                LINUX
                    .protocol
                    .committing()
                    .any(|function| function.name == *name && LINUX.protocol.has_steps(function)),
                "{name}"
            );
        }
        for poke in POKES {
            assert!(
                FUNCTIONS.iter().any(|function| function.name == poke.name && function.effect == StoresOnly),
                "{poke:?}"
            );
        }
    }

    #[test]
    fn what_queues_or_only_stores_does_not_commit() {
        let names: Vec<&str> = LINUX.protocol.committing().map(|f| f.name).collect();
        for name in [
            "text_poke_bp",
            "smp_text_poke_single",
            "arch_disarm_kprobe",
            "arch_static_call_transform",
            "bpf_arch_text_poke",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        for name in [
            "text_poke_queue",
            "smp_text_poke_batch_add",
            "text_poke",
            "text_poke_sync",
            "text_poke_copy",
            "text_poke_early",
            "apply_alternatives",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_running_task_is_found_from_gs() {
        let from = |list: &str| {
            let symbols = Symbolizer::new(vec![SymbolTable::parse(list.as_bytes()).unwrap()], KASLR);
            let before = current_task_offset(&symbols);
            symbols.learn_offset("_text", 0xffff_ffff_8100_0000 + (2 << 20)).unwrap();
            (before, current_task_offset(&symbols))
        };
        let old = "000000000001fb80 A current_task\nffffffff81000000 T _text\n";
        assert_eq!(from(old), (Some(0x1fb80), Some(0x1fb80)));
        let new = "ffffffff81000000 T _text\nffffffff83cdc018 D current_task\n";
        assert_eq!(from(new), (None, Some(0xffff_ffff_83cd_c018 + (2 << 20))));
        assert_eq!(from("ffffffff81000000 T _text\n"), (None, None));
    }
}
