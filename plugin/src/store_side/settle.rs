//! Memory and what was told of stores: what is known of a page is made what memory holds, whatever QEMU said, and whoever's store comes in between.

use super::{StoreSide, Touched};
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::event::Store;
use icsan_model::memory::PAGE;
use std::time::{Duration, Instant};

/// Changes that were noticed in memory before their store was told of: how many are remembered, and for how long. A store is told of right after it was made; only the
/// host's scheduler can come in between.
const NOTICED: usize = 64;
/// See [`NOTICED`].
pub const NOTICED_FOR: Duration = Duration::from_secs(1);

/// A change whose store has not been told of.
#[derive(Debug)]
pub(super) struct Noticed {
    pub(super) seq: Seq,
    pub(super) phys: Phys,
    pub(super) len: u64,
    pub(super) at: Instant,
    /// If it was found right after another store to these bytes: that one, and those of the bytes, as bits, that no store explains so far.
    after: Option<(ToldOf, u16)>,
}

/// A store that QEMU told of: who, which instruction, and through which address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToldOf {
    /// Who.
    pub vcpu: Vcpu,
    /// The instruction.
    pub pc: Linear,
    /// The first byte that was not as told.
    pub linear: Linear,
}

impl Noticed {
    /// The store after which it was found, if nobody else's explains it.
    fn unexplained(&self) -> impl Iterator<Item = ToldOf> + use<> {
        self.after.filter(|(_, open)| *open != 0).map(|(told, _)| told).into_iter()
    }
}

impl StoreSide {
    /// Does memory hold these bytes of one page now? Where the page is not known, nothing contradicts it.
    #[must_use]
    pub fn memory_holds(&self, phys: Phys, bytes: &[u8]) -> bool {
        self.hosts.get(&(phys.0 / PAGE)).is_none_or(|host| host.holds((phys.0 % PAGE) as usize, bytes))
    }

    /// What is known of memory there, up to 16 bytes of one page; `None` if it holds no code.
    #[must_use]
    pub fn known(&self, phys: Phys, len: u64) -> Option<&[u8]> {
        let start = (phys.0 % PAGE) as usize;
        self.history.memory().page(phys)?.get(start..start + len as usize)
    }

    /// Was what is known of these bytes of one page stored by another vCPU than this one? Then a store of its own may have come before, although it is told of later.
    fn is_anothers(&self, phys: Phys, len: u64, vcpu: Vcpu) -> bool {
        let memory = self.history.memory();
        memory.record(memory.last_change(phys, len)).is_some_and(|record| record.store.vcpu.is_some_and(|other| other != vcpu))
    }

    /// Has a store that QEMU told of not been made? Memory holds what it held before, and no other vCPU is known to have put it back. (Memory that cannot be written ignores stores.)
    #[must_use]
    pub fn ignored(&self, phys: Phys, len: u64, vcpu: Vcpu) -> bool {
        self.known(phys, len).is_some_and(|known| self.memory_holds(phys, known)) && !self.is_anothers(phys, len, vcpu)
    }

    /// After a store was told of: what is known of its bytes, all of one page, shall be what memory holds now. If it is not, another vCPU stored there in between: its store has been told of already (`before`
    /// is what was known then, and memory holds that again), or will be. `next` gives the next place in the order.
    pub fn settle(&mut self, store: ToldOf, phys: Phys, before: &[u8], mut next: impl FnMut() -> Seq) -> Vec<Touched> {
        let len = before.len();
        let (Some(host), Some(known)) = (self.hosts.get(&(phys.0 / PAGE)), self.known(phys, len as u64)) else { return Vec::new() };
        let start = (phys.0 % PAGE) as usize;
        if host.holds(start, known) {
            return Vec::new();
        }
        let now = host.read(start, len);
        let differing: Vec<usize> = (0..now.len()).filter(|at| known[*at] != now[*at]).collect();
        let spans: Vec<_> = differing.chunk_by(|a, b| a + 1 == *b).map(|span| span[0]..span[span.len() - 1] + 1).collect();
        let mut touched = Vec::new();
        for span in spans {
            let at = phys.offset(span.start as u64);
            let again = (now[span.clone()] == before[span.clone()]).then(|| self.overtaken(at, span.len() as u64, store.vcpu)).flatten();
            let seq = next();
            touched.push(match again {
                Some(earlier) => {
                    let bytes = now[span].to_vec();
                    let len = bytes.len() as u64;
                    self.history.store(seq, Store { phys: at, bytes, ..earlier }, Epoch::default());
                    self.counts.stores += 1;
                    Touched { segments: self.reached(at, len), seq: Some(seq) }
                }
                None => self.notice(at, &now[span.clone()], Some(ToldOf { linear: store.linear.offset(span.start as u64), ..store }), seq),
            });
        }
        touched
    }

