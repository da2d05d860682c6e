//! Where Intel's manuals state the rules behind the kinds of hazards.
//!
//! Sections are named by title: one of these was 7.1.3, 8.1.3, 9.1.3, 10.1.3 and 11.1.3 of the same manual.

use crate::arch::rule::{RuleSource, RuleSources};
use crate::arch::sync_event::Sure;
use crate::verdict::kind::Kind;

const CROSS: RuleSource =
    RuleSource { section: "SDM vol. 3, \"Handling Self- and Cross-Modifying Code\"", sure: Sure::Confirmed };
const CACHE: RuleSource =
    RuleSource { section: "SDM vol. 3, \"Self-Modifying Code\" (cache control)", sure: Sure::Confirmed };
const ERRATA: RuleSource = RuleSource {
    section: "specification updates, \"Unsynchronized Cross-Modifying Code Operations Can Cause Unexpected Instruction Execution Results\"",
    sure: Sure::Confirmed,
};
const LIST: RuleSource = RuleSource { section: "SDM vol. 3, \"Serializing Instructions\"", sure: Sure::Confirmed };

/// The rows.
pub const RULES: &[RuleSources] = &[
    RuleSources { kind: Kind::Torn, sources: &[CROSS, ERRATA] },
    RuleSources { kind: Kind::Stale, sources: &[CROSS] },
    RuleSources { kind: Kind::Alias, sources: &[CACHE] },
    RuleSources { kind: Kind::Smc, sources: &[CROSS] },
    RuleSources { kind: Kind::Unserialized, sources: &[CROSS] },
    RuleSources { kind: Kind::Speculative, sources: &[LIST] },
    RuleSources { kind: Kind::Unsynced, sources: &[CROSS] },
];
