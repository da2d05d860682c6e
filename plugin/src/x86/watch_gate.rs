//! `start=` and `stop=`: watching begins and ends when a symbol executes.

use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::locks::Mutex;
use crate::qemu::translation::{Instruction, Payload};
use crate::sanitizer::Sanitizer;
use icsan_model::addr::Linear;
use icsan_symbols::KaslrRange;
use std::collections::HashMap;

/// The instructions that have a callback so far.
#[derive(Debug, Default)]
pub struct Gates {
    gates: Mutex<HashMap<(Linear, bool), &'static Gate>>,
}

/// An instruction that may be the first of the symbol. A kernel's place is not known yet when much of it is translated, so that is decided when it runs.
#[derive(Debug)]
struct Gate {
    sanitizer: &'static Sanitizer,
    at: Linear,
    start: bool,
}

impl Payload for Gate {
    fn fire(&'static self, _vcpu: &CurrentVcpu, _cpu: &CurrentCpu) {
        let config = self.sanitizer.config();
        let symbol = if self.start { &config.start } else { &config.stop };
        if symbol.as_deref().and_then(|symbol| config.symbols.runtime_address_of(symbol)) == Some(self.at.0) {
            self.sanitizer.watch(self.start);
        }
    }
}

impl Gates {
    /// Puts a callback on the instruction if one of the symbols may stand there.
    pub fn instrument(&self, instruction: &Instruction<'_>, sanitizer: &'static Sanitizer) {
        let config = sanitizer.config();
        for (start, symbol) in [(true, &config.start), (false, &config.stop)] {
            let Some(location) = symbol.as_deref().and_then(|symbol| config.symbols.address_of(symbol)) else { continue };
            let at = instruction.linear;
            let possible =
                if location.kernel { at.0.wrapping_sub(location.link) % KaslrRange::X86_64.alignment == 0 } else { at.0 == location.link };
            if possible {
                let make = || -> &'static Gate { Box::leak(Box::new(Gate { sanitizer, at, start })) };
                let gate = *self.gates.lock().entry((at, start)).or_insert_with(make);
                instruction.on_execute(gate, false);
            }
        }
    }
}
