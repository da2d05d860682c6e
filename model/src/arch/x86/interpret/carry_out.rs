//! What an operation changes.

use super::operand::{Place, Size, Slot, Source};
use super::operation::{Extend, Operation};
use super::{Effects, Next, Plan, Registers};

/// The effects so far.
struct Writer<'a> {
    plan: &'a Plan,
    registers: &'a Registers,
    loaded: u64,
    effects: Effects,
}

/// Carries out the operation of a plan.
pub fn carry_out(plan: &Plan, registers: &Registers, loaded: u64) -> Effects {
    let next = Next::At(plan.rip.wrapping_add(u64::from(plan.len)));
    // What the caller loaded beyond the access is not ours to look at.
    let loaded = plan.load.and_then(|access| Size::of(access.len.into())).map_or(0, |size| size.truncate(loaded));
    let mut writer =
        Writer { plan, registers, loaded, effects: Effects { store: None, general: [None; 2], flags: None, next } };
    writer.run();
    writer.effects
}

impl Writer<'_> {
    fn run(&mut self) {
        let flags = self.registers.flags;
        match self.plan.operation {
            Operation::Nothing => {}
            Operation::Breakpoint => self.effects.next = Next::Breakpoint { len: self.plan.len },
            Operation::Undefined => self.effects.next = Next::Undefined,
            Operation::Jump(target) => self.go(self.read(target)),
            Operation::Call(target) => {
                let target = self.read(target);
                self.push(Size::Qword, self.plan.rip.wrapping_add(u64::from(self.plan.len)));
                self.go(target);
            }
            Operation::Return(freed) => {
                self.move_stack_pointer(8 + u64::from(freed));
                self.go(self.loaded);
            }
            Operation::Branch(condition, target) if condition.holds(flags) => self.go(target),
            Operation::BranchIfZero(count, target) if count.read(self.registers) == 0 => self.go(target),
            Operation::Branch(..) | Operation::BranchIfZero(..) => {}
            Operation::Move(place, source, extend) => {
                let value = self.read(source);
                let value = match extend {
                    Extend::Zero => value,
                    Extend::Sign(size) => size.sign_extend(value),
                };
                self.write(place, value);
            }
            Operation::MoveIf(condition, slot, source) => {
                // Written in any case: a 32-bit move that does not happen still clears the bits above.
                let value = if condition.holds(flags) { self.read(source) } else { slot.read(self.registers) };
                self.write(Place::Register(slot), value);
            }
            Operation::Set(condition, place) => self.write(place, u64::from(condition.holds(flags))),
            Operation::Exchange(one, other) => {
                let (first, second) = (one.read(self.registers), other.read(self.registers));
                self.write(Place::Register(one), second);
                self.write(Place::Register(other), first);
            }
            Operation::Push(size, source) => self.push(size, self.read(source)),
            Operation::Pop(size, place) => {
                self.move_stack_pointer(size.bytes().into());
                self.write(place, self.loaded);
            }
            Operation::Binary(operation, size, place, left, right) => {
                let (left, right) = (size.truncate(self.read(left)), size.truncate(self.read(right)));
                let (result, flags) = operation.apply(size, left, right, flags);
                self.effects.flags = Some(flags);
                if let Some(place) = place {
                    self.write(place, result);
                }
            }
            Operation::Unary(operation, size, place, source) => {
                let (result, flags) = operation.apply(size, size.truncate(self.read(source)), flags);
                self.effects.flags = flags;
                self.write(place, result);
            }
            Operation::Carry(carry) => self.effects.flags = Some(carry.apply(flags)),
        }
    }

    fn read(&self, source: Source) -> u64 {
        match source {
            Source::Register(slot) => slot.read(self.registers),
            Source::Constant(value) => value,
            Source::Loaded => self.loaded,
        }
    }

    fn write(&mut self, place: Place, value: u64) {
        match place {
            Place::Register(slot) => self.write_register(slot, value),
            Place::Memory => {
                let store = self.plan.store;
                self.effects.store = store
                    .map(|access| (access, Size::of(access.len.into()).map_or(value, |size| size.truncate(value))));
            }
        }
    }

    /// A register that is written twice keeps what the first write left of it.
    fn write_register(&mut self, slot: Slot, value: u64) {
        let Self { registers, effects: Effects { general, .. }, .. } = self;
        let mine = |entry: &Option<(u8, u64)>| entry.is_none_or(|(number, _)| number == slot.number);
        // No operation names more than two registers.
        if let Some(entry) = general.iter_mut().find(|entry| mine(entry)) {
            let before = entry.map_or(registers.general[usize::from(slot.number & 15)], |(_, value)| value);
            *entry = Some((slot.number, slot.merge(before, value)));
        }
    }

    fn push(&mut self, size: Size, value: u64) {
        self.move_stack_pointer(0_u64.wrapping_sub(size.bytes().into()));
        self.write(Place::Memory, value);
    }

    fn move_stack_pointer(&mut self, by: u64) {
        let before = Slot::STACK_POINTER.read(self.registers);
        self.write_register(Slot::STACK_POINTER, before.wrapping_add(by));
    }

    fn go(&mut self, target: u64) {
        self.effects.next = Next::At(target);
    }
}
