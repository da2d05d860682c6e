//! Where patches begin and end: entries of protocol functions, the addresses that they return to, the switch
//! of tasks, and the membarrier system call.

use super::point_word::PointWord;
use super::sink::{Sink, sink};
use crate::arch::linux_abi::{LinuxAbi, Return};
use crate::arch::platform::Platform;
use crate::config::CommitFunction;
use crate::gaps::Gap;
use crate::patching::{Awaited, Covering, Entry, Identity, Meaning, Poke};
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::locks::RwLock;
use crate::qemu::translation::{Instruction, Payload, WordPayload};
use icsan_model::addr::Linear;
use icsan_symbols::Symbolizer;
use icsan_symbols::linux::protocol::{Effect, PokeFunction, PokeValue, Protocol, ProtocolFunction, SyncPlace};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// The callbacks that exist so far.
#[derive(Debug, Default)]
pub struct ProtocolPoints {
    entries: RwLock<Entries>,
    /// Where calls return to that nothing but a return in waiting told of, when the code there was translated.
    returns: RwLock<FxHashSet<u64>>,
    dropped: AtomicU64,
}

/// Returns that are remembered. A call through a register has one; guests have some dozens that enter a protocol
/// function.
const MAX_RETURNS: usize = 1 << 16;

/// The entries of the kernel that runs, by runtime address; empty until its place is known.
#[derive(Clone, Copy, Debug, Default)]
struct Entries {
    /// For which offset of the kernel they are.
    offset: Option<u64>,
    /// They are never freed: translated blocks point at the callbacks. There are no more of them than boots
    /// ([`icsan_symbols::MAX_BOOTS`]).
    points: Option<&'static FxHashMap<u64, &'static EntryPoint>>,
}

/// Where those return to that are in a protocol function ([`Awaited`]).
static AWAITED: AtomicU64 = AtomicU64::new(0);

/// A task in a protocol function returns to one of these. Each change of that has to be told.
pub fn await_returns(to: Awaited) {
    AWAITED.store(to.0, Ordering::Relaxed);
}

/// May any task inside a protocol function return to this address? Without a lock: while a static key is flipped, all
/// other vCPUs go on making system calls.
#[inline]
fn may_await_return(here: Linear) -> bool {
    Awaited(AWAITED.load(Ordering::Relaxed)).may_include(here)
}

/// Where the kernel keeps the pointer to the current task, from the base of the vCPU's own variables on; [`UNKNOWN`] if
/// that is not known.
static CURRENT_TASK: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Switch,
    /// An interrupt for it is what a protocol means to happen.
    InterruptedToSync,
    /// `pokes`: it is one store of a protocol.
    Function {
        meaning: Meaning,
        pokes: Option<&'static PokeFunction>,
        chain: bool,
    },
}

/// What the registers say of who runs at `here`, beyond what is `known`. In the kernel that is the task, which its
/// per-CPU variable names: it is read once, since every switch is seen from then on, and a kernel that boots enters
/// such functions by the ten thousand. A program is known by its page table, since the registers that name the task in
/// the kernel are its own in user mode.
fn who_runs(cpu: &CurrentCpu, here: Linear, known: Identity, platform: &dyn Platform) -> Identity {
    let linux = platform.facts().linux;
    if !linux.is_kernel(here) {
        return Identity { task: None, space: platform.space(cpu) };
    }
    if known.task.is_some() {
        return Identity::default();
    }
    let offset = Some(CURRENT_TASK.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN);
    Identity { task: linux.current_task(cpu, offset), space: None }
}

#[derive(Debug)]
struct EntryPoint {
    entry: Linear,
    role: Role,
}

