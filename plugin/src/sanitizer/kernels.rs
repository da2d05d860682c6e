//! Kernels that run one after the other in one machine, and where each is.

use super::Sanitizer;
use crate::gaps::Gap;
use crate::patching::Awaited;
use crate::points::await_returns;
use crate::qemu::cpu::CurrentVcpu;
use crate::qemu::process::say;
use icsan_symbols::OffsetError;
use std::sync::atomic::Ordering;

impl Sanitizer {
    /// The kernel's `symbol` was seen at a runtime address.
    pub fn kernel_symbol_at(&self, symbol: &str, runtime: u64) {
        let symbols = &self.config.symbols;
        if symbols.kernel_table().is_none() {
            return;
        }
        let known = symbols.offset().is_some();
        match symbols.learn_offset(symbol, runtime) {
            Ok(_) => {}
            // It was there, and is elsewhere now, or where it cannot be in this kernel. (It has the same name in nearly
            // every kernel, so where it fits is one that may be the same.)
            Err(_) if known => {
                self.kernel_begins("its system-call entry moved (kexec)");
                self.symbol_evidence(symbols.learn_offset(symbol, runtime).map(drop));
            }
            Err(error) => self.symbol_evidence(Err(error)),
        }
    }

    /// One of these symbols was seen at a runtime address, if the kernel has any of them.
    pub fn kernel_symbol_among(&self, symbols: &[&str], runtime: u64) {
        self.symbol_evidence(self.config.symbols.confirm(symbols, runtime));
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
            self.kernel_begins("the machine was reset");
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
        self.origins.kernel_ended();
        self.user_modes.forget();
        if let Some(side) = &mut code.side {
            side.kernel_ended(ended);
            await_returns(Awaited::default());
        }
    }
}
