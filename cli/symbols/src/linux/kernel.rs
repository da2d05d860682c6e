//! Linux of one architecture.

use super::entries::{KernelEntry, fits};
use super::kaslr::{KaslrRange, PlaceEvidence};
use super::protocol::Protocol;
use crate::symbolizer::Symbolizer;
use crate::table::SymbolTable;

/// CPUs that are online: a bit for each, by the kernel's number (kernel/cpu.c). A symbol with
/// `CONFIG_KALLSYMS_ALL`; in an image it is found without, too, since modules may use it ([`crate::exports`]).
pub const ONLINE_MASK: &str = "__cpu_online_mask";

/// Says how far from the base of a CPU's own variables the pointer to its running `task_struct` is. `None`: the symbols
/// do not tell.
pub type CurrentTaskOffset = fn(&Symbolizer) -> Option<u64>;

/// What an architecture's ELF files of the kernel have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ElfKind {
    /// The number of the architecture (`e_machine`).
    pub machine: u16,
    /// If the kernel relocates itself when it starts, by its ELF relocations: the type of those that add to the address
    /// where it is loaded. The value may then be in the relocation alone.
    pub relative: Option<u64>,
    /// How far from the start `_stext` is.
    pub head: u64,
}

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub struct LinuxKernel {
    /// The architecture, by QEMU's name of the target: `icsan_model::arch::registry` has the same.
    pub arch: &'static str,
    /// How its ELF files are.
    pub elf: ElfKind,
    /// Where its image begins, at the lowest.
    pub image_from: u64,
    /// Symbols that it always has in its text.
    pub anchors: &'static [&'static str],
    /// By how much KASLR may move it.
    pub kaslr: KaslrRange,
    /// What a kernel that starts writes to system registers, by which its place is known.
    pub evidence: &'static [PlaceEvidence],
    /// Where a CPU's own variables have the running task. `None`: a register has it.
    pub current_task: Option<CurrentTaskOffset>,
    /// Where interrupts and exceptions enter it.
    pub entries: &'static [KernelEntry],
    /// Where system calls enter it that are made in other ways than by the instruction for them, by symbol.
    pub other_calls: &'static [&'static str],
    /// How it changes code.
    pub protocol: Protocol,
}

impl LinuxKernel {
    /// Are the symbols those of this architecture's kernel?
    #[must_use]
    pub fn is_of(&self, table: &SymbolTable) -> bool {
        table.is_kernel() && self.anchors.iter().all(|anchor| table.address_of(anchor).is_some())
    }

    /// The entry that has this symbol.
    #[must_use]
    pub fn entry_of(&self, symbol: &str) -> Option<&'static KernelEntry> {
        self.entries.iter().find(|entry| fits(entry.symbol, symbol))
    }

    /// What a value in this system register says of the kernel's place.
    #[must_use]
    pub fn evidence_of(&self, register: u64) -> Option<&'static PlaceEvidence> {
        self.evidence.iter().find(|evidence| evidence.register == register)
    }
}
