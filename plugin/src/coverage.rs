//! Coverage of commits: when a patching protocol goes on, has it made every CPU serialize since the last store?
//!
//! ICSAN need not wait for an executor to meet a changed instruction in the right microsecond: the question is asked of
//! every vCPU right after the last store ([`crate::patching::Asked`]). A vCPU that an *intended* event of the protocol
//! serialized is synced. One that only something else did is lucky: a timer's tick, a switch of tasks. One that nothing
//! did is exposed. What is intended is data ([`icsan_symbols::linux::protocol`]).

use crate::patching::{Asker, Covering, Missing};
use icsan_model::addr::{Linear, Seq};
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::detector::sync_log::{SyncAt, SyncLog};
use icsan_symbols::linux::protocol::{IntendedSync, SyncPlace, SyncedCpus};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where one intended event happens.
#[derive(Debug)]
struct Site {
    function: &'static str,
    /// Those that count inside of it; none where they are around it.
    events: SyncEventSet,
    cpus: SyncedCpus,
    start: AtomicU64,
    end: AtomicU64,
}

/// What a protocol means to happen on every CPU, and where that is in the kernel that runs. Looked at without a lock,
/// at each serializing event.
#[derive(Debug)]
pub struct IntendedSyncs(Box<[Site]>);

impl IntendedSyncs {
    /// Those rows, whose places are not known yet.
    #[must_use]
    pub fn new(arch: &Architecture, rows: &[IntendedSync]) -> Self {
        let site = |row: &IntendedSync| Site {
            function: row.function,
            events: match row.place {
                SyncPlace::Inside => row.events.iter().filter_map(|name| arch.event_by_name(name)).collect(),
                SyncPlace::Around => SyncEventSet::EMPTY,
            },
            cpus: row.cpus,
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
        };
        Self(rows.iter().map(site).collect())
    }

    /// A kernel's place became known, or another kernel runs: `range_of` says where a function is.
    pub fn learn(&self, range_of: impl Fn(&str) -> Option<Range<u64>>) {
        for site in &self.0 {
            let range = range_of(site.function).unwrap_or(0..0);
            // A vCPU that looks in between sees an empty range.
            site.end.store(0, Ordering::SeqCst);
            site.start.store(range.start, Ordering::SeqCst);
            site.end.store(range.end, Ordering::SeqCst);
        }
    }

    /// Is the place of any of them known?
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.0.iter().any(|site| site.end.load(Ordering::Relaxed) != 0)
    }

    /// On which CPUs is it an intended event, if it is one?
    #[inline]
    #[must_use]
    pub fn include(&self, event: SyncEventId, pc: Linear) -> Option<SyncedCpus> {
        let here = |site: &&Site| {
            let range = site.start.load(Ordering::Relaxed)..site.end.load(Ordering::Relaxed);
            range.contains(&pc.0) && site.events.contains(event)
        };
        self.0.iter().find(here).map(|site| site.cpus)
    }
}

/// A vCPU's last events that patching protocols mean to happen.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Intended {
    /// Where it patches itself.
    pub own: Seq,
    /// Where another one does.
    pub others: Seq,
}

impl Intended {
    /// One happened that is meant to happen on such CPUs.
    pub fn happened(&mut self, cpus: SyncedCpus, seq: Seq) {
        if cpus != SyncedCpus::Others {
            self.own = seq;
        }
        if cpus != SyncedCpus::Patcher {
            self.others = seq;
        }
    }
}

/// What emptied a vCPU's buffers lately.
#[derive(Clone, Default, Debug)]
pub struct Serialized {
    /// The events.
    pub log: SyncLog,
    /// When it was reset, or its state restored: what it executed before says nothing of what it holds.
    pub reset_at: Seq,
    /// Its last events that patching protocols mean to happen.
    pub intended: Intended,
    /// Its last return to user mode, or by the same instruction, that serializes on this architecture.
    pub returned: Seq,
    /// Its last instruction of the kernel's that does nothing but serialize.
    pub explicit: Seq,
    /// The page table that it loads just now.
    pub loads: Option<u64>,
    /// The last one that it loaded, and the place in the order of that.
    pub loaded: Option<(u64, Seq)>,
}

/// What a vCPU is to the one that patches, and its loads of page tables to the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Switches {
    /// Chance.
    Lucky,
    /// The protocol relies on them.
    Intended,
    /// By these events the vCPU, which patches, leaves the mapping that it stored through.
    Own(SyncEventSet),
}

/// What a vCPU did since the last store of a patch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// It completed an event that the protocol means to happen.
    Synced,
    /// It patches, and nothing serialized it but its own switches back from the mapping that it stored through.
    OwnSwitch,
    /// Something serialized it, first this; the protocol did not.
    Lucky(SyncAt),
    /// Something did by which the design means to do it late.
    Deferred,
    /// Nothing did.
    Exposed,
}

