//! Where Arm's manual states the rules behind the kinds of hazards.
//!
//! DDI0487 is cited by section number, as everybody does; the text was read in a conversion.

use crate::arch::rule::{RuleSource, RuleSources};
use crate::arch::sync_event::Sure;
use crate::verdict::kind::Kind;

const fn confirmed(section: &'static str) -> RuleSource {
    RuleSource { section, sure: Sure::Confirmed }
}

const COHERENCY: RuleSource =
    confirmed("DDI0487 B2.7.4.2, \"Synchronization and coherency issues between data and instruction accesses\"");
const CMODX: RuleSource = RuleSource {
    section: "DDI0487 B2.2.5, \"Concurrent modification and execution of instructions\"",
    sure: Sure::Secondary,
};

/// The rows.
pub const RULES: &[RuleSources] = &[
    RuleSources { kind: Kind::Torn, sources: &[CMODX, COHERENCY] },
    RuleSources { kind: Kind::Stale, sources: &[COHERENCY] },
    RuleSources { kind: Kind::Unclean, sources: &[COHERENCY] },
    RuleSources { kind: Kind::Uninvalidated, sources: &[COHERENCY] },
    RuleSources { kind: Kind::Incomplete, sources: &[COHERENCY] },
    RuleSources { kind: Kind::Unsynchronized, sources: &[COHERENCY, CMODX] },
    RuleSources { kind: Kind::Speculative, sources: &[COHERENCY] },
    RuleSources { kind: Kind::Unsynced, sources: &[COHERENCY] },
];
