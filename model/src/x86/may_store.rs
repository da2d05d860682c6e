//! May this instruction store to memory? A table of those that never do: an instruction that is not in it may.
//!
//! Sources: Intel SDM vol. 2, appendix A, opcode maps and the opcode extensions A-6; each row is an operand
//! that the maps call read (or none). The table is compared with a decoder in `tests/x86_may_store.rs`, over all
//! opcodes of both maps. What loads a segment register is left out, though it names no memory that it writes: it sets
//! the descriptor's accessed bit. So is everything with VEX, EVEX or XOP prefixes, and everything beyond the two maps.

/// What of an opcode never stores. Sets of ModRM.reg values are bit masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Never {
    /// All of it.
    All,
    /// All with a register in ModRM.rm; and with memory there those with ModRM.reg in the set.
    Register(u8),
    /// Those with a register in ModRM.rm whose ModRM.reg is in the first set; and with memory those in the second.
    Group(u8, u8),
}

use Never::{All, Group, Register};

/// First and last opcode of the one-byte map, and what never stores.
const ONE: &[(u8, u8, Never)] = &[
    // ADD, OR, ADC, SBB, AND, SUB, XOR: to r/m, from r/m, immediates to the accumulator.
    (0x00, 0x01, Register(0)),
    (0x02, 0x05, All),
    (0x08, 0x09, Register(0)),
    (0x0a, 0x0d, All),
    (0x10, 0x11, Register(0)),
    (0x12, 0x15, All),
    (0x18, 0x19, Register(0)),
    (0x1a, 0x1d, All),
    (0x20, 0x21, Register(0)),
    (0x22, 0x25, All),
    (0x28, 0x29, Register(0)),
    (0x2a, 0x2d, All),
    (0x30, 0x31, Register(0)),
    (0x32, 0x35, All),
    // CMP.
    (0x38, 0x3d, All),
    // INC, DEC of registers, where it is no REX.
    (0x40, 0x4f, All),
    // POP.
    (0x58, 0x5f, All),
    // IMUL; Jcc.
    (0x69, 0x69, All),
    (0x6b, 0x6b, All),
    (0x70, 0x7f, All),
    // Group 1 with immediates: /7 is CMP.
    (0x80, 0x83, Register(1 << 7)),
    // TEST; XCHG, MOV to r/m; MOV from r/m; LEA; POP r/m.
    (0x84, 0x85, All),
    (0x86, 0x89, Register(0)),
    (0x8a, 0x8b, All),
    (0x8d, 0x8d, All),
    (0x8f, 0x8f, Group(1, 0)),
    // XCHG of registers, CBW, CWD; MOV from moffs; CMPS; TEST; LODS, SCAS; MOV immediate to registers.
    (0x90, 0x99, All),
    (0xa0, 0xa1, All),
    (0xa6, 0xa9, All),
    (0xac, 0xbf, All),
    // Shifts; RET; MOV immediate to r/m.
    (0xc0, 0xc1, Register(0)),
    (0xc2, 0xc3, All),
    (0xc6, 0xc7, Group(1, 0)),
    (0xd0, 0xd3, Register(0)),
    // XLAT; LOOP, JCXZ; JMP.
    (0xd7, 0xd7, All),
    (0xe0, 0xe3, All),
    (0xe9, 0xe9, All),
    (0xeb, 0xeb, All),
    // CMC; group 3: TEST, MUL, DIV read, NOT and NEG write; flags.
    (0xf5, 0xf5, All),
    (0xf6, 0xf7, Register(0b1111_0011)),
    (0xf8, 0xfd, All),
    // Groups 4 and 5: INC, DEC write, CALL and PUSH push, JMP (/4) reads.
    (0xfe, 0xfe, Group(0b11, 0)),
    (0xff, 0xff, Group(0b1_0011, 0b1_0000)),
];

/// The same for the opcodes after `0F`.
const TWO: &[(u8, u8, Never)] = &[
    // PREFETCHW and its kind; MOVUPS and MOVSS from r/m; PREFETCH; ENDBR and NOP.
    (0x0d, 0x0d, All),
    (0x10, 0x10, All),
    (0x18, 0x18, All),
    (0x1e, 0x1f, All),
    // MOVAPS from r/m; UCOMISS, COMISS; CMOVcc; arithmetic on vectors; MOVD, MOVDQA from r/m.
    (0x28, 0x28, All),
    (0x2e, 0x2f, All),
    (0x40, 0x4f, All),
    (0x51, 0x6f, All),
    (0x74, 0x76, All),
    // Jcc; SETcc; BT; SHLD; BTS; SHRD; IMUL.
    (0x80, 0x8f, All),
    (0x90, 0x9f, Register(0)),
    (0xa3, 0xa3, All),
    (0xa4, 0xa5, Register(0)),
    (0xab, 0xab, Register(0)),
    (0xac, 0xad, Register(0)),
    (0xaf, 0xaf, All),
    // CMPXCHG; BTR; MOVZX; POPCNT; group 8: /4 is BT; BTC; BSF, BSR; MOVSX.
    (0xb0, 0xb1, Register(0)),
    (0xb3, 0xb3, Register(0)),
    (0xb6, 0xb8, All),
    (0xba, 0xba, Register(1 << 4)),
    (0xbb, 0xbb, Register(0)),
    (0xbc, 0xbf, All),
    // XADD; BSWAP.
    (0xc0, 0xc1, Register(0)),
    (0xc8, 0xcf, All),
    // PMOVMSKB; PAND, PANDN, POR, PXOR; PSUB, PADD.
    (0xd7, 0xd7, All),
    (0xdb, 0xdb, All),
    (0xdf, 0xdf, All),
    (0xeb, 0xeb, All),
    (0xef, 0xef, All),
    (0xf8, 0xfe, All),
];

/// By opcode, so that one look answers.
const fn index(rows: &[(u8, u8, Never)]) -> [Option<Never>; 256] {
    let mut index = [None; 256];
    let mut row = 0;
    while row < rows.len() {
        let (first, last, never) = rows[row];
        let mut opcode = first as usize;
        while opcode <= last as usize {
            index[opcode] = Some(never);
            opcode += 1;
        }
        row += 1;
    }
    index
}

static ONE_BY_OPCODE: [Option<Never>; 256] = index(ONE);
static TWO_BY_OPCODE: [Option<Never>; 256] = index(TWO);

/// May the instruction of these bytes store? They are one whole instruction and nothing after it; what is assumed of
/// them is what [`super::classify`] assumes.
#[must_use]
pub fn may_store(bytes: &[u8]) -> bool {
    let is_prefix = |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    let mut rest = &bytes[prefixes..];
    // REX, more than one of which the last counts; where it is INC or DEC instead, the instruction ends with it.
    while let [0x40..=0x4f, behind @ ..] = rest
        && !behind.is_empty()
    {
        rest = behind;
    }
    let (never, modrm) = match rest {
        [0x0f, opcode, behind @ ..] => (TWO_BY_OPCODE[usize::from(*opcode)], behind.first()),
        [opcode, behind @ ..] => (ONE_BY_OPCODE[usize::from(*opcode)], behind.first()),
        [] => (None, None),
    };
    let has = |set: u8, modrm: u8| set >> (modrm >> 3 & 7) & 1 != 0;
    match (never, modrm.copied()) {
        (None, _) => true,
        (Some(All), _) => false,
        (Some(_), None) => true,
        (Some(Register(memory)), Some(modrm)) => modrm < 0xc0 && !has(memory, modrm),
        (Some(Group(register, memory)), Some(modrm)) => !has(if modrm < 0xc0 { memory } else { register }, modrm),
    }
}
