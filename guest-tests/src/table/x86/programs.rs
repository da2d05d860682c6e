//! Programs that change code: shapes, hand-overs, membarrier, breakpoints, own code, mappings, guards, processes.

use super::{MIGRATION, NO_COMMIT, NO_MIXES, NO_WRITER, QUADWORD, TORN, TORN_LATER, UNSERIALIZED};
use crate::table::{Scenario, Visible, bad, good, programs};
use crate::verdict::Kind::{Alias, Smc, Stale, Unserialized};
use crate::verdict::Verdict::Reported;
use crate::verdict::Verdicts;
use crate::verdict::x86::{FRED, SDM_STRICT};

/// The rows.
pub const ROWS: &[Scenario] = &[
    // A thread runs code without a system call while another one changes it.
    bad("cross/imm8", "cross/imm8-cpuid", QUADWORD, "changes a 1-byte immediate under a spinning thread"),
    bad("cross/imm32", "cross/imm32-cpuid", QUADWORD, "changes an aligned 4-byte immediate under a spinning thread"),
    bad(
        "cross/imm32-text",
        "cross/imm32-cpuid",
        QUADWORD,
        "the same in the program's own text, made writable: the symbol is patch_target_imm32",
    ),
    bad("cross/imm64", "cross/imm64-cpuid", QUADWORD, "changes an aligned 8-byte immediate under a spinning thread"),
    bad(
        "cross/imm32-split",
        "cross/imm32-split-cpuid",
        TORN,
        "changes an immediate that straddles two chunks under a spinning thread",
    )
    .in_light(UNSERIALIZED, NO_MIXES),
    bad(
        "cross/jmp5",
        "cross/jmp5-cpuid",
        QUADWORD,
        "NOP5 to JMP and back with one aligned 8-byte store under a spinning thread",
    ),
    bad(
        "cross/jmp5-bytes",
        "cross/jmp5-bytes-cpuid",
        TORN,
        "NOP5 to JMP and back byte by byte, across two chunks, under a spinning thread",
    )
    .in_light(UNSERIALIZED, NO_MIXES),
    // The same with a hand-over: the executor stands aside during the store and executes CPUID before it runs the code
    // again.
    good("cross/imm8-cpuid", "1-byte immediate; the executor stands aside and executes CPUID"),
    good("cross/imm32-cpuid", "aligned 4-byte immediate; the executor stands aside and executes CPUID"),
    good("cross/imm64-cpuid", "aligned 8-byte immediate; the executor stands aside and executes CPUID"),
    good("cross/imm32-split-cpuid", "immediate across two chunks; the executor stands aside and executes CPUID"),
    good("cross/jmp5-cpuid", "NOP5 to JMP in one store; the executor stands aside and executes CPUID"),
    good("cross/jmp5-bytes-cpuid", "NOP5 to JMP byte by byte; the executor stands aside and executes CPUID"),
    // Hand-over, by what stands between the store and the execution.
    bad(
        "handover/nothing",
        "handover/iret-to-self",
        UNSERIALIZED,
        "the executor stands aside during the store, then runs the code: a flag does not serialize",
    ),
    bad(
        "handover/fences",
        "handover/iret-to-self",
        UNSERIALIZED,
        "the executor executes MFENCE, LFENCE and a locked instruction: none of them serializes",
    ),
    good("handover/iret-to-self", "the executor executes IRET-to-self in user mode"),
    programs::SYNC_CORE,
    programs::REGISTERED_LATE,
    good(
        "membarrier/plain",
        "the writer calls membarrier(PRIVATE_EXPEDITED): its IPI ends in IRET, which FRED's ERETU replaces",
    )
    .under(FRED, Reported(Unserialized)),
    programs::unregistered(UNSERIALIZED),
    // The INT3 protocol in user space, with a SIGTRAP handler that carries out the new instruction.
    good("int3/complete", "INT3, sync, tail, sync, first byte, sync under a spinning thread that traps")
        .under(SDM_STRICT, Reported(Unserialized)),
    bad(
        "int3/no-first-sync",
        "int3/complete",
        TORN_LATER,
        "the tail is stored before anybody dropped the old first byte",
    )
    .in_light(Verdicts::SILENT.but(SDM_STRICT, Reported(Unserialized)), NO_COMMIT)
    .visible(Visible::OnlyTorn(
        "the oldest instruction is the old one as a whole, which may run until the patch is done",
    )),
    bad(
        "int3/no-second-sync",
        "int3/complete",
        TORN_LATER,
        "the first byte is stored before anybody dropped the old tail",
    )
    .in_light(Verdicts::SILENT, NO_COMMIT)
    .visible(Visible::OnlyTorn("the oldest instruction is INT3, whose handler carries out the new one")),
    bad(
        "int3/no-third-sync",
        "int3/complete",
        Verdicts::reported(Stale),
        "the patch is called done while the INT3 may still be executed",
    )
    .in_light(Verdicts::SILENT, NO_COMMIT),
    bad("int3/no-syncs", "int3/complete", TORN_LATER, "all three stores with no sync at all")
        .in_light(UNSERIALIZED, NO_MIXES),
    // A thread changes its own code.
    good("own/jump", "stores through the address it executes from, then calls the code")
        .on_one_cpu()
        .in_light(UNSERIALIZED, NO_WRITER),
    bad("own/no-jump", "own/no-jump-cpuid", Verdicts::reported(Smc), "stores into the very next instruction")
        .on_one_cpu()
        .by_itself()
        .in_light(UNSERIALIZED, NO_WRITER),
    good("own/no-jump-cpuid", "stores into an instruction ahead, with CPUID between").on_one_cpu(),
    bad(
        "own/alias",
        "own/alias-cpuid",
        Verdicts::reported(Alias),
        "stores through a second mapping, then calls the code: a branch is not enough",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_WRITER),
    good("own/alias-cpuid", "stores through a second mapping, executes CPUID, then calls the code").on_one_cpu(),
    // The same memory at two executable addresses.
    programs::OTHER_VIEW,
    bad(
        "views/alias",
        "views/alias-cpuid",
        Verdicts::reported(Alias),
        "stores through one executable address, then calls the code at another one",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_WRITER),
    good("views/alias-cpuid", "the same with CPUID between").on_one_cpu(),
    // Mappings.
    programs::FRESH,
    good("mapping/munmap-mmap", "unmaps code that another thread ran and maps other code there"),
    programs::MAP_FIXED,
    good(
        "mapping/mremap",
        "moves a page with other code over code that another thread ran: a change that no store made",
    ),
    good("mapping/mprotect", "makes code that another thread ran writable and not executable, changes it, and back"),
    programs::pwrite(UNSERIALIZED),
    programs::PWRITE_SYNC_CORE,
    // A word that says whether the code behind it may be entered (JDK-8310239).
    bad(
        "guard/data",
        "guard/data-cpuid",
        UNSERIALIZED,
        "the executor reads the guard as data, finds it open and enters changed code",
    ),
    bad(
        "guard/immediate",
        "guard/data-cpuid",
        QUADWORD,
        "the guard is an immediate operand: AMD promises what Intel does not",
    ),
    good("guard/data-cpuid", "the executor executes CPUID on the guard's slow path before it enters"),
    // Processes.
    programs::FORK,
    programs::EXEC,
    Scenario { full: MIGRATION, ..programs::MIGRATE },
    programs::MIGRATE_REGISTERED,
];
