//! How a kernel changes code, as tables: which functions do, and what the return of each means.
//!
//! A patch has a *commit*: the moment its author takes it for done, after which no CPU may run the old bytes. In the
//! kernel that is the return of a function whose last step makes every CPU serialize. Its return commits *the stores
//! that the same task made inside of it*, and nothing else. Functions that only queue a change, or store without
//! telling the other CPUs, do not commit; they are listed with the reason, so that nobody adds them by their name.
//!
//! The tables are in a file of each architecture ([`super::x86`], [`super::aarch64`]).

use crate::specialized::is_function;

/// A kernel version: major and minor.
pub type Version = (u16, u16);

/// What a function's return means for the stores to code that its task made inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Every CPU has serialized since: they are committed.
    Commits,
    /// They are committed, and were so already by a function of the kind [`Effect::Commits`] that it calls, unless that
    /// one was inlined.
    CommitsThrough,
    /// It only queues the change. What it may store itself is an earlier, full queue, committed by the function that it
    /// calls; or, where the protocol has no other queue, the change itself, committed by the next function of the same
    /// task's that commits.
    Queues,
    /// It stores what the function of this name commits, which another task is in and waits: the task that makes the
    /// stores is not who asked for them.
    StoresFor(&'static str),
    /// It stores, and at most its own CPU has serialized. Who calls it has to do the rest.
    StoresOnly,
    /// It makes every CPU serialize and stores nothing: one step of a protocol, not its end.
    SyncsOnly,
}

/// One function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolFunction {
    /// Its name in C.
    pub name: &'static str,
    /// The first version with it, see the module's documentation.
    pub first: Version,
    /// The last version with it; the newest one that was read if it is still there.
    pub last: Version,
    /// What its return means.
    pub effect: Effect,
    /// Where this is to be read in the kernel's sources, and what stands there. A file without a folder is in
    /// the architecture's `kernel/`.
    pub source: &'static str,
}

impl ProtocolFunction {
    /// Does its return commit the stores made inside?
    #[must_use]
    pub fn commits(&self) -> bool {
        matches!(self.effect, Effect::Commits | Effect::CommitsThrough)
    }

    /// Is a symbol of this name the function? It may have been specialized by the compiler (`.isra.0`, `.constprop.0`,
    /// `.llvm.123`); a part of it (`.cold`, `.part.0`) is not the function.
    #[must_use]
    pub fn is_symbol(&self, symbol: &str) -> bool {
        is_function(symbol, self.name)
    }
}

/// What a protocol does to make a CPU serialize, whatever else may make it do so by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntendedSync {
    /// The function that executes it, on each CPU.
    pub function: &'static str,
    /// The events that count there, by their stable names.
    pub events: &'static [&'static str],
    /// Where these happen.
    pub place: SyncPlace,
    /// On which CPUs it is meant to happen.
    pub cpus: SyncedCpus,
    /// Where this is to be read, and what stands there.
    pub source: &'static str,
}

/// Where an intended event happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPlace {
    /// It is an instruction of the function.
    Inside,
    /// The function is called by an interrupt for it, whose entry or return it is. The entry counts if it is behind the
    /// store. It may be before it, if the CPU was in an interrupt already: then the CPU synchronizes by the first
    /// return behind the function, and executes until then what the interrupt has left to do.
    Around,
}

/// On which CPUs an event is meant to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncedCpus {
    /// On all.
    All,
    /// On the one that patches: on another one it is chance.
    Patcher,
    /// On all but that one.
    Others,
}

/// A function that does cache maintenance of code that was changed, and stores nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MaintenanceFunction {
    /// Its name in C.
    pub name: &'static str,
    /// Where this is to be read, and what stands there.
    pub source: &'static str,
}

/// One way by which membarrier(2) with `PRIVATE_EXPEDITED_SYNC_CORE` keeps a CPU from going on in user mode of the
/// caller's process before it has serialized. Any of them will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembarrierSync {
    /// What happens, in a few words.
    pub what: &'static str,
    /// Where this is to be read, and what stands there.
    pub source: &'static str,
}

/// How a function is told what to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PokeValue {
    /// The next two arguments are a pointer to the bytes, and their number.
    Pointer,
    /// The next argument is the instruction itself.
    Argument,
}

/// A function that makes one store of a protocol, through a mapping of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PokeFunction {
    /// Its name in C.
    pub name: &'static str,
    /// Which argument is the address of the code, from 0.
    pub address: usize,
    /// What the next ones are.
    pub value: PokeValue,
    /// Where this is to be read.
    pub source: &'static str,
}

/// One architecture's tables.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// All functions, those that commit first.
    pub functions: &'static [ProtocolFunction],
    /// Of these, by name, those that change code in steps, each followed by a serialization of every CPU.
    pub steps: &'static [&'static str],
    /// What makes one store of a protocol, the better one first: the others are on the way to it.
    pub pokes: &'static [PokeFunction],
    /// The function that stores through an address space of its own: its CPU serializes by entering and leaving that.
    /// Empty: there is none.
    pub switches_space: &'static str,
    /// What text poking means to happen on every online CPU, the one that patches included, before it goes on.
    pub text_poke_syncs: &'static [IntendedSync],
    /// The ways by which membarrier(2) keeps a CPU from going on.
    pub membarrier_syncs: &'static [MembarrierSync],
    /// What does cache maintenance; empty where none is needed.
    pub maintenance: &'static [MaintenanceFunction],
}

impl Protocol {
    /// The functions whose return commits.
    pub fn committing(&self) -> impl Iterator<Item = &'static ProtocolFunction> {
        self.functions.iter().filter(|function| function.commits())
    }

    /// Does the function change code in steps, with a serialization of every CPU after each?
    #[must_use]
    pub fn has_steps(&self, function: &ProtocolFunction) -> bool {
        self.steps.contains(&function.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specialized_copies_are_the_function_and_parts_are_not() {
        let (name, first, last) = ("text_poke_bp_batch", (6, 1), (6, 15));
        let function = ProtocolFunction { name, first, last, effect: Effect::Commits, source: "" };
        for symbol in [
            "text_poke_bp_batch",
            "text_poke_bp_batch.isra.0",
            "text_poke_bp_batch.constprop.0.isra.12",
            "text_poke_bp_batch.llvm.987",
        ] {
            assert!(function.is_symbol(symbol), "{symbol}");
        }
        for symbol in [
            "text_poke_bp",
            "text_poke_bp_batch2",
            "__text_poke_bp_batch",
            "text_poke_bp_batch.cold",
            "text_poke_bp_batch.part.0",
            "text_poke_bp_batch.",
            "",
        ] {
            assert!(!function.is_symbol(symbol), "{symbol}");
        }
    }
}
