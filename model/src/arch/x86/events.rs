//! The event table of x86-64: what serializes the instruction stream, and what is commonly mistaken for it.
//!
//! One row an event, with each vendor's word and how sure we are of it. The rows are written once, in the macro call
//! below; the ids ([`IRET`], [`MOV_CR3`], …) and the table come out of the same call, so they cannot drift apart. The
//! order of the rows is no contract: recordings and reports use names.
//!
//! Where a vendor's texts contradict each other, the row says what an older text that was read says against what is
//! only remembered, and counts the event as *not* serializing: that errs towards reporting too much, and `with=EVENT`
//! on the command line puts it back, while an event that is counted by mistake hides hazards in silence. The note of
//! the row says so.
//!
//! Sources. Intel: SDM vol. 3A, "Serializing Instructions" (cited by title: its number has been 7.4, 8.3, 9.3, 10.3 and
//! 11.3), whose two lists are complete, so that absence from them is a `No`. AMD: APM vol. 1 (24592), the 2003 and 2009
//! editions; APM vol. 3 (24594) rev. 3.10 of February 2005, the instruction pages. No current APM could be opened: the
//! cells that rest on sandpile.org's "coherency" table are `Secondary`.

use crate::arch::sync_event::{Claim, Sure, SyncEvent, SyncEventId, Word, event_table};

/// How a plugin gets to know that an event happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// From the instruction alone: [`crate::arch::x86::classify::classify`] names it.
    Instruction,
    /// From the instruction and values at run time: [`crate::arch::x86::resolve`] names it.
    Resolved,
    /// As `Instruction`, but so frequent that watching it costs the guest dearly. No built-in profile counts one.
    Hot,
    /// No instruction; a callback of the emulator tells.
    Callback,
    /// No instruction, and the emulator tells nobody: a profile that counts it counts in vain.
    Never,
}

const LIST: &str = "SDM vol. 3A, \"Serializing Instructions\"";
const LOCKED_ATOMIC: &str = "SDM vol. 3A, \"Locked Atomic Operations\"";
const APM1: &str = "APM vol. 1 (2003, 2009), chapter 3";
const SANDPILE: &str = "sandpile.org, \"coherency\"";
const MEMORY: &str = "from memory";
const NONE: &str = "no statement found";
const RESET_SOURCE: &str = "our inference: nothing is prefetched at reset";

