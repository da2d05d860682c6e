//! `start=` and `stop=`: watching begins and ends when a symbol executes.

use super::point_word::PointWord;
use super::sink::sink;
use crate::config::Config;
use crate::qemu::cpu::{CurrentCpu, CurrentVcpu};
use crate::qemu::translation::{Instruction, WordPayload};

/// An instruction that may be the first of the symbol; the tag of its word is 1 for `start=`. A kernel's place is not
/// known yet when much of it is translated, so that is decided when it runs.
#[derive(Debug)]
struct Gate;

impl WordPayload for Gate {
    fn fire(word: u64, _vcpu: &CurrentVcpu, _cpu: &CurrentCpu) {
        let Some(sink) = sink() else { return };
        let (PointWord { at, tag }, config) = (PointWord::from_bits(word), sink.config());
        let start = tag != 0;
        let symbol = if start { &config.start } else { &config.stop };
        if symbol.as_deref().and_then(|symbol| config.symbols.runtime_address_of(symbol)) == Some(at.0) {
            sink.watch(start);
        }
    }
}

/// Puts a callback on the instruction if one of the symbols may stand there.
pub fn instrument(instruction: &Instruction<'_>, config: &Config) {
    for (start, symbol) in [(true, &config.start), (false, &config.stop)] {
        let Some(location) = symbol.as_deref().and_then(|symbol| config.symbols.address_of(symbol)) else { continue };
        let at = instruction.linear;
        let possible = if location.kernel {
            at.0.wrapping_sub(location.link).is_multiple_of(config.symbols.kaslr().alignment)
        } else {
            at.0 == location.link
        };
        if let Some(word) = (PointWord { at, tag: start.into() }).bits().filter(|_| possible) {
            instruction.on_execute_word::<Gate>(word, false);
        }
    }
}
