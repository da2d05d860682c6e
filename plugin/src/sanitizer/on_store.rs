//! Stores: from every store of the guest to the few that change code.

use super::{Code, Sanitizer};
use crate::arch::platform::ToldStore;
use crate::code::code_table::CodeTable;
use crate::qemu::hooks::trapped_stores::{self, StoredBy, TrapWatch, Trapped};
use crate::qemu::stores::{Access, StoreWatch, Stored};
use crate::qemu::{host_address, page_walk};
use crate::report::Counts;
use crate::stores::code_store::{CodeStore, Touched};
use crate::stores::page_filter;
use crate::stores::store_side::StoreSide;
use icsan_model::addr::{Linear, Phys, Vcpu};
use icsan_model::detector::changes::{LATE, NOTICED_FOR, ToldOf};
use icsan_model::memory::PAGE;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Sanitizer {
    /// Something happened to the bytes of these segments: a vCPU that executed them in its epoch looks again when it
    /// executes them the next time. To be called with the code locked.
    pub(super) fn invalidate(&self, touched: &Touched) {
        self.flags.invalidate(&touched.segments, touched.seq);
        self.maintaining.changed();
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

    /// `vcpu` stored to pages of which at least one may hold code: the one that the store begins in, or the one that it
    /// crosses into.
    fn stores_to_code(&self, told: ToldOf, pages: [Option<Phys>; 2], access: &Access<'_>) {
        self.begins_anew(access.vcpu());
        let ToldOf { vcpu, pc, linear } = told;
        let (state, slots) = (self.vcpus.get(usize::from(vcpu.0)), self.flags.board().of(access.vcpu()));
        let (Some(state), Some(slots)) = (state, slots) else { return };
        let cpu = access.cpu();
        let len = access.len() as usize;
        // Where each page's part of the store lies, and which of its bytes that is.
        let here = len.min((PAGE - linear.0 % PAGE) as usize);
        let pieces = [(pages[0], 0..here), (pages[1], here..len)];
        let pieces = || {
            pieces
                .iter()
                .filter_map(|(phys, range)| Some(((*phys)?, range.clone())))
                .filter(|(_, range)| !range.is_empty())
        };
        let mut code = self.code.lock();
        let Code { table, side } = &mut *code;
        let Some(side) = side else { return };
        let state = state.lock();
        if let Some(own) = self.own_stores.get(usize::from(vcpu.0)) {
            own.store(true, Ordering::Relaxed);
        }
        side.arrives(table, vcpu, pc, &state, &slots);
        // Its value is what memory holds, if it can have left that. If memory holds something else, and QEMU's word is
        // good, others have stored there since; else the value is not known.
        let mut before = pages.map(|_| None);
        for (before, (phys, range)) in before.iter_mut().zip(pieces()) {
            *before = side.known(phys, range.len() as u64).and_then(Stored::of);
        }
        let holds = |value: &Stored| {
            pieces().all(|(phys, range)| {
                side.memory_holds(phys, linear.offset(range.start as u64), &value.bytes()[range], &cpu)
            })
        };
        let ignored = || {
            pieces().all(|(phys, range)| {
                side.ignored(phys, linear.offset(range.start as u64), range.len() as u64, vcpu, &cpu)
            })
        };
        let value = self.results(access).find(holds).or_else(|| access.value().filter(|_| !ignored()));
        let changes = |touched: &Touched, table: &mut CodeTable| {
            self.invalidate(touched);
            table.stored_to(&touched.segments);
        };
        for part in value.iter().flat_map(|_| self.platform.atomic_parts(access.form(), linear.0, len as u64)) {
            let Some((phys, range)) = pieces().find(|(_, range)| range.contains(&part.start)) else { continue };
            let (at, to) = (linear.offset(part.start as u64), phys.offset((part.start - range.start) as u64));
            let bytes = value.as_ref().map_or(&[][..], |value| &value.bytes()[part]);
            let touched =
                side.store(&CodeStore { vcpu, pc, linear: at, phys: to, bytes }, &state, &cpu, || self.flags.next());
            changes(&touched, table);
            self.forget(side, &touched);
            self.retires(side, to);
        }
        for ((phys, range), before) in pieces().zip(before) {
            let Some(before) = before else { continue };
            let told = ToldOf { linear: linear.offset(range.start as u64), ..told };
            for touched in side.settle(told, phys, before.bytes(), &cpu, || self.flags.next()) {
                changes(&touched, table);
                self.forget(side, &touched);
            }
        }
        if let Some(check) = &self.check {
            check.code();
            let patience = if self.has_several_vcpus() { NOTICED_FOR } else { Duration::ZERO };
            side.untrue(patience).into_iter().for_each(|store| check.untrue(store));
        }
    }

    /// What memory may hold right after the store, if no other vCPU stored there. On a machine with one vCPU QEMU
    /// carries out what is locked as a load and a store, and so it does, while all other vCPUs stand still, if it is
    /// not aligned (accel/tcg/cputlb.c, `atomic_mmu_lookup`).
    fn results(&self, access: &Access<'_>) -> impl Iterator<Item = Stored> {
        // What an atomic operation left behind is what memory holds.
        let memory = access.asks_memory().then(|| access.cpu().memory(access.linear().0, access.len() as usize));
        let memory = memory.flatten().and_then(|memory| Stored::of(&memory));
        let atomic = self.has_several_vcpus() && access.linear().0.is_multiple_of(access.len());
        let told = access.told().map(|(stored, loaded)| {
            let told = ToldStore { stored, loaded, len: access.len() as u8, atomic };
            self.platform.stored(access.form(), told)
        });
        let len = access.len();
        told.into_iter().flatten().map(move |value| Stored::new(value, len)).chain(memory)
    }

    /// Can more than one vCPU store?
    fn has_several_vcpus(&self) -> bool {
        self.machine.max_vcpus > 1
    }

    /// With `check=stores`: a store to a page with code, of which the plugin API tells, must be trapped.
    fn checks_trap(&self, told: ToldOf, access: &Access<'_>) {
        let Some(check) = &self.check else { return };
        if check.was_trapped(told) {
            return;
        }
        let here = PAGE - told.linear.0 % PAGE;
        let pages = [Some(told.linear), (here < access.len()).then(|| told.linear.offset(here))];
        let code = self.code.lock();
        let side = code.side.as_ref();
        // Where code runs from a ROM, and the machine has memory at the same address by now, what is stored there is
        // not that code; when that memory is executed it is compared.
        let is_there = |phys: Phys| {
            let host = side.and_then(|side| side.host(phys));
            !host_address::is_known() || host.is_none_or(|host| host.is_at(phys))
        };
        let is_code = |linear: Linear| {
            access.physical_at(linear).is_some_and(|phys| self.filter.may_hold_code(phys) && is_there(phys))
        };
        let is_code = pages.into_iter().flatten().any(is_code);
        drop(code);
        let memory = access.cpu().memory(told.linear.0, access.len() as usize);
        // A ROM ignores stores.
        let is_stored = || self.results(access).any(|value| memory.as_deref() == Some(value.bytes()));
        if is_code && is_stored() {
            check.expects_trap(told);
        } else {
            self.checks(told, access);
        }
    }

    /// With `check=stores`: a store that is noted nowhere, since its page holds no code, is compared with memory.
    fn checks(&self, told: ToldOf, access: &Access<'_>) {
        let Some(check) = &self.check else { return };
        let Some(memory) = access.physical().and_then(|_| access.cpu().memory(told.linear.0, access.len() as usize))
        else {
            return;
        };
        check.data();
        let mut results = self.results(access).peekable();
        // What may have stored nothing says nothing of memory.
        if results.peek().is_none() || results.any(|value| value.bytes() == memory) {
            return;
        }
        if self.has_several_vcpus() { check.unsettled() } else { check.untrue(told) }
    }

    /// At the end: what is still to be settled.
    pub(super) fn finish_check(&self, side: &mut StoreSide, counts: &mut Counts) {
        let Some(check) = &self.check else { return };
        side.untrue(LATE).into_iter().for_each(|store| check.untrue(store));
        (0..side.unsettled()).for_each(|_| check.unsettled());
        counts.checked = Some(check.counts());
    }

    /// After a store: forgets what no vCPU can hold.
    fn forget(&self, side: &mut StoreSide, touched: &Touched) {
        // What others began to execute may not be visible here; that matters only if something is to be forgotten.
        let fenced = Cell::new(false);
        side.forget(touched, self.flags.horizon(), |segment| {
            if !fenced.replace(true) {
                self.flags.fence();
            }
            self.flags.held_since(segment.slot)
        });
    }

    /// After a store to its page: if that holds no code any more, stores to it are not told of from now on, until code
    /// in it is translated again.
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
        trapped_stores::give_up(phys);
        side.retire(phys);
    }

    /// A store to a page without code shows whether what is believed of the guest's memory is true, where QEMU does not
    /// tell.
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

impl TrapWatch for Sanitizer {
    fn trapped(&self, store: &Trapped) {
        // What no instruction stores (an interrupt's pushes) is found by comparison, as without hooks: no writer is
        // named that is not known.
        let Some(StoredBy { pc, form }) = store.by else { return };
        let told = ToldOf { vcpu: store.vcpu.id(), pc, linear: store.linear };
        let access = Access::trapped(store, form);
        let pages = store.parts.map(|part| part.filter(|phys| self.filter.may_hold_code(*phys)));
        if pages.iter().any(Option::is_some) {
            self.stores_to_code(told, pages, &access);
        }
        if let Some(check) = &self.check {
            check.trapped(told);
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
        let told = ToldOf { vcpu, pc, linear };
        if trapped_stores::are_told() {
            // Asked first, since it remembers pages without code, whose stores are not told of again.
            if self.in_code(vcpu, linear, access).is_none() {
                self.proves_places(linear, access);
            }
            self.checks_trap(told, access);
            return;
        }
        let here = PAGE - linear.0 % PAGE;
        let crosses = here < access.len();
        let first = self.in_code(vcpu, linear, access);
        let second = if crosses { self.in_code(vcpu, linear.offset(here), access) } else { None };
        if first.is_none() && second.is_none() {
            if !crosses {
                self.proves_places(linear, access);
            }
            self.checks(told, access);
            return;
        }
        if let Some(repair) = self.repair {
            first.into_iter().for_each(|first| repair.stored(first, access.len().min(here)));
            second.into_iter().for_each(|second| repair.stored(second, access.len() - here));
        }
        self.stores_to_code(told, [first, second], access);
    }
}
