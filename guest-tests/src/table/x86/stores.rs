//! The rows that only the store side can judge in full: mixes of versions, second mappings, ways to store, commits, and
//! neighbours in a chunk.
//!
//! In all of them the executor begins the epoch of each change itself, by CPUID, so that one change is all that the
//! epoch holds.

use super::{NO_COMMIT, NO_MIXES, NO_WRITER, QUADWORD, TORN_LATER, UNSERIALIZED};
use crate::table::{Scenario, Visible, bad, good, programs};
use crate::verdict::Kind::{Alias, Smc, Stale, Torn, Unserialized};
use crate::verdict::Verdict::{Reported, Silent, Unchecked};
use crate::verdict::Verdicts;
use crate::verdict::x86::{AMD_APM, FRED};

const NO_NEIGHBOURS: &str =
    "the changed instruction was brought in with its chunk, but not executed, before the change";

const SLOW_CHILD: Visible =
    Visible::Sometimes("another process must run before the change is executed, and a tick may fall in between");

pub(super) const ROWS: &[Scenario] = &[
    // Torn: an instruction that straddles chunks, changed by two stores while the executor stands aside; no CPUID
    // before it runs again.
    bad("torn/chunk", "torn/chunk-cpuid", TORN_LATER, "two stores change an immediate that straddles two chunks")
        .in_light(UNSERIALIZED, NO_MIXES),
    good("torn/chunk-cpuid", "the same; the executor executes CPUID"),
    bad("torn/line", "torn/line-cpuid", TORN_LATER, "two stores change an immediate that straddles two cache lines")
        .in_light(UNSERIALIZED, NO_MIXES),
    good("torn/line-cpuid", "the same; the executor executes CPUID"),
    bad("torn/page", "torn/page-cpuid", TORN_LATER, "two stores change an immediate that straddles two pages")
        .in_light(UNSERIALIZED, NO_MIXES),
    good("torn/page-cpuid", "the same; the executor executes CPUID"),
    bad(
        "torn/boundary",
        "torn/boundary-cpuid",
        TORN_LATER,
        "an instruction of five bytes, across two chunks, takes the place of five of one byte, and back",
    )
    .in_light(UNSERIALIZED, NO_MIXES),
    good("torn/boundary-cpuid", "the same; the executor executes CPUID"),
    bad(
        "torn/neighbour",
        "torn/neighbour-cpuid",
        TORN_LATER,
        "the executor ran a neighbour in the first chunk only; then two stores, then the instruction that straddles both",
    )
    .in_light(Verdicts::SILENT, NO_NEIGHBOURS),
    good("torn/neighbour-cpuid", "the same; the executor executes CPUID"),
    // What a chunk brings in besides what is executed.
    bad(
        "neighbour/chunk",
        "neighbour/chunk-cpuid",
        UNSERIALIZED,
        "the executor ran a neighbour of the changed instruction in the same chunk",
    )
    .in_light(Verdicts::SILENT, NO_NEIGHBOURS),
    good("neighbour/chunk-cpuid", "the same; the executor executes CPUID"),
    good("neighbour/other-chunk", "the executor ran code in the chunk before that of the changed instruction"),
    // Code that is mapped twice.
    bad("alias/other", "alias/other-cpuid", UNSERIALIZED, "another CPU stores through a second mapping"),
    good("alias/other-cpuid", "the same; the executor executes CPUID"),
    bad(
        "alias/own-next",
        "alias/own-next-cpuid",
        Verdicts::reported(Alias),
        "stores through a second mapping into the very next instruction",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_WRITER),
    good("alias/own-next-cpuid", "the same with CPUID between").on_one_cpu(),
    bad(
        "alias/own-split",
        "alias/own-split-cpuid",
        Verdicts::reported(Torn),
        "stores through a second mapping into an instruction that straddles two chunks, then calls it",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(UNSERIALIZED, NO_MIXES),
    good("alias/own-split-cpuid", "the same with CPUID between").on_one_cpu(),
    // The same change, however it is stored.
    bad("store/bytes", "store/bytes-cpuid", UNSERIALIZED, "four stores of one byte"),
    good("store/bytes-cpuid", "the same; the executor executes CPUID"),
    bad("store/rep-movsb", "store/rep-movsb-cpuid", UNSERIALIZED, "REP MOVSB"),
    good("store/rep-movsb-cpuid", "the same; the executor executes CPUID"),
    bad("store/sse", "store/sse-cpuid", UNSERIALIZED, "MOVAPS: one store of sixteen bytes"),
    good("store/sse-cpuid", "the same; the executor executes CPUID"),
    bad("store/non-temporal", "store/non-temporal-cpuid", UNSERIALIZED, "MOVNTI: past the caches"),
    good("store/non-temporal-cpuid", "the same; the executor executes CPUID"),
    bad("store/xchg", "store/xchg-cpuid", QUADWORD, "XCHG, aligned"),
    good("store/xchg-cpuid", "the same; the executor executes CPUID"),
    bad("store/xchg-unaligned", "store/xchg-unaligned-cpuid", UNSERIALIZED, "XCHG across two quadwords: TCG stops all other vCPUs"),
    good("store/xchg-unaligned-cpuid", "the same; the executor executes CPUID"),
    bad("store/cmpxchg8b", "store/cmpxchg8b-cpuid", QUADWORD, "LOCK CMPXCHG8B"),
    good("store/cmpxchg8b-cpuid", "the same; the executor executes CPUID"),
    bad("store/cmpxchg16b", "store/cmpxchg16b-cpuid", UNSERIALIZED, "LOCK CMPXCHG16B"),
    good("store/cmpxchg16b-cpuid", "the same; the executor executes CPUID"),
    bad("store/cmpxchg", "store/cmpxchg-cpuid", QUADWORD, "LOCK CMPXCHG that finds what it expects"),
    good("store/cmpxchg-cpuid", "the same; the executor executes CPUID"),
    good("store/cmpxchg-fails", "LOCK CMPXCHG, CMPXCHG8B and CMPXCHG16B that do not find what they expect: code that never changes"),
    bad("store/lock-add", "store/lock-add-cpuid", QUADWORD, "LOCK ADD: QEMU tells what was added"),
    good("store/lock-add-cpuid", "the same; the executor executes CPUID"),
    bad("store/lock-xadd", "store/lock-xadd-cpuid", QUADWORD, "LOCK XADD"),
    good("store/lock-xadd-cpuid", "the same; the executor executes CPUID"),
    bad("store/lock-xor", "store/lock-xor-cpuid", QUADWORD, "LOCK XOR"),
    good("store/lock-xor-cpuid", "the same; the executor executes CPUID"),
    bad("store/movbe", "store/movbe-cpuid", UNSERIALIZED, "MOVBE: QEMU tells the bytes in the register's order"),
    good("store/movbe-cpuid", "the same; the executor executes CPUID"),
    bad("store/page-crossing", "store/page-crossing-cpuid", TORN_LATER, "one store into an immediate that straddles two pages")
        .in_light(UNSERIALIZED, NO_MIXES),
    good("store/page-crossing-cpuid", "the same; the executor executes CPUID"),
    bad(
        "store/from-data",
        "store/from-data-cpuid",
        UNSERIALIZED,
        "one store that begins in a page of data and ends in the first instructions of the next one",
    )
    .under(AMD_APM, Unchecked("the part of a store that lies in one quadword counts as a store inside one")),
    good("store/from-data-cpuid", "the same; the executor executes CPUID"),
    bad("store/read", "store/read-cpuid", UNSERIALIZED, "read(2) from a pipe into the code: the kernel stores through the user's address"),
    good("store/read-cpuid", "the same; the executor executes CPUID"),
    bad("store/process-vm", "store/process-vm-cpuid", UNSERIALIZED, "process_vm_writev(2): the kernel stores through a mapping of its own"),
    good("store/process-vm-cpuid", "the same; the executor executes CPUID"),
    bad("store/own-rep-movsb", "store/own-rep-movsb-cpuid", Verdicts::reported(Smc), "REP MOVSB into the very next instruction")
        .on_one_cpu()
        .by_itself()
        .in_light(UNSERIALIZED, NO_WRITER),
    good("store/own-rep-movsb-cpuid", "the same with CPUID between").on_one_cpu(),
    good("store/own-jump", "stores into the instruction behind the next jump: the jump is enough")
        .on_one_cpu()
        .in_light(UNSERIALIZED, NO_WRITER),
    good("store/own-movbe", "stores by MOVBE through the address it executes from, then calls the code: legal")
        .on_one_cpu()
        .in_light(UNSERIALIZED, NO_WRITER),
    // The end of an instruction that begins in the page before.
    bad(
        "tail/other",
        "tail/other-cpuid",
        QUADWORD,
        "one store to the second page of an instruction whose first byte ends the page before it",
    ),
    good("tail/other-cpuid", "the same; the executor executes CPUID"),
    bad(
        "tail/own-next",
        "tail/own-next-cpuid",
        Verdicts::reported(Smc).but(AMD_APM, Silent),
        "stores to the second page of the very next instruction, whose first byte ends the page before it",
    )
    .on_one_cpu()
    .by_itself()
    .in_light(QUADWORD, NO_WRITER),
    good("tail/own-next-cpuid", "the same with CPUID between").on_one_cpu(),
    // Commits.
    programs::COMMITTED_BY_SYNC_CORE,
    Scenario {
        light: Some((Verdicts::SILENT.but(FRED, Reported(Unserialized)), NO_MIXES)),
        ..good("commit/plain", "the writer calls membarrier(PRIVATE_EXPEDITED) instead: its IPI ends in IRET, which FRED's ERETU replaces")
    }
    .under(FRED, Reported(Torn)),
    bad(
        "commit/symbol",
        "commit/symbol-cpuid",
        Verdicts::reported(Stale),
        "the patching function returns, and the executor has not serialized since: no exemption holds any more",
    )
    .in_light(QUADWORD, NO_COMMIT),
    good("commit/symbol-cpuid", "the same; the executor executes CPUID"),
    bad(
        "commit/fork-child",
        "commit/fork-cpuid",
        QUADWORD,
        "the patching function forks and stores; the child returns from it, which commits nothing of the parent's, and the executor runs",
    )
    .visible(SLOW_CHILD),
    bad(
        "commit/fork-parent",
        "commit/fork-cpuid",
        Verdicts::reported(Stale),
        "the same; the executor runs after the parent, too, has returned: its own return commits",
    )
    .in_light(QUADWORD, NO_COMMIT)
    .visible(SLOW_CHILD),
    good("commit/fork-cpuid", "the same; the executor executes CPUID"),
    bad(
        "commit/neighbour",
        "commit/symbol-cpuid",
        Verdicts::reported(Stale),
        "the same; the executor ran a neighbour in the same chunk only",
    )
    .in_light(Verdicts::SILENT, NO_NEIGHBOURS),
];
