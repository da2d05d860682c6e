//! Hazards of unmodified kernels that are understood and explained (docs/findings.md): the user is told of them in one
//! line, and they are no reason to fail a test.

use crate::report::findings::{Evidence, Shown};
use icsan_model::addr::Linear;
use icsan_model::hazard::Kind;
use icsan_symbols::Names;

/// A finding. All that is said here must hold of a hazard, so that another one at the same place is not taken for it.
#[derive(Debug)]
pub struct KnownFinding {
    /// Of which kind.
    kind: Kind,
    /// The function that executes.
    executes: &'static str,
    /// The function that stores, and the protocol function on whose behalf it does: of every store. `None`: stores are
    /// not seen.
    stores: Option<(&'static str, &'static str)>,
    /// The instruction that is in memory.
    memory: &'static [u8],
    /// All that may be executed instead is a `jmp rel32` to this function.
    instead: &'static str,
    /// What it is, in a line.
    pub what: &'static str,
    /// Where it is explained.
    pub page: &'static str,
}

/// `ret`, and the `jmp rel32` in its place.
const RET: &[u8] = &[0xc3];
const JMP: u8 = 0xe9;
const JMP_LEN: usize = 5;

const MEMCPY: &str = "memcpy() patches its own return while apply_returns() patches all returns";
const MEMCPY_PAGE: &str = "docs/findings.md#memcpy_orig-patches-its-own-return-linux-61-612-and-73-x86-64-at-boot";

/// All of them.
static KNOWN: &[KnownFinding] = &[
    // Seen at every boot of 6.1, 6.12 and 7.3, on both QEMUs.
    KnownFinding {
        kind: Kind::Smc,
        executes: "memcpy_orig",
        stores: Some(("memcpy_orig", "apply_returns")),
        memory: RET,
        instead: "__x86_return_thunk",
        what: MEMCPY,
        page: MEMCPY_PAGE,
    },
    // The same without the store side.
    KnownFinding {
        kind: Kind::Unserialized,
        executes: "memcpy_orig",
        stores: None,
        memory: RET,
        instead: "__x86_return_thunk",
        what: MEMCPY,
        page: MEMCPY_PAGE,
    },
];

impl KnownFinding {
    fn is(&self, kind: Kind, evidence: &Evidence, symbols: Names<'_>) -> bool {
        let function = |address: Linear| symbols.resolve(address.0).map(|resolved| resolved.name);
        let instead =
            |shown: &Shown| jump_target(&shown.bytes, evidence.linear).is_some_and(|target| begins(target, self.instead, symbols));
        kind == self.kind
            && function(evidence.linear) == Some(self.executes)
            && evidence.memory == self.memory
            && evidence.candidates.iter().all(|shown| shown.bytes == self.memory || instead(shown))
            && match (self.stores, &evidence.writes) {
                (None, None) => true,
                (Some((stores, behalf)), Some(writes)) => {
                    !writes.is_empty()
                        && writes.len() == evidence.writers.len()
                        && writes.iter().zip(&evidence.writers).all(|(write, writer)| {
                            let on_behalf = writer.as_ref().and_then(|writer| writer.function).and_then(function);
                            write.vcpu == Some(evidence.vcpu) && write.pc.and_then(function) == Some(stores) && on_behalf == Some(behalf)
                        })
                }
                _ => false,
            }
    }
}

fn jump_target(bytes: &[u8], at: Linear) -> Option<u64> {
    let displacement = bytes.strip_prefix(&[JMP])?.try_into().ok().map(i32::from_le_bytes)?;
    Some(at.0.wrapping_add(JMP_LEN as u64).wrapping_add(displacement as i64 as u64))
}

fn begins(address: u64, function: &str, symbols: Names<'_>) -> bool {
    symbols.resolve(address).is_some_and(|resolved| resolved.name == function && resolved.offset == 0)
}

/// The finding that a hazard is, if it is a known one; `symbols`: those of its boot.
#[must_use]
pub fn known_finding(kind: Kind, evidence: &Evidence, symbols: Names<'_>) -> Option<&'static KnownFinding> {
    KNOWN.iter().find(|known| known.is(kind, evidence, symbols))
}
