//! Where patches begin and end: entries of protocol functions, the addresses that they return to, `__switch_to`, and the membarrier system call.

use super::page_table;
use super::registers::Registers;
use super::stack::callers;
use crate::patching::{Entry, Identity};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::locks::RwLock;
use crate::qemu::translation::{Instruction, Payload};
use crate::sanitizer::Sanitizer;
use icsan_model::addr::Linear;
use icsan_symbols::calls::{CallKind, calls_ending};
use icsan_symbols::protocol::{self, Effect};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The function that makes a vCPU run another task: (previous task, next task), pointers to `task_struct` (arch/x86/kernel/process_64.c).
const SWITCH: &str = "__switch_to";

/// `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Number of membarrier(2) on x86-64, and its command PRIVATE_EXPEDITED_SYNC_CORE (include/uapi/linux/membarrier.h).
const MEMBARRIER: u64 = 324;
const SYNC_CORE: u64 = 1 << 5;

/// The callbacks that exist so far.
#[derive(Debug, Default)]
pub struct ProtocolPoints {
    entries: RwLock<Entries>,
    returns: RwLock<FxHashMap<u64, &'static ReturnPoint>>,
    syscalls: RwLock<FxHashMap<u64, &'static SyscallPoint>>,
}

/// The entries of the kernel that runs, by runtime address; empty until its place is known.
#[derive(Clone, Copy, Debug, Default)]
struct Entries {
    /// For which offset of the kernel they are.
    offset: Option<u64>,
    /// They are never freed: translated blocks point at the callbacks. There are no more of them than boots
    /// ([`icsan_symbols::MAX_BOOTS`]).
    points: Option<&'static FxHashMap<u64, &'static EntryPoint>>,
}

/// Where the kernel keeps the pointer to the current task, from GS on; [`UNKNOWN`] if that is not known.
static CURRENT_TASK: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Switch,
    Function { commits: bool, chain: bool },
}

/// What the registers say of who runs at `here`. In the kernel that is the task, which its per-CPU variable names; a
/// program is known by its page
/// table, since in user mode GS is its own.
fn who_runs(cpu: &CurrentCpu, here: Linear) -> Identity {
    let registers = Registers::get();
    if here.0 >> 63 == 0 {
        return Identity { task: None, space: registers.cr3(cpu).map(page_table::of_cr3) };
    }
    let offset = Some(CURRENT_TASK.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN);
    let current = offset.and_then(|offset| cpu.bytes(registers.gs_base(cpu)?.wrapping_add(offset)).map(u64::from_le_bytes));
    Identity { task: current, space: None }
}

#[derive(Debug)]
struct EntryPoint {
    sanitizer: &'static Sanitizer,
    entry: Linear,
    role: Role,
}

impl Payload for EntryPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let registers = Registers::get();
        match self.role {
            Role::Switch => {
                if let Some(next) = registers.rsi(cpu) {
                    self.sanitizer.runs_task(vcpu.id(), registers.rdi(cpu), next);
                }
            }
            Role::Function { commits, chain } => {
                let Some(stack) = registers.rsp(cpu) else { return };
                let Some(returns_to) = cpu.bytes(stack).map(u64::from_le_bytes) else { return };
                let symbols = &self.sanitizer.config().symbols;
                let seen = who_runs(cpu, self.entry);
                let chain = if chain { callers(cpu, symbols, stack, true) } else { Vec::new() };
                let entry = Entry {
                    vcpu: vcpu.id(),
                    entry: self.entry,
                    returns_to: Linear(returns_to),
                    stack: stack.wrapping_add(8),
                    commits,
                    chain,
                };
                self.sanitizer.enters_function(entry, seen);
            }
        }
    }
}

/// The instruction after a call of a protocol function, or after a system call.
#[derive(Debug)]
struct ReturnPoint {
    sanitizer: &'static Sanitizer,
    here: Linear,
    system_call: bool,
}

