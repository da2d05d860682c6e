//! What an emulator that tells of an instruction's store can say of its value.
//!
//! QEMU's plugin API gives a value with each access ([`Access`]). Of most stores it is what was stored. It is not where
//! QEMU carries out the access by one atomic operation of the host: there it tells the *operand* as what was stored,
//! and as what was loaded either what was there before or what is there now. A compare-and-exchange tells the new value
//! even if it was not stored. Of a byte-swapped store it tells the register, on hosts that can swap on the way to
//! memory. (accel/tcg/atomic_template.h, `atomic_trace_rmw_post`; tcg/tcg-op-ldst.c, `tcg_gen_qemu_st_i32_int`; both
//! the same in 10.0 and 11.1.) None of them is taken at its word: [`StoreKind::results`] lists what such a store may
//! have left behind, and memory decides.
//!
//! Source of each row: Intel SDM vol. 2, LOCK (which instructions take the prefix, and XCHG, which needs none),
//! appendix A for their opcodes; target/i386/tcg/emit.c.inc for the operation that TCG carries out for it. What is not
//! in the table is [`StoreKind::Plain`]; a test boots every store that a decoder knows, and compares it with memory.

use StoreKind::{Add, And, Compare, Or, Plain, Swapped, Xor};

/// What is told of an instruction's stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum StoreKind {
    /// What was stored.
    Plain,
    /// What was added to memory. (What was subtracted is told negated.)
    Add,
    /// What memory was ANDed with.
    And,
    /// What memory was ORed with.
    Or,
    /// What memory was XORed with.
    Xor,
    /// What was stored, if anything was: a compare-and-exchange.
    Compare,
    /// What was stored, or the same with its bytes in reverse order.
    Swapped,
}

/// An access, as it is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// What was told as stored.
    pub stored: u128,
    /// What was told as loaded by the same instruction right before, if anything was.
    pub loaded: Option<u128>,
    /// How many bytes: 1, 2, 4, 8 or 16.
    pub len: u8,
    /// Was it one atomic operation of the host? If not, it was a load and a store, and of these the truth is told.
    pub atomic: bool,
}

impl StoreKind {
    /// All of them, by number.
    pub const ALL: [Self; 7] = [Plain, Add, And, Or, Xor, Compare, Swapped];

    /// Must what the same instruction loaded be known?
    #[must_use]
    pub const fn needs_load(self) -> bool {
        matches!(self, Add | And | Or | Xor | Compare)
    }

    /// What memory may hold right after such an access, if nobody else stored there. Nothing: it stored nothing, or
    /// nothing new.
    pub fn results(self, access: Access) -> impl Iterator<Item = u128> {
        let Access { stored, loaded, len, atomic } = access;
        let bits = 8 * u32::from(len.clamp(1, 16));
        let mask = u128::MAX >> (128 - bits);
        // The host's operation answers with what was there before, or with its own result.
        let updated = |update: fn(u128, u128) -> u128| [loaded.map(|before| update(before, stored)), loaded];
        let results = match self {
            Swapped => [Some(stored), Some(stored.swap_bytes() >> (128 - bits))],
            _ if !atomic => [Some(stored), None],
            Plain => [Some(stored), None],
            Add => updated(u128::wrapping_add),
            And => updated(|before, operand| before & operand),
            Or => updated(|before, operand| before | operand),
            Xor => updated(|before, operand| before ^ operand),
            // If what was to be stored was there already, it made no difference whether it was stored.
            Compare => [Some(stored).filter(|stored| loaded.is_some_and(|before| (before ^ stored) & mask != 0)), None],
        };
        results.into_iter().flatten().map(move |value| value & mask)
    }
}

/// An opcode whose stores are not plain if it has a LOCK prefix: first and last of its bytes, the values of ModRM.reg
/// that it takes (a bit mask), and the kind.
type Row = (u8, u8, u8, StoreKind);

const ANY: u8 = 0xff;

/// One-byte opcodes.
const ONE: &[Row] = &[
    // ADD, OR, ADC, SBB, AND, SUB, XOR to r/m. TCG adds the carry to the operand.
    (0x00, 0x01, ANY, Add),
    (0x08, 0x09, ANY, Or),
    (0x10, 0x11, ANY, Add),
    (0x18, 0x19, ANY, Add),
    (0x20, 0x21, ANY, And),
    (0x28, 0x29, ANY, Add),
    (0x30, 0x31, ANY, Xor),
    // The same with immediates: ADD, ADC, SBB, SUB; OR; AND; XOR.
    (0x80, 0x83, 0b10_1101, Add),
    (0x80, 0x83, 1 << 1, Or),
    (0x80, 0x83, 1 << 4, And),
    (0x80, 0x83, 1 << 6, Xor),
    // NOT is XOR with ones; NEG is a loop around a compare-and-exchange.
    (0xf6, 0xf7, 1 << 2, Xor),
    (0xf6, 0xf7, 1 << 3, Compare),
    // INC, DEC.
    (0xfe, 0xff, 0b11, Add),
];

