//! Which event is this instruction? From the exact bytes of one instruction, without a decoder.
//!
//! The encodings are data ([`PLAIN`], [`LOCKED`]), matched in order; an index by opcode, built at compile time, rejects
//! other instructions after one look-up.
//!
//! What is assumed:
//! - The bytes are one whole instruction and nothing after it, as QEMU gives them. The mode (16, 32 or 64 bits) is not
//!   needed: a byte `40` to `4F` with more bytes after it can only be REX, since the INC and DEC that it is elsewhere
//!   end with it. A REX counts only directly before the opcode; one with a legacy prefix after it is ignored, as
//!   hardware does.
//! - Legacy prefixes come in any order and number. Of F2 and F3 the last one counts, and both win over 66.
//! - LOCK makes an instruction that does not allow it #UD, so it is no event. Nor are bytes that end before what
//!   decides (ModRM mostly).
//! - PAUSE is `F3 90` with any REX. An opcode that #UDs only in the guest's mode (`9A` in 64-bit code) is still named:
//!   it will not complete.
//! - In 16-bit code IRET's operand size is the other way round: `CF` takes 2-byte values, `66 CF` 4-byte values. We say
//!   4 and 2.
//!
//! QEMU 11.1 ignores F2 and F3 in some places where hardware does not: at CPL 0 it runs ERETU and ERETS as CLAC.

use super::events as e;
use crate::arch::sync_event::SyncEventId;

/// What an instruction is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// That event, whatever the values at run time.
    Fixed(SyncEventId),
    /// An IRET; [`super::resolve::iret`] says which.
    Iret {
        /// Size of each value that it takes from the stack: 2, 4 or 8 bytes.
        operand_bytes: u8,
    },
    /// A WRMSR; [`super::resolve::wrmsr`] says which, from ECX.
    Wrmsr,
    /// A MOV to CR3; [`super::resolve::mov_cr3`] says which, from the old and the new value.
    MovCr3 {
        /// Number of the general register with the new value: 0 is RAX, 15 is R15.
        register: u8,
    },
}

/// Opcode map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Map {
    /// One-byte opcodes.
    One,
    /// Opcodes after `0F`.
    Two,
    /// Opcodes after `0F 38`.
    Three38,
}

/// What an encoding asks of the 66, F2 and F3 prefixes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mandatory {
    /// Nothing.
    Any,
    /// None of them (the manuals' NP).
    No,
    /// 66, and neither F2 nor F3.
    P66,
    /// F2 as the last of F2 and F3.
    F2,
    /// F3 as the last of F2 and F3.
    F3,
    /// Anything but F3 as the last of F2 and F3.
    NotF3,
}

/// What an encoding asks of the bytes after the opcode. Sets of ModRM.reg values are bit masks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Nothing.
    Any,
    /// A memory operand, ModRM.reg in the set.
    Memory(u8),
    /// A register operand, ModRM.reg in the set.
    Register(u8),
    /// Either operand, ModRM.reg in the set.
    Either(u8),
    /// A ModRM byte in this range, both ends included.
    ModRm(u8, u8),
    /// ModRM.reg extended by REX.R in the set (control and debug registers; the mod field is ignored).
    Extended(u16),
}

/// What an encoding stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gives {
    /// One event.
    Event(SyncEventId),
    /// [`Class::Iret`].
    Iret,
    /// [`Class::Wrmsr`].
    Wrmsr,
    /// [`Class::MovCr3`].
    MovCr3,
}

/// One encoding.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    /// Opcode map.
    pub map: Map,
    /// First opcode of the range.
    pub first: u8,
    /// Last opcode of the range.
    pub last: u8,
    /// Prefixes that decide.
    pub prefix: Mandatory,
    /// Bytes after the opcode.
    pub form: Form,
    /// The event.
    pub gives: Gives,
}

const fn span(map: Map, first: u8, last: u8, prefix: Mandatory, form: Form, event: SyncEventId) -> Encoding {
    Encoding { map, first, last, prefix, form, gives: Gives::Event(event) }
}

const fn one(opcode: u8, form: Form, event: SyncEventId) -> Encoding {
    span(Map::One, opcode, opcode, Mandatory::Any, form, event)
}

const fn two(opcode: u8, prefix: Mandatory, form: Form, event: SyncEventId) -> Encoding {
    span(Map::Two, opcode, opcode, prefix, form, event)
}

/// An encoding `0F 01` with a whole ModRM byte.
const fn group7(prefix: Mandatory, modrm: u8, event: SyncEventId) -> Encoding {
    two(0x01, prefix, Form::ModRm(modrm, modrm), event)
}

