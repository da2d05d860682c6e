//! Histories of a guest: the model says what the brute-force oracle says, event by event.

use icsan_model::arch::maintenance::{CacheType, Caches, Needs};
use icsan_model::arch::profile::{Buffers, Profile, Text};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::machine::model::Model;
use icsan_model::testing::naive::{self, Naive};
use icsan_model::testing::strategies::{BREAKPOINT, EVENTS, EXEMPTIONS, Guest, Op, Toy, UNDEFINED, VCPUS};

/// The oracle looks at all moments at every event.
const STEPS: usize = 80;

/// Takes numbers from bytes; zeros when they are used up.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, limit: u8) -> u8 {
        self.next() % limit
    }

    /// Any of these: the last ones are no bound, or none at all.
    fn pick<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[usize::from(self.next()) % choice.len()]
    }

    fn code(&mut self) -> Vec<u8> {
        let len = 1 + self.below(8);
        (0..len).map(|_| self.pick(&[0, 1, 2, 3, 4, 5, BREAKPOINT, UNDEFINED])).collect()
    }

    fn caches(&mut self) -> Caches {
        let caches = CacheType {
            needs: self.pick(&[Needs::CleanAndInvalidate, Needs::Invalidate, Needs::Guest, Needs::Nothing]),
            data_line: self.pick(&[16, 32, 64]),
            instruction_line: self.pick(&[16, 32, 64]),
        };
        self.pick(&[Caches::Coherent, Caches::Maintained(caches)])
    }

    fn profile(&mut self) -> Profile {
        let events = self.next();
        Profile {
            name: "toy",
            note: "read from bytes",
            serializing: (0..EVENTS).filter(|event| events >> event & 1 == 1).map(SyncEventId).collect(),
            exemptions: self.pick(&EXEMPTIONS),
            buffers: Buffers {
                chunk: self.pick(&[4, 8, 16]),
                lookahead: self.pick(&[0, 0, 1, 4, 12]),
                prefetch: self.pick(&[None, None, Some(3), Some(16), Some(40)]),
                trace: self.pick(&[None, None, Some(0), Some(1), Some(3)]),
                speculation: self.below(4) == 0,
                own_store_at_branch: self.below(2) == 0,
            },
            snoop: self.below(8) == 7,
            caches: self.caches(),
            only_at: &[],
            text: Text::All,
        }
    }

    /// The next step; none when the bytes are used up.
    fn op(&mut self) -> Option<Op> {
        let kind = *self.0.next()?;
        let vcpu = u16::from(self.next()) % VCPUS;
        let at = self.next();
        let view = at >> 7;
        Some(match kind % 24 {
            0..8 => Op::Fetch(vcpu, view, at & 0x3f),
            8..12 => Op::Store(vcpu, view, at & 0x3f, self.code()),
            12 => Op::Unseen(view, at & 0x3f, self.code()),
            13 => Op::Attribute(vcpu, view, at & 3),
            14 => Op::Contents(at % 3),
            15 => Op::Branch(vcpu),
            16 => Op::Sync(vcpu, at % EVENTS),
            17 => Op::Remap(vcpu, at & 3, at >> 2 & 3),
            18 => Op::Reset(vcpu),
            19 | 20 => Op::Maintain(vcpu, self.next(), view, at & 0x3f),
            21 => Op::Barrier(vcpu, at),
            22 => Op::Caches(vcpu, at & 1 == 0),
            _ => Op::Commit(at & 3, at & 4 != 0),
        })
    }
}

/// A profile, and what happens under it.
pub fn history(bytes: &[u8]) {
    let mut bytes = Bytes(bytes.iter());
    let profile = bytes.profile();
    let mut oracle = Naive::new(profile, Toy);
    let mut model =
        Model::new(profile, Toy, usize::from(VCPUS)).unwrap_or_else(|error| panic!("a sound profile: {error}"));
    let (mut guest, first) = Guest::new();
    for event in &first {
        naive::compare(&mut model, event, oracle.apply(event).as_ref());
    }
    for op in std::iter::from_fn(|| bytes.op()).take(STEPS) {
        if let Some(event) = guest.step(&op) {
            naive::compare(&mut model, &event, oracle.apply(&event).as_ref());
        }
    }
}
