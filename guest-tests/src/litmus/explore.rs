//! Every outcome of a litmus test that the model allows.
//!
//! # Why this is the set
//! - *The events are the test's.* Its steps become the model's events in their order: a store is cut into its atomic
//!   parts as the plugin cuts it, a CPU branches around each step since its own code does, CPUID and the IRET at the
//!   end of an exception serialize by the profile.
//! - *A call is followed instruction by instruction.* Where the CPU is, memory's instruction has a length; that is the
//!   model's `Fetch`, and the model's candidates are all that the CPU may execute there. Each of them is carried out on
//!   a copy of the whole state (registers, stack, code, model) by the interpreter, and followed to the end of the test.
//!   Nothing else is chosen anywhere, so the ends of these paths are the outcomes, each of them, and no other.
//! - *The choices of one fetch do not bind the next*, and what is chosen does not change what the CPU holds: that is
//!   the model's own rule (a `Fetch` is of memory's instruction, whatever is executed), and the plugin's.
//!
//! So the set is exact with respect to the model, and as generous as the model is. What it does not show: that the
//! model is right about CPUs (the native run can only refute it), and anything about tests that are not in the table.
//!
//! # Rules for tests
//! What follows is not worked out, and refused as an error of the test: bytes in memory that are executed and are no
//! instruction (but UD2); loads, stores and jumps to anywhere but the code and the stack; taken branches to the very
//! next instruction, which look like none; more than [`LIMIT`] instructions.

use super::outcome::{End, Outcome};
use super::{Action, Litmus, PAGE, View};
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::arch::decode::Decode;
use icsan_model::arch::profile::Profile;
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::arch::x86::interpret::{self, Access, Next, Registers};
use icsan_model::arch::x86::length::X86Length;
use icsan_model::arch::x86::{X86_64, atomicity, events};
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use std::collections::BTreeSet;

/// How many instructions a call may take.
pub const LIMIT: usize = 64;

/// How many paths a test may have.
const PATHS: usize = 100_000;

/// Where the code is executed, where the alias lies, and the memory of both.
const OWN: u64 = 0x7000_0000_0000;
const ALIAS: u64 = 0x7100_0000_0000;
const PHYS: u64 = 0x10_0000;

/// The stack pointer at the call's first instruction points to [`RETURN`].
const STACK: u64 = 0x7200_0000_0000;
const STACK_BYTES: u64 = 256;
const RETURN: u64 = 0x1234_5678;

/// RFLAGS at a call's first instruction: after `xor eax, eax`, with interrupts.
const FLAGS: u64 = 0x246;

const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;

/// What a test may show.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Allowed {
    /// The outcomes.
    pub outcomes: BTreeSet<Outcome>,
    /// Candidates that the interpreter does not carry out, in words. What they would lead to is not among the outcomes,
    /// nor is it injected.
    pub not_carried_out: BTreeSet<String>,
}

/// Works out every outcome of a test under a profile.
///
/// # Errors
/// The test breaks a rule of this module's.
pub fn explore(test: &Litmus, profile: Profile) -> Result<Allowed, String> {
    let mut explorer = Explorer { test, allowed: Allowed::default(), paths: 0 };
    let state = State::new(test, profile)?;
    explorer.step(state, 0, Vec::new()).map_err(|why| format!("{}: {why}", test.name))?;
    Ok(explorer.allowed)
}

/// The same under the profile that the guest is run with, by which the table is written.
///
/// # Errors
/// The same.
pub fn allowed(test: &Litmus) -> Result<Allowed, String> {
    explore(test, *X86_64.default_profile())
}

/// All that a path has of its own, but for the calls that ended.
#[derive(Clone, Debug)]
struct State {
    model: Model,
    code: Vec<u8>,
    stack: Vec<u8>,
    registers: Registers,
}

/// Where an address points to.
#[derive(Clone, Copy, Debug)]
enum Place {
    Code { offset: usize },
    Stack { offset: usize },
}