impl Class {
    /// Of a vCPU that serialized like that; `last` is the last store's place in the order. `switches`: the events by
    /// which a vCPU that patches leaves the mapping that it stored through, if it is this one that patches.
    #[must_use]
    pub fn of(state: &Serialized, last: Seq, covering: Covering, switches: Switches) -> Self {
        let happened = |events: SyncEventSet| state.log.since(last).iter().any(|event| events.contains(event));
        let loaded = |space| state.loaded.is_some_and(|(table, seq)| table == space && seq > last);
        let intended = match covering {
            Covering::TextPoke => match switches {
                Switches::Own(_) => state.intended.own > last,
                Switches::Lucky | Switches::Intended => state.intended.others > last,
            },
            Covering::By(events) => happened(events),
            Covering::Membarrier { space } => {
                state.explicit > last || state.returned > last || switches == Switches::Intended && loaded(space)
            }
        };
        // A vCPU that was reset since holds nothing from before.
        if intended || state.reset_at > last {
            return Self::Synced;
        }
        if let Switches::Own(events) = switches
            && happened(events)
        {
            return Self::OwnSwitch;
        }
        state.log.first_since(last).map_or(Self::Exposed, Self::Lucky)
    }
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    /// In which boot.
    pub boot: usize,
    /// Who was asked.
    pub asker: Asker,
    /// Where.
    pub missing: Missing,
}

/// How often: commits (or steps), and vCPUs that were online at them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs)]
pub struct Tally {
    pub commits: u64,
    pub synced: u64,
    pub lucky: u64,
    pub exposed: u64,
    pub own_switch: u64,
    pub deferred: u64,
}

/// What all commits came to.
#[derive(Clone, Default, Debug)]
pub struct CoverageTable(BTreeMap<Row, Tally>);

impl CoverageTable {
    /// A protocol was asked; `new`: about a commit, or step, that is not counted yet; `classes`: what its vCPUs came
    /// to.
    pub fn add(&mut self, row: Row, new: bool, classes: impl Iterator<Item = Class>) {
        let tally = self.0.entry(row).or_default();
        tally.commits += u64::from(new);
        for class in classes {
            *match class {
                Class::Synced => &mut tally.synced,
                Class::OwnSwitch => &mut tally.own_switch,
                Class::Lucky(_) => &mut tally.lucky,
                Class::Deferred => &mut tally.deferred,
                Class::Exposed => &mut tally.exposed,
            } += 1;
        }
    }

    /// A vCPU that was counted as exposed was deferred, as the design means it.
    pub fn defer(&mut self, row: Row) {
        let tally = self.0.entry(row).or_default();
        tally.exposed = tally.exposed.saturating_sub(1);
        tally.deferred += 1;
    }

    /// The rows, in a stable order. No more than functions of the protocol table, times steps, times boots.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, &Tally)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use icsan_model::arch::x86::{X86_64, events};
    use icsan_symbols::linux::x86::LINUX;

    const SYNC: Range<u64> = 0x1000..0x1040;
    const LUCKY: Switches = Switches::Lucky;

    fn at(event: SyncEventId) -> SyncAt {
        SyncAt { event, pc: Linear(0x10), origin: None }
    }

    #[test]
    fn what_is_intended_goes_by_place_and_event() {
        let syncs = IntendedSyncs::new(&X86_64, LINUX.protocol.text_poke_syncs);
        assert!(!syncs.are_known() && syncs.include(events::IRET_TO_SELF, Linear(0x1020)).is_none());
        syncs.learn(|function| (function == "do_sync_core").then_some(SYNC));
        assert!(syncs.are_known());
        for event in [events::IRET_TO_SELF, events::SERIALIZE, events::CPUID] {
            assert_eq!(syncs.include(event, Linear(0x1020)), Some(SyncedCpus::All), "{event:?}");
            assert_eq!(syncs.include(event, Linear(0x1040)), None, "{event:?}");
        }
        assert_eq!(syncs.include(events::IRET, Linear(0x1020)), None);
        syncs.learn(|_| None);
        assert!(!syncs.are_known(), "another kernel runs");
    }

