//! From bytes to a plan.

use super::address::{access, checked, of_memory};
use super::flags::TF;
use super::operand::{Place, Size, Slot, Source};
use super::operation::{Binary, Carry, Condition, Extend, Operation, Unary};
use super::{NotCarriedOut, Plan, Registers};
use iced_x86::{Code, ConditionCode, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind};

/// What a caller gets or does not get.
type Result<T> = std::result::Result<T, NotCarriedOut>;

/// No instruction is longer.
const LONGEST: usize = 15;

/// What is known of the instruction while its operands are collected.
struct Decoding<'a> {
    instruction: Instruction,
    registers: &'a Registers,
    plan: Plan,
}

/// See [`super::plan`].
pub fn plan(bytes: &[u8], registers: &Registers) -> Result<Plan> {
    let mut decoder = Decoder::with_ip(64, bytes, registers.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        if decoder.last_error() == DecoderError::NoMoreBytes || bytes.is_empty() {
            return Err(NotCarriedOut::Truncated);
        }
        // The decoder read all that it may. If the last byte was one too few, this is #GP, and if it made the
        // instruction invalid, #UD.
        if instruction.len() >= LONGEST {
            return Err(NotCarriedOut::TooLong);
        }
    }
    if registers.flags & TF != 0 {
        return Err(NotCarriedOut::SingleStep);
    }
    if instruction.has_lock_prefix() {
        return Err(NotCarriedOut::Locked);
    }
    if is_near_branch(instruction.code()) && has_operand_size_prefix(bytes) {
        return Err(NotCarriedOut::OperandSizeBranch);
    }
    let len = instruction.len().max(1) as u8;
    let plan = Plan { load: None, store: None, operation: Operation::Nothing, rip: registers.rip, len };
    let mut decoding = Decoding { instruction, registers, plan };
    decoding.plan.operation = decoding.operation()?;
    // A fault leaves RIP alone; everything else may go on behind the instruction, or return there.
    if decoding.plan.operation != Operation::Undefined {
        checked(registers.rip.wrapping_add(u64::from(len)))?;
    }
    Ok(decoding.plan)
}

/// Is it a branch whose target an operand-size prefix may truncate?
fn is_near_branch(code: Code) -> bool {
    let returns = matches!(code.mnemonic(), Mnemonic::Ret);
    let jumps = code.is_jmp_short_or_near()
        || code.is_jmp_near_indirect()
        || code.is_jcc_short_or_near()
        || code.is_jcx_short();
    returns || jumps || code.is_call_near() || code.is_call_near_indirect()
}

/// Is there a 66 among the prefixes?
fn has_operand_size_prefix(bytes: &[u8]) -> bool {
    let is_prefix =
        |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    bytes.iter().take(LONGEST).take_while(|byte| is_prefix(byte)).any(|byte| *byte == 0x66)
}

