//! Which rule of the manuals each kind of hazard breaks.
//!
//! The rule is the same everywhere; the manual that states it is the architecture's, which has the sources. Sections
//! are named by title, because their numbers move between editions.

use crate::arch::sync_event::Sure;
use crate::verdict::kind::Kind;

/// The rule behind one kind of hazard. Where it is stated, [`crate::arch::architecture::Architecture::source`] says.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The kind.
    pub kind: Kind,
    /// What the patcher, or the executor, had to do, in the words of no architecture.
    pub text: &'static str,
}

/// Where an architecture's manuals state the rule behind one kind: a row of
/// [`crate::arch::architecture::Architecture::rules`].
#[derive(Clone, Copy, Debug)]
pub struct RuleSources {
    /// The kind.
    pub kind: Kind,
    /// The places, the one to print first.
    pub sources: &'static [RuleSource],
}

/// Where a rule is stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleSource {
    /// Manual and section, by title.
    pub section: &'static str,
    /// How the statement came to us.
    pub sure: Sure,
}

/// One row a kind, in the order of [`Kind::ALL`].
pub const RULES: &[Rule] = &[
    Rule {
        kind: Kind::Torn,
        text: "code that another CPU may execute must not change in more than one step unless a breakpoint and a serialization of every CPU \
               keep executors out between the steps",
    },
    Rule {
        kind: Kind::Stale,
        text: "a patch is done only when every CPU that may have brought the old code in has serialized after the last store",
    },
    Rule {
        kind: Kind::Alias,
        text: "code that was written through another linear address must not run before the CPU that runs it has serialized",
    },
    Rule {
        kind: Kind::Smc,
        text: "between storing code and running it, the CPU must take a branch to it or serialize",
    },
    Rule {
        kind: Kind::Unserialized,
        text: "the executing processor must serialize before it runs what another one stored",
    },
    Rule { kind: Kind::Emulator, text: "none: the emulator, not the guest, ran what memory no longer holds" },
    Rule {
        kind: Kind::Speculative,
        text: "a processor may fetch any mapped code at any time; only a serializing event makes sure that nothing older is left",
    },
    Rule {
        kind: Kind::Unsynced,
        text: "the processor that changes code that others may run must itself make each of them serialize after the last store, before it relies on \
               the change; an interrupt that happens to come is no part of that",
    },
    Rule {
        kind: Kind::Unclean,
        text: "the processor that changes code must clean the line, down to where instruction caches fill from, after the store",
    },
    Rule {
        kind: Kind::Uninvalidated,
        text: "the processor that changes code must invalidate the line in the instruction caches of each that may run it, after the store is clean",
    },
    Rule {
        kind: Kind::Incomplete,
        text: "the processor that changes code must wait, by a barrier that reaches each that may run it, for the store to be clean before the line is \
               invalidated, and for the invalidation before the change is relied on",
    },
    Rule {
        kind: Kind::Unsynchronized,
        text: "after the maintenance the executing processor must synchronize its context before it runs what was stored: it may have fetched the \
               old instruction before",
    },
];

/// The rule that a hazard of this kind breaks.
#[must_use]
pub fn rule(kind: Kind) -> &'static Rule {
    &RULES[kind as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        assert_eq!(RULES.len(), Kind::ALL.len());
        for (row, kind) in RULES.iter().zip(Kind::ALL) {
            assert_eq!(row.kind, kind);
            assert_eq!(rule(kind).kind, kind);
            assert_eq!(Kind::by_name(kind.name()), Some(kind));
        }
        assert!(Kind::ALL.is_sorted_by_key(|kind| *kind as u8) && Kind::WORST_FIRST.is_sorted());
        assert!(Kind::ALL.iter().all(|kind| Kind::WORST_FIRST.contains(kind)));
    }
}
