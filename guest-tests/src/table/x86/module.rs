//! The rows of a kernel module that patches its own text, well and badly: `guest-tests/module`.
//!
//! A bad role has its executor run the old version, stores, and has it run the new one, with that CPU's interrupts off:
//! no tick serializes in between. The exceptions are the roles that are about interrupts.

use super::{NO_MIXES, NO_WRITER, TORN, UNSERIALIZED};
use crate::table::{Scenario, Visible, Writer, bad, good};
use crate::verdict::Kind::{Alias, Unserialized};
use crate::verdict::Verdict::{Reported, Unchecked};
use crate::verdict::Verdicts;
use crate::verdict::x86::{FRED, NO_LUCK, SDM_STRICT};

/// The kernel's own copying, on behalf of text_poke().
const TEXT_POKE: &str = "memcpy*,__memcpy*,text_poke_memcpy*,__text_poke*";
const QUAD: &str = "icsan_patcher:icsan_target_quad+*";
const CHUNK: &str = "icsan_patcher:icsan_target_chunk+*";
const OPERAND: &str = "icsan_patcher:icsan_write_operand+*";
const BYTES: &str = "icsan_patcher:icsan_write_bytes+*";

pub(super) const ROWS: &[Scenario] = &[
    good("module/good", "text_poke_bp(), or smp_text_poke_single(): NOP to JMP and back under a running CPU")
        .under(SDM_STRICT, Unchecked("no INT3 exemption: depends on whether the executor meets the breakpoint before the first IPI")),
    good("module/good-own", "INT3, IPIs, tail, IPIs, first byte, IPIs by hand under a running CPU that traps")
        .under(SDM_STRICT, Reported(Unserialized))
        .named(CHUNK, TEXT_POKE),
    bad("module/no-ipi", "module/aside", UNSERIALIZED, "text_poke() under a running CPU, and no IPI").named(QUAD, TEXT_POKE),
    good("module/aside", "text_poke() while the executor stands aside; it serializes before it comes back"),
    Scenario {
        writer: Some(Writer::Other),
        ..good("module/ipi-no-sync", "an IPI whose handler does nothing: it ends in IRET, which FRED's ERETS replaces")
            .under(FRED, Reported(Unserialized))
            .under(NO_LUCK, Reported(Unserialized))
            .named(QUAD, OPERAND)
    },
    good("module/ipi-sync", "an IPI whose handler serializes"),
    bad("module/no-int3", "module/good-own", TORN, "an instruction across two chunks, byte by byte under a running CPU, with no INT3")
        .in_light(UNSERIALIZED, NO_MIXES)
        .named(CHUNK, BYTES),
    bad("module/wrong-order", "module/good-own", TORN, "the tail, then INT3, then the first byte, with IPIs after each")
        .in_light(UNSERIALIZED, NO_MIXES)
        .named(CHUNK, BYTES)
        .visible(Visible::Never(
            "mixes of the two versions are harmless, or a guest would not survive it, and the result is looked at after the IPIs",
        )),
    bad(
        "module/direct-map",
        "module/direct-map-sync",
        Verdicts::reported(Alias),
        "stores through the direct map, then calls the code on the same CPU",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_WRITER)
    .named(QUAD, OPERAND),
    good("module/direct-map-sync", "the same with sync_core() in between").on_one_cpu(),
    bad("module/direct-map-cross", "module/direct-map-cross-sync", UNSERIALIZED, "one store through the direct map under a running CPU")
        .named(QUAD, OPERAND),
    good("module/direct-map-cross-sync", "the same while the executor stands aside; it serializes before it comes back"),
];
