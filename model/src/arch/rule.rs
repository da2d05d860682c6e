//! Which rule of the manuals each kind of hazard breaks.
//!
//! The rule is the same everywhere; the manual that states it is one per architecture. Sections are named by title,
//! because their numbers move between editions (one of these was 7.1.3, 8.1.3, 9.1.3, 10.1.3 and 11.1.3 of the same
//! manual).

use crate::arch::sync_event::Sure;
use crate::verdict::kind::Kind;

/// The rule behind one kind of hazard.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The kind.
    pub kind: Kind,
    /// What whoever patches or executes had to do, in the words of no architecture.
    pub text: &'static str,
    /// Where it is stated. Empty if it is our own rule.
    pub sources: &'static [RuleSource],
}

/// Where a rule is stated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleSource {
    /// The architecture, by [`crate::arch::architecture::Architecture::name`].
    pub architecture: &'static str,
    /// Manual and section, by title.
    pub section: &'static str,
    /// How the statement came to us.
    pub sure: Sure,
}

const CROSS: RuleSource = RuleSource {
    architecture: "x86_64",
    section: "SDM vol. 3, \"Handling Self- and Cross-Modifying Code\"",
    sure: Sure::Confirmed,
};
const CACHE: RuleSource = RuleSource {
    architecture: "x86_64",
    section: "SDM vol. 3, \"Self-Modifying Code\" (cache control)",
    sure: Sure::Confirmed,
};
const ERRATA: RuleSource = RuleSource {
    architecture: "x86_64",
    section: "specification updates, \"Unsynchronized Cross-Modifying Code Operations Can Cause Unexpected Instruction Execution Results\"",
    sure: Sure::Confirmed,
};
const LIST: RuleSource =
    RuleSource { architecture: "x86_64", section: "SDM vol. 3, \"Serializing Instructions\"", sure: Sure::Confirmed };

/// One row a kind, in the order of [`Kind::ALL`].
pub const RULES: &[Rule] = &[
    Rule {
        kind: Kind::Torn,
        text: "code that another CPU may execute must not change in more than one step unless a breakpoint and a serialization of every CPU \
               keep executors out between the steps",
        sources: &[CROSS, ERRATA],
    },
    Rule {
        kind: Kind::Stale,
        text: "a patch is done only when every CPU that may have brought the old code in has serialized after the last store",
        sources: &[CROSS],
    },
    Rule {
        kind: Kind::Alias,
        text: "code that was written through another linear address must not run before the CPU that runs it has serialized",
        sources: &[CACHE],
    },
    Rule {
        kind: Kind::Smc,
        text: "between storing code and running it, the CPU must take a branch to it or serialize",
        sources: &[CROSS],
    },
    Rule {
        kind: Kind::Unserialized,
        text: "the executing processor must serialize before it runs what another one stored",
        sources: &[CROSS],
    },
    Rule {
        kind: Kind::Emulator,
        text: "none: the emulator, not the guest, ran what memory no longer holds",
        sources: &[],
    },
    Rule {
        kind: Kind::Speculative,
        text: "a processor may fetch any mapped code at any time; only a serializing event makes sure that nothing older is left",
        sources: &[LIST],
    },
    Rule {
        kind: Kind::Unsynced,
        text: "whoever changes code that other CPUs may run must himself make each of them serialize after the last store, before he relies on \
               the change; an interrupt that happens to come is no part of that",
        sources: &[CROSS],
    },
];

/// The rule that a hazard of this kind breaks.
#[must_use]
pub fn rule(kind: Kind) -> &'static Rule {
    &RULES[kind as usize]
}

impl Rule {
    /// The first source of an architecture: the one to print.
    #[must_use]
    pub fn source(&self, architecture: &str) -> Option<&'static RuleSource> {
        self.sources.iter().find(|source| source.architecture == architecture)
    }
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
        assert!(Kind::ALL.is_sorted());
    }
}
