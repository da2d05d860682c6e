//! Random code-patching histories, and the toy machine that they run on. Only with the feature `proptest`.
//!
//! The machine is small on purpose, so that histories collide: code lies at the end of a page and at the beginning of
//! the next, in a few chunks; there are few byte values, two linear views of the same memory, three physical pages. An
//! [`Op`] is what is drawn; a [`Guest`] follows mapping and memory and makes the [`Event`]s of it, as an emulator
//! would.

use crate::addr::{Linear, Phys, Seq, Vcpu};
use crate::arch::decode::Decode;
use crate::arch::exemption::Exemption;
use crate::arch::maintenance::{Accesses, CacheType, Caches, Domain, Maintenance, Needs};
use crate::arch::profile::{Buffers, Profile, Text};
use crate::arch::sync_event::{SyncEventId, SyncEventSet};
use crate::event::{Event, Store};
use crate::memory::PAGE;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The breakpoint of the toy instruction set.
pub const BREAKPOINT: u8 = 0xee;

/// A first byte that begins no instruction.
pub const UNDEFINED: u8 = 0xff;

/// The toy instruction set: the first byte tells the length, 1 to 6 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Toy;

impl Decode for Toy {
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        let len = match *bytes.first()? {
            BREAKPOINT => 1,
            UNDEFINED => return None,
            first => 1 + usize::from(first & 7) % 6,
        };
        (len <= bytes.len()).then_some(len)
    }

    fn max_len(&self) -> usize {
        6
    }
}

/// The toy events: the profiles of [`profile()`] count some of them as serializing.
pub const EVENTS: u8 = 4;

/// How many vCPUs a toy guest has.
pub const VCPUS: u16 = 3;

/// Bytes of code at the end of a page, and at the beginning of the next.
pub const HALF: u64 = 8;

/// Bytes of code in the middle of the first page, and where they begin: around a chunk's beginning, far from other
/// pages.
pub const MIDDLE: u64 = 24;
const MIDDLE_START: u64 = PAGE / 2 - MIDDLE / 2;

/// The two linear views, of two pages each. The second is the alias.
pub const VIEWS: [Linear; 2] = [Linear(0x40_0000), Linear(0x80_0000)];

/// The physical pages: mapped in order to begin with, the last is free.
pub const PAGES: [Phys; 3] = [Phys(0x1_0000), Phys(0x2_0000), Phys(0x3_0000)];

/// What a history is drawn from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// vCPU, view, byte of the code: execute the instruction there.
    Fetch(u16, u8, u8),
    /// vCPU, view, byte, bytes: store, as far as the page goes.
    Store(u16, u8, u8, Vec<u8>),
    /// Page, byte of the code, bytes: a store that nobody was seen to make.
    Unseen(u8, u8, Vec<u8>),
    /// A taken branch.
    Branch(u16),
    /// vCPU, event.
    Sync(u16, u8),
    /// vCPU, linear page (0 to 3), what it is mapped to (3: nothing).
    Remap(u16, u8, u8),
    /// A reset.
    Reset(u16),
    /// vCPU, view: it made the store that nobody was seen to make so many of these ago.
    Attribute(u16, u8, u8),
    /// Page: the contents of what is not known of it are seen for the first time.
    Contents(u8),
    /// The store so many stores ago, and whether all before it, too.
    Commit(u8, bool),
    /// vCPU, which of [`MAINTENANCE`], page, byte of the code.
    Maintain(u16, u8, u8, u8),
    /// vCPU, which of [`BARRIERS`].
    Barrier(u16, u8),
    /// vCPU, whether it stores through its caches from now on.
    Caches(u16, bool),
}

/// The maintenance instructions, of the line of an address.
pub const MAINTENANCE: [fn(Phys) -> Maintenance; 5] = [
    Maintenance::Clean,
    Maintenance::Invalidate,
    |_| Maintenance::InvalidateAll,
    |_| Maintenance::InvalidateOwn,
    |_| Maintenance::FetchFence,
];

