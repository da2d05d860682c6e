//! The forms of instructions that are tried: every one that the interpreter knows.

/// What stands behind the opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operands {
    /// Nothing.
    None,
    /// Nothing: a register is part of the opcode.
    Opcode,
    /// A ModRM byte of either kind.
    Any,
    /// One that means a register.
    Register,
    /// One that means memory.
    Memory,
}

/// What stands at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Immediate {
    /// Nothing.
    None,
    /// A byte.
    Byte,
    /// Two bytes.
    Word,
    /// Two bytes, the sign not set.
    SmallWord,
    /// As many bytes as the operand has, at most 4.
    UpTo4,
    /// As many bytes as the operand has.
    Full,
    /// An address, without ModRM.
    Address,
    /// A branch distance of a byte.
    Near,
    /// A branch distance of 4 bytes.
    Far,
}

/// How it may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Straight on.
    Straight,
    /// By a branch that says how far.
    Relative,
    /// To where its operand says.
    Indirect,
    /// To where the stack says.
    Return,
    /// By an exception.
    Trap,
}

/// A form.
#[derive(Clone, Debug)]
pub struct Form {
    /// What it is called in the output.
    pub name: String,
    /// What stands before the last byte of the opcode, behind the prefixes: nothing, 0F, or a mandatory prefix and 0F.
    pub map: &'static [u8],
    /// Last bytes of the opcode.
    pub opcodes: Vec<u8>,
    /// The operands.
    pub operands: Operands,
    /// The middle field of ModRM, where it is part of the opcode. Empty: anything.
    pub digits: &'static [u8],
    /// The immediate.
    pub immediate: Immediate,
    /// Where it may go.
    pub control: Control,
    /// Does it use the stack?
    pub stack: bool,
    /// Prefixes that may stand before it, apart from REX. 64 and 65 stand for all segment prefixes.
    pub prefixes: &'static [u8],
    /// What an emulator is known to do wrong. Under it the form need not agree.
    pub emulated: Option<&'static str>,
}

const ALL_PREFIXES: &[u8] = &[0x66, 0x67, 0x64, 0xf2, 0xf3];
const NO_REPEAT: &[u8] = &[0x66, 0x67, 0x64];
const BRANCH: &[u8] = &[0x67, 0x64, 0xf2, 0xf3];

fn form(name: &str, opcodes: impl IntoIterator<Item = u8>) -> Form {
    Form {
        name: name.into(),
        map: &[],
        opcodes: opcodes.into_iter().collect(),
        operands: Operands::None,
        digits: &[],
        immediate: Immediate::None,
        control: Control::Straight,
        stack: false,
        prefixes: ALL_PREFIXES,
        emulated: None,
    }
}

impl Form {
    fn map(self, map: &'static [u8]) -> Self {
        Self { map, prefixes: if self.prefixes == ALL_PREFIXES { NO_REPEAT } else { self.prefixes }, ..self }
    }

    fn with(self, operands: Operands) -> Self {
        Self { operands, ..self }
    }

    fn digits(self, digits: &'static [u8]) -> Self {
        Self { digits, ..self }
    }

    fn immediate(self, immediate: Immediate) -> Self {
        Self { immediate, ..self }
    }

    fn stack(self) -> Self {
        Self { stack: true, ..self }
    }

    fn prefixes(self, prefixes: &'static [u8]) -> Self {
        Self { prefixes, ..self }
    }

    fn emulated(self, wrong: &'static str) -> Self {
        Self { emulated: Some(wrong), ..self }
    }

    fn control(self, control: Control) -> Self {
        Self { control, prefixes: BRANCH, ..self }
    }
}

