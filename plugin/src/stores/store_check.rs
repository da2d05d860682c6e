//! `check=stores`: is what is noted of each store what memory holds after it? For tests, and for users who doubt.
//!
//! What QEMU tells of a store is not always true ([`icsan_model::arch::x86::store_kind`]). With this key every store of
//! the guest is looked at. Those to pages with code are noted as ever, and compared by the store side, behind its lock;
//! if memory holds something else, another vCPU may have stored there in between, so its store is waited for, for a
//! second ([`crate::stores::store_side::StoreSide::settle`]). Of the others nothing is noted, so that there is no past
//! to settle anything by: they are compared with what would have been noted, and judged where the machine has one vCPU.

use crate::gaps::Gap;
use crate::qemu::locks::Mutex;
use crate::qemu::process::say;
use icsan_model::addr::Linear;
use icsan_model::detector::changes::ToldOf;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Instructions whose stores are told of one by one on stderr.
const SAID: usize = 32;

/// The numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CheckCounts {
    /// Stores to pages with code that were compared.
    pub code: u64,
    /// Other stores that were.
    pub data: u64,
    /// Stores after which memory held something else.
    pub untrue: u64,
    /// Other ones of which that may be another vCPU's doing.
    pub unsettled: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct StoreCheck {
    code: AtomicU64,
    data: AtomicU64,
    unsettled: AtomicU64,
    /// How many stores of each instruction were untrue.
    untrue: Mutex<BTreeMap<Linear, u64>>,
}

thread_local! {
    /// The last store of this vCPU that was trapped, and of which the plugin API has not told.
    static TRAPPED: Cell<Option<(Linear, Linear)>> = const { Cell::new(None) };
    /// The last one of which the API has told, and which was not trapped: it tells first of what a helper stores.
    static TOLD: Cell<Option<ToldOf>> = const { Cell::new(None) };
}

impl StoreCheck {
    /// A store of the vCPU whose thread this is was trapped.
    pub fn trapped(&self, store: ToldOf) {
        let same = |told: ToldOf| (told.linear, told.pc) == (store.linear, store.pc);
        match TOLD.take() {
            Some(told) if same(told) => {}
            other => {
                other.into_iter().for_each(|told| self.missed(told));
                TRAPPED.set(Some((store.linear, store.pc)));
            }
        }
    }

    /// The plugin API tells of a store of the vCPU whose thread this is. Was it trapped?
    #[must_use]
    pub fn was_trapped(&self, store: ToldOf) -> bool {
        TOLD.take().into_iter().for_each(|told| self.missed(told));
        TRAPPED.take() == Some((store.linear, store.pc))
    }

    /// It was not, and has to be.
    pub fn expects_trap(&self, store: ToldOf) {
        TOLD.set(Some(store));
    }

    /// A store to a page with code was not trapped, or something else is known of it.
    fn missed(&self, store: ToldOf) {
        self.untrue(store);
    }

    /// A store to a page with code was compared.
    pub fn code(&self) {
        self.code.fetch_add(1, Ordering::Relaxed);
    }

    /// Another store was compared.
    pub fn data(&self) {
        self.data.fetch_add(1, Ordering::Relaxed);
    }

    /// Memory held something else, which may be another vCPU's doing.
    pub fn unsettled(&self) {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
    }

    /// Memory held something else.
    pub fn untrue(&self, store: ToldOf) {
        let ToldOf { vcpu, pc, linear } = store;
        let mut untrue = self.untrue.lock();
        let known = untrue.len();
        let count = untrue.entry(pc).or_default();
        *count += 1;
        if *count == 1 && known < SAID {
            say(&format!("check=stores: untrue: vCPU {} at {:#x} stored through {:#x}", vcpu.0, pc.0, linear.0));
        }
        Gap::UntrueStore.note();
    }

    /// The numbers.
    #[must_use]
    pub fn counts(&self) -> CheckCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CheckCounts {
            code: count(&self.code),
            data: count(&self.data),
            untrue: self.untrue.lock().values().sum(),
            unsettled: count(&self.unsettled),
        }
    }
}
