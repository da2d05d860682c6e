//! Where interrupts and exceptions enter the kernel, and where a task ends: what [`crate::origins`] is told.

use super::sink::{Sink, sink};
use crate::arch::platform::Entered;
use crate::gaps::Gap;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::locks::RwLock;
use crate::qemu::translation::{Instruction, Payload};
use icsan_model::addr::Linear;
use icsan_symbols::linux::entries::KernelEntry;
use rustc_hash::FxHashMap;

/// The function that a task runs at its end, and that does not return (kernel/exit.c).
const LAST_WORDS: &str = "do_task_dead";

/// The callbacks that exist so far.
#[derive(Debug, Default)]
pub struct EntryPoints {
    points: RwLock<Points>,
}

/// Those of the kernel that runs, by runtime address.
#[derive(Clone, Copy, Debug, Default)]
struct Points {
    /// For which offset of the kernel they are.
    offset: Option<u64>,
    /// They are never freed: translated blocks point at the callbacks. There are no more of them than boots
    /// ([`icsan_symbols::MAX_BOOTS`]).
    by_address: Option<&'static FxHashMap<u64, EntryPoint>>,
    /// Does the kernel have entries by these names at all? Else there is nothing to learn again.
    has_entries: bool,
}

#[derive(Debug)]
struct EntryPoint {
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Enters {
        entry: &'static KernelEntry,
        number: u8,
    },
    /// By a system call that is not made by the instruction for it.
    Calls,
    Dies,
}

impl Payload for EntryPoint {
    fn fire(&'static self, vcpu: &CurrentVcpu, cpu: &CurrentCpu) {
        let Some(sink) = sink() else { return };
        let origins = sink.origins();
        match self.what {
            What::Enters { entry, number } => match sink.platform().entered(entry, cpu) {
                Some(Entered::FromUser) => {
                    sink.user_modes().leaves(vcpu.id());
                    origins.enters_from_user(vcpu.id(), number);
                }
                Some(Entered::FromKernel { frame }) => origins.enters_from_kernel(frame, number),
                None => {}
            },
            What::Calls => {
                sink.user_modes().leaves(vcpu.id());
                if sink.platform().facts().linux.system_calls.asks_sync_core_otherwise(cpu) {
                    Gap::OtherCall.note();
                }
            }
            What::Dies => origins.dies(vcpu.id()),
        }
    }
}

impl EntryPoints {
    fn points(&self, sink: &dyn Sink) -> Option<&'static FxHashMap<u64, EntryPoint>> {
        let (symbols, origins) = (&sink.config().symbols, sink.origins());
        let offset = symbols.offset()?;
        let known = *self.points.read();
        // A kernel may be where the one before it was.
        let is_current = |points: &Points| points.offset == Some(offset) && (origins.known() || !points.has_entries);
        if is_current(&known) {
            return known.by_address;
        }
        let mut points = self.points.write();
        if !is_current(&points) {
            let runtime = |link: u64| Linear(link.wrapping_add(offset));
            let kernel = sink.platform().facts().linux.kernel;
            let entries = symbols
                .kernel_table()?
                .symbols()
                .filter_map(|symbol| Some((runtime(symbol.addr), kernel.entry_of(symbol.name)?)));
            let entries: FxHashMap<Linear, &KernelEntry> = entries.collect();
            let addresses: Vec<Linear> = entries.keys().copied().collect();
            let point = |(at, number): (Linear, u8)| {
                let what = What::Enters { entry: entries.get(&at)?, number };
                Some((at.0, EntryPoint { what }))
            };
            let at = |symbol: &str, what| symbols.runtime_address_of(symbol).map(|at| (at, EntryPoint { what }));
            let calls = kernel.other_calls.iter().filter_map(|symbol| at(symbol, What::Calls));
            let by_address = origins.learn(&addresses).into_iter().filter_map(point).chain(calls);
            let by_address = by_address.chain(at(LAST_WORDS, What::Dies)).collect();
            *points = Points {
                offset: Some(offset),
                by_address: Some(Box::leak(Box::new(by_address))),
                has_entries: !addresses.is_empty(),
            };
        }
        points.by_address
    }

    /// Puts the callback on the instruction if it is the first one of an entry.
    pub fn instrument(&self, instruction: &Instruction<'_>, sink: &dyn Sink) {
        if sink.platform().facts().linux.is_kernel(instruction.linear)
            && let Some(point) = self.points(sink).and_then(|points| points.get(&instruction.linear.0))
        {
            instruction.on_execute(point, true);
        }
    }
}
