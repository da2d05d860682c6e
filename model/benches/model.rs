//! What one event costs the model, and how that grows with history: `cargo bench -p icsan-model`.
//!
//! Each row is one event after a history of so many stores to one cell of code (`versions`), or of that many cells
//! (`cells`). What grows with `versions` is a site that is patched over and over in one epoch, which is what the model
//! keeps most of; what grows with `cells` is a kernel.

use divan::Bencher;
use divan::counter::ItemsCount;
use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::arch::maintenance::Caches;
use icsan_model::arch::profile::{Buffers, Profile, Text};
use icsan_model::arch::sync_event::{SyncEventId, SyncEventSet};
use icsan_model::detector::history::{History, Holding};
use icsan_model::event::{Event, Store};
use icsan_model::machine::model::Model;
use icsan_model::memory::{CELL, PAGE};
use icsan_model::testing::strategies::Toy;

const LENGTHS: [u64; 4] = [1, 16, 256, 4096];
const CODE: Linear = Linear(0x40_0000);
const MEMORY: Phys = Phys(0x1_0000);
const READER: Vcpu = Vcpu(0);
const WRITER: Vcpu = Vcpu(1);
const SYNC: SyncEventId = SyncEventId(0);

fn main() {
    divan::main();
}

fn profile() -> Profile {
    let serializing: SyncEventSet = std::iter::once(SYNC).collect();
    Profile {
        name: "bench",
        note: "",
        serializing,
        exemptions: &[],
        buffers: Buffers::DEFAULT,
        snoop: false,
        caches: Caches::Coherent,
        only_at: &[],
        text: Text::All,
    }
}

fn store(cell: u64, version: u64) -> Store {
    // The toy instruction of two bytes: its first byte stays, its second tells versions apart.
    let linear = Some(CODE.offset(cell * CELL as u64));
    Store {
        vcpu: Some(WRITER),
        pc: Some(Linear(0x100)),
        linear,
        phys: MEMORY.offset(cell * CELL as u64),
        bytes: vec![1, version as u8],
    }
}

fn fetch(cell: u64) -> Event {
    Event::Fetch { vcpu: READER, linear: CODE.offset(cell * CELL as u64), len: 2 }
}

/// A model whose reader has executed each cell, before the writer changed each of them so often.
fn model(cells: u64, versions: u64) -> Model {
    let mut model = Model::new(profile(), Toy, 2).expect("a sound profile");
    let mut apply = |event: &Event| drop(model.apply(event).expect("possible"));
    for page in 0..(cells * CELL as u64).div_ceil(PAGE) {
        for vcpu in [READER, WRITER] {
            apply(&Event::Remap { vcpu, linear: CODE.offset(page * PAGE), phys: Some(MEMORY.offset(page * PAGE)) });
        }
        apply(&Event::Contents { phys: MEMORY.offset(page * PAGE), bytes: vec![0; PAGE as usize] });
    }
    for cell in 0..cells {
        apply(&Event::Store(store(cell, 0)));
        apply(&fetch(cell));
    }
    for version in 1..=versions {
        for cell in 0..cells {
            apply(&Event::Store(store(cell, version)));
        }
    }
    model
}

#[divan::bench(args = LENGTHS)]
fn fetch_by_versions(bencher: Bencher<'_, '_>, versions: u64) {
    let before = model(1, versions);
    bencher
        .counter(ItemsCount::new(1u32))
        .with_inputs(|| before.clone())
        .bench_local_refs(|model| model.apply(&fetch(0)));
}

#[divan::bench(args = LENGTHS)]
fn fetch_by_cells(bencher: Bencher<'_, '_>, cells: u64) {
    let before = model(cells, 1);
    bencher
        .counter(ItemsCount::new(1u32))
        .with_inputs(|| before.clone())
        .bench_local_refs(|model| model.apply(&fetch(cells / 2)));
}

#[divan::bench(args = LENGTHS)]
fn store_by_versions(bencher: Bencher<'_, '_>, versions: u64) {
    let before = model(1, versions);
    bencher
        .counter(ItemsCount::new(1u32))
        .with_inputs(|| before.clone())
        .bench_local_refs(|model| model.apply(&Event::Store(store(0, versions + 1))));
}

#[divan::bench(args = LENGTHS)]
fn store_by_cells(bencher: Bencher<'_, '_>, cells: u64) {
    let before = model(cells, 1);
    bencher
        .counter(ItemsCount::new(1u32))
        .with_inputs(|| before.clone())
        .bench_local_refs(|model| model.apply(&Event::Store(store(cells / 2, 7))));
}

#[divan::bench(args = LENGTHS)]
fn serialize_by_cells(bencher: Bencher<'_, '_>, cells: u64) {
    let before = model(cells, 1);
    let sync = Event::Sync { vcpu: READER, event: SYNC, pc: Linear(0x200) };
    bencher.counter(ItemsCount::new(1u32)).with_inputs(|| before.clone()).bench_local_refs(|model| model.apply(&sync));
}

/// The fast path's memory: a store, and the forgetting of what nobody holds, as the plugin does at every store to code.
#[divan::bench(args = LENGTHS)]
fn fast_store_by_versions(bencher: Bencher<'_, '_>, versions: u64) {
    let mut before = History::new(profile(), Toy, 2);
    before.memory_mut().contents(MEMORY, &[0; PAGE as usize]);
    (1..=versions).for_each(|version| before.store(Seq(version), store(0, version), Default::default()));
    bencher.counter(ItemsCount::new(1u32)).with_inputs(|| before.clone()).bench_local_refs(|history| {
        history.store(Seq(versions + 1), store(0, versions + 1), Default::default());
        history.forget_unheld(MEMORY, Seq(0), 4, |_, _| Holding::Since(Seq(0)));
    });
}