    #[test]
    fn classes_of_a_vcpu() {
        let mut state = Serialized::default();
        state.log.push(Seq(3), at(events::IRET));
        assert_eq!(Class::of(&state, Seq(5), Covering::TextPoke, LUCKY), Class::Exposed, "before the store");
        state.log.push(Seq(6), at(events::MOV_CR3));
        state.log.push(Seq(7), at(events::IRET));
        assert_eq!(
            Class::of(&state, Seq(5), Covering::TextPoke, LUCKY),
            Class::Lucky(at(events::MOV_CR3)),
            "the first one"
        );
        assert_eq!(Class::of(&state, Seq(6), Covering::TextPoke, LUCKY), Class::Lucky(at(events::IRET)));
        let switches = SyncEventSet::EMPTY.with(events::MOV_CR3);
        assert_eq!(Class::of(&state, Seq(5), Covering::TextPoke, Switches::Own(switches)), Class::OwnSwitch);
        assert_eq!(
            Class::of(&state, Seq(6), Covering::TextPoke, Switches::Own(switches)),
            Class::Lucky(at(events::IRET)),
            "before the last store it is no use"
        );
        let by = |event| Covering::By(SyncEventSet::EMPTY.with(event));
        assert_eq!(Class::of(&state, Seq(5), by(events::IRET), LUCKY), Class::Synced, "whatever it was");
        assert_eq!(Class::of(&state, Seq(5), by(events::CPUID), LUCKY), Class::Lucky(at(events::MOV_CR3)));
        state.intended.happened(SyncedCpus::All, Seq(5));
        assert_ne!(Class::of(&state, Seq(5), Covering::TextPoke, LUCKY), Class::Synced, "of the step before");
        state.intended.happened(SyncedCpus::All, Seq(8));
        assert_eq!(Class::of(&state, Seq(5), Covering::TextPoke, LUCKY), Class::Synced);
        assert_eq!(Class::of(&state, Seq(5), Covering::TextPoke, Switches::Own(SyncEventSet::EMPTY)), Class::Synced);
        // What is meant for the CPU that patches is chance on another one, and the other way round.
        for (cpus, own) in [(SyncedCpus::Patcher, true), (SyncedCpus::Others, false)] {
            state.intended = Intended::default();
            state.intended.happened(cpus, Seq(8));
            let patches = Class::of(&state, Seq(5), Covering::TextPoke, Switches::Own(SyncEventSet::EMPTY));
            let other = Class::of(&state, Seq(5), Covering::TextPoke, LUCKY);
            assert_eq!((patches == Class::Synced, other == Class::Synced), (own, !own), "{cpus:?}");
        }
        let fresh = Serialized { reset_at: Seq(9), ..Serialized::default() };
        assert_eq!(Class::of(&fresh, Seq(5), Covering::TextPoke, LUCKY), Class::Synced, "it holds nothing from before");
    }

    #[test]
    fn classes_of_a_vcpu_that_goes_on_after_a_membarrier() {
        const SPACE: u64 = 0x8c_9000;
        let covering = Covering::Membarrier { space: SPACE };
        let of = |state: &Serialized, switches| Class::of(state, Seq(5), covering, switches);
        let mut state = Serialized::default();
        state.log.push(Seq(6), at(events::IRET));
        assert_eq!(of(&state, LUCKY), Class::Lucky(at(events::IRET)), "its own return does not count");
        state.loaded = Some((SPACE, Seq(7)));
        assert_eq!(of(&state, Switches::Intended), Class::Synced);
        assert_eq!(of(&state, LUCKY), Class::Lucky(at(events::IRET)), "of the caller without isolation it is chance");
        state.loaded = Some((SPACE ^ 0x1000, Seq(7)));
        assert_ne!(of(&state, Switches::Intended), Class::Synced, "another process");
        state.loaded = Some((SPACE, Seq(5)));
        assert_ne!(of(&state, Switches::Intended), Class::Synced, "before the last store");
        state.returned = Seq(8);
        assert_eq!(of(&state, LUCKY), Class::Synced, "where returns serialize");
        state.returned = Seq(5);
        assert_ne!(of(&state, LUCKY), Class::Synced);
        state.explicit = Seq(8);
        assert_eq!(of(&state, LUCKY), Class::Synced);
        assert_eq!(of(&Serialized::default(), Switches::Intended), Class::Exposed);
    }

    #[test]
    fn the_table_counts_vcpus_by_function_and_place() {
        let mut table = CoverageTable::default();
        let row = Row { boot: 1, asker: Asker::Function(Linear(7)), missing: Missing::AtTheEnd };
        table.add(row, true, [Class::Synced, Class::Exposed].into_iter());
        table.add(row, true, [Class::Synced].into_iter());
        table.add(row, false, [Class::Lucky(at(events::IRET))].into_iter());
        let tally = Tally { commits: 2, synced: 2, lucky: 1, exposed: 1, own_switch: 0, deferred: 0 };
        assert_eq!(table.rows().collect::<Vec<_>>(), [(&row, &tally)]);
    }
}
