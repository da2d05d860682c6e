//! Every form of a store that the decoder knows: one encoding of each instruction that writes memory, found by decoding
//! all opcodes.

use super::expected::{CALLS_OUT_OF_REACH, is_lacking};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, MemorySize, Mnemonic, OpAccess,
    OpKind, Register,
};
use std::collections::{BTreeMap, BTreeSet};

/// What an operand byte that is not decided is.
const FILL: u8 = 0x26;

/// A bit that is set in the data's first two bytes.
pub const SET_BIT: u32 = 4;

/// A way to run an instruction that stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form {
    /// In 32-bit or 64-bit code.
    pub bits: u32,
    /// Its name in the table: the decoder's, with what else distinguishes it.
    pub name: String,
    /// Its bytes. The memory operand is at RDI.
    pub bytes: Vec<u8>,
    /// How it was decoded.
    pub instruction: Instruction,
    /// Where RDI points to, behind the data's first byte.
    pub offset: u64,
    /// Is RAX (and RDX) what stands in memory? (For a compare-and-exchange.)
    pub equal: bool,
}

/// The order in which the register operand is tried. RDI, which is the address where it has to be one.
fn registers(opcode: u8) -> [u8; 8] {
    match opcode {
        // BTS, BTR, BTC: a register says which bit, which must be near.
        // ARPL: it must be less privileged.
        0xab | 0xb3 | 0xbb | 0x63 => [1, 0, 2, 3, 4, 5, 6, 7],
        _ => [7, 6, 5, 4, 3, 2, 1, 0],
    }
}

/// Calls `found` with every instruction of that mode, once for each combination of prefixes, opcode and register
/// operand, with a memory operand at RDI and with a register.
pub fn every_instruction(bits: u32, mut found: impl FnMut(&[u8], Instruction)) {
    let mut each = |before: &[u8], opcode: u8, rms: &[u8]| {
        // What is before it, the opcode, and what is filled.
        let mut bytes = [FILL; 20];
        let at = before.len();
        bytes[..at].copy_from_slice(before);
        bytes[at] = opcode;
        let mut decode = |modrm: u8, next: u8| {
            bytes[at + 1..at + 3].copy_from_slice(&[modrm, next]);
            let instruction = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
            if !instruction.is_invalid() {
                found(&bytes[..instruction.len()], instruction);
            }
        };
        for reg in registers(opcode) {
            // At RDI; with an index, for what scatters; registers, of which some are opcodes of their own.
            decode(reg << 3 | 7, FILL);
            decode(reg << 3 | 4, 0x0f);
            rms.iter().for_each(|rm| decode(0xc0 | reg << 3 | rm, FILL));
        }
    };
    let rex: &[&[u8]] = if bits == 64 { &[&[], &[0x48]] } else { &[&[]] };
    for legacy in [
        &[][..],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0xf0],
        &[0xf0, 0x66],
        &[0x66, 0xf3],
        &[0x66, 0xf2],
        &[0x67],
        &[0x67, 0x66],
        &[0x67, 0xf3],
    ] {
        for rex in rex {
            for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
                for opcode in (0..=u8::MAX).filter(|opcode| !map.is_empty() || !is_prefix(bits, *opcode)) {
                    // LES, LDS and BOUND have no registers: that is VEX and EVEX.
                    let vector = map.is_empty() && matches!(opcode, 0x62 | 0xc4 | 0xc5);
                    each(&[legacy, rex, map].concat(), opcode, if vector { &[] } else { &[1, 0, 2, 3, 4, 5, 6, 7] });
                }
            }
        }
    }
    // 3DNow!: the opcode is at the end.
    (0..=u8::MAX).for_each(|opcode| each(&[0x0f, 0x0f, 0xc1], opcode, &[]));
    // VEX and XOP: map, W, unused register, L, prefix.
    for (escape, maps) in [(0xc4, 1..=3), (0x8f, 8..=10)] {
        for map in maps {
            for rest in (0..=0xffu8).filter(|rest| matches!(rest >> 3 & 15, 15 | 14)) {
                (0..=u8::MAX).for_each(|opcode| each(&[escape, 0xe0 | map, rest], opcode, &[1, 0]));
            }
        }
    }
    // EVEX: the same, L'L, and a mask register or none.
    for map in [1, 2, 3, 5, 6] {
        for w_pp in [0, 1, 2, 3, 0x80, 0x81, 0x82, 0x83] {
            for mask in [0, 1] {
                for length in [0, 0x20, 0x40] {
                    (0..=u8::MAX)
                        .for_each(|opcode| each(&[0x62, 0xf0 | map, 0x7c | w_pp, 0x08 | length | mask], opcode, &[1]));
                }
            }
        }
    }
}

