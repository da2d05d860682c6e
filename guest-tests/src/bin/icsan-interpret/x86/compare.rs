//! One case, by the CPU and by the interpreter.

use super::generator::Case;
use super::machine::{End, Machine, Outcome, SCRATCH};
use crate::random::Random;
use icsan_model::arch::x86::interpret::{self, Access, Next, Registers};
use std::fmt::Write;

/// RFLAGS.RF, which only exceptions show.
const RESUME: u64 = 1 << 16;

/// # Errors
/// They differ: the case and how, in words.
pub fn compare(case: &Case, machine: &Machine, random: &mut Random) -> Result<(), String> {
    let expected = interpret(case, random).map_err(|error| format!("{}\n{error}", shown(case)))?;
    let mut got = machine.execute(&case.bytes, &case.registers, &case.memory, case.target);
    got.flags &= !RESUME;
    if expected == got { Ok(()) } else { Err(format!("{}\n{}", shown(case), differences(case, &expected, &got))) }
}

/// The part of the memory that an access means.
fn part(access: Access, len: usize) -> Result<std::ops::Range<usize>, String> {
    let begin = access.linear.wrapping_sub(SCRATCH) as usize;
    let range = begin..begin.saturating_add(access.len.into());
    if range.end <= len {
        Ok(range)
    } else {
        Err(format!("the interpreter wants {} bytes at {:#x}", access.len, access.linear))
    }
}

fn interpret(case: &Case, random: &mut Random) -> Result<Outcome, String> {
    let registers = &case.registers;
    // Neither what comes behind the instruction nor what lies beyond the load may matter.
    let mut bytes = case.bytes.clone();
    bytes.extend(random.next().to_le_bytes());
    let plan = interpret::plan(&bytes, registers).map_err(|refusal| format!("refused: {refusal}"))?;
    let mut loaded = random.next().to_le_bytes();
    if let Some(load) = plan.load {
        let part = part(load, case.memory.len())?;
        loaded[..part.len()].copy_from_slice(&case.memory[part]);
    }
    let effects = plan.carry_out(registers, u64::from_le_bytes(loaded));
    let (mut general, mut memory) = (registers.general, case.memory.clone());
    for (number, value) in effects.general.into_iter().flatten() {
        general[usize::from(number)] = value;
    }
    if let Some((store, value)) = effects.store {
        let part = part(store, memory.len())?;
        let len = part.len();
        memory[part].copy_from_slice(&value.to_le_bytes()[..len]);
    }
    if effects.store.map(|(access, _)| access) != plan.store() {
        return Err("it stores elsewhere than it planned".into());
    }
    let end = match effects.next {
        Next::At(address) => End::At(address),
        Next::Breakpoint { len } => End::Signal(libc::SIGTRAP, registers.rip + u64::from(len)),
        Next::Undefined => End::Signal(libc::SIGILL, registers.rip),
    };
    Ok(Outcome { general, flags: effects.flags.unwrap_or(registers.flags), memory, end })
}

const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

fn shown(case: &Case) -> String {
    let Registers { general, rip, flags, .. } = case.registers;
    let bytes: Vec<_> = case.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let registers: Vec<_> = NAMES.iter().zip(general).map(|(name, value)| format!("{name}={value:#x}")).collect();
    format!("{} at {rip:#x}, flags {flags:#x}\n{}", bytes.join(" "), registers.join(" "))
}

fn differences(case: &Case, expected: &Outcome, got: &Outcome) -> String {
    let mut text = String::new();
    let mut tell = |what: &str, expected: String, got: String| {
        if expected != got {
            let _ = writeln!(text, "{what}: expected {expected}, got {got}");
        }
    };
    tell("end", format!("{:x?}", expected.end), format!("{:x?}", got.end));
    tell("flags", format!("{:#x}", expected.flags), format!("{:#x}", got.flags));
    for (number, name) in NAMES.iter().enumerate() {
        tell(name, format!("{:#x}", expected.general[number]), format!("{:#x}", got.general[number]));
    }
    for (offset, before) in case.memory.iter().enumerate() {
        let [expected, got] = [expected, got].map(|outcome| format!("{:02x}", outcome.memory[offset]));
        tell(&format!("{:#x} (was {before:02x})", SCRATCH + offset as u64), expected, got);
    }
    text
}