impl Payload for EntryPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let Some(sink) = sink() else { return };
        let platform = sink.platform();
        let linux = platform.facts().linux;
        match self.role {
            Role::Switch => {
                if let Some(next) = linux.argument(cpu, linux.switch.next) {
                    let previous = linux.argument(cpu, linux.switch.previous);
                    sink.origins().switches(vcpu.id(), previous, next);
                    sink.runs_task(vcpu.id(), previous, next);
                }
            }
            Role::InterruptedToSync => sink.is_interrupted_to_sync(vcpu.id()),
            Role::Function { meaning, pokes, chain } => {
                let Some(Return { to: returns_to, stack }) = linux.returns(cpu) else { return };
                let symbols = &sink.config().symbols;
                let poke = pokes.and_then(|function| poke(cpu, linux, function));
                if pokes.is_some() && poke.is_none() {
                    // Its steps cannot be told apart.
                    Gap::UnknownCoverage.note();
                }
                let seen = |known| who_runs(cpu, self.entry, known, platform);
                let chain = if chain { platform.callers_at_entry(cpu, symbols) } else { Vec::new() };
                let entry = Entry {
                    vcpu: vcpu.id(),
                    entry: self.entry,
                    returns_to,
                    stack,
                    meaning: Meaning { poke, ..meaning },
                    chain,
                };
                sink.enters_function(entry, &seen, cpu);
            }
        }
    }
}

/// The instruction after a call of a protocol function, or after a system call: then the tag of its word is 1.
#[derive(Debug)]
struct ReturnPoint;

impl WordPayload for ReturnPoint {
    #[inline]
    fn passes(word: u64) -> bool {
        !may_await_return(PointWord::from_bits(word).at)
    }

    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let (PointWord { at, tag }, Some(sink)) = (PointWord::from_bits(word), sink()) else { return };
        let platform = sink.platform();
        let linux = platform.facts().linux;
        let failed = tag != 0 && linux.system_calls.result.read(cpu) != Some(0);
        if let Some(stack) = linux.stack.read(cpu) {
            sink.returns_to(vcpu.id(), &|known| who_runs(cpu, at, known, platform), at, (stack, failed), cpu);
        }
    }
}

/// A system call; the word is its linear address.
#[derive(Debug)]
struct SyscallPoint;

impl WordPayload for SyscallPoint {
    fn fire(word: u64, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let Some(sink) = sink() else { return };
        sink.user_modes().leaves(vcpu.id());
        let platform = sink.platform();
        let linux = platform.facts().linux;
        let calls = &linux.system_calls;
        if calls.asks_sync_core(cpu)
            && let Some(stack) = linux.stack.read(cpu)
        {
            let pc = Linear(word);
            let returns_to = pc.offset(calls.instruction.len() as u64);
            sink.calls_membarrier(vcpu.id(), &|known| who_runs(cpu, pc, known, platform), returns_to, stack);
        }
    }
}

/// What a function does that the user names.
fn meaning_of_named(named: &CommitFunction) -> Meaning {
    Meaning { commits: true, covers: named.syncs.map(Covering::By), ..Meaning::default() }
}

/// What a function of the table does.
fn meaning_of(row: &ProtocolFunction, protocol: &Protocol, symbols: &Symbolizer) -> Meaning {
    let (commits, steps, queues) = (row.commits(), protocol.has_steps(row), row.effect == Effect::Queues);
    let serves = match row.effect {
        Effect::StoresFor(waits) => symbols.entries_of(waits).first().copied().map(Linear),
        _ => None,
    };
    Meaning { commits, covers: commits.then_some(Covering::TextPoke), steps, queues, serves, poke: None }
}

/// The arguments of a function that stores for a protocol, which is about to begin.
fn poke(cpu: &CurrentCpu, linux: &LinuxAbi, function: &PokeFunction) -> Option<Poke> {
    let argument = |number: usize| linux.argument(cpu, function.address + number);
    let len = linux.breakpoint.len();
    let breakpoint = match function.value {
        PokeValue::Pointer => cpu.memory(argument(1)?, len)? == linux.breakpoint && argument(2)? == len as u64,
        PokeValue::Argument => argument(1)?.to_le_bytes().get(..len)? == linux.breakpoint,
    };
    Some(Poke { at: Linear(argument(0)?), breakpoint })
}