    /// The store of another vCPU that put these bytes there before the last store to them was told of.
    fn overtaken(&self, phys: Phys, len: u64, vcpu: Vcpu) -> Option<Store> {
        let memory = self.history.memory();
        let last = memory.last_change(phys, len);
        let before = memory.record(memory.version(phys, Seq(last.0.checked_sub(1)?)))?;
        let offset = phys.0.wrapping_sub(before.store.phys.0);
        let covers = offset.checked_add(len).is_some_and(|end| end <= before.store.bytes.len() as u64);
        let another = before.store.vcpu.is_some_and(|other| other != vcpu);
        (covers && another).then(|| Store { linear: before.store.linear.map(|linear| linear.offset(offset)), ..before.store.clone() })
    }

    /// Stores after which memory held something else than is noted of them, and no store of another vCPU that came in between has been told of for so long. Each is given once.
    pub fn untrue(&mut self, patience: Duration) -> Vec<ToldOf> {
        if !self.noticed.is_empty() {
            self.forget_noticed(|noticed| noticed.after.is_none() || noticed.at.elapsed() < patience);
        }
        std::mem::take(&mut self.untrue)
    }

    /// How many stores wait for that.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.noticed.iter().flat_map(Noticed::unexplained).count()
    }

    fn forget_noticed(&mut self, keep: impl Fn(&Noticed) -> bool) {
        let Self { noticed, untrue, .. } = self;
        noticed.retain(|noticed| {
            let kept = keep(noticed);
            untrue.extend(noticed.unexplained().filter(|_| !kept));
            kept
        });
    }

    /// A change of memory that no store explains so far.
    pub(super) fn notice(&mut self, phys: Phys, bytes: &[u8], after: Option<ToldOf>, seq: Seq) -> Touched {
        let len = bytes.len() as u64;
        let store = Store { vcpu: None, pc: None, linear: None, phys, bytes: bytes.to_vec() };
        self.history.store(seq, store, Epoch::default());
        self.counts.unseen += 1;
        if self.noticed.len() == NOTICED
            && let Some(oldest) = self.noticed.pop_front()
        {
            self.untrue.extend(oldest.unexplained());
        }
        let after = after.map(|told| (told, u16::MAX >> (16 - len.clamp(1, 16))));
        self.noticed.push_back(Noticed { seq, phys, len, at: Instant::now(), after });
        Touched { segments: self.reached(phys, len), seq: Some(seq) }
    }

    /// The changes, noticed lately, that a store of these bytes explains: they lie within it, and what they left there is what it stored.
    pub(super) fn take_noticed(&mut self, phys: Phys, bytes: &[u8]) -> Vec<Seq> {
        if self.noticed.is_empty() {
            return Vec::new();
        }
        self.forget_noticed(|noticed| noticed.at.elapsed() < NOTICED_FOR);
        let Self { noticed, history, .. } = self;
        let end = phys.0 + bytes.len() as u64;
        let mut taken = Vec::new();
        noticed.retain_mut(|noticed| {
            let explained = |i: u64| {
                let at = noticed.phys.offset(i);
                (phys.0..end).contains(&at.0) && history.memory().now(at) == Some(bytes[(at.0 - phys.0) as usize])
            };
            let whole = (0..noticed.len).all(explained);
            if let Some((_, open)) = &mut noticed.after {
                *open = (0..noticed.len.min(16)).filter(|i| explained(*i)).fold(*open, |open, i| open & !(1 << i));
            }
            taken.extend(whole.then_some(noticed.seq));
            !whole
        });
        taken
    }
}