/// Barriers of every use; the first does everything.
pub const BARRIERS: [(Domain, Accesses); 5] = [
    (Domain::Inner, Accesses::All),
    (Domain::System, Accesses::All),
    (Domain::Own, Accesses::All),
    (Domain::Inner, Accesses::Stores),
    (Domain::Outer, Accesses::Loads),
];

/// Memory and mappings as an emulator has them: the present only.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    memory: BTreeMap<Phys, u8>,
    pages: BTreeMap<(Vcpu, Linear), Phys>,
    stores: Vec<Seq>,
    /// Stores that nobody was seen to make.
    unseen: Vec<(Seq, Phys)>,
    last: Seq,
}

/// The linear address of a byte of the code: the last bytes of a view's first page, the first of its second, then those
/// in the middle of the first.
#[must_use]
pub fn code(view: u8, byte: u8) -> Linear {
    let byte = u64::from(byte) % (2 * HALF + MIDDLE);
    let offset = if byte < 2 * HALF { PAGE - HALF + byte } else { MIDDLE_START + byte - 2 * HALF };
    VIEWS[usize::from(view) % VIEWS.len()].offset(offset)
}

impl Guest {
    /// A guest with its code in memory and mapped, and the events that say so.
    #[must_use]
    pub fn new() -> (Self, Vec<Event>) {
        let mut guest = Self::default();
        let mut events = Vec::new();
        for (index, page) in PAGES.into_iter().enumerate() {
            for (start, len) in [(0, HALF), (MIDDLE_START, MIDDLE), (PAGE - HALF, HALF)] {
                let bytes = (0..len).map(|i| (i as u8) % 5 + index as u8).collect();
                events.push(Event::Store(Store {
                    vcpu: None,
                    pc: None,
                    linear: None,
                    phys: page.offset(start),
                    bytes,
                }));
            }
        }
        for vcpu in (0..VCPUS).map(Vcpu) {
            for view in VIEWS {
                for (linear, phys) in [(view, PAGES[0]), (view.offset(PAGE), PAGES[1])] {
                    events.push(Event::Remap { vcpu, linear, phys: Some(phys) });
                }
            }
        }
        for event in &events {
            guest.follow(event);
        }
        (guest, events)
    }

    /// What happens if `op` is carried out now: `None` if the guest could not. The guest is in the state after it.
    pub fn step(&mut self, op: &Op) -> Option<Event> {
        let event = self.event(op)?;
        self.follow(&event);
        Some(event)
    }