impl Decoding<'_> {
    fn operation(&mut self) -> Result<Operation> {
        let mnemonic = self.instruction.mnemonic();
        Ok(match mnemonic {
            Mnemonic::INVALID | Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Operation::Undefined,
            Mnemonic::Int3 => Operation::Breakpoint,
            _ if does_nothing(mnemonic) => Operation::Nothing,
            Mnemonic::Clc => Operation::Carry(Carry::Clear),
            Mnemonic::Stc => Operation::Carry(Carry::Set),
            Mnemonic::Cmc => Operation::Carry(Carry::Complement),
            _ if is_near_branch(self.instruction.code()) => self.branch()?,
            Mnemonic::Mov => Operation::Move(self.place(0)?, self.source(1)?, Extend::Zero),
            Mnemonic::Movzx => Operation::Move(self.place(0)?, self.source(1)?, Extend::Zero),
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                Operation::Move(self.place(0)?, self.source(1)?, Extend::Sign(self.size(1)?))
            }
            Mnemonic::Lea => {
                let (effective, _) = of_memory(&self.instruction, self.registers);
                Operation::Move(self.place(0)?, Source::Constant(effective), Extend::Zero)
            }
            Mnemonic::Xchg => match (self.slot(0), self.slot(1)) {
                (Some(one), Some(other)) => Operation::Exchange(one, other),
                _ => return Err(NotCarriedOut::Locked),
            },
            Mnemonic::Push => {
                let size = self.stack_size()?;
                let source = self.source(0)?;
                self.push(size)?;
                Operation::Push(size, source)
            }
            Mnemonic::Pop => self.pop()?,
            Mnemonic::Add => self.binary(Binary::Add)?,
            Mnemonic::Adc => self.binary(Binary::Adc)?,
            Mnemonic::Sub => self.binary(Binary::Sub)?,
            Mnemonic::Sbb => self.binary(Binary::Sbb)?,
            Mnemonic::And => self.binary(Binary::And)?,
            Mnemonic::Or => self.binary(Binary::Or)?,
            Mnemonic::Xor => self.binary(Binary::Xor)?,
            Mnemonic::Cmp => Operation::Binary(Binary::Sub, self.size(0)?, None, self.source(0)?, self.source(1)?),
            Mnemonic::Test => Operation::Binary(Binary::And, self.size(0)?, None, self.source(0)?, self.source(1)?),
            Mnemonic::Inc => self.unary(Unary::Inc)?,
            Mnemonic::Dec => self.unary(Unary::Dec)?,
            Mnemonic::Neg => self.unary(Unary::Neg)?,
            Mnemonic::Not => self.unary(Unary::Not)?,
            _ => self.conditional()?,
        })
    }

    fn unsupported<T>(&self) -> Result<T> {
        Err(NotCarriedOut::Unsupported(self.instruction.mnemonic()))
    }

    /// SETcc and CMOVcc, told by their operands from all else that has a condition (LOOPcc, CMPccXADD).
    fn conditional(&mut self) -> Result<Operation> {
        let Some(condition) = self.condition() else { return self.unsupported() };
        match (self.instruction.op_count(), self.slot(0)) {
            // What would be moved is loaded in any case, and faults in any case.
            (2, Some(slot)) => Ok(Operation::MoveIf(condition, slot, self.source(1)?)),
            (1, _) if self.size(0)? == Size::Byte => Ok(Operation::Set(condition, self.place(0)?)),
            _ => self.unsupported(),
        }
    }

    fn branch(&mut self) -> Result<Operation> {
        let instruction = self.instruction;
        match instruction.code() {
            Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => Ok(Operation::Jump(Source::Constant(self.target()?))),
            Code::Jmp_rm64 => Ok(Operation::Jump(self.indirect_target()?)),
            Code::Call_rel32_64 => {
                let target = Source::Constant(self.target()?);
                self.push(Size::Qword)?;
                Ok(Operation::Call(target))
            }
            Code::Call_rm64 => {
                let target = self.indirect_target()?;
                self.push(Size::Qword)?;
                Ok(Operation::Call(target))
            }
            Code::Retnq | Code::Retnq_imm16 => {
                self.plan.load = Some(access(Slot::STACK_POINTER.read(self.registers), Size::Qword)?);
                let freed = if instruction.op_count() == 1 { instruction.immediate16() } else { 0 };
                Ok(Operation::Return(freed))
            }
            Code::Jrcxz_rel8_64 => Ok(Operation::BranchIfZero(Slot::COUNT, self.target()?)),
            Code::Jecxz_rel8_64 => {
                Ok(Operation::BranchIfZero(Slot { size: Size::Dword, ..Slot::COUNT }, self.target()?))
            }
            code if code.is_jcc_short_or_near() => match self.condition() {
                Some(condition) => Ok(Operation::Branch(condition, self.target()?)),
                None => self.unsupported(),
            },
            _ => self.unsupported(),
        }
    }

    /// Where a relative branch goes. Refused even if it is not taken: such a branch is in no program.
    fn target(&self) -> Result<u64> {
        checked(self.instruction.near_branch_target())
    }

    fn indirect_target(&mut self) -> Result<Source> {
        let source = self.source(0)?;
        if let Source::Register(slot) = source {
            checked(slot.read(self.registers))?;
        }
        Ok(source)
    }

    fn pop(&mut self) -> Result<Operation> {
        let size = self.stack_size()?;
        let before = Slot::STACK_POINTER.read(self.registers);
        self.plan.load = Some(access(before, size)?);
        if self.instruction.op_kind(0) != OpKind::Memory {
            return Ok(Operation::Pop(size, self.place(0)?));
        }
        // The operand's address is that of the stack pointer after the pop.
        let mut registers = *self.registers;
        registers.general[usize::from(Slot::STACK_POINTER.number)] = before.wrapping_add(size.bytes().into());
        let (_, linear) = of_memory(&self.instruction, &registers);
        self.plan.store = Some(access(linear, size)?);
        Ok(Operation::Pop(size, Place::Memory))
    }

    /// Stores below the stack pointer.
    fn push(&mut self, size: Size) -> Result<()> {
        let below = Slot::STACK_POINTER.read(self.registers).wrapping_sub(size.bytes().into());
        self.plan.store = Some(access(below, size)?);
        Ok(())
    }

    fn binary(&mut self, operation: Binary) -> Result<Operation> {
        let (size, left, right) = (self.size(0)?, self.source(0)?, self.source(1)?);
        Ok(Operation::Binary(operation, size, Some(self.place(0)?), left, right))
    }

    fn unary(&mut self, operation: Unary) -> Result<Operation> {
        let (size, source) = (self.size(0)?, self.source(0)?);
        Ok(Operation::Unary(operation, size, self.place(0)?, source))
    }

    fn condition(&self) -> Option<Condition> {
        Some(Condition(match self.instruction.condition_code() {
            ConditionCode::o => 0,
            ConditionCode::no => 1,
            ConditionCode::b => 2,
            ConditionCode::ae => 3,
            ConditionCode::e => 4,
            ConditionCode::ne => 5,
            ConditionCode::be => 6,
            ConditionCode::a => 7,
            ConditionCode::s => 8,
            ConditionCode::ns => 9,
            ConditionCode::p => 10,
            ConditionCode::np => 11,
            ConditionCode::l => 12,
            ConditionCode::ge => 13,
            ConditionCode::le => 14,
            ConditionCode::g => 15,
            ConditionCode::None => return None,
        }))
    }

    /// The general register that an operand is.
    fn slot(&self, operand: u32) -> Option<Slot> {
        let is_register =
            operand < self.instruction.op_count() && self.instruction.op_kind(operand) == OpKind::Register;
        is_register.then(|| Slot::of(self.instruction.op_register(operand))).flatten()
    }

    /// How large an operand is that is no constant.
    fn size(&self, operand: u32) -> Result<Size> {
        let size = match self.instruction.op_kind(operand) {
            OpKind::Register => self.slot(operand).map(|slot| slot.size),
            OpKind::Memory => Size::of(self.instruction.memory_size().size()),
            _ => None,
        };
        size.map_or_else(|| self.unsupported(), Ok)
    }

    /// How much is pushed or popped.
    fn stack_size(&self) -> Result<Size> {
        let bytes = self.instruction.stack_pointer_increment().unsigned_abs();
        Size::of(bytes as usize).map_or_else(|| self.unsupported(), Ok)
    }

    /// What is read of an operand. A memory operand becomes the plan's load.
    fn source(&mut self, operand: u32) -> Result<Source> {
        match self.instruction.op_kind(operand) {
            OpKind::Register => {
                self.slot(operand).map_or_else(|| self.unsupported(), |slot| Ok(Source::Register(slot)))
            }
            OpKind::Memory => {
                let (_, linear) = of_memory(&self.instruction, self.registers);
                self.plan.load = Some(access(linear, self.size(operand)?)?);
                Ok(Source::Loaded)
            }
            _ => self
                .instruction
                .try_immediate(operand)
                .map_or_else(|_| self.unsupported(), |value| Ok(Source::Constant(value))),
        }
    }

    /// Where an operand is written. A memory operand becomes the plan's store.
    fn place(&mut self, operand: u32) -> Result<Place> {
        match self.instruction.op_kind(operand) {
            OpKind::Register => self.slot(operand).map_or_else(|| self.unsupported(), |slot| Ok(Place::Register(slot))),
            OpKind::Memory => {
                let (_, linear) = of_memory(&self.instruction, self.registers);
                self.plan.store = Some(access(linear, self.size(operand)?)?);
                Ok(Place::Memory)
            }
            _ => self.unsupported(),
        }
    }
}

/// Instructions that change nothing but RIP: NOPs, hints, and what is one of both on a CPU without CET. Hints about
/// caches never fault.
fn does_nothing(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Nop | Reservednop | Pause | Endbr64 | Endbr32 | Rdsspd | Rdsspq)
        || matches!(
            mnemonic,
            Prefetch
                | Prefetchw
                | Prefetchwt1
                | Prefetchnta
                | Prefetcht0
                | Prefetcht1
                | Prefetcht2
                | Prefetchit0
                | Prefetchit1
                | Cldemote
        )
}