fn is_prefix(bits: u32, byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
        || bits == 64 && matches!(byte, 0x40..=0x4f | 0x62 | 0xc4 | 0xc5)
}

/// Does it write memory where the guest has its data, or on the stack? `None`: it writes no memory.
fn writes_data(info: &mut InstructionInfoFactory, instruction: &Instruction) -> Option<bool> {
    let zeroes = instruction.mnemonic() == Mnemonic::Clzero;
    let at_hand = |base| match base {
        Register::None | Register::RDI | Register::EDI | Register::RSP | Register::ESP => true,
        Register::RAX | Register::EAX => zeroes,
        _ => false,
    };
    let used = info.info(instruction).used_memory();
    let mut written = used.iter().filter(|memory| writes(memory.access())).peekable();
    written.peek()?;
    Some(written.all(|memory| at_hand(memory.base())))
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// All forms of a mode, and the instructions that were seen at all.
pub fn forms(bits: u32, data: u64) -> (Vec<Form>, BTreeSet<Code>) {
    let mut info = InstructionInfoFactory::new();
    let (mut seen, mut storing) = (BTreeSet::new(), BTreeSet::new());
    let mut forms: BTreeMap<(Code, bool, bool), (Vec<u8>, Instruction)> = BTreeMap::new();
    every_instruction(bits, |bytes, instruction| {
        seen.insert(instruction.code());
        let Some(at_hand) = writes_data(&mut info, &instruction) else { return };
        if CALLS_OUT_OF_REACH.contains(&instruction.code()) {
            return;
        }
        storing.insert(instruction.code());
        if at_hand {
            let repeated =
                instruction.is_string_instruction() && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
            forms
                .entry((instruction.code(), instruction.has_lock_prefix(), repeated))
                .or_insert_with(|| (bytes.to_vec(), instruction));
        }
    });
    storing.retain(|code| !forms.keys().any(|(known, ..)| known == code) && !is_lacking(*code));
    assert!(storing.is_empty(), "these store out of reach: {storing:?}");
    let mut all = Vec::new();
    for ((code, lock, rep), (mut bytes, instruction)) in forms {
        place_operands(&mut bytes, &instruction, data);
        let instruction = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
        let name = format!(
            "{}{code:?}",
            if lock {
                "LOCK "
            } else if rep {
                "REP "
            } else {
                ""
            }
        );
        let form = Form { bits, name, bytes, instruction, offset: 0, equal: false };
        let compares = matches!(instruction.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b);
        let exchanges = lock || instruction.mnemonic() == Mnemonic::Xchg;
        let aligned_only = instruction.memory_size() == MemorySize::UInt128;
        for offset in [0, 1] {
            if offset == 0 || exchanges && !aligned_only {
                let place = if offset == 0 { "" } else { ", unaligned" };
                if compares {
                    all.push(Form {
                        name: format!("{}, equal{place}", form.name),
                        offset,
                        equal: true,
                        ..form.clone()
                    });
                }
                all.push(Form { name: format!("{}{place}", form.name), offset, ..form.clone() });
            }
        }
    }
    (all, seen)
}

/// Addresses within the instruction, and operands that say how far to go.
fn place_operands(bytes: &mut [u8], instruction: &Instruction, data: u64) {
    let len = bytes.len();
    match instruction.mnemonic() {
        // No local variables, no nesting.
        Mnemonic::Enter => bytes[len - 3..].fill(0),
        // To what follows.
        Mnemonic::Call
            if instruction.flow_control() == FlowControl::Call && instruction.op0_kind() != OpKind::FarBranch32 =>
        {
            bytes[len - 4..].fill(0);
        }
        // A bit that is clear, and one that is set.
        Mnemonic::Bts if instruction.op1_kind() == OpKind::Immediate8 => bytes[len - 1] = 2,
        Mnemonic::Btr if instruction.op1_kind() == OpKind::Immediate8 => bytes[len - 1] = SET_BIT as u8,
        // An address in the instruction itself.
        Mnemonic::Mov if instruction.op0_kind() == OpKind::Memory && instruction.memory_base() == Register::None => {
            let width = instruction.memory_displ_size() as usize;
            bytes[len - width..].copy_from_slice(&data.to_le_bytes()[..width]);
        }
        _ => {}
    }
}