event_table! {
    // Instructions that Intel lists, not privileged.
    CPUID, "cpuid", Instruction, "`0F A2`",
        [Yes Confirmed LIST], [Yes Confirmed APM1],
        "Always exits in a VM. TCG does not end a block after it.";
    IRET, "iret", Resolved, "`CF`, with `66` 16-bit, with REX.W 64-bit; any that is not `iret-to-self`",
        [Yes Confirmed "SDM vol. 3A, \"Serializing Instructions\"; vol. 2A, IRET"], [Yes Confirmed APM1],
        "The return from every interrupt, until a processor makes it cheaper: FRED's `eretu` and `erets` do not serialize.";
    IRET_TO_SELF, "iret-to-self", Resolved, "`CF` to the next instruction at the same CPL",
        [Yes Confirmed "SDM vol. 3A, \"Serializing Instructions\"; vol. 2A, IRET"], [Yes Confirmed APM1],
        "Linux's `sync_core()` where SERIALIZE is missing; still legal with CR4.FRED=1. A row of its own so that a profile can keep it.";
    RSM, "rsm", Instruction, "`0F AA`",
        [Yes Confirmed LIST], [Yes Secondary SANDPILE],
        "Only in system-management mode.";
    SERIALIZE, "serialize", Instruction, "NP `0F 01 E8`",
        [Yes Confirmed "SDM vol. 3A, \"Serializing Instructions\"; vol. 2B, SERIALIZE"], [Unstated Inferred NONE],
        "#UD without CPUID.(7,0):EDX[14], so always under TCG. With `amd-apm` and `serialize=emulate` add `with=serialize`.";

    // Control and debug registers.
    MOV_CR0, "mov-cr0", Instruction, "`0F 22 /0`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), MOV(CRn)"],
        "The mod field is ignored.";
    MOV_CR2, "mov-cr2", Instruction, "`0F 22 /2`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), MOV(CRn)"],
        "Named in a comment of Linux's `sync_core()` as an alternative to IRET; Xen's choice in its memcpy rework.";
    MOV_CR3, "mov-cr3", Resolved, "`0F 22 /3`; any that is neither `mov-cr3-noflush` nor `mov-cr3-pti`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), MOV(CRn)"],
        "The way into an address space; `text_poke()` and membarrier's scheduler path lean on it.";
    MOV_CR3_NOFLUSH, "mov-cr3-noflush", Resolved, "`0F 22 /3`, new value with bit 63 (PCID)",
        [Yes Inferred "SDM vol. 3A, \"Serializing Instructions\": names no exception"], [Yes Memory "APM vol. 2, from memory"],
        "Only the TLB effect differs. TCG has no PCID.";
    MOV_CR3_PTI, "mov-cr3-pti", Resolved, "`0F 22 /3`, new value differs in bit 12 and in no bit but 11, 12, 63",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), MOV(CRn)"],
        "Linux's page-table isolation at kernel entry and exit, recognised by the value: to the hardware it is any CR3 write. See `resolve::mov_cr3` for what is mistaken for it.";
    MOV_CR4, "mov-cr4", Instruction, "`0F 22 /4`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), MOV(CRn)"],
        "";
    MOV_CR8, "mov-cr8", Instruction, "REX.R `0F 22 /0`; AMD also `F0 0F 22 /0`",
        [No Confirmed "SDM vol. 3A, \"Serializing Instructions\", footnote; vol. 2B, MOV to control registers"], [No Memory "APM vol. 2, from memory"],
        "Conflict at AMD: the MOV(CRn) page of 2005 calls the instruction serializing and makes no exception for CR8. Not counted, to err towards reporting.";
    MOV_FROM_CR, "mov-from-cr", Instruction, "`0F 20 /r`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "The MOV(CRn) page of the APM covers both directions and does not say which one serializes; the MOV(DRn) page names writes only.";
    LMSW, "lmsw", Instruction, "`0F 01 /6`",
        [No Confirmed LIST], [No Secondary SANDPILE],
        "Writes CR0, but is not named.";
    CLTS, "clts", Instruction, "`0F 06`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "Writes CR0, but is not named.";
    MOV_DR, "mov-dr", Instruction, "`0F 23 /r`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), MOV(DRn)"],
        "Writes only.";

    // Model-specific registers.
    WRMSR, "wrmsr", Resolved, "`0F 30`, ECX not of `wrmsr-nonserializing`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), WRMSR"],
        "FS_BASE, GS_BASE and KERNEL_GS_BASE are not among Intel's exceptions, so they serialize.";
    WRMSR_NONSERIALIZING, "wrmsr-nonserializing", Resolved, "`0F 30`, ECX in the table below",
        [No Confirmed "SDM vol. 3A, \"Serializing Instructions\", footnote (~2024)"], [Unstated Memory NONE],
        "Intel's exceptions, most of them made afterwards. AMD's WRMSR page of 2005 names none, but these registers are younger. x2APIC sends its IPIs this way.";
    WRMSRNS, "wrmsrns", Instruction, "NP `0F 01 C6`; VEX.F3.MAP7 `F6 /0 id`",
        [No Confirmed "SDM vol. 2D, WRMSRNS"], [Unstated Memory NONE],
        "May serialize all the same. Not in TCG.";
    WRMSRLIST, "wrmsrlist", Instruction, "`F3 0F 01 C6`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "Not in TCG.";
    WRFSBASE, "wrfsbase", Instruction, "`F3 0F AE /2`, register",
        [No Confirmed LIST], [Unstated Memory NONE],
        "Not an MSR write in this respect.";
    WRGSBASE, "wrgsbase", Instruction, "`F3 0F AE /3`, register",
        [No Confirmed LIST], [Unstated Memory NONE],
        "Not an MSR write in this respect.";
    SWAPGS, "swapgs", Instruction, "`0F 01 F8`",
        [No Confirmed LIST], [No Secondary "Linux, comments on the SWAPGS mitigation: once in the APM, not so"],
        "sandpile.org's older table has it as serializing, from that earlier APM.";
    WRPKRU, "wrpkru", Instruction, "NP `0F 01 EF`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "";
    XSETBV, "xsetbv", Instruction, "NP `0F 01 D1`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "";

    // Caches and translations.
    INVD, "invd", Instruction, "`0F 08`",
        [Yes Confirmed LIST], [Yes Secondary SANDPILE],
        "TCG decodes it as a NOP.";
    WBINVD, "wbinvd", Instruction, "`0F 09` without F3",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), WBINVD"],
        "TCG decodes it as a NOP.";
    WBNOINVD, "wbnoinvd", Instruction, "`F3 0F 09`",
        [No Confirmed LIST], [Yes Secondary SANDPILE],
        "sandpile.org gives one word for all vendors here, and Intel's list lacks it. A CPU without it ignores the prefix and runs WBINVD.";
    INVLPG, "invlpg", Instruction, "`0F 01 /7`, memory",
        [Yes Confirmed LIST], [Yes Secondary SANDPILE],
        "";
    INVPCID, "invpcid", Instruction, "`66 0F 38 82 /r`",
        [No Confirmed LIST], [Yes Secondary SANDPILE],
        "Commonly mistaken for serializing because INVLPG is. Not in TCG.";
    INVEPT, "invept", Instruction, "`66 0F 38 80 /r`",
        [Yes Confirmed LIST], [Unstated Inferred "no such instruction"],
        "Not in TCG.";
    INVVPID, "invvpid", Instruction, "`66 0F 38 81 /r`",
        [Yes Confirmed LIST], [Unstated Inferred "no such instruction"],
        "Not in TCG.";
    INVLPGA, "invlpga", Instruction, "`0F 01 DF`",
        [Unstated Inferred "no such instruction"], [Yes Secondary SANDPILE],
        "SVM.";
    INVLPGB, "invlpgb", Instruction, "NP `0F 01 FE`",
        [Unstated Inferred "no such instruction"], [No Secondary SANDPILE],
        "Flushes other CPUs' TLBs with no IPI, so with no IRET there either.";
    TLBSYNC, "tlbsync", Instruction, "NP `0F 01 FF`",
        [Unstated Inferred "no such instruction"], [Yes Secondary SANDPILE],
        "If so, then the CPU that waits, not those whose TLBs were flushed.";
    LGDT, "lgdt", Instruction, "`0F 01 /2`, memory",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), LGDT"],
        "";
    LIDT, "lidt", Instruction, "`0F 01 /3`, memory",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), LIDT"],
        "TCG does not end a block after it.";
    LLDT, "lldt", Instruction, "`0F 00 /2`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), LLDT"],
        "";
    LTR, "ltr", Instruction, "`0F 00 /3`",
        [Yes Confirmed LIST], [Yes Confirmed "APM vol. 3 (rev. 3.10, 2005), LTR"],
        "";

    // Memory ordering and I/O.
    LFENCE, "lfence", Instruction, "NP `0F AE E8` to `EF`",
        [No Confirmed "SDM vol. 2A, LFENCE; vol. 3A, \"Serializing Instructions\""], [No Secondary SANDPILE],
        "Later instructions may be fetched before it completes. AMD's dispatch-serializing mode orders execution, not fetching.";
    MFENCE, "mfence", Instruction, "NP `0F AE F0` to `F7`",
        [No Confirmed "SDM vol. 2B, MFENCE"], [No Confirmed APM1],
        "Conflict at AMD: volume 1 lets instructions that access no memory pass it; sandpile.org has AMD listing it as serializing, newer APMs vol. 2 too, as we remember. Not counted, to err towards reporting; `with=mfence` counts it.";
    SFENCE, "sfence", Instruction, "NP `0F AE F8` to `FF`",
        [No Confirmed LIST], [No Secondary SANDPILE],
        "";
    LOCK_PREFIXED, "lock-prefixed", Hot, "`F0` and a read-modify-write; `86`, `87` with memory",
        [No Confirmed LOCKED_ATOMIC], [No Memory MEMORY],
        "Not the sanctioned way to make stored bytes fetchable, although the CPUs of the time did.";
    IN_OUT, "in-out", Hot, "`E4` to `E7`, `EC` to `EF`, `6C` to `6F`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "An instruction fetch may pass I/O.";

    // System calls and returns.
    SYSCALL, "syscall", Instruction, "`0F 05`",
        [No Memory "SDM vol. 2B, SYSCALL, from memory"], [No Memory MEMORY],
        "";
    SYSENTER, "sysenter", Instruction, "`0F 34`",
        [No Memory "SDM vol. 2B, SYSENTER, from memory"], [No Memory MEMORY],
        "";
    SYSRET, "sysret", Instruction, "`0F 07`",
        [No Confirmed "SDM vol. 2B, SYSRET"], [No Memory MEMORY],
        "Later instructions may be fetched before it completes: why membarrier's SYNC_CORE exists.";
    SYSEXIT, "sysexit", Instruction, "`0F 35`",
        [No Memory "SDM vol. 2B, SYSEXIT, from memory"], [No Memory MEMORY],
        "";
    ERETU, "eretu", Instruction, "`F3 0F 01 CA`",
        [No Confirmed "SDM vol. 2A, ERETU (edition 091)"], [Unstated Memory NONE],
        "FRED's return to user mode: followers may be fetched early, not executed. TCG has no FRED and runs these bytes as CLAC.";
    ERETS, "erets", Instruction, "`F2 0F 01 CA`",
        [No Confirmed "SDM vol. 2A, ERETS (edition 091)"], [Unstated Memory NONE],
        "FRED's return within supervisor mode. TCG runs these bytes as CLAC.";
    UIRET, "uiret", Instruction, "`F3 0F 01 EC`",
        [Unstated Memory NONE], [Unstated Inferred NONE],
        "Return from a user interrupt.";

    // Entries.
    INT, "int", Instruction, "`CC`, `CD ib`, `F1`, `CE`",
        [No Confirmed LIST], [No Memory MEMORY],
        "INT3, INT n, INT1, INTO.";
    INTERRUPT_DELIVERY, "interrupt-delivery", Callback, "no instruction",
        [No Confirmed LIST], [No Memory MEMORY],
        "Interrupt, NMI, exception, FRED event. sandpile.org takes it for serializing by nature, undocumented; Linux's developers left it open.";
    SMI, "smi", Never, "no instruction",
        [No Confirmed LIST], [Unstated Inferred NONE],
        "Entry into system-management mode; the way out is `rsm`.";
    RESET, "reset", Callback, "no instruction",
        [Yes Inferred RESET_SOURCE], [Yes Inferred RESET_SOURCE],
        "RESET, INIT and start-up IPI. The model empties the buffers of a vCPU that is reset whatever the profile says.";
    RESTORED, "restored", Callback, "no instruction",
        [Yes Inferred "our inference: a state that comes from a file has no buffers"], [Yes Inferred "our inference: a state that comes from a file has no buffers"],
        "`loadvm`. As `reset`, of all vCPUs at once; memory becomes another one, too, by no store.";

    // Branches.
    FAR_BRANCH, "far-branch", Instruction, "`9A`, `EA`, `FF /3`, `FF /5` memory; `CA`, `CB`",
        [No Confirmed LIST], [No Memory MEMORY],
        "";
    NEAR_BRANCH, "near-branch", Hot, "`70` to `7F`, `C2`, `C3`, `E0` to `E3`, `E8`, `E9`, `EB`, `FF /2`, `FF /4`, `0F 80` to `8F`",
        [No Confirmed LIST], [No Memory MEMORY],
        "A taken branch makes a CPU's own store through the same linear address visible (\"option 1\" of \"Handling Self- and Cross-Modifying Code\"): that is the model's `own_store_at_branch`, not this row.";

    // Waiting.
    HLT, "hlt", Instruction, "`F4`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "";
    MWAIT, "mwait", Instruction, "NP `0F 01 C9`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "MWAITX, UMWAIT and TPAUSE are not classified: no statement on them was looked up.";
    MONITOR, "monitor", Instruction, "NP `0F 01 C8`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "MONITORX and UMONITOR are not classified.";
    PAUSE, "pause", Hot, "`F3 90`",
        [No Confirmed LIST], [Unstated Memory NONE],
        "";

    // Virtualization and tasks.
    VMLAUNCH, "vmlaunch", Instruction, "NP `0F 01 C2`",
        [Unstated Memory "not in the SDM's list; not confirmed"], [Unstated Inferred "no such instruction"],
        "Not in TCG.";
    VMRESUME, "vmresume", Instruction, "NP `0F 01 C3`",
        [Unstated Memory "not in the SDM's list; not confirmed"], [Unstated Inferred "no such instruction"],
        "Not in TCG.";
    VMRUN, "vmrun", Instruction, "`0F 01 D8`",
        [Unstated Inferred "no such instruction"], [Unstated Memory NONE],
        "SVM nested in TCG.";
    VM_EXIT, "vm-exit", Never, "no instruction",
        [Unstated Memory "not in the SDM's list; not confirmed"], [Unstated Memory NONE],
        "VM exit, #VMEXIT.";
    TASK_SWITCH, "task-switch", Never, "no instruction of its own",
        [No Confirmed LIST], [Unstated Inferred NONE],
        "Hardware task switch; loads CR3, LDTR and TR. Not reachable in 64-bit mode.";
}

const _: () = assert!(EVENTS.len() <= crate::arch::sync_event::SyncEventSet::CAPACITY && EVENTS.len() == SEEN.len());

/// How a plugin gets to know of the event. A foreign id gives [`Seen::Never`].
#[must_use]
pub const fn seen(event: SyncEventId) -> Seen {
    if (event.0 as usize) < SEEN.len() { SEEN[event.0 as usize] } else { Seen::Never }
}

/// Is the event rare enough to be watched, and visible at all? No built-in profile counts one that is not.
///
/// A plugin needs to instrument only the instructions whose event is in its profile's serializing set, and those of
/// [`Seen::Resolved`]; with `with=EVENT` a user can ask for a hot one, and pays for it.
#[must_use]
pub const fn worth_watching(event: SyncEventId) -> bool {
    !matches!(seen(event), Seen::Hot | Seen::Never)
}
