//! May this instruction store to memory? A table of the loads, and one of what stores without being a load or store by
//! the encoding's top level: an instruction that is in neither is what its group says.
//!
//! Source: DDI0487 C4.1, the groups of A64 instructions: "Loads and Stores" has bit 27 set and bit 25 clear, SME has
//! bits 28 to 25 clear, SVE bit 26 alone of them. The tables are compared with a decoder, and with an assembler's
//! words, in `tests/aarch64_may_store.rs`.
//!
//! Which way it errs: what has no row among the loads may store. That is so for LDG, LDIAPP, LD64B, prefetches by
//! tag, and for what is not allocated yet. Not counted as stores are accesses of the processor's own: a page table's
//! access flag, and with FEAT_GCS the return address that BL stores on a guarded control stack.

use super::word;

/// A word is in a row if its bits under the mask (the second) are these (the first).
type Row = (u32, u32);

fn is_in(rows: &[Row], word: u32) -> bool {
    rows.iter().any(|(value, mask)| word & mask == *value)
}

/// What of the group "Loads and Stores" only loads, the most frequent first.
const LOADS: &[Row] = &[
    // LDR, LDRB, LDRH and vectors: opc x1. LDRSB, LDRSH, LDRSW and PRFM: opc 10, no vectors. By an unsigned offset;
    (0x3940_0000, 0x3b40_0000),
    (0x3980_0000, 0x3fc0_0000),
    // by a signed one, before or after, and unprivileged (LDUR, LDTR);
    (0x3840_0000, 0x3b60_0000),
    (0x3880_0000, 0x3fe0_0000),
    // by a register.
    (0x3860_0800, 0x3b60_0c00),
    (0x38a0_0800, 0x3fe0_0c00),
    // LDP, LDNP, LDPSW.
    (0x2840_0000, 0x3a40_0000),
    // LDR (literal).
    (0x1800_0000, 0x3b00_0000),
    // LDXR, LDAXR, LDAR, LDLAR; LDXP, LDAXP. The third of the kind is CAS and CASP.
    (0x0840_0000, 0x3f60_0000),
    (0x8860_0000, 0xbfe0_0000),
    // LDAPR; LDAPUR; LDAPURSB, LDAPURSH, LDAPURSW.
    (0x38a0_c000, 0x3fe0_fc00),
    (0x1940_0000, 0x3f60_0c00),
    (0x1980_0000, 0x3fe0_0c00),
    // LDRAA, LDRAB.
    (0xf820_0400, 0xff20_0400),
    // LD1 to LD4: several structures, a single one.
    (0x0c40_0000, 0xbf40_0000),
    (0x0d40_0000, 0xbf40_0000),
];

/// What stores although it is in another group.
const STORES: &[Row] = &[
    // DC ZVA, DC GZVA. GCSPUSHM, GCSPUSHX and their kind.
    (0xd50b_7420, 0xffff_ffe0),
    (0xd50b_7480, 0xffff_ffe0),
    (0xd508_7700, 0xfff8_ff00),
    // SVE: all of its stores, STR of a predicate or a vector among them.
    (0xe400_0000, 0xfe00_0000),
    // SME: ST1 and STR of ZA, STR of ZT0. SVE2.1: ST1 and STNT1 of several vectors.
    (0xe020_0000, 0xfe20_0000),
    (0xa020_0000, 0xfea0_0000),
];

/// May the instruction of these bytes store? Not whether an emulator tells of the store: of some it does not
/// ([`super::classify::UnseenStore`]).
#[must_use]
pub fn may_store(bytes: &[u8]) -> bool {
    let Some(word) = word(bytes) else { return true };
    if word & 0x0a00_0000 == 0x0800_0000 { !is_in(LOADS, word) } else { is_in(STORES, word) }
}
