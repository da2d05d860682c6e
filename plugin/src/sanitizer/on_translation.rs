//! Translations: from a block to segments, points and the callbacks of its stores.

use super::{Code, Sanitizer};
use crate::arch::store_form::PLAIN;
use crate::code::code_table::CodeTable;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::hooks::{stale_translations, trapped_stores, value_note};
use crate::qemu::host_code::Contents;
use crate::qemu::page_walk;
use crate::qemu::translation::{Instruction, Translation, code_run, host_code};
use crate::stores::store_side::StoreSide;
use icsan_model::addr::{Phys, Seq};
use icsan_model::arch::profile::Text;
use icsan_model::detector::flags::Segment as _;
use icsan_model::detector::history::Place;
use icsan_model::memory::PAGE;
use std::sync::atomic::Ordering;

impl Sanitizer {
    /// A block is being translated, by the vCPU whose thread this is.
    pub(super) fn translate(&'static self, block: &Translation<'_>, vcpu: Option<&CurrentVcpu>) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        if let Some(vcpu) = vcpu {
            self.begins_anew(vcpu);
            self.restores.executes(vcpu.id());
            self.sees_unseen(vcpu.id(), &block.cpu());
        }
        let instructions = block.instructions();
        if let (Some(injecting), Some(first)) = (&self.injecting, instructions.first()) {
            block.follow::<Sanitizer>(&injecting.trailing, first.linear);
        }
        if instructions.iter().any(|instruction| instruction.bytes().is_empty()) {
            return;
        }
        // First the segments: on one instruction callbacks fire in the order of their registration, and a serializing
        // instruction belongs to the epoch that it ends.
        self.watch_segments(block, &instructions);
        let callbacks = self.config.writers && self.needs_store_callbacks();
        let past_helpers = self.platform.past_helpers();
        value_note::is_wanted(callbacks, past_helpers);
        if trapped_stores::are_told() {
            self.notes_forms(&instructions);
        }
        for (index, instruction) in instructions.iter().enumerate() {
            let before =
                (index == 0 && self.config.writers).then(|| instruction.bytes_before(self.facts.longest_call, PAGE));
            self.points.instrument(instruction, before.as_deref(), self, &block.cpu());
            if (callbacks || self.config.writers && past_helpers(instruction.bytes()))
                && self.platform.may_store(instruction.bytes())
            {
                instruction.on_store::<Sanitizer>(self.platform.store_form(instruction.bytes()));
            }
        }
    }

    fn watch_segments(&'static self, block: &Translation<'_>, instructions: &[Instruction<'_>]) {
        let mut code = self.code.lock();
        if let Some(host) = instructions.first().and_then(Instruction::host) {
            stale_translations::prove(host);
        }
        let place = self.place(&mut code, instructions, &block.cpu());
        if let Some(repair) = self.repair {
            repair.watch(block, instructions, place);
        }
        // A block lies in one half of the address space.
        if self.config.profile.text == Text::Kernel
            && instructions.first().is_none_or(|first| !self.facts.linux.is_kernel(first.linear))
        {
            return;
        }
        let Code { table, side } = &mut *code;
        let changed = |at: &Instruction<'_>, table: &CodeTable| table.changed(at.linear, at.bytes(), at.host());
        let mut start = 0;
        let mut last_changed = instructions.first().is_some_and(|first| changed(first, table));
        for end in 1..=instructions.len() {
            let next_changed = instructions.get(end).is_some_and(|next| changed(next, table));
            let serializes = self.platform.may_synchronize(instructions[end - 1].bytes(), &self.config.profile);
            let cut = end == instructions.len() || last_changed || next_changed || serializes;
            last_changed = next_changed;
            if !cut {
                continue;
            }
            let part = &instructions[start..end];
            let page = part[0].linear.align_down(PAGE);
            // The block's second page is the only one that a later part may begin in.
            let place = place.and_then(|place| match place.second {
                Some(second) if page != place.page => Some(Place { page, first: second, second: None }),
                _ => (page == place.page).then_some(place),
            });
            let run = code_run(part);
            let host = host_code(part, &run, PAGE);
            if let Some((segment, new)) = table.intern(run, host, place, |slot| self.flags.board().reserve(slot)) {
                if let Some(side) = side.as_mut().filter(|_| new) {
                    side.add(segment);
                }
                let registers =
                    segment.may_run_elsewhere() || self.config.writers && segment.last_change().get() != Seq(0);
                // With a recording those executions are looked at as well that a flag says no to.
                match (self.injecting.is_some(), self.recorded.is_some()) {
                    (false, false) => {
                        part[0].on_execute_unless_done(self.flags.board(), segment.slot, segment, registers)
                    }
                    (false, true) => part[0].on_execute(segment, registers),
                    (true, false) => part[0].may_divert_unless_done(self.flags.board(), segment.slot, segment),
                    (true, true) => part[0].may_divert(segment),
                }
            }
            start = end;
        }
    }

    /// How instructions of the block store whose stores are trapped.
    fn notes_forms(&self, instructions: &[Instruction<'_>]) {
        let form = |instruction: &Instruction<'_>| {
            let form = self.platform.store_form(instruction.bytes()).number;
            (form != PLAIN && self.platform.may_store(instruction.bytes())).then_some((instruction.linear, form))
        };
        trapped_stores::note_forms(&instructions.iter().filter_map(form).collect::<Vec<_>>());
    }

    /// Are the plugin API's callbacks on stores needed? Not where stores to code are trapped, but to prove what is
    /// believed of places, and to check.
    fn needs_store_callbacks(&self) -> bool {
        !trapped_stores::are_told() || self.check.is_some() || page_walk::wants_proof()
    }

    /// Finds out where a block lies, makes the contents of its pages known, and notes what changed there unseen.
    fn place(&self, code: &mut Code, instructions: &[Instruction<'_>], cpu: &CurrentCpu) -> Option<Place> {
        let side = code.side.as_mut()?;
        let place = side.place(instructions, cpu)?;
        trapped_stores::watch([Some(place.first), place.second]);
        // A block's first page, and its second, if an instruction begins there.
        for part in instructions.chunk_by(|a, b| a.linear.align_down(PAGE) == b.linear.align_down(PAGE)) {
            let (first, last) = (&part[0], &part[part.len() - 1]);
            let (Some(phys), Some(host)) = (place.phys(first.linear), first.host_page(PAGE)) else { continue };
            let len = (last.linear.0 - first.linear.0 + last.bytes().len() as u64).min(PAGE - first.linear.0 % PAGE);
            self.learn(side, phys, len, &host);
        }
        // Of an instruction that crosses into the next page there is no host pointer to its end, and nothing else of
        // the block is there.
        let (last, next) = (instructions.last()?, place.page.offset(PAGE));
        if let Some(second) = place.second
            && last.linear < next
            && let Some(contents) = cpu.bytes::<{ PAGE as usize }>(next.0)
        {
            self.learn(side, second, (last.linear.0 + last.bytes().len() as u64).saturating_sub(next.0), &contents);
        }
        Some(place)
    }

    /// `len` bytes from `phys` on, in a page with these contents, are code.
    fn learn(&self, side: &mut StoreSide, phys: Phys, len: u64, contents: &impl Contents) {
        self.filter.mark(phys);
        side.learn_page(phys, contents);
        for touched in side.compare(phys, len, contents, || self.flags.next()) {
            self.invalidate(&touched);
        }
    }
}
