//! What is not watched, not judged or given up. Each kind of gap is told on stderr when it first opens, counted, and
//! makes the report incomplete: a clean report means that everything was looked at.
//!
//! A gap is noted from any thread, on any path, without a lock. What a bounded table drops is counted by that table
//! ([`crate::report::Counts::drop`]); a gap is what a user has to hear of while the guest still runs.

use crate::qemu::process::say;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! gaps {
    ($($(#[$doc:meta])* $gap:ident = ($name:literal, $text:literal);)*) => {
        /// A kind of gap.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Gap { $($(#[$doc])* $gap,)* }

        impl Gap {
            /// All of them.
            pub const ALL: &'static [Gap] = &[$(Gap::$gap,)*];

            /// Its name in the summary's `dropped_by`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Gap::$gap => $name,)* }
            }

            /// What the user is told when the first one opens: what is not seen, what that does to the verdicts, and
            /// what to do about it.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Gap::$gap => $text,)* }
            }
        }
    };
}

gaps! {
    /// A block of code whose place in physical memory is not known: the store side cannot judge it.
    UnknownPlace = (
        "places",
        "this QEMU does not tell where some of the guest's code is in physical memory: that code is judged as in the light mode (no writers, no stale, no torn, no commits); \
         use QEMU 11.1, or Debian's 10.0"
    );
    /// A kernel runs after the first one that is not the one whose symbols were given, or whose place was not found
    /// out.
    UnknownKernel = (
        "kernels",
        "another kernel was started (kexec, or a reset) that the symbols are not of: its hazards have no names, and its patches no commits; \
         watch it in a QEMU of its own, with its own symbols"
    );
    /// A program's system call, while it is not known where the kernel is whose symbols were given.
    UnseenKernel = (
        "names",
        "programs run, and where the kernel is was not found out (it tells when it boots; one that came by -incoming did so elsewhere; or the symbols are another \
         kernel's): no names of its functions, no commits of its patches"
    );
    /// A patching protocol was carried out whose coverage cannot be told ([`crate::coverage`]).
    UnknownCoverage = (
        "coverage",
        "the kernel's symbols do not tell which CPUs are online (`__cpu_online_mask`: the kernel's image, or a System.map), or where it makes them serialize, \
         or what a patch is to store could not be read: whether its patching protocols reach every \
         CPU is not judged, so nothing is `unsynced` there"
    );
    /// Code in a mode whose instructions are not decoded.
    ForeignMode = (
        "modes",
        "the guest runs 32-bit code, which is not decoded: its own synchronization and stores are not seen, so that what it executes is reported too often, and what it changes has no writer"
    );
    /// A membarrier(SYNC_CORE) by a system call of 32-bit programs.
    OtherCall = (
        "calls",
        "a program calls membarrier as programs of 32 bits do: whether that reaches every CPU is not judged, and what it wrote before is not taken for done"
    );
    /// An execution of a block that may be outdated and could not be translated again (`emulator=repair`).
    Unrepaired = (
        "repair",
        "a block that may be outdated could not be translated again: it is executed as it is, and not judged"
    );
    /// A function of QEMU's that is hooked was called with something else than what is known by the plugin API.
    Hooks = (
        "hooks",
        "a function of QEMU's own is not what it was taken for, and the hooks are off: QEMU may run \
         blocks that are older than memory, and stores to code may not be told of; use hooks=off, \
         and please report this"
    );
    /// A store after which memory held something else than was noted of it (`check=stores`).
    UntrueStore = (
        "untrue_stores",
        "memory does not hold what was noted of a store: what QEMU told of its value is not true, and verdicts on code that it changed may be wrong; please report the lines above"
    );
}

static COUNTS: [AtomicU64; Gap::ALL.len()] = [const { AtomicU64::new(0) }; Gap::ALL.len()];

impl Gap {
    /// One more of this kind. The first is told at once.
    pub fn note(self) {
        if COUNTS[self as usize].fetch_add(1, Ordering::Relaxed) == 0 {
            say(&format!("incomplete from here on: {}", self.text()));
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(self) -> u64 {
        COUNTS[self as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Gap;
    use std::collections::BTreeSet;

    #[test]
    fn every_gap_has_a_name_of_its_own_and_says_what_is_lost() {
        let names: BTreeSet<_> = Gap::ALL.iter().map(|gap| gap.name()).collect();
        assert_eq!(names.len(), Gap::ALL.len());
        assert!(
            Gap::ALL
                .iter()
                .all(|gap| gap.text().len() > 40 && !gap.text().contains('\n') && !gap.text().ends_with('.'))
        );
        let before = Gap::Unrepaired.count();
        Gap::Unrepaired.note();
        assert!(Gap::Unrepaired.count() > before);
    }
}