impl ProtocolPoints {
    fn entries(&self, sink: &dyn Sink) -> Option<&'static FxHashMap<u64, &'static EntryPoint>> {
        let symbols = &sink.config().symbols;
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
            let linux = sink.platform().facts().linux;
            let protocol = &linux.kernel.protocol;
            let known = protocol.functions.iter().filter(|function| function.effect != Effect::SyncsOnly);
            // A call chain costs a walk over the stack, and what merely stores does so by the hundred thousand while
            // the kernel boots.
            let function = |meaning: Meaning, pokes| Role::Function { meaning, pokes, chain: meaning.commits };
            let named = sink
                .config()
                .commit
                .iter()
                .map(|named| (named.symbol.as_str(), function(meaning_of_named(named), None)));
            // One of them only: the other is on the way to it.
            let poke = protocol.pokes.iter().find(|poke| symbols.runtime_address_of(poke.name).is_some());
            let pokes = |name| poke.filter(|poke| poke.name == name);
            let roles = known.map(|row| (row.name, function(meaning_of(row, protocol, symbols), pokes(row.name))));
            let around = protocol.text_poke_syncs.iter().filter(|sync| sync.place == SyncPlace::Around);
            let around = around.map(|sync| (sync.function, Role::InterruptedToSync));
            let roles = roles.chain(named).chain(around).chain([(linux.switch.symbol, Role::Switch)]);
            sink.learns_intended(&|function| symbols.function_range(function));
            let task = linux.kernel.current_task.and_then(|offset| offset(symbols));
            CURRENT_TASK.store(task.unwrap_or(UNKNOWN), Ordering::Relaxed);
            let points = roles.flat_map(|(name, role)| {
                symbols.entries_of(name).into_iter().map(move |address| {
                    let point: &'static EntryPoint = Box::leak(Box::new(EntryPoint { entry: Linear(address), role }));
                    (address, point)
                })
            });
            *entries = Entries { offset, points: Some(Box::leak(Box::new(points.collect()))) };
        }
        entries.points
    }

    /// Puts the callbacks on an instruction that belong there. `before`: the bytes right before it in memory, if it is
    /// the first of its block.
    pub fn instrument(&self, instruction: &Instruction<'_>, before: Option<&[u8]>, sink: &dyn Sink) {
        let here = instruction.linear;
        let (platform, entries) = (sink.platform(), self.entries(sink));
        let linux = platform.facts().linux;
        if let Some(point) = entries.and_then(|entries| entries.get(&here.0)) {
            instruction.on_execute(*point, true);
        }
        if instruction.bytes() == linux.system_calls.instruction {
            // A kernel that boots has told before its first program runs.
            let symbols = &sink.config().symbols;
            if !linux.is_kernel(here) && symbols.kernel_table().is_some() && symbols.offset().is_none() {
                Gap::UnseenKernel.note();
            }
            instruction.on_execute_word::<SyscallPoint>(here.0, true);
        }
        let Some(before) = before else { return };
        let system_call = before.ends_with(linux.system_calls.instruction);
        let called = platform.call_before(before, here).zip(entries).and_then(|(target, entries)| entries.get(&target));
        let called = called.is_some_and(|point| matches!(point.role, Role::Function { .. }));
        let told = system_call || called || self.returns.read().contains(&here.0);
        let awaited = || may_await_return(here) && sink.awaits_return(here);
        if !told && !awaited() {
            return;
        }
        // No task may wait when the code is translated again.
        if !told {
            let mut returns = self.returns.write();
            if returns.len() < MAX_RETURNS {
                returns.insert(here.0);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(word) = (PointWord { at: here, tag: system_call.into() }).bits() {
            instruction.on_execute_word::<ReturnPoint>(word, true);
        }
    }

    /// How many returns found no room: a commit may be missing.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