const fn special(map: Map, opcode: u8, form: Form, gives: Gives) -> Encoding {
    Encoding { map, first: opcode, last: opcode, prefix: Mandatory::Any, form, gives }
}

const fn bit(reg: u8) -> u8 {
    1 << reg
}

/// Encodings without LOCK, the first match wins. Rows of a map stand together, its opcodes ascending.
pub const PLAIN: &[Encoding] = &[
    span(Map::One, 0x6c, 0x6f, Mandatory::Any, Form::Any, e::IN_OUT),
    span(Map::One, 0x70, 0x7f, Mandatory::Any, Form::Any, e::NEAR_BRANCH),
    span(Map::One, 0x86, 0x87, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x90, 0x90, Mandatory::F3, Form::Any, e::PAUSE),
    one(0x9a, Form::Any, e::FAR_BRANCH),
    span(Map::One, 0xc2, 0xc3, Mandatory::Any, Form::Any, e::NEAR_BRANCH),
    span(Map::One, 0xca, 0xcb, Mandatory::Any, Form::Any, e::FAR_BRANCH),
    span(Map::One, 0xcc, 0xce, Mandatory::Any, Form::Any, e::INT),
    special(Map::One, 0xcf, Form::Any, Gives::Iret),
    span(Map::One, 0xe0, 0xe3, Mandatory::Any, Form::Any, e::NEAR_BRANCH),
    span(Map::One, 0xe4, 0xe7, Mandatory::Any, Form::Any, e::IN_OUT),
    span(Map::One, 0xe8, 0xe9, Mandatory::Any, Form::Any, e::NEAR_BRANCH),
    one(0xea, Form::Any, e::FAR_BRANCH),
    one(0xeb, Form::Any, e::NEAR_BRANCH),
    span(Map::One, 0xec, 0xef, Mandatory::Any, Form::Any, e::IN_OUT),
    one(0xf1, Form::Any, e::INT),
    one(0xf4, Form::Any, e::HLT),
    one(0xff, Form::Either(bit(2) | bit(4)), e::NEAR_BRANCH),
    one(0xff, Form::Memory(bit(3) | bit(5)), e::FAR_BRANCH),
    two(0x00, Mandatory::Any, Form::Either(bit(2)), e::LLDT),
    two(0x00, Mandatory::Any, Form::Either(bit(3)), e::LTR),
    two(0x01, Mandatory::Any, Form::Memory(bit(2)), e::LGDT),
    two(0x01, Mandatory::Any, Form::Memory(bit(3)), e::LIDT),
    two(0x01, Mandatory::Any, Form::Memory(bit(7)), e::INVLPG),
    two(0x01, Mandatory::Any, Form::Either(bit(6)), e::LMSW),
    group7(Mandatory::No, 0xc2, e::VMLAUNCH),
    group7(Mandatory::No, 0xc3, e::VMRESUME),
    group7(Mandatory::No, 0xc6, e::WRMSRNS),
    group7(Mandatory::F3, 0xc6, e::WRMSRLIST),
    group7(Mandatory::No, 0xc8, e::MONITOR),
    group7(Mandatory::No, 0xc9, e::MWAIT),
    group7(Mandatory::F3, 0xca, e::ERETU),
    group7(Mandatory::F2, 0xca, e::ERETS),
    group7(Mandatory::No, 0xd1, e::XSETBV),
    group7(Mandatory::Any, 0xd8, e::VMRUN),
    group7(Mandatory::Any, 0xdf, e::INVLPGA),
    group7(Mandatory::No, 0xe8, e::SERIALIZE),
    group7(Mandatory::F3, 0xec, e::UIRET),
    group7(Mandatory::No, 0xef, e::WRPKRU),
    group7(Mandatory::Any, 0xf8, e::SWAPGS),
    group7(Mandatory::No, 0xfe, e::INVLPGB),
    group7(Mandatory::No, 0xff, e::TLBSYNC),
    two(0x05, Mandatory::Any, Form::Any, e::SYSCALL),
    two(0x06, Mandatory::Any, Form::Any, e::CLTS),
    two(0x07, Mandatory::Any, Form::Any, e::SYSRET),
    two(0x08, Mandatory::Any, Form::Any, e::INVD),
    two(0x09, Mandatory::F3, Form::Any, e::WBNOINVD),
    two(0x09, Mandatory::NotF3, Form::Any, e::WBINVD),
    two(0x20, Mandatory::Any, Form::Extended(1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8), e::MOV_FROM_CR),
    two(0x22, Mandatory::Any, Form::Extended(1 << 0), e::MOV_CR0),
    two(0x22, Mandatory::Any, Form::Extended(1 << 2), e::MOV_CR2),
    special(Map::Two, 0x22, Form::Extended(1 << 3), Gives::MovCr3),
    two(0x22, Mandatory::Any, Form::Extended(1 << 4), e::MOV_CR4),
    two(0x22, Mandatory::Any, Form::Extended(1 << 8), e::MOV_CR8),
    two(0x23, Mandatory::Any, Form::Extended(0xff), e::MOV_DR),
    special(Map::Two, 0x30, Form::Any, Gives::Wrmsr),
    two(0x34, Mandatory::Any, Form::Any, e::SYSENTER),
    two(0x35, Mandatory::Any, Form::Any, e::SYSEXIT),
    span(Map::Two, 0x80, 0x8f, Mandatory::Any, Form::Any, e::NEAR_BRANCH),
    two(0xa2, Mandatory::Any, Form::Any, e::CPUID),
    two(0xaa, Mandatory::Any, Form::Any, e::RSM),
    two(0xae, Mandatory::F3, Form::Register(bit(2)), e::WRFSBASE),
    two(0xae, Mandatory::F3, Form::Register(bit(3)), e::WRGSBASE),
    two(0xae, Mandatory::No, Form::Register(bit(5)), e::LFENCE),
    two(0xae, Mandatory::No, Form::Register(bit(6)), e::MFENCE),
    two(0xae, Mandatory::No, Form::Register(bit(7)), e::SFENCE),
    span(Map::Three38, 0x80, 0x80, Mandatory::P66, Form::Memory(0xff), e::INVEPT),
    span(Map::Three38, 0x81, 0x81, Mandatory::P66, Form::Memory(0xff), e::INVVPID),
    span(Map::Three38, 0x82, 0x82, Mandatory::P66, Form::Memory(0xff), e::INVPCID),
];