    fn event(&self, op: &Op) -> Option<Event> {
        Some(match *op {
            Op::Fetch(vcpu, view, byte) => {
                let (vcpu, linear) = (Vcpu(vcpu), code(view, byte));
                let window =
                    (0..Toy.max_len() as u64).map_while(|i| self.read(vcpu, linear.offset(i))).collect::<Vec<_>>();
                // An undefined instruction is executed, too: the emulator looks at two bytes of it.
                let len = Toy.len(&window).unwrap_or(2);
                (len <= window.len()).then_some(())?;
                Event::Fetch { vcpu, linear, len: len as u8 }
            }
            Op::Store(vcpu, view, byte, ref bytes) => {
                let (vcpu, linear) = (Vcpu(vcpu), code(view, byte));
                let phys = self.translate(vcpu, linear)?;
                let room = (PAGE - linear.0 % PAGE).min(bytes.len() as u64) as usize;
                let pc = Some(Linear(0x100 + u64::from(vcpu.0)));
                Event::Store(Store { vcpu: Some(vcpu), pc, linear: Some(linear), phys, bytes: bytes[..room].to_vec() })
            }
            Op::Unseen(page, byte, ref bytes) => {
                let offset = code(0, byte).0 % PAGE;
                let room = (PAGE - offset).min(bytes.len() as u64) as usize;
                let phys = PAGES[usize::from(page) % PAGES.len()].offset(offset);
                Event::Store(Store { vcpu: None, pc: None, linear: None, phys, bytes: bytes[..room].to_vec() })
            }
            Op::Attribute(vcpu, view, back) => {
                let (store, phys) = *self.unseen.get(self.unseen.len().checked_sub(1 + usize::from(back))?)?;
                let vcpu = Vcpu(vcpu);
                let views = (0..2).map(|page| VIEWS[usize::from(view) % VIEWS.len()].offset(page * PAGE));
                let page = views.into_iter().find(|page| self.translate(vcpu, *page) == Some(phys.align_down(PAGE)));
                let linear = page.map(|page| page.offset(phys.0 % PAGE));
                Event::Attribute { store, vcpu, pc: Some(Linear(0x100 + u64::from(vcpu.0))), linear }
            }
            Op::Contents(page) => {
                let start = PAGES[usize::from(page) % PAGES.len()].offset(HALF);
                Event::Contents { phys: start, bytes: (0..HALF).map(|i| (i as u8) % 3).collect() }
            }
            Op::Branch(vcpu) => Event::Branch { vcpu: Vcpu(vcpu) },
            Op::Sync(vcpu, event) => {
                Event::Sync { vcpu: Vcpu(vcpu), event: SyncEventId(event), pc: Linear(0x200 + u64::from(event)) }
            }
            Op::Remap(vcpu, page, phys) => {
                let linear = VIEWS[usize::from(page / 2) % VIEWS.len()].offset(u64::from(page % 2) * PAGE);
                Event::Remap { vcpu: Vcpu(vcpu), linear, phys: PAGES.get(usize::from(phys)).copied() }
            }
            Op::Reset(vcpu) => Event::Reset { vcpu: Vcpu(vcpu) },
            Op::Maintain(vcpu, which, page, byte) => {
                let phys = PAGES[usize::from(page) % PAGES.len()].offset(code(0, byte).0 % PAGE);
                let operation = MAINTENANCE[usize::from(which) % MAINTENANCE.len()](phys);
                Event::Maintain { vcpu: Vcpu(vcpu), operation }
            }
            Op::Barrier(vcpu, which) => {
                let (domain, accesses) = BARRIERS[usize::from(which) % BARRIERS.len()];
                Event::Barrier { vcpu: Vcpu(vcpu), domain, accesses }
            }
            Op::Caches(vcpu, on) => Event::Caches { vcpu: Vcpu(vcpu), on },
            Op::Commit(back, all) => {
                let index = self.stores.len().checked_sub(1 + usize::from(back))?;
                let first = if all { 0 } else { index };
                Event::Commit { stores: self.stores[first..=index].to_vec() }
            }
        })
    }

    fn translate(&self, vcpu: Vcpu, linear: Linear) -> Option<Phys> {
        let page = linear.align_down(PAGE);
        self.pages.get(&(vcpu, page)).map(|phys| phys.offset(linear.0 - page.0))
    }

    /// The byte that a vCPU would read.
    #[must_use]
    pub fn read(&self, vcpu: Vcpu, linear: Linear) -> Option<u8> {
        self.memory.get(&self.translate(vcpu, linear)?).copied()
    }

    fn follow(&mut self, event: &Event) {
        self.last = self.last.next();
        match event {
            Event::Store(store) => {
                self.stores.push(self.last);
                if store.vcpu.is_none() {
                    self.unseen.push((self.last, store.phys));
                }
                self.memory.extend((0..).zip(&store.bytes).map(|(i, byte)| (store.phys.offset(i), *byte)));
            }
            Event::Contents { phys, bytes } => {
                for (i, byte) in (0..).zip(bytes) {
                    self.memory.entry(phys.offset(i)).or_insert(*byte);
                }
            }
            Event::Attribute { store, .. } => self.unseen.retain(|(seq, _)| seq != store),
            Event::Remap { vcpu, linear, phys: Some(phys) } => drop(self.pages.insert((*vcpu, *linear), *phys)),
            Event::Remap { vcpu, linear, phys: None } => drop(self.pages.remove(&(*vcpu, *linear))),
            _ => {}
        }
    }
}