impl State {
    fn new(test: &Litmus, profile: Profile) -> Result<Self, String> {
        let model = Model::new(profile, X86Length, test.cpus()).map_err(|error| error.to_string())?;
        let mut state =
            Self { model, code: test.image(), stack: vec![0; STACK_BYTES as usize], registers: Registers::default() };
        for page in (0..test.pages).map(|page| (page * PAGE) as u64) {
            let phys = Phys(PHYS + page);
            for vcpu in (0..test.cpus()).map(|cpu| Vcpu(cpu as u16)) {
                for view in [OWN, ALIAS] {
                    state.tell(Event::Remap { vcpu, linear: Linear(view + page), phys: Some(phys) })?;
                }
            }
            let bytes = state.code[page as usize..page as usize + PAGE].to_vec();
            state.tell(Event::Contents { phys, bytes })?;
        }
        for cpu in 0..test.cpus() {
            state.sync(cpu as u16, events::CPUID)?;
        }
        Ok(state)
    }

    fn tell(&mut self, event: Event) -> Result<(), String> {
        self.model.apply(&event).map(drop).map_err(|error| format!("{event:?}: {error}"))
    }

    fn sync(&mut self, cpu: u16, event: SyncEventId) -> Result<(), String> {
        self.tell(Event::Sync { vcpu: Vcpu(cpu), event, pc: Linear(0) })
    }

    fn branch(&mut self, cpu: u16) -> Result<(), String> {
        self.tell(Event::Branch { vcpu: Vcpu(cpu) })
    }

    fn place(&self, linear: u64, len: usize) -> Result<Place, String> {
        let inside = |base: u64, size: usize| {
            let offset = usize::try_from(linear.checked_sub(base)?).ok()?;
            (offset + len <= size).then_some(offset)
        };
        let code = inside(OWN, self.code.len())
            .or_else(|| inside(ALIAS, self.code.len()))
            .map(|offset| Place::Code { offset });
        let stack = || inside(STACK - STACK_BYTES / 2, self.stack.len()).map(|offset| Place::Stack { offset });
        code.or_else(stack).ok_or_else(|| format!("{linear:#x} is neither code nor stack"))
    }

