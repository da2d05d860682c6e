//! The event table of AArch64: what synchronizes the context of a PE, and what is commonly mistaken for it.
//!
//! After a context synchronization event a PE executes nothing that it fetched before. It says nothing about what the
//! instruction cache may still hold: that is [`crate::arch::maintenance`].
//!
//! Source: DDI0487, the definition of a context synchronization event and B2.7.4.2, and Arm's formal model in herd
//! (aarch64.cat). The definition was read in quotations: those cells are `Secondary`.

use crate::arch::sync_event::{Claim, Sure, SyncEvent, SyncEventId, SyncEventSet, Word, event_table};

/// How a plugin gets to know that an event happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// From the instruction alone: [`super::classify::classify`] names it.
    Instruction,
    /// As `Instruction`, but so frequent that watching it costs the guest dearly. No built-in profile counts one.
    Hot,
    /// No instruction of its own; a callback of the emulator tells.
    Callback,
}

const DEFINITION: &str = "DDI0487, definition of \"context synchronization event\"";
const NOT_LISTED: &str = "DDI0487, definition of \"context synchronization event\": it is not among them";
const NEEDS_ONE: &str =
    "DDI0487, \"Synchronization requirements for AArch64 System registers\": the write needs one after it";
const CALL: &str = "our inference: it is an exception entry and a return, or the emulator's own firmware is called";
const RESET_SOURCE: &str = "our inference: nothing is fetched at reset";

event_table! {
    ISB, "isb", Instruction, "`D50330DF`, any option",
        [Yes Secondary DEFINITION],
        "It does not wait for its own PE's stores, and invalidates nothing in the instruction cache.";
    EXCEPTION_ENTRY, "exception-entry", Callback, "no instruction",
        [Yes Secondary DEFINITION],
        "Interrupt, SVC, BRK, fault. Not with FEAT_ExS and SCTLR_ELx.EIS=0; Linux sets it to 1.";
    EXCEPTION_RETURN, "exception-return", Instruction, "ERET `D69F03E0`, ERETAA `D69F0BFF`, ERETAB `D69F0FFF`",
        [Yes Secondary DEFINITION],
        "What membarrier's SYNC_CORE relies on. Not with FEAT_ExS and SCTLR_ELx.EOS=0; Linux sets it to 1.";
    HVC, "hvc", Instruction, "`D4000002`, any immediate",
        [Yes Inferred CALL],
        "PSCI under QEMU: CPU_OFF and CPU_ON come this way, and no other event tells of them.";
    SMC, "smc", Instruction, "`D4000003`, any immediate",
        [Yes Inferred CALL],
        "As `hvc`.";
    RESET, "reset", Callback, "no instruction",
        [Yes Inferred RESET_SOURCE],
        "The model empties the buffers of a vCPU that is reset whatever the profile says.";
    RESTORED, "restored", Callback, "no instruction",
        [Yes Inferred "our inference: a state that comes from a file has no buffers"],
        "`loadvm`. As `reset`, of all vCPUs at once; memory becomes another one, too, by no store.";
    MSR_TTBR, "msr-ttbr", Instruction, "MSR TTBR0_EL1 `D5182000`, TTBR1_EL1 `D5182020`, TTBR0_EL2 `D51C2000`",
        [No Secondary NEEDS_ONE],
        "A switch of address spaces synchronizes by the ISB after it.";
    MSR_SCTLR, "msr-sctlr", Instruction, "MSR SCTLR_EL1 `D5181000`, SCTLR_EL2 `D51C1000`",
        [No Secondary NEEDS_ONE],
        "";
    MSR_VBAR, "msr-vbar", Instruction, "MSR VBAR_EL1 `D518C000`, VBAR_EL2 `D51CC000`",
        [No Secondary NEEDS_ONE],
        "";
    MSR_TCR, "msr-tcr", Instruction, "MSR TCR_EL1 `D5182040`",
        [No Secondary NEEDS_ONE],
        "";
    MSR_CONTEXTIDR, "msr-contextidr", Instruction, "MSR CONTEXTIDR_EL1 `D518D020`",
        [No Secondary NEEDS_ONE],
        "";
    TLBI, "tlbi", Instruction, "SYS with CRn 8 `D5088000`, or 9 `D5089000`",
        [No Secondary NOT_LISTED],
        "";
    DSB, "dsb", Instruction, "`D503309F`, any domain; nXS `D503323F`",
        [No Secondary NOT_LISTED],
        "It completes maintenance. What its own PE fetched before stays.";
    DMB, "dmb", Instruction, "`D50330BF`, any domain",
        [No Secondary NOT_LISTED],
        "It completes nothing, and does not order IC.";
    SB, "sb", Instruction, "`D50330FF`",
        [No Secondary NOT_LISTED],
        "A barrier to speculation, not to fetches.";
    IC, "ic", Instruction, "IVAU `D50B7520`, IALLUIS `D508711F`, IALLU `D508751F`",
        [No Secondary NOT_LISTED],
        "It concerns the instruction cache.";
    WFE, "wfe", Hot, "`D503205F`",
        [No Secondary NOT_LISTED],
        "";
    WFI, "wfi", Instruction, "`D503207F`",
        [No Secondary NOT_LISTED],
        "";
    BR, "br", Hot, "BR `D61F0000`, BLR `D63F0000`, RET `D65F0000`",
        [No Confirmed "DDI0487 B2.7.4.2; the litmus test miniJit01 is allowed"],
        "Not even an indirect branch to a pointer that was just read: what lies there may have been fetched before.";
}

const _: () = assert!(EVENTS.len() <= SyncEventSet::CAPACITY && EVENTS.len() == SEEN.len());

/// How a plugin gets to know of the event; `None` for a foreign id.
#[must_use]
pub fn seen(event: SyncEventId) -> Option<Seen> {
    SEEN.get(usize::from(event.0)).copied()
}
