//! Random cases of a form: the encoding is chosen first, then the registers that bring its memory operand into the
//! memory that there is.

use super::forms::{Control, Form, Immediate, Operands};
use super::machine::{CODE, CODE_LEN, Machine, PAD_LEN, SCRATCH, SCRATCH_LEN};
use crate::random::Random;
use icsan_model::arch::x86::interpret::Registers;

/// An instruction, and what it meets.
#[derive(Clone, Debug)]
pub struct Case {
    /// The instruction.
    pub bytes: Vec<u8>,
    /// All registers before it.
    pub registers: Registers,
    /// All memory before it.
    pub memory: Vec<u8>,
    /// Where it may branch to.
    pub target: Option<u64>,
}

/// RFLAGS bits that vary: the arithmetic ones, and DF, which nothing may change.
const VARYING_FLAGS: u64 = 0xcd5;

/// RFLAGS bits that are set in every program: interrupts, and the one that always is.
const FIXED_FLAGS: u64 = 0x202;

const LONGEST: usize = 15;
const STACK_POINTER: usize = 4;

/// A case that fits. Choices that do not fit together are made again.
pub fn case(form: &Form, machine: &Machine, random: &mut Random) -> Case {
    loop {
        if let Some(case) = attempt(form, machine, random) {
            return case;
        }
    }
}

/// The prefixes of an encoding.
#[derive(Clone, Copy, Default, Debug)]
struct Prefixes {
    rex: u8,
    operand_size: bool,
    address_size: bool,
    segment_base: u64,
}

impl Prefixes {
    /// REX.W, REX.R, REX.X or REX.B, as the fourth bit of a register number.
    fn extension(self, bit: u8) -> usize {
        usize::from(self.rex >> bit & 1) << 3
    }

    fn address(self, value: u64) -> u64 {
        if self.address_size { value & 0xffff_ffff } else { value }
    }
}

/// An encoding in the making.
struct Builder<'a> {
    random: &'a mut Random,
    form: &'a Form,
    prefixes: Prefixes,
    bytes: Vec<u8>,
    registers: Registers,
    /// Where the memory operand shall be.
    place: u64,
    /// Where the form's branch shall go.
    target: u64,
    /// Where a displacement is that counts from the instruction's end.
    relative: Option<usize>,
}

fn attempt(form: &Form, machine: &Machine, random: &mut Random) -> Option<Case> {
    let mut general = [(); 16].map(|()| random.operand());
    // Enough on both sides for what is pushed, popped and addressed from it.
    general[STACK_POINTER] = SCRATCH + 0x400 + random.below(0x800);
    // Now and then an instruction crosses pages.
    let rip =
        CODE + CODE_LEN / 2 - if random.once_in(8) { random.below(LONGEST as u64) } else { 0x100 - random.below(64) };
    let flags = FIXED_FLAGS | random.next() & VARYING_FLAGS;
    let registers = Registers { general, rip, flags, fs_base: machine.fs_base, gs_base: machine.gs_base };
    let (place, target) = (SCRATCH + 0x400 + random.below(0x800), CODE + random.below(CODE_LEN - PAD_LEN));
    let mut builder = Builder {
        random,
        form,
        prefixes: Prefixes::default(),
        bytes: Vec::new(),
        registers,
        place,
        target,
        relative: None,
    };
    builder.prefixes(machine);
    builder.opcode()?;
    builder.immediate()?;
    builder.finish()
}