fn nothing() -> Vec<Form> {
    vec![
        form("nop, pause", [0x90]),
        form("nop rm", [0x1f]).map(&[0x0f]).with(Operands::Any),
        form("hint rm", [0x18, 0x19, 0x1c, 0x1d, 0x1e]).map(&[0x0f]).with(Operands::Any).prefixes(&[0x67, 0x64]),
        form("hint rm, MPX off", [0x1a, 0x1b]).map(&[0x0f]).with(Operands::Any).prefixes(&[0x64]),
        form("prefetch m", [0x0d]).map(&[0x0f]).with(Operands::Memory),
        form("endbr64, endbr32", [0xfa, 0xfb]).map(&[0xf3, 0x0f, 0x1e]).prefixes(&[]),
        form("rdssp, CET off", [0x1e]).map(&[0xf3, 0x0f]).with(Operands::Register).digits(&[1]).prefixes(&[]),
    ]
}

fn moves() -> Vec<Form> {
    vec![
        form("mov rm, r", [0x88, 0x89]).with(Operands::Any),
        form("mov r, rm", [0x8a, 0x8b]).with(Operands::Any),
        form("mov rm8, imm8", [0xc6]).with(Operands::Any).digits(&[0]).immediate(Immediate::Byte),
        form("mov rm, imm", [0xc7]).with(Operands::Any).digits(&[0]).immediate(Immediate::UpTo4),
        form("mov r8, imm8", 0xb0..=0xb7).with(Operands::Opcode).immediate(Immediate::Byte),
        form("mov r, imm", 0xb8..=0xbf).with(Operands::Opcode).immediate(Immediate::Full),
        form("mov moffs", 0xa0..=0xa3).immediate(Immediate::Address),
        form("movzx", [0xb6, 0xb7]).map(&[0x0f]).with(Operands::Any),
        form("movsx", [0xbe, 0xbf]).map(&[0x0f]).with(Operands::Any),
        form("movsxd", [0x63]).with(Operands::Any),
        form("lea", [0x8d]).with(Operands::Memory),
        form("xchg r, r", [0x86, 0x87]).with(Operands::Register),
        form("xchg r, rax", 0x90..=0x97).with(Operands::Opcode).prefixes(&[0x66, 0x67, 0x64, 0xf2]),
        form("cmovcc", 0x40..=0x4f).map(&[0x0f]).with(Operands::Any),
        form("setcc", 0x90..=0x9f).map(&[0x0f]).with(Operands::Any),
        form("push r", 0x50..=0x57).with(Operands::Opcode).stack(),
        form("push imm8", [0x6a]).immediate(Immediate::Byte).stack(),
        form("push imm", [0x68]).immediate(Immediate::UpTo4).stack(),
        form("push rm", [0xff]).with(Operands::Any).digits(&[6]).stack(),
        form("pop r", 0x58..=0x5f).with(Operands::Opcode).stack(),
        form("pop rm", [0x8f]).with(Operands::Any).digits(&[0]).stack(),
    ]
}

fn arithmetic() -> Vec<Form> {
    let binary = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"].into_iter().zip((0..).step_by(8)).flat_map(
        |(name, first)| {
            [
                form(&format!("{name} rm, r; {name} r, rm"), first..first + 4).with(Operands::Any),
                form(&format!("{name} al, imm8"), [first + 4]).immediate(Immediate::Byte),
                form(&format!("{name} rax, imm"), [first + 5]).immediate(Immediate::UpTo4),
            ]
        },
    );
    let others = [
        form("arithmetic rm8, imm8", [0x80]).with(Operands::Any).immediate(Immediate::Byte),
        form("arithmetic rm, imm", [0x81]).with(Operands::Any).immediate(Immediate::UpTo4),
        form("arithmetic rm, imm8", [0x83]).with(Operands::Any).immediate(Immediate::Byte),
        form("test rm, r", [0x84, 0x85]).with(Operands::Any),
        form("test al, imm8", [0xa8]).immediate(Immediate::Byte),
        form("test rax, imm", [0xa9]).immediate(Immediate::UpTo4),
        form("test rm8, imm8", [0xf6]).with(Operands::Any).digits(&[0]).immediate(Immediate::Byte),
        form("test rm, imm", [0xf7]).with(Operands::Any).digits(&[0]).immediate(Immediate::UpTo4),
        form("test rm8, imm8, other opcode", [0xf6])
            .with(Operands::Any)
            .digits(&[1])
            .immediate(Immediate::Byte)
            .emulated(NO_OTHER_TEST),
        form("test rm, imm, other opcode", [0xf7])
            .with(Operands::Any)
            .digits(&[1])
            .immediate(Immediate::UpTo4)
            .emulated(NO_OTHER_TEST),
        form("not, neg", [0xf6, 0xf7]).with(Operands::Any).digits(&[2, 3]),
        form("inc, dec", [0xfe, 0xff]).with(Operands::Any).digits(&[0, 1]),
        form("clc, stc, cmc", [0xf8, 0xf9, 0xf5]),
    ];
    binary.chain(others).collect()
}

