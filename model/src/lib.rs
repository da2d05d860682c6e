//! What a CPU may still execute after its code changed.
//!
//! The model keeps versioned code memory ([`memory`]) and, for each vCPU, a [`fetch::prefetch_buffer`] and a
//! [`fetch::trace_buffer`] that hold old instructions until a serializing event empties them; under both, where the
//! architecture has it, a [`fetch::instruction_cache`] that does not see stores until maintenance makes it. It is told
//! events ([`event::Event`]) and answers with hazards ([`verdict::hazard::Hazard`]). No QEMU, no I/O, no clock, no
//! unsafe: the same events give the same answers.
//!
//! # Folders
//! [`arch`] is data: instruction sets, profiles, rules of the manuals. [`memory`] has the versions of code, [`fetch`]
//! what a processor may hold of them, [`machine`] puts both together, [`verdict`] says what that means for an
//! execution. [`detector`] is the same judgement for every execution of a guest, fast. [`testing`] has what proves the
//! two alike.
//!
//! # Which way it errs
//! With unbounded buffers (the default) it **over-reports**, on purpose: what it calls a candidate is what the manuals
//! do not forbid, not what some CPU is known to do. Everything that a vCPU executed in this epoch may still be held,
//! every chunk of it from its own moment. It **under-reports** where it would have to guess: bytes that it was never
//! told, stores that it was not shown, fetches that nothing shows (unless `speculation` is on), and buffers that a
//! profile bounds. A bound can only take candidates away. Where the search for candidates hits its own bound, the
//! verdict says that it is incomplete.
//!
//! # Deviations from the manuals, by number
//! 1. *Stores are single-copy atomic.* A store that is not is given as several, lowest address first, and the model
//!    sees the states between them as states of memory. Hardware may show them in another order. (An instruction that
//!    is whole in such a state between two parts is not `torn`.)
//! 2. *The trace buffer is as coarse as the fetch chunk* ([`fetch::trace_buffer`]): an old run answers for every
//!    address in its chunks. Over-reports.
//! 3. *An instruction is fetched at one moment.* A store cannot come between the fetches of its two chunks. So with
//!    `snoop` nothing is ever torn, and nothing is a hazard at all; the specification would allow torn ones.
//! 4. *An own store is found by chunk*: at the next taken branch everything older than the store is gone from the
//!    chunks that it touched, other CPUs' stores included. Hardware drops at least a cache line. Neither more nor less
//!    than the chunk is promised.
//! 5. *A value is a version.* Versions of a byte with equal values are one: a store that changes nothing separates
//!    nothing, and a candidate is taken to be the latest version that has its value, the one with the fewest stores to
//!    blame. In the same way a candidate is `whole` if its bytes stood in memory together since the vCPU brought the
//!    first of its chunks in, even if it got them apart. Under-reports, in kind only.
//! 6. *The breakpoint exemption does not ask which instruction the breakpoint stands for* ([`arch::exemption`]): a
//!    whole instruction from two patches ago is covered as well, until the commit. Under-reports.
//! 7. *A remapped page keeps what was brought in from its old place*, until the vCPU serializes. The model has no TLB;
//!    where the events that flush it serialize, that is the same. A hazard that only a remapping explains is
//!    `unserialized` (`unsynchronized` where caches are maintained) and has no writer.
//! 8. *Bytes that nobody was seen to write* ([`event::Store`] without a writer) are never exempt as one aligned store:
//!    there may have been several.
//!
//! 9. *An instruction cache's floors* are the only thing that is known of it, and a chunk has those of its first fetch
//!    ([`fetch::instruction_cache`]); a store is in memory from its place in the order on, so what needs a store that
//!    is still in its CPU's buffer is missed. `docs/machine.md` has these errors one by one.
//!
//! # Reading order
//! [`event`] (what goes in), [`machine::model`] (what it does), [`verdict::candidates`] (the heart),
//! [`verdict::hazard`] (what comes out), [`arch::profile`] and [`arch::registry`] (the data). A recording is a list of
//! [`event::Event`]s; writing and reading one is the business of the crates that do I/O, and
//! [`machine::model::Model::apply`] is all that a replay needs. With the feature `proptest`, [`testing::strategies`]
//! makes random histories and [`testing::naive`] judges them by brute force, for tests of other crates.
#![forbid(unsafe_code)]

pub mod addr;
pub mod arch;
pub mod detector;
pub mod error;
pub mod event;
pub mod fetch;
pub mod machine;
pub mod memory;
#[cfg(feature = "proptest")]
pub mod testing;
pub mod verdict;