impl Builder<'_> {
    /// Prefixes in any order, then REX, which must be the last.
    fn prefixes(&mut self, machine: &Machine) {
        let (mandatory, _) = self.map();
        self.bytes.extend(mandatory);
        for _ in 0..4 {
            if self.form.prefixes.is_empty() || !self.random.once_in(3) {
                continue;
            }
            match self.random.one_of(self.form.prefixes) {
                0x64 => {
                    let prefix = self.random.one_of(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x64, 0x65, 0x65]);
                    // In 64-bit mode only FS and GS count, whatever comes behind them; QEMU 10.0 has the last one
                    // count.
                    if machine.emulated
                        && self.bytes.iter().any(|byte| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65))
                    {
                        continue;
                    }
                    self.bytes.push(prefix);
                    match prefix {
                        0x64 => self.prefixes.segment_base = machine.fs_base,
                        0x65 => self.prefixes.segment_base = machine.gs_base,
                        _ => {}
                    }
                }
                prefix => {
                    self.bytes.push(prefix);
                    self.prefixes.operand_size |= prefix == 0x66;
                    self.prefixes.address_size |= prefix == 0x67;
                }
            }
        }
        if !self.form.prefixes.is_empty() && self.random.once_in(2) {
            // Without ModRM, REX.B would make NOP an XCHG.
            let bits = if self.form.operands == Operands::None { 0xe } else { 0xf };
            self.prefixes.rex = 0x40 | self.random.next() as u8 & bits;
            self.bytes.push(self.prefixes.rex);
        }
    }

    /// The form's map: prefixes, and what comes behind REX.
    fn map(&self) -> (&'static [u8], &'static [u8]) {
        let prefixes = self.form.map.iter().take_while(|byte| matches!(byte, 0xf0 | 0xf2 | 0xf3)).count();
        self.form.map.split_at(prefixes)
    }

    fn opcode(&mut self) -> Option<()> {
        let (_, escape) = self.map();
        self.bytes.extend(escape);
        let opcode = self.random.one_of(&self.form.opcodes);
        self.bytes.push(opcode);
        let register = match self.form.operands {
            Operands::None => {
                self.counter();
                return Some(());
            }
            Operands::Opcode => return Some(()),
            Operands::Register => true,
            Operands::Memory => false,
            Operands::Any => self.random.once_in(2),
        };
        let field = match self.form.digits {
            [] => self.random.below(8) as u8,
            digits => self.random.one_of(digits),
        };
        if register { self.register_operand(field) } else { self.memory_operand(field) }
    }

    /// JRCXZ shall meet a zero often enough. It is the only one that looks at a register which it does not name, apart
    /// from the stack pointer.
    fn counter(&mut self) {
        if self.form.immediate == Immediate::Near && self.random.once_in(2) {
            self.registers.general[1] = if self.random.once_in(2) { self.random.next() << 32 } else { 0 };
        }
    }

    fn register_operand(&mut self, field: u8) -> Option<()> {
        let low = self.random.below(8) as u8;
        self.bytes.push(0xc0 | field << 3 | low);
        if self.form.control == Control::Indirect {
            let number = usize::from(low) | self.prefixes.extension(0);
            // A call would push onto code.
            if number == STACK_POINTER && self.form.stack {
                return None;
            }
            self.registers.general[number] = self.target;
        }
        Some(())
    }

    fn memory_operand(&mut self, field: u8) -> Option<()> {
        let (kind, low) = (self.random.below(3) as u8, self.random.below(8) as u8);
        self.bytes.push(kind << 6 | field << 3 | low);
        let offset = self.place.wrapping_sub(self.prefixes.segment_base);
        // 32-bit addresses do not wrap around to below a segment's base.
        if self.prefixes.address_size && offset > u64::from(u32::MAX) {
            return None;
        }
        let (base, index) = if low == 4 {
            let sib = self.random.next() as u8;
            self.bytes.push(sib);
            let index = usize::from(sib >> 3 & 7) | self.prefixes.extension(1);
            let index = (index != STACK_POINTER).then_some((index, 1_u64 << (sib >> 6)));
            // Without a displacement, base RBP or R13 means no base.
            let has_base = kind != 0 || sib & 7 != 5;
            (has_base.then_some(usize::from(sib & 7) | self.prefixes.extension(0)), index)
        } else if kind == 0 && low == 5 {
            // From the instruction's end, which is not known yet.
            self.relative = Some(self.bytes.len());
            self.bytes.extend([0; 4]);
            return Some(());
        } else {
            (Some(usize::from(low) | self.prefixes.extension(0)), None)
        };
        let Some(base) = base else { return self.displaced(offset, index) };
        let distance = match kind {
            0 => 0,
            1 => self.random.next() as i8 as i64,
            _ if base == STACK_POINTER || self.random.once_in(2) => self.random.below(0x200) as i64 - 0x100,
            _ => i64::from(self.random.next() as i32),
        };
        match kind {
            0 => {}
            1 => self.bytes.push(distance as u8),
            _ => self.bytes.extend((distance as i32).to_le_bytes()),
        }
        self.aim(base, index, offset.wrapping_sub(distance as u64))
    }

    /// A 32-bit displacement, and perhaps an index.
    fn displaced(&mut self, offset: u64, index: Option<(usize, u64)>) -> Option<()> {
        let indexed = index.map_or(0, |(index, scale)| {
            let value = self.random.below(0x1_0000);
            self.registers.general[index] = self.beyond_address(value);
            value * scale
        });
        let displacement = offset.wrapping_sub(indexed);
        let narrow = displacement as i32;
        if self.prefixes.address(i64::from(narrow) as u64) != self.prefixes.address(displacement) {
            return None;
        }
        self.bytes.extend(narrow.to_le_bytes());
        Some(())
    }

    /// Sets base and index so that they add up to `sum`.
    fn aim(&mut self, base: usize, index: Option<(usize, u64)>, sum: u64) -> Option<()> {
        let value = match index {
            // A few bytes below, since not every sum can be had.
            Some((index, scale)) if index == base => {
                let sum = self.prefixes.address(sum);
                self.place -= sum % (scale + 1);
                sum / (scale + 1)
            }
            Some((index, scale)) => {
                if base == STACK_POINTER {
                    let value = self.random.below(32);
                    self.registers.general[index] = self.beyond_address(value);
                }
                sum.wrapping_sub(self.registers.general[index].wrapping_mul(scale))
            }
            None => sum,
        };
        // The stack must stay in the memory, and above 32 bits there is none.
        if base == STACK_POINTER {
            self.registers.general[base] = value;
            let usable = SCRATCH + 0x20..SCRATCH + SCRATCH_LEN as u64 - 0x20;
            return (!self.form.stack || usable.contains(&value)).then_some(());
        }
        self.registers.general[base] = self.beyond_address(value);
        Some(())
    }

    /// Anything above the bits that an address is made of.
    fn beyond_address(&mut self, value: u64) -> u64 {
        if self.prefixes.address_size { self.random.next() << 32 | value & 0xffff_ffff } else { value }
    }

    fn immediate(&mut self) -> Option<()> {
        let wide = self.prefixes.rex & 8 != 0;
        let operand = if wide {
            8
        } else if self.prefixes.operand_size {
            2
        } else {
            4
        };
        let len = match self.form.immediate {
            Immediate::None => 0,
            Immediate::Byte => 1,
            Immediate::Word | Immediate::SmallWord => 2,
            Immediate::UpTo4 => operand.min(4),
            Immediate::Full => operand,
            Immediate::Address => {
                let offset = self.place.wrapping_sub(self.prefixes.segment_base);
                let len = if self.prefixes.address_size { 4 } else { 8 };
                self.bytes.extend(&offset.to_le_bytes()[..len]);
                return (len == 8 || offset <= u64::from(u32::MAX)).then_some(());
            }
            Immediate::Near => {
                let distance = self.random.next() as i8;
                self.bytes.push(distance as u8);
                self.target = self.behind().wrapping_add_signed(distance.into());
                return Some(());
            }
            Immediate::Far => {
                let distance = self.target.wrapping_sub(self.behind() + 4) as u32;
                self.bytes.extend(distance.to_le_bytes());
                return Some(());
            }
        };
        let value = self.random.operand() & if self.form.immediate == Immediate::SmallWord { 0x7fff } else { u64::MAX };
        self.bytes.extend(&value.to_le_bytes()[..len]);
        Some(())
    }

    fn behind(&self) -> u64 {
        self.registers.rip + self.bytes.len() as u64
    }

    fn finish(mut self) -> Option<Case> {
        let behind = self.behind();
        if let Some(at) = self.relative {
            let displacement = self.place.wrapping_sub(self.prefixes.segment_base).wrapping_sub(behind);
            let narrow = displacement as i32;
            if self.prefixes.address(i64::from(narrow) as u64) != self.prefixes.address(displacement) {
                return None;
            }
            self.bytes[at..at + 4].copy_from_slice(&narrow.to_le_bytes());
        }
        // The pads at both ends of a branch do not overlap, unless they are the same.
        let near = self.registers.rip - PAD_LEN + 1..behind + PAD_LEN;
        let branches = !matches!(self.form.control, Control::Straight | Control::Trap);
        if self.bytes.len() > LONGEST || branches && near.contains(&self.target) && self.target != behind {
            return None;
        }
        let mut memory: Vec<u8> = (0..SCRATCH_LEN / 8).flat_map(|_| self.random.next().to_le_bytes()).collect();
        let mut point = |at: u64| {
            let at = at.wrapping_sub(SCRATCH) as usize;
            memory.get_mut(at..at + 8).map(|place| place.copy_from_slice(&self.target.to_le_bytes()))
        };
        match self.form.control {
            Control::Return => point(self.registers.general[STACK_POINTER])?,
            Control::Indirect => point(self.place)?,
            _ => {}
        }
        Some(Case { bytes: self.bytes, registers: self.registers, memory, target: branches.then_some(self.target) })
    }
}
