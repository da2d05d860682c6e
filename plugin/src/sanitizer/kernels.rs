//! Kernels that run one after the other in one machine, and where each is.

use super::Sanitizer;
use crate::gaps::Gap;
use crate::patching::Awaited;
use crate::points::await_returns;
use crate::qemu::cpu::CurrentVcpu;
use crate::qemu::process::say;
use icsan_model::addr::Linear;
use icsan_symbols::OffsetError;
use icsan_symbols::linux::kaslr::PlaceEvidence;
use std::sync::atomic::Ordering;

impl Sanitizer {
    /// A register that tells the kernel's place was set to a runtime address, by the instruction at `pc`.
    pub fn kernel_place(&self, evidence: &PlaceEvidence, runtime: u64, Linear(pc): Linear) {
        let symbols = &self.config.symbols;
        if symbols.kernel_table().is_none() || self.says_nothing.load(Ordering::Relaxed) == runtime {
            return;
        }
        if !symbols.tells(evidence, runtime) {
            // A kernel may set the register at each system call.
            self.says_nothing.store(runtime, Ordering::Relaxed);
            return;
        }
        if !evidence.decides {
            return self.symbol_evidence(symbols.confirm(evidence.symbols, runtime));
        }
        let known = symbols.offset().is_some();
        match symbols.learn_offset_by(evidence, runtime, pc) {
            Ok(_) => {}
            // It was there, and is elsewhere now, or where it cannot be in this kernel. (It has the same name in nearly
            // every kernel, so where it fits is one that may be the same.)
            Err(_) if known => {
                self.kernel_begins("its entry moved (kexec)");
                self.symbol_evidence(symbols.learn_offset_by(evidence, runtime, pc).map(drop));
            }
            Err(error) => self.symbol_evidence(Err(error)),
        }
    }

    fn symbol_evidence(&self, evidence: Result<(), OffsetError>) {
        let Err(error) = evidence else { return };
        if self.config.symbols.boot() > 1 {
            Gap::UnknownKernel.note();
        } else if self.sink.lock().first_symbol_error() {
            say(&format!("{error}; no kernel symbols in this report"));
        }
    }

    /// The boot processor, whose thread this is, begins at its reset vector.
    pub fn was_reset(&self, vcpu: &CurrentVcpu) {
        // The first time is when the machine is switched on: that is the first block.
        if self.blocks.load(Ordering::Relaxed) > 1 {
            self.filter.forget(vcpu.id());
            self.holds_nothing(vcpu, self.facts.reset);
            self.memory_is_reloaded();
            self.kernel_begins("the machine was reset");
        }
    }

    /// The machine was reset: what it boots was loaded anew, and its caches are empty.
    fn memory_is_reloaded(&self) {
        if !self.flags.maintained() {
            return;
        }
        if let Some(side) = &mut self.code.lock().side {
            let touched = side.reloaded(|| self.flags.next());
            touched.iter().for_each(|touched| self.invalidate(touched));
        }
    }

    /// Another kernel begins. What is known of where the earlier one was, and of its tasks, holds no more.
    fn kernel_begins(&self, why: &str) {
        let mut code = self.code.lock();
        let ended = self.config.symbols.boot();
        match self.config.symbols.next_boot() {
            Some(boot) if boot == ended => {}
            Some(boot) => say(&format!("boot {boot} begins here: {why}")),
            None => Gap::UnknownKernel.note(),
        }
        self.says_nothing.store(0, Ordering::Relaxed);
        self.origins.kernel_ended();
        self.user_modes.forget();
        if let Some(side) = &mut code.side {
            side.kernel_ended(ended);
            await_returns(Awaited::default());
        }
    }
}
