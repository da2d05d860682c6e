//! Stores: from every store of the guest to the few that change code, and whom they concern.

use super::{Code, Sanitizer};
use crate::page_filter;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::page_walk;
use crate::qemu::stores::{Access, StoreWatch};
use crate::store_side::{CodeStore, StoreSide, Touched};
use crate::widen::Concern;
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::memory::PAGE;
use icsan_model::x86::atomicity;
use std::cell::Cell;
use std::sync::atomic::Ordering;

impl Sanitizer {
    /// Something happened to the bytes of these segments: whoever executed them in its epoch looks again when it executes them the next time. To be called with the code locked.
    pub(super) fn touch(&self, touched: &Touched) {
        self.flags.invalidate(&touched.segments, touched.seq);
    }

    /// Whom the change of these segments by `writer` may concern, for `widen`.
    pub(super) fn concerns(&self, touched: &Touched, writer: Vcpu, concern: &mut Concern) {
        let now = self.flags.now();
        for segment in &touched.segments {
            concern.changed();
            for vcpu in self.flags.started().filter(|vcpu| *vcpu != writer) {
                let held = self.flags.holds_since(vcpu, segment.slot).is_some();
                concern.ran(vcpu, if held { now } else { self.flags.last_ran(vcpu, segment.slot) }, now);
            }
        }
    }

    /// Where the store lies that is being told of, from its byte at `linear` on, if the page of that may hold code.
    fn in_code(&self, vcpu: Vcpu, linear: Linear, access: &Access<'_>) -> Option<Phys> {
        if self.filter.is_plain(vcpu, linear) {
            return None;
        }
        let phys = access.physical_at(linear)?;
        if self.filter.may_hold_code(phys) {
            return Some(phys);
        }
        self.filter.note_plain(vcpu, linear, phys);
        None
    }

    /// `vcpu` stored to pages of which at least one may hold code: the one that the store begins in, or the one that it crosses into. Answers with whom that may concern, if `widen` asks.
    fn stores_to_code(
        &self,
        current: &CurrentVcpu,
        pc: Linear,
        linear: Linear,
        pages: [Option<Phys>; 2],
        bytes: &[u8],
        cpu: &CurrentCpu,
    ) -> Concern {
        self.begins_anew(current);
        let vcpu = current.id();
        let mut concern = Concern::default();
        let (Some(state), Some(slots)) = (self.vcpus.get(usize::from(vcpu.0)), self.flags.board().of(current)) else { return concern };
        let mut code = self.code.lock();
        let Code { table, side } = &mut *code;
        let Some(side) = side else { return concern };
        let state = state.lock();
        if let Some(own) = self.own_stores.get(usize::from(vcpu.0)) {
            own.store(true, Ordering::Relaxed);
        }
        let mut continued = false;
        for part in atomicity::parts(linear.0, bytes.len() as u64) {
            let at = linear.offset(part.start as u64);
            let [first, second] = pages;
            let to = if at.align_down(PAGE) == linear.align_down(PAGE) {
                first.map(|first| first.offset(part.start as u64))
            } else {
                second.map(|second| second.offset(at.0 % PAGE))
            };
            let Some(to) = to else { continue };
            let touched = side.store(
                table,
                &CodeStore { vcpu, pc, linear: at, phys: to, continued: std::mem::replace(&mut continued, true), bytes: &bytes[part] },
                &state,
                &slots,
                cpu,
                || self.flags.next(),
            );
            self.touch(&touched);
            table.stored_to(&touched.segments);
            if self.widening.is_some() && self.watching.load(Ordering::Relaxed) {
                self.concerns(&touched, vcpu, &mut concern);
            }
            // What others began to execute may not be visible here; that matters only if something is to be forgotten.
            let fenced = Cell::new(false);
            side.forget(&touched, self.flags.horizon(), |segment| {
                if !fenced.replace(true) {
                    self.flags.fence();
                }
                self.flags.held_since(segment.slot)
            });
            self.retires(side, to);
        }
        concern
    }

    /// After a store to its page: if that holds no code any more, stores to it are not told of from now on, until code in it is translated again.
    fn retires(&self, side: &mut StoreSide, phys: Phys) {
        // A recording must go on with what its reader knows.
        if self.config.record.is_some() {
            return;
        }
        let Some(segments) = side.looks_dead(phys, |segment| self.flags.held_since(segment.slot)) else { return };
        if !self.flags.lets_go(&segments) || !self.filter.unmark(phys) {
            return;
        }
        if let Some(repair) = self.repair {
            repair.retires(phys);
        }
        side.retire(phys);
    }

    /// A store to a page without code shows whether what is believed of the guest's memory is true, where QEMU does not tell.
    fn proves_places(&self, linear: Linear, access: &Access<'_>) {
        let repairs = self.repair.filter(|repair| repair.asks_for_proof());
        let walks = page_walk::wants_proof();
        if repairs.is_none() && !walks {
            return;
        }
        let Some(phys) = access.physical() else { return };
        if walks {
            page_walk::prove(linear.0, phys.0);
        }
        if let (Some(repair), Some(value)) = (repairs, access.value()) {
            repair.proves_ram(phys, value.bytes());
        }
    }
}

impl StoreWatch for Sanitizer {
    fn get() -> Option<&'static Self> {
        Sanitizer::the_one()
    }

    #[inline]
    fn passes(vcpu: Vcpu, linear: Linear) -> bool {
        page_filter::passes(vcpu, linear)
    }

    fn stored(&'static self, vcpu: Vcpu, pc: Linear, linear: Linear, access: &Access<'_>) {
        let here = PAGE - linear.0 % PAGE;
        let crosses = here < access.len();
        let first = self.in_code(vcpu, linear, access);
        let second = if crosses { self.in_code(vcpu, linear.offset(here), access) } else { None };
        if first.is_none() && second.is_none() {
            if !crosses {
                self.proves_places(linear, access);
            }
            return;
        }
        if let Some(repair) = self.repair {
            first.into_iter().for_each(|first| repair.stored(first, access.len().min(here)));
            second.into_iter().for_each(|second| repair.stored(second, access.len() - here));
        }
        let Some(value) = access.value() else { return };
        let concern = self.stores_to_code(access.vcpu(), pc, linear, [first, second], value.bytes(), &access.cpu());
        if let Some(widening) = &self.widening {
            widening.after_store(access.vcpu(), &concern);
        }
    }
}
