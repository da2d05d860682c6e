//! Groups of hazards: one cause shows at many sites, and is told once.

use super::findings::Evidence;
use crate::patching::Missing;
use icsan_model::addr::Linear;
use icsan_model::hazard::Kind;
use icsan_model::memory::PAGE;
use icsan_symbols::Names;
use std::collections::HashMap;

/// Number of a group, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GroupId(pub usize);

/// What hazards of one cause have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cause {
    /// Their kind.
    pub kind: Kind,
    /// The function that made the last store whose maker is known, or the storing instruction if that is in no known
    /// function; `None`: no maker is known.
    pub stores: Option<Linear>,
    /// The outermost protocol function on whose behalf it did; of a protocol that did not make a CPU serialize the
    /// function that was asked.
    pub behalf: Option<Linear>,
    /// Where it should have.
    pub missing: Option<Missing>,
    /// Was the CPU serialized by chance?
    pub lucky: bool,
    /// The page that is executed.
    pub page: CodePage,
    /// The function that is executed, if it has a name and no maker is known: that they are in one page does not make
    /// one cause of them.
    pub executes: Option<Linear>,
    /// What the guest was at.
    pub marker: u64,
    /// In which boot.
    pub boot: usize,
}

/// A page of code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CodePage {
    /// Its physical address.
    Physical(u64),
    /// Its linear address, where the physical one is not known.
    Linear(u64),
    /// None: a protocol did not make a CPU serialize, whatever it patched.
    Whatever,
}

impl Cause {
    /// The cause of a hazard; `symbols`: those of its boot.
    #[must_use]
    pub fn of(kind: Kind, evidence: &Evidence, symbols: Names<'_>) -> Self {
        let writes = evidence.writes.as_deref().unwrap_or_default();
        let unsynced = evidence.unsynced.as_deref();
        let last = writes.iter().enumerate().rev().find_map(|(index, write)| Some((index, write.pc?)));
        let named = |pc: Linear| symbols.resolve(pc.0).map(|resolved| Linear(pc.0.wrapping_sub(resolved.offset)));
        Self {
            kind,
            stores: last.map(|(_, pc)| named(pc).unwrap_or(pc)),
            executes: if last.is_none() { named(evidence.linear) } else { None },
            behalf: match unsynced {
                Some(unsynced) => Some(unsynced.function),
                None => last.and_then(|(index, _)| evidence.writers.get(index)?.as_ref()?.function),
            },
            missing: unsynced.map(|unsynced| unsynced.missing),
            lucky: unsynced.is_some_and(|unsynced| unsynced.luck.is_some()),
            page: match evidence.physical {
                _ if evidence.unsynced.is_some() => CodePage::Whatever,
                Some(phys) => CodePage::Physical(phys.0 & !(PAGE - 1)),
                None => CodePage::Linear(evidence.linear.0 & !(PAGE - 1)),
            },
            marker: evidence.marker,
            boot: evidence.boot,
        }
    }
}

/// The groups so far: no more than there are hazards.
#[derive(Debug, Default)]
pub struct Groups {
    by_cause: HashMap<Cause, usize>,
    groups: Vec<(Cause, Vec<usize>)>,
}

impl Groups {
    /// Adds a hazard by its number. Answers with its group, and whether it is the first there.
    pub fn add(&mut self, cause: Cause, hazard: usize) -> (GroupId, bool) {
        let index = *self.by_cause.entry(cause).or_insert(self.groups.len());
        match self.groups.get_mut(index) {
            Some((_, members)) => members.push(hazard),
            None => self.groups.push((cause, vec![hazard])),
        }
        (GroupId(index + 1), self.groups[index].1.len() == 1)
    }

    /// All, in the order of their first hazard: with the numbers of their hazards.
    pub fn all(&self) -> impl Iterator<Item = (GroupId, &Cause, &[usize])> {
        self.groups.iter().enumerate().map(|(index, (cause, members))| (GroupId(index + 1), cause, members.as_slice()))
    }
}