/// The events of a history, those that set the guest up included. What the guest cannot do is left out.
#[must_use]
pub fn events(ops: &[Op]) -> Vec<Event> {
    let (mut guest, mut events) = Guest::new();
    events.extend(ops.iter().filter_map(|op| guest.step(op)));
    events
}

/// One byte of code. Few values, so that they come back.
pub fn byte() -> impl Strategy<Value = u8> + Clone {
    prop_oneof![2 => Just(BREAKPOINT), 1 => Just(UNDEFINED), 9 => 0u8..6]
}

/// One step of a history.
pub fn op() -> impl Strategy<Value = Op> + Clone {
    let vcpu = || 0..VCPUS;
    let at = || prop_oneof![2 => 0..2 * HALF as u8, 1 => 2 * HALF as u8..(2 * HALF + MIDDLE) as u8];
    let view = || prop_oneof![3 => Just(0u8), 1 => Just(1)];
    let bytes = || proptest::collection::vec(byte(), 1..=8);
    prop_oneof![
        20 => (vcpu(), view(), at()).prop_map(|(vcpu, view, at)| Op::Fetch(vcpu, view, at)),
        8 => (vcpu(), view(), at(), bytes()).prop_map(|(vcpu, view, at, bytes)| Op::Store(vcpu, view, at, bytes)),
        4 => (vcpu(), view(), at(), byte()).prop_map(|(vcpu, view, at, byte)| Op::Store(vcpu, view, at, vec![byte])),
        2 => (0..3u8, at(), bytes()).prop_map(|(page, at, bytes)| Op::Unseen(page, at, bytes)),
        1 => (vcpu(), view(), 0..3u8).prop_map(|(vcpu, view, back)| Op::Attribute(vcpu, view, back)),
        1 => (0..3u8).prop_map(Op::Contents),
        3 => vcpu().prop_map(Op::Branch),
        3 => (vcpu(), 0..EVENTS).prop_map(|(vcpu, event)| Op::Sync(vcpu, event)),
        1 => (vcpu(), 0..4u8, 0..4u8).prop_map(|(vcpu, page, phys)| Op::Remap(vcpu, page, phys)),
        1 => vcpu().prop_map(Op::Reset),
        2 => (0..4u8, any::<bool>()).prop_map(|(back, all)| Op::Commit(back, all)),
    ]
}

/// A history of up to `len` steps.
pub fn history(len: usize) -> impl Strategy<Value = Vec<Op>> + Clone {
    proptest::collection::vec(op(), 0..=len)
}

/// A step of a history with maintenance, or several that belong together: what a careful vCPU does after a store, with
/// one step left out at times.
fn maintained_steps() -> impl Strategy<Value = Vec<Op>> + Clone {
    let vcpu = || 0..VCPUS;
    let page = || prop_oneof![4 => Just(0u8), 1 => 0..3u8];
    let at = || 0..(2 * HALF + MIDDLE) as u8;
    let which = || prop_oneof![4 => Just(0u8), 4 => Just(1), 1 => 2..MAINTENANCE.len() as u8];
    let barrier = || prop_oneof![3 => Just(0u8), 2 => 0..BARRIERS.len() as u8];
    let bytes = proptest::collection::vec(byte(), 1..=4);
    // An executor before it, after it, and in another epoch, on some CPU.
    let publish = (vcpu(), vcpu(), page(), at(), bytes, 0..14u8).prop_map(|(vcpu, by, page, at, bytes, without)| {
        let steps = [
            Op::Fetch(by, 0, at),
            Op::Store(vcpu, 0, at, bytes),
            Op::Maintain(vcpu, 0, page, at),
            Op::Barrier(vcpu, 0),
            Op::Maintain(vcpu, 1, page, at),
            Op::Barrier(vcpu, 0),
            Op::Fetch(by, 0, at),
            Op::Reset(by),
            Op::Fetch(by, 0, at),
        ];
        (0..).zip(steps).filter(|(step, _)| *step != without).map(|(_, step)| step).collect()
    });
    let maintain = (vcpu(), which(), page(), at());
    let maintain = maintain.prop_map(|(vcpu, which, page, at)| vec![Op::Maintain(vcpu, which, page, at)]);
    prop_oneof![
        8 => op().prop_map(|op| vec![op]),
        2 => maintain,
        2 => (vcpu(), barrier()).prop_map(|(vcpu, which)| vec![Op::Barrier(vcpu, which)]),
        1 => (vcpu(), any::<bool>()).prop_map(|(vcpu, on)| vec![Op::Caches(vcpu, on)]),
        2 => publish,
    ]
}