/// Encodings with LOCK: the read-modify-write instructions that allow it, and AMD's other name for CR8.
pub const LOCKED: &[Encoding] = &[
    span(Map::One, 0x00, 0x01, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x08, 0x09, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x10, 0x11, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x18, 0x19, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x20, 0x21, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x28, 0x29, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x30, 0x31, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0x80, 0x83, Mandatory::Any, Form::Memory(0x7f), e::LOCK_PREFIXED),
    span(Map::One, 0x86, 0x87, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::One, 0xf6, 0xf7, Mandatory::Any, Form::Memory(0x0c), e::LOCK_PREFIXED),
    span(Map::One, 0xfe, 0xff, Mandatory::Any, Form::Memory(0x03), e::LOCK_PREFIXED),
    two(0x20, Mandatory::Any, Form::Extended(1 << 0), e::MOV_FROM_CR),
    two(0x22, Mandatory::Any, Form::Extended(1 << 0), e::MOV_CR8),
    two(0xab, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::Two, 0xb0, 0xb1, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    two(0xb3, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    two(0xba, Mandatory::Any, Form::Memory(0xe0), e::LOCK_PREFIXED),
    two(0xbb, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    span(Map::Two, 0xc0, 0xc1, Mandatory::Any, Form::Memory(0xff), e::LOCK_PREFIXED),
    two(0xc7, Mandatory::Any, Form::Memory(bit(1)), e::LOCK_PREFIXED),
];

/// No encoding has that opcode.
const NOTHING: u8 = u8::MAX;

/// For each opcode of a map, the first encoding that has it, or [`NOTHING`].
const fn index(encodings: &[Encoding], map: Map) -> [u8; 256] {
    assert!(encodings.len() < NOTHING as usize);
    let mut index = [NOTHING; 256];
    let mut row = encodings.len();
    while row > 0 {
        row -= 1;
        if encodings[row].map as u8 == map as u8 {
            let mut opcode = encodings[row].first as usize;
            while opcode <= encodings[row].last as usize {
                index[opcode] = row as u8;
                opcode += 1;
            }
        }
    }
    index
}

const fn indices(encodings: &[Encoding]) -> [[u8; 256]; 3] {
    [index(encodings, Map::One), index(encodings, Map::Two), index(encodings, Map::Three38)]
}

static PLAIN_INDEX: [[u8; 256]; 3] = indices(PLAIN);
static LOCKED_INDEX: [[u8; 256]; 3] = indices(LOCKED);

const REX_W: u8 = 8;
const REX_R: u8 = 4;
const REX_B: u8 = 1;

/// The prefixes of an instruction.
#[derive(Clone, Copy, Default)]
struct Prefixes {
    operand_size: bool,
    lock: bool,
    /// The last of F2 and F3, 0 for none.
    repeat: u8,
    /// The REX byte directly before the opcode, 0 for none.
    rex: u8,
}

impl Prefixes {
    fn fits(self, wanted: Mandatory) -> bool {
        match wanted {
            Mandatory::Any => true,
            Mandatory::No => self.repeat == 0 && !self.operand_size,
            Mandatory::P66 => self.repeat == 0 && self.operand_size,
            Mandatory::F2 => self.repeat == 0xf2,
            Mandatory::F3 => self.repeat == 0xf3,
            Mandatory::NotF3 => self.repeat != 0xf3,
        }
    }
}

impl Form {
    fn fits(self, after: &[u8], rex: u8) -> bool {
        let modrm = match self {
            Self::Any => return true,
            _ => match after.first() {
                Some(modrm) => *modrm,
                None => return false,
            },
        };
        let reg = modrm >> 3 & 7;
        let memory = modrm < 0xc0;
        match self {
            Self::Memory(regs) => memory && regs & bit(reg) != 0,
            Self::Register(regs) => !memory && regs & bit(reg) != 0,
            Self::Either(regs) => regs & bit(reg) != 0,
            Self::ModRm(first, last) => (first..=last).contains(&modrm),
            Self::Extended(regs) => regs & 1 << (reg | (rex & REX_R) << 1) != 0,
            Self::Any => true,
        }
    }
}

/// Finds the event of an instruction from its exact bytes. `None`: it is no event of the table.
///
/// Every event of [`super::events::Seen::Instruction`], `Hot` and `Resolved` is found, hot ones too. A caller that
/// instruments only what its profile counts, and the classes that are not `Fixed`, never pays for the hot ones; see
/// [`super::events::worth_watching`].
#[must_use]
pub fn classify(bytes: &[u8]) -> Option<Class> {
    let mut prefixes = Prefixes::default();
    let mut rest = bytes;
    loop {
        let (byte, after) = rest.split_first()?;
        match byte {
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 => prefixes.rex = 0,
            0x66 => prefixes = Prefixes { operand_size: true, rex: 0, ..prefixes },
            0xf0 => prefixes = Prefixes { lock: true, rex: 0, ..prefixes },
            0xf2 | 0xf3 => prefixes = Prefixes { repeat: *byte, rex: 0, ..prefixes },
            0x40..=0x4f if !after.is_empty() => prefixes.rex = *byte,
            0x0f => {
                return match after {
                    [0x38, opcode, after @ ..] => look_up(Map::Three38, *opcode, after, prefixes),
                    [opcode, after @ ..] => look_up(Map::Two, *opcode, after, prefixes),
                    [] => None,
                };
            }
            0xc4 => return wrmsrns_immediate(after, prefixes),
            opcode => return look_up(Map::One, *opcode, after, prefixes),
        }
        rest = after;
    }
}

fn look_up(map: Map, opcode: u8, after: &[u8], prefixes: Prefixes) -> Option<Class> {
    let (encodings, index) = if prefixes.lock { (LOCKED, &LOCKED_INDEX) } else { (PLAIN, &PLAIN_INDEX) };
    let first = index[map as usize][usize::from(opcode)];
    if first == NOTHING {
        return None;
    }
    let encoding = encodings[usize::from(first)..]
        .iter()
        .take_while(|encoding| encoding.map == map && encoding.first <= opcode)
        .find(|encoding| {
            opcode <= encoding.last && prefixes.fits(encoding.prefix) && encoding.form.fits(after, prefixes.rex)
        })?;
    Some(match encoding.gives {
        Gives::Event(event) => Class::Fixed(event),
        Gives::Iret if prefixes.rex & REX_W != 0 => Class::Iret { operand_bytes: 8 },
        Gives::Iret => Class::Iret { operand_bytes: if prefixes.operand_size { 2 } else { 4 } },
        Gives::Wrmsr => Class::Wrmsr,
        Gives::MovCr3 => Class::MovCr3 { register: after.first()? & 7 | (prefixes.rex & REX_B) << 3 },
    })
}

/// The immediate form of WRMSRNS, the one VEX encoding here: VEX.128.F3.MAP7.W0 `F6 /0 id`, a register operand.
///
/// Outside 64-bit mode `C4` can be LES, which is never 9 bytes long without its prefixes.
fn wrmsrns_immediate(after: &[u8], prefixes: Prefixes) -> Option<Class> {
    let Prefixes { operand_size: false, lock: false, repeat: 0, rex: 0 } = prefixes else { return None };
    match after {
        [map, 0x7a, 0xf6, 0xc0..=0xc7, _, _, _, _] if map & 0x9f == 0x87 => Some(Class::Fixed(e::WRMSRNS)),
        _ => None,
    }
}