    fn load(&self, Access { linear, len }: Access) -> Result<u64, String> {
        let len = usize::from(len);
        let bytes = match self.place(linear, len)? {
            Place::Code { offset } => &self.code[offset..offset + len],
            Place::Stack { offset } => &self.stack[offset..offset + len],
        };
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// One access that stores.
    fn store(&mut self, cpu: u16, linear: u64, bytes: &[u8]) -> Result<(), String> {
        let offset = match self.place(linear, bytes.len())? {
            Place::Code { offset } => offset,
            Place::Stack { offset } => {
                self.stack[offset..offset + bytes.len()].copy_from_slice(bytes);
                return Ok(());
            }
        };
        for part in atomicity::parts(linear, bytes.len() as u64) {
            let store = Store {
                vcpu: Some(Vcpu(cpu)),
                pc: None,
                linear: Some(Linear(linear + part.start as u64)),
                phys: Phys(PHYS + (offset + part.start) as u64),
                bytes: bytes[part].to_vec(),
            };
            self.tell(Event::Store(store))?;
        }
        self.code[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// The call itself.
    fn enter(&mut self, entry: u16, argument: u32) -> Result<(), String> {
        self.registers = Registers { rip: OWN + u64::from(entry), flags: FLAGS, ..Registers::default() };
        self.registers.general[RSP] = STACK;
        self.registers.general[RDI] = ALIAS;
        self.registers.general[RSI] = argument.into();
        let Place::Stack { offset } = self.place(STACK, 8)? else { return Err("no stack".into()) };
        self.stack[offset..offset + 8].copy_from_slice(&RETURN.to_le_bytes());
        Ok(())
    }

    /// Carries out one candidate. `None`: the call goes on.
    fn carry_out(&mut self, cpu: u16, plan: interpret::Plan) -> Result<Option<End>, String> {
        let loaded = plan.load.map_or(Ok(0), |access| self.load(access))?;
        let effects = plan.carry_out(&self.registers, loaded);
        if let Some((access, value)) = effects.store {
            self.store(cpu, access.linear, &value.to_le_bytes()[..usize::from(access.len)])?;
        }
        for (number, value) in effects.general.into_iter().flatten() {
            self.registers.general[usize::from(number)] = value;
        }
        self.registers.flags = effects.flags.unwrap_or(self.registers.flags);
        let here = self.registers.rip.wrapping_sub(OWN);
        let exception = match effects.next {
            Next::At(next) => {
                if next != self.registers.rip.wrapping_add(plan.len().into()) {
                    self.branch(cpu)?;
                }
                self.registers.rip = next;
                return Ok((next == RETURN).then_some(End::Returned(self.registers.general[0])));
            }
            Next::Breakpoint { len } => End::Trap(here + u64::from(len)),
            Next::Undefined => End::Undefined(here),
        };
        // The kernel returns from the exception by IRET.
        self.branch(cpu)?;
        self.sync(cpu, events::IRET)?;
        Ok(Some(exception))
    }
}

struct Explorer<'a> {
    test: &'a Litmus,
    allowed: Allowed,
    paths: usize,
}

impl Explorer<'_> {
    /// From one step on.
    fn step(&mut self, mut state: State, index: usize, ends: Vec<End>) -> Result<(), String> {
        let Some(step) = self.test.steps.get(index) else {
            self.allowed.outcomes.insert(Outcome(ends));
            self.paths += 1;
            return if self.paths <= PATHS { Ok(()) } else { Err(format!("more than {PATHS} paths")) };
        };
        state.branch(step.cpu)?;
        match step.action {
            Action::Execute(entry, argument) => {
                state.enter(entry, argument)?;
                return self.call(state, index, &ends, LIMIT);
            }
            Action::Store(offset, bytes, view) => {
                let base = if view == View::Own { OWN } else { ALIAS };
                state.store(step.cpu, base + u64::from(offset), bytes)?;
            }
            Action::Serialize => state.sync(step.cpu, events::CPUID)?,
        }
        state.branch(step.cpu)?;
        self.step(state, index + 1, ends)
    }

    /// From one instruction of a call on.
    fn call(&mut self, mut state: State, index: usize, ends: &[End], left: usize) -> Result<(), String> {
        let cpu = self.test.steps[index].cpu;
        let linear = state.registers.rip;
        if left == 0 {
            return Err(format!("more than {LIMIT} instructions"));
        }
        let Place::Code { offset } = state.place(linear, 1)? else { return Err("it executes its stack".into()) };
        let window = &state.code[offset..(offset + X86Length.max_len()).min(state.code.len())];
        let len = X86Length.len(window).ok_or_else(|| format!("no instruction at {offset:#x}"))? as u8;
        let candidates = state.model.candidates(Vcpu(cpu), Linear(linear), len).map_err(|error| error.to_string())?;
        if !candidates.complete {
            return Err(format!("too many candidates at {offset:#x}"));
        }
        state.tell(Event::Fetch { vcpu: Vcpu(cpu), linear: Linear(linear), len })?;
        for (number, candidate) in candidates.list.iter().enumerate() {
            let plan = match interpret::plan(&candidate.bytes, &state.registers) {
                Ok(plan) => plan,
                Err(why) if number == 0 => return Err(format!("memory's instruction at {offset:#x}: {why}")),
                Err(why) => {
                    self.allowed.not_carried_out.insert(format!("{:02x?} at {offset:#x}: {why}", candidate.bytes));
                    continue;
                }
            };
            let mut path = state.clone();
            match path.carry_out(cpu, plan).map_err(|why| format!("at {offset:#x}: {why}"))? {
                None => self.call(path, index, ends, left - 1)?,
                Some(end) => {
                    let ends = ends.iter().copied().chain([end]).collect();
                    self.step(path, index + 1, ends)?;
                }
            }
        }
        Ok(())
    }
}