/// A history of up to so many steps in which vCPUs do maintenance.
pub fn maintained_history(len: usize) -> impl Strategy<Value = Vec<Op>> + Clone {
    proptest::collection::vec(maintained_steps(), 0..=len).prop_map(|steps| steps.concat())
}

/// Caches that do not see stores, with lines of every size that is interesting on the toy machine.
pub fn cache_type() -> impl Strategy<Value = CacheType> + Clone {
    let line = || prop_oneof![Just(16u64), Just(32), Just(64)];
    let needs =
        prop_oneof![3 => Just(Needs::CleanAndInvalidate), 2 => Just(Needs::Invalidate), 1 => Just(Needs::Guest)];
    (needs, line(), line()).prop_map(|(needs, data_line, instruction_line)| CacheType {
        needs,
        data_line,
        instruction_line,
    })
}

/// Any profile whose caches need maintenance.
pub fn maintained_profile() -> impl Strategy<Value = Profile> + Clone {
    (profile(), cache_type()).prop_map(|(profile, caches)| Profile { caches: Caches::Maintained(caches), ..profile })
}

/// Buffers of every size that is interesting on the toy machine.
pub fn buffers() -> impl Strategy<Value = Buffers> + Clone {
    (
        prop_oneof![Just(4u32), Just(8), Just(16)],
        prop_oneof![3 => Just(0u32), 1 => Just(1), 1 => Just(4), 1 => Just(12)],
        prop_oneof![3 => Just(None), 2 => (0u32..40).prop_map(Some)],
        prop_oneof![3 => Just(None), 2 => (0u32..4).prop_map(Some)],
        prop_oneof![3 => Just(false), 1 => Just(true)],
        any::<bool>(),
    )
        .prop_map(|(chunk, lookahead, prefetch, trace, speculation, own_store_at_branch)| Buffers {
            chunk,
            lookahead,
            prefetch,
            trace,
            speculation,
            own_store_at_branch,
        })
}

/// Any set of the toy events.
pub fn event_set() -> impl Strategy<Value = SyncEventSet> + Clone {
    proptest::collection::vec(0..EVENTS, 0..4).prop_map(|events| events.into_iter().map(SyncEventId).collect())
}

/// The exemptions that the profiles of [`profile()`] draw from.
pub const EXEMPTIONS: [&[Exemption]; 4] = [
    &[],
    &[Exemption::Breakpoint(&[BREAKPOINT])],
    &[Exemption::AlignedStore(8)],
    &[Exemption::Breakpoint(&[BREAKPOINT]), Exemption::AlignedStore(4)],
];

/// Any profile.
pub fn profile() -> impl Strategy<Value = Profile> + Clone {
    (event_set(), 0..EXEMPTIONS.len(), buffers(), prop_oneof![7 => Just(false), 1 => Just(true)]).prop_map(
        |(serializing, exemptions, buffers, snoop)| Profile {
            name: "toy",
            note: "drawn at random",
            serializing,
            exemptions: EXEMPTIONS[exemptions],
            buffers,
            snoop,
            caches: Caches::Coherent,
            only_at: &[],
            text: Text::All,
        },
    )
}