/// Opcodes after `0F`.
const TWO: &[Row] = &[
    // BTS, BTR, BTC; with immediates.
    (0xab, 0xab, ANY, Or),
    (0xb3, 0xb3, ANY, And),
    (0xbb, 0xbb, ANY, Xor),
    (0xba, 0xba, 1 << 5, Or),
    (0xba, 0xba, 1 << 6, And),
    (0xba, 0xba, 1 << 7, Xor),
    // CMPXCHG; XADD; CMPXCHG8B, CMPXCHG16B.
    (0xb0, 0xb1, ANY, Compare),
    (0xc0, 0xc1, ANY, Add),
    (0xc7, 0xc7, 1 << 1, Compare),
];

/// The kind of the stores of the instruction of these bytes, which are one whole instruction. What it says of one that
/// stores nothing means nothing.
#[must_use]
pub fn store_kind(bytes: &[u8]) -> StoreKind {
    // REX, too, wherever it stands. (Where it is INC or DEC instead, the instruction ends with it.)
    let is_prefix =
        |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let count = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let (prefixes, rest) = bytes.split_at(count);
    let has = |prefix: u8| prefixes.contains(&prefix);
    let find = |rows: &[Row], opcode: u8, modrm: u8| {
        let row = rows
            .iter()
            .find(|(first, last, regs, _)| (*first..=*last).contains(&opcode) && regs >> (modrm >> 3 & 7) & 1 != 0);
        row.filter(|_| has(0xf0)).map_or(Plain, |(.., kind)| *kind)
    };
    match rest {
        // MOVBE to memory; with F2 it is CRC32.
        [0x0f, 0x38, 0xf1, ..] if !has(0xf2) => Swapped,
        [0x0f, opcode, modrm, ..] => find(TWO, *opcode, *modrm),
        [opcode, modrm, ..] => find(ONE, *opcode, *modrm),
        _ => Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind};
    use std::collections::{BTreeMap, BTreeSet};

    fn results(kind: StoreKind, len: u8, loaded: u128, stored: u128, atomic: bool) -> Vec<u128> {
        kind.results(Access { stored, loaded: Some(loaded), len, atomic }).collect()
    }

    #[test]
    fn what_is_told_may_be_an_operand() {
        assert_eq!(results(Plain, 4, 0x11, 0x22, true), [0x22]);
        assert_eq!(results(Add, 4, 0x11, 2, true), [0x13, 0x11]);
        assert_eq!(results(Add, 1, 0x01, 0xff, true), [0, 1], "one less");
        assert_eq!(results(And, 2, 0x1234, 0xff, true), [0x34, 0x1234]);
        assert_eq!(results(Or, 8, 0x10, 0x02, true), [0x12, 0x10]);
        assert_eq!(results(Xor, 2, 0x0ff0, 0xffff, true), [0xf00f, 0x0ff0]);
        for kind in StoreKind::ALL.into_iter().filter(|kind| kind.needs_load()) {
            assert_eq!(results(kind, 4, 0x11, 0x13, false), [0x13], "a load and a store tell the truth: {kind:?}");
            assert_eq!(kind.results(Access { stored: 1, loaded: None, len: 4, atomic: true }).count(), 0, "{kind:?}");
        }
    }

    #[test]
    fn a_compare_and_exchange_that_changes_nothing_is_no_store() {
        assert_eq!(results(Compare, 16, 0x11, 0x22, true), [0x22]);
        assert!(results(Compare, 8, 0x22, 0x22, true).is_empty());
        assert!(results(Compare, 1, 0x22, 0x7700_0022, true).is_empty(), "only its own bytes count");
    }

    #[test]
    fn a_swapped_store_may_be_told_either_way() {
        assert_eq!(results(Swapped, 2, 0, 0x1122, true), [0x1122, 0x2211]);
        assert_eq!(results(Swapped, 4, 0, 0x1122_3344, false), [0x1122_3344, 0x4433_2211]);
        assert_eq!(results(Swapped, 8, 0, 0x11, true), [0x11, 0x1100_0000_0000_0000]);
    }

    #[test]
    fn kinds_are_told_from_bytes() {
        let cases: &[(&[u8], StoreKind)] = &[
            (&[0x01, 0x07], Plain),
            (&[0xf0, 0x01, 0x07], Add),
            (&[0x66, 0xf0, 0x48, 0x11, 0x07], Add),
            (&[0xf0, 0x41, 0x83, 0x0f, 0x01], Or),
            (&[0xf0, 0x83, 0x27, 0x01], And),
            (&[0xf0, 0x83, 0x2f, 0x01], Add),
            (&[0xf0, 0x83, 0x37, 0x01], Xor),
            (&[0xf0, 0xf7, 0x17], Xor),
            (&[0xf0, 0xf7, 0x1f], Compare),
            (&[0xf0, 0xfe, 0x0f], Add),
            (&[0xf0, 0x0f, 0xba, 0x37, 0x03], And),
            (&[0xf0, 0x0f, 0xbb, 0x07], Xor),
            (&[0x0f, 0xb1, 0x0f], Plain),
            (&[0xf0, 0x0f, 0xb1, 0x0f], Compare),
            (&[0xf0, 0x48, 0x0f, 0xc7, 0x0f], Compare),
            (&[0xf0, 0x0f, 0xc1, 0x0f], Add),
            (&[0x87, 0x07], Plain),
            (&[0xf0, 0x87, 0x07], Plain),
            (&[0x0f, 0x38, 0xf1, 0x07], Swapped),
            (&[0x66, 0x48, 0x0f, 0x38, 0xf1, 0x07], Swapped),
            (&[0xf2, 0x0f, 0x38, 0xf1, 0x07], Plain),
            (&[0x41], Plain),
            (&[], Plain),
        ];
        for (bytes, kind) in cases {
            assert_eq!(store_kind(bytes), *kind, "{bytes:02x?}");
        }
    }

    /// What TCG carries out for an instruction with a LOCK prefix, by its name.
    fn kind_by_name(mnemonic: Mnemonic) -> Option<StoreKind> {
        match mnemonic {
            Mnemonic::Add | Mnemonic::Adc | Mnemonic::Sub | Mnemonic::Sbb => Some(Add),
            Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Xadd => Some(Add),
            Mnemonic::And | Mnemonic::Btr => Some(And),
            Mnemonic::Or | Mnemonic::Bts => Some(Or),
            Mnemonic::Xor | Mnemonic::Btc | Mnemonic::Not => Some(Xor),
            Mnemonic::Neg | Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => Some(Compare),
            Mnemonic::Xchg => Some(Plain),
            _ => None,
        }
    }

    /// The decoder knows which instructions take LOCK: each has the kind that its name says, and no other instruction
    /// has one, but for MOVBE.
    #[test]
    fn every_row_is_what_the_decoder_says() {
        let mut met: BTreeMap<&str, BTreeSet<Code>> = BTreeMap::new();
        for (bits, prefixes) in [(32, &[][..]), (64, &[]), (64, &[0x48]), (32, &[0x66]), (64, &[0x66])] {
            for (lock, map) in
                [&[][..], &[0xf0]].into_iter().flat_map(|lock| [&[][..], &[0x0f], &[0x0f, 0x38]].map(|map| (lock, map)))
            {
                for (opcode, modrm) in (0..=u8::MAX).flat_map(|opcode| (0..=u8::MAX).map(move |modrm| (opcode, modrm)))
                {
                    // REX stands right before the opcode.
                    let bytes = [lock, prefixes, map, &[opcode, modrm], &[0x11; 10]].concat();
                    let instruction = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
                    if instruction.is_invalid() {
                        continue;
                    }
                    let (mnemonic, bytes) = (instruction.mnemonic(), &bytes[..instruction.len()]);
                    let (name, kind) = if instruction.has_lock_prefix() {
                        let known = kind_by_name(mnemonic);
                        ("LOCK", known.unwrap_or_else(|| panic!("{mnemonic:?} takes LOCK")))
                    } else if mnemonic == Mnemonic::Movbe && instruction.op0_kind() == OpKind::Memory {
                        ("MOVBE", Swapped)
                    } else {
                        ("no", Plain)
                    };
                    assert_eq!(store_kind(bytes), kind, "{instruction:?}, {bits} bits: {bytes:02x?}");
                    met.entry(name).or_default().insert(instruction.code());
                }
            }
        }
        // MOVBE of 16, 32 and 64 bits; what takes LOCK.
        assert_eq!((met["MOVBE"].len(), met["LOCK"].len()), (3, 132));
    }
}
