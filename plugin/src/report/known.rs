//! Is a hazard one of the known findings?

use super::evidence::{Evidence, Shown};
use crate::arch::known_finding::{Instruction, KnownFinding};
use crate::arch::platform::Platform;
use icsan_model::addr::Linear;
use icsan_model::verdict::kind::Kind;
use icsan_symbols::Names;

fn is(known: &KnownFinding, kind: Kind, evidence: &Evidence, symbols: Names<'_>, platform: &dyn Platform) -> bool {
    let function = |address: Linear| symbols.resolve(address.0).map(|resolved| resolved.name);
    let is = |instruction: &Instruction, bytes: &[u8]| match instruction {
        Instruction::Is(known) => bytes == *known,
        Instruction::JumpTo(function) => {
            platform.jump_target(bytes, evidence.linear).is_some_and(|target| symbols.begins_at(function, target))
        }
    };
    let instead = |shown: &Shown| shown.bytes == evidence.memory || is(&known.instead, &shown.bytes);
    known.kinds.contains(&kind)
        && function(evidence.linear) == Some(known.executes)
        && known.memory.iter().any(|memory| is(memory, &evidence.memory))
        && evidence.candidates.iter().all(instead)
        && match (known.stores, &evidence.writes) {
            (None, None) => true,
            (Some((stores, behalf)), Some(writes)) => {
                !writes.is_empty()
                    && writes.len() == evidence.writers.len()
                    && writes.iter().zip(&evidence.writers).all(|(write, writer)| {
                        let on_behalf = writer.as_ref().and_then(|writer| writer.function).and_then(function);
                        write.vcpu == Some(evidence.vcpu)
                            && write.pc.and_then(function) == Some(stores)
                            && on_behalf == Some(behalf)
                    })
            }
            _ => false,
        }
}

/// The finding that a hazard is, if it is a known one; `symbols`: those of its boot.
#[must_use]
pub fn known_finding(
    kind: Kind,
    evidence: &Evidence,
    symbols: Names<'_>,
    platform: &dyn Platform,
) -> Option<&'static KnownFinding> {
    platform.known_findings().iter().find(|known| is(known, kind, evidence, symbols, platform))
}
