//! A board of flags that is not QEMU's: for tests of the detector, with plain atomic numbers or loom's.

use icsan_model::addr::{Linear, Vcpu};
use icsan_model::detector::flags::{Board, Flags, LastChange, OwnBoard, Rules, Segment, SetSlots, Slot, SlotId, Word};
use icsan_model::detector::history::Place;
use icsan_model::detector::light::CodeRun;
use std::cell::RefCell;
use std::sync::Arc;

/// What a test's fences do. They are told which half it is.
pub trait Fences: std::fmt::Debug {
    fn light(&self) {}
    fn full(&self) {}
    fn heavy(&self) {}
}

/// Flag and first fetch, by vCPU and slot.
#[derive(Debug)]
pub struct Plain<W, F> {
    slots: Vec<Vec<[W; 2]>>,
    pub fences: F,
}

/// It, shared by the flags and by each vCPU.
#[derive(Debug)]
pub struct Shared<W, F>(pub Arc<Plain<W, F>>);

impl<W: Word, F: Fences> Shared<W, F> {
    pub fn new(vcpus: u16, slots: usize, fences: F) -> Self {
        let vcpu = || (0..slots).map(|_| [W::new(0), W::new(0)]).collect();
        Self(Arc::new(Plain { slots: (0..vcpus).map(|_| vcpu()).collect(), fences }))
    }

    /// The slots of a vCPU. To be called once for each, on its thread.
    pub fn own(&self, vcpu: Vcpu) -> Own<W, F> {
        let own = Own { board: Arc::clone(&self.0), vcpu, list: RefCell::default() };
        own.reserve();
        own
    }
}

/// The flags of so many vCPUs, all of which run.
pub fn flags<W: Word, F: Fences>(board: Shared<W, F>, vcpus: u16, rules: Rules) -> Flags<Shared<W, F>> {
    let flags = Flags::new(board, vcpus.into(), rules);
    (0..vcpus).for_each(|vcpu| flags.start(Vcpu(vcpu)));
    flags
}

impl<W: Word, F: Fences> Plain<W, F> {
    fn at(&self, vcpu: Vcpu, id: SlotId) -> Option<Slot<'_, W>> {
        let [flag, first] = self.slots.get(usize::from(vcpu.0))?.get(id.0 as usize)?;
        Some(Slot { id, flag, first_fetch: Some(first) })
    }
}

impl<W: Word, F: Fences> Board for Shared<W, F> {
    type Word = W;

    fn slot(&self, vcpu: Vcpu, id: SlotId) -> Option<Slot<'_, W>> {
        self.0.at(vcpu, id)
    }

    fn full(&self) {
        self.0.fences.full();
    }

    fn heavy(&self) {
        self.0.fences.heavy();
    }
}

/// The slots of one vCPU.
#[derive(Debug)]
pub struct Own<W, F> {
    board: Arc<Plain<W, F>>,
    vcpu: Vcpu,
    list: RefCell<SetSlots>,
}

impl<W: Word, F: Fences> OwnBoard for Own<W, F> {
    type Word = W;

    fn vcpu(&self) -> Vcpu {
        self.vcpu
    }

    fn slot(&self, id: SlotId) -> Option<Slot<'_, W>> {
        self.known(id)
    }

    fn known(&self, id: SlotId) -> Option<Slot<'_, W>> {
        self.board.at(self.vcpu, id)
    }

    fn push(&self, id: SlotId) -> bool {
        self.list.borrow_mut().push(id)
    }

    fn reserve(&self) {
        self.list.borrow_mut().reserve();
    }

    fn swap_list(&self, list: SetSlots) -> SetSlots {
        self.list.replace(list)
    }

    fn light(&self) {
        self.board.fences.light();
    }
}

/// Code at a place.
#[derive(Debug)]
pub struct Code<W> {
    pub slot: SlotId,
    pub last_change: LastChange<W>,
    pub run: CodeRun,
    pub place: Option<Place>,
}

impl<W: Word> Code<W> {
    pub fn new(slot: u32, run: CodeRun, place: Option<Place>) -> Self {
        Self { slot: SlotId(slot), last_change: LastChange::default(), run, place }
    }

    /// Code of which only the number matters.
    #[allow(dead_code)]
    pub fn numbered(slot: u32) -> Self {
        Self::new(slot, CodeRun::new(Linear(0), &[0x90], &[1]), None)
    }
}

impl<W: Word> Segment for Code<W> {
    type Word = W;

    fn slot(&self) -> SlotId {
        self.slot
    }

    fn last_change(&self) -> &LastChange<W> {
        &self.last_change
    }

    fn run(&self) -> &CodeRun {
        &self.run
    }

    fn place(&self) -> Option<Place> {
        self.place
    }
}