fn branches() -> Vec<Form> {
    let relative =
        |name: &str, opcodes: Vec<u8>, immediate| form(name, opcodes).immediate(immediate).control(Control::Relative);
    let ret = |name: &str, immediate| form(name, [0xc2]).immediate(immediate).control(Control::Return).stack();
    vec![
        relative("jmp rel8", vec![0xeb], Immediate::Near),
        relative("jmp rel32", vec![0xe9], Immediate::Far),
        relative("call rel32", vec![0xe8], Immediate::Far).stack(),
        relative("jcc rel8", (0x70..=0x7f).collect(), Immediate::Near),
        relative("jcc rel32", (0x80..=0x8f).collect(), Immediate::Far).map(&[0x0f]),
        relative("jrcxz, jecxz", vec![0xe3], Immediate::Near),
        form("jmp rm", [0xff]).with(Operands::Any).digits(&[4]).control(Control::Indirect),
        form("call rm", [0xff]).with(Operands::Any).digits(&[2]).control(Control::Indirect).stack(),
        form("ret", [0xc3]).control(Control::Return).stack(),
        ret("ret imm16, small", Immediate::SmallWord),
        ret("ret imm16", Immediate::Word).emulated("QEMU 10.0 takes the operand of RET as signed"),
    ]
}

fn traps() -> Vec<Form> {
    let trap = |name: &str, opcodes: Vec<u8>| form(name, opcodes).control(Control::Trap).prefixes(&[]);
    let absent = [0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61];
    vec![
        trap("int3", vec![0xcc]).prefixes(NO_REPEAT),
        trap("ud2", vec![0x0b]).map(&[0x0f]),
        trap("ud0, ud1", vec![0xff, 0xb9]).map(&[0x0f]).with(Operands::Any),
        trap("no instruction", absent.to_vec()),
        trap("no instruction, but a 32-bit one", vec![0xce, 0xd4, 0xd5, 0xd6])
            .emulated("QEMU 10.0 has INTO, AAM, AAD and SALC in 64-bit mode"),
        trap("no instruction of 0f", vec![0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27, 0x36, 0x39]).map(&[0x0f]),
        trap("no instruction of ff", vec![0xff]).with(Operands::Any).digits(&[7]),
        trap("no instruction of fe", vec![0xfe]).with(Operands::Any).digits(&[2, 3, 4, 5, 6, 7]),
        trap("lea of a register", vec![0x8d]).with(Operands::Register),
        trap("lock mov", vec![0x88, 0x89, 0x8a, 0x8b]).map(&[0xf0]).with(Operands::Any),
        trap("lock add r, r", vec![0x00, 0x01, 0x02, 0x03]).map(&[0xf0]).with(Operands::Register),
        trap("lock nop", vec![0x90]).map(&[0xf0]),
    ]
}

const NO_OTHER_TEST: &str = "QEMU 10.0 does not know F6 /1 and F7 /1, which AMD documents and Intel's CPUs have";

/// All of them.
pub fn all() -> Vec<Form> {
    [nothing(), moves(), arithmetic(), branches(), traps()].concat()
}
