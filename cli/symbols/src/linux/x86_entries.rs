//! Where x86 interrupts and exceptions enter Linux, and where each entry finds the frame that the CPU pushed.
//!
//! The names are those of the assembly stubs that `DECLARE_IDTENTRY*` makes (arch/x86/include/asm/idtentry.h): `asm_`
//! and the name of the handler. What is on the stack is read from the macros of arch/x86/entry/entry_64.S. The system
//! calls of 32-bit programs have a list of their own. Xen's entries are not listed: no hardware calls them.

use super::entries::KernelEntry;

const fn row(symbol: &'static str, pushed: u64, moves: u64, source: &'static str) -> KernelEntry {
    KernelEntry { symbol, pushed, moves, source }
}

/// Eight bytes: an error code of the CPU's, or what a stub pushed in its place.
const CODE: u64 = 8;
/// Exceptions without an error code, and with one.
const SIMPLE: &str = "idtentry.h: DECLARE_IDTENTRY";
const ERROR: &str = "idtentry.h: DECLARE_IDTENTRY_ERRORCODE";
const RAW: &str = "idtentry.h: DECLARE_IDTENTRY_RAW";

/// All of them. No symbol fits two.
#[rustfmt::skip]
pub(super) const ENTRIES: &[KernelEntry] = &[
    row("asm_exc_divide_error", 0, 0, SIMPLE),
    row("asm_exc_overflow", 0, 0, SIMPLE),
    row("asm_exc_bounds", 0, 0, SIMPLE),
    row("asm_exc_device_not_available", 0, 0, SIMPLE),
    row("asm_exc_coproc_segment_overrun", 0, 0, SIMPLE),
    row("asm_exc_spurious_interrupt_bug", 0, 0, SIMPLE),
    row("asm_exc_coprocessor_error", 0, 0, SIMPLE),
    row("asm_exc_simd_coprocessor_error", 0, 0, SIMPLE),
    row("asm_exc_virtualization_exception", 0, 0, "idtentry.h: DECLARE_IDTENTRY (TDX)"),
    row("asm_exc_invalid_tss", CODE, 0, ERROR),
    row("asm_exc_segment_not_present", CODE, 0, ERROR),
    row("asm_exc_stack_segment", CODE, 0, ERROR),
    row("asm_exc_general_protection", CODE, 0, ERROR),
    row("asm_exc_alignment_check", CODE, 0, ERROR),
    row("asm_exc_control_protection", CODE, 0, ERROR),
    row("asm_exc_invalid_op", 0, 0, RAW),
    row("asm_exc_int3", 0, 6 * 8, "entry_64.S, idtentry: for X86_TRAP_BP from the kernel it copies six words further down, so that the handler can emulate a call"),
    row("asm_exc_page_fault", CODE, 0, "idtentry.h: DECLARE_IDTENTRY_RAW_ERRORCODE"),
    row("asm_exc_machine_check", 0, 0, "entry_64.S, idtentry_mce_db: on a stack of its own, where its frame stays"),
    row("asm_exc_debug", 0, 0, "entry_64.S, idtentry_mce_db"),
    row("asm_exc_double_fault", CODE, 0, "entry_64.S, idtentry_df"),
    row("asm_exc_vmm_communication", CODE, 0, "entry_64.S, idtentry_vc: may go on upon another stack (SEV-ES); then its return is not known again"),
    row("asm_exc_nmi", 0, 7 * 8, "entry_64.S, asm_exc_nmi: from the kernel it returns by a copy below the frame, RDX and a flag; a nested one, by its own frame, is not known again"),
    row("asm_common_interrupt", CODE, 0, "idtentry.h, irq_entries_start: the stubs push the vector; entry_64.S, idtentry_irq"),
    row("asm_spurious_interrupt", CODE, 0, "idtentry.h, spurious_entries_start: as above"),
    row("asm_sysvec_*", 0, 0, "entry_64.S, idtentry_sysvec: has_error_code=0"),
];

/// Where system calls enter that are not made by SYSCALL in 64-bit mode (arch/x86/entry/entry_64_compat.S): `int
/// $0x80`, which 64-bit programs can use, too (`asm_int80_emulation` since 6.7, idtentry.h), SYSENTER, and SYSCALL in
/// compatibility mode.
pub(super) const OTHER_CALLS: &[&str] =
    &["entry_INT80_compat", "asm_int80_emulation", "entry_SYSENTER_compat", "entry_SYSCALL_compat"];

#[cfg(test)]
mod tests {
    use super::{ENTRIES, OTHER_CALLS};
    use crate::linux::entries::fits;
    use crate::linux::x86::LINUX;

    #[test]
    fn no_symbol_is_two_entries() {
        for entry in ENTRIES {
            assert_eq!(ENTRIES.iter().filter(|other| fits(other.symbol, entry.symbol)).count(), 1, "{}", entry.symbol);
            assert!(
                entry.pushed <= 8
                    && entry.moves.is_multiple_of(8)
                    && entry.source.contains(".h") | entry.source.contains(".S")
            );
        }
    }

    #[test]
    fn a_system_call_is_no_interrupt() {
        assert!(OTHER_CALLS.iter().all(|symbol| LINUX.entry_of(symbol).is_none()));
        assert_eq!(LINUX.other_calls, OTHER_CALLS);
    }

    #[test]
    fn what_is_on_the_stack_is_told_by_the_name() {
        let of = |symbol| LINUX.entry_of(symbol).map(|entry| (entry.pushed, entry.moves));
        assert_eq!(of("asm_exc_page_fault"), Some((8, 0)));
        assert_eq!(of("asm_exc_int3"), Some((0, 48)));
        assert_eq!(of("asm_sysvec_apic_timer_interrupt"), Some((0, 0)));
        assert_eq!(of("asm_common_interrupt"), Some((8, 0)));
        for symbol in [
            "asm_exc_xen_unknown_trap",
            "asm_load_gs_index",
            "sysvec_reboot",
            "asm_int80_emulation",
            "asm_sysve",
            "asm_exc_int3.cold",
            "",
        ] {
            assert_eq!(of(symbol), None, "{symbol}");
        }
    }
}