impl Payload for ReturnPoint {
    #[inline]
    fn passes(&'static self, _vcpu: &CurrentVcpu) -> bool {
        !self.sanitizer.may_await_return(self.here)
    }

    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let registers = Registers::get();
        let failed = self.system_call && registers.rax(cpu) != Some(0);
        if let Some(stack) = registers.rsp(cpu) {
            let seen = who_runs(cpu, self.here);
            self.sanitizer.returns_to(vcpu.id(), seen, self.here, stack, failed);
        }
    }
}

#[derive(Debug)]
struct SyscallPoint {
    sanitizer: &'static Sanitizer,
    pc: Linear,
}

impl Payload for SyscallPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let registers = Registers::get();
        if registers.rax(cpu) == Some(MEMBARRIER)
            && registers.rdi(cpu) == Some(SYNC_CORE)
            && let Some(stack) = registers.rsp(cpu)
        {
            self.sanitizer.calls_membarrier(vcpu.id(), who_runs(cpu, self.pc), self.pc.offset(SYSCALL.len() as u64), stack);
        }
    }
}

impl ProtocolPoints {
    fn entries(&self, sanitizer: &'static Sanitizer) -> Option<&'static FxHashMap<u64, &'static EntryPoint>> {
        let symbols = &sanitizer.config().symbols;
        let offset = symbols.offset();
        if offset.is_none() && symbols.kernel_table().is_some() {
            return None;
        }
        let Entries { offset: of, points } = *self.entries.read();
        if points.is_some() && of == offset {
            return points;
        }
        let mut entries = self.entries.write();
        if entries.points.is_none() || entries.offset != offset {
            let known = protocol::functions().iter().filter(|function| function.effect != Effect::SyncsOnly);
            // A call chain costs a walk over the stack, and what merely stores does so by the hundred thousand while the kernel boots.
            let function = |commits| Role::Function { commits, chain: commits };
            let named = sanitizer.config().commit.iter().map(|name| (name.as_str(), function(true)));
            let roles = known.map(|row| (row.name, function(row.commits()))).chain(named).chain([(SWITCH, Role::Switch)]);
            CURRENT_TASK.store(symbols.current_task_from_gs().unwrap_or(UNKNOWN), Ordering::Relaxed);
            let entry = |(name, role)| {
                let address = symbols.runtime_address_of(name)?;
                let point: &'static EntryPoint = Box::leak(Box::new(EntryPoint { sanitizer, entry: Linear(address), role }));
                Some((address, point))
            };
            *entries = Entries { offset, points: Some(Box::leak(Box::new(roles.filter_map(entry).collect()))) };
        }
        entries.points
    }

    /// Puts the callbacks on an instruction that belong there. `before`: the bytes right before it in memory, if it is the first of its block.
    pub fn instrument(&self, instruction: &Instruction<'_>, before: Option<&[u8]>, sanitizer: &'static Sanitizer) {
        let here = instruction.linear;
        let entries = self.entries(sanitizer);
        if let Some(point) = entries.and_then(|entries| entries.get(&here.0)) {
            instruction.on_execute(*point, true);
        }
        if instruction.bytes() == SYSCALL {
            let make = || -> &'static SyscallPoint { Box::leak(Box::new(SyscallPoint { sanitizer, pc: here })) };
            let point = *self.syscalls.write().entry(here.0).or_insert_with(make);
            instruction.on_execute(point, true);
        }
        let Some(before) = before else { return };
        let system_call = before.ends_with(&SYSCALL);
        let calls = |call: CallKind| match (call.target(here.0), entries) {
            (Some(target), Some(entries)) => entries.get(&target).is_some_and(|point| point.role != Role::Switch),
            _ => false,
        };
        let known = self.returns.read().get(&here.0).copied();
        if known.is_some() || system_call || calls_ending(before).any(calls) || sanitizer.awaits_return(here) {
            let make = || -> &'static ReturnPoint { Box::leak(Box::new(ReturnPoint { sanitizer, here, system_call })) };
            let point = known.unwrap_or_else(|| *self.returns.write().entry(here.0).or_insert_with(make));
            instruction.on_execute(point, true);
        }
    }
}
