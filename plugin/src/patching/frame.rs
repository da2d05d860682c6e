//! Protocol functions that were entered and not left yet.

use super::asked::{Covering, Poke, Steps};
use super::tasks::Who;
use super::uncommitted::MAX_STORES;
use crate::arch::caller::Caller;
use crate::arch::isolation::Isolation;
use crate::arch::linux_abi::LinuxAbi;
use crate::origins::Origins;
use icsan_model::addr::{Linear, Seq, Vcpu};
use icsan_model::memory::PAGE;
use std::sync::Arc;

/// A set of addresses, as a word that can be looked at without a lock: what is in it is found, and seldom anything
/// else.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Awaited(pub u64);

impl Awaited {
    /// What is set for an address.
    #[must_use]
    pub fn bit(address: Linear) -> u64 {
        1 << ((address.0 ^ address.0 >> 6 ^ address.0 >> 12) % 64)
    }

    /// May the address be in it?
    #[inline]
    #[must_use]
    pub fn may_include(self, address: Linear) -> bool {
        self.0 & Self::bit(address) != 0
    }
}

/// An entry to a protocol function.
#[derive(Clone, Debug)]
pub struct Entry {
    /// On which vCPU.
    pub vcpu: Vcpu,
    /// The function's address.
    pub entry: Linear,
    /// Where it returns to.
    pub returns_to: Linear,
    /// The stack pointer after the return.
    pub stack: u64,
    /// What it does.
    pub meaning: Meaning,
    /// Who called it.
    pub chain: Vec<Caller>,
}

/// What was entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// A function of the kernel's.
    Kernel,
    /// A function of a program's.
    Program,
    /// A system call, from a program. Who is inside stores nothing as that program.
    SystemCall,
}

/// What a function does to code, beyond storing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meaning {
    /// Its return commits what was stored inside.
    pub commits: bool,
    /// How it makes every CPU serialize before it returns, if it is asked whether it did
    /// ([`Asked`](super::asked::Asked)).
    pub covers: Option<Covering>,
    /// The same after each of several steps.
    pub steps: bool,
    /// It only queues a change: what is stored inside nevertheless is committed by the next function that covers.
    pub queues: bool,
    /// What is stored inside is a store of this function's, by its entry, which another task is in and waits.
    pub serves: Option<Linear>,
    /// It is one store of a protocol.
    pub poke: Option<Poke>,
}

/// An entry that has not been left.
#[derive(Debug)]
pub struct Frame {
    /// Who entered.
    pub who: Who,
    /// What.
    pub entered: Entered,
    /// The function's address.
    pub entry: Linear,
    /// Where it returns to.
    pub returns_to: Linear,
    /// The stack pointer after the return.
    pub stack: u64,
    /// What it does.
    pub meaning: Meaning,
    /// What was stored inside, of that which it commits.
    pub stores: Vec<Seq>,
    /// Those of them that no question was about, if the function covers.
    pub unasked: Vec<Seq>,
    /// The first address that it patched.
    pub site: Option<Linear>,
    /// Where it is in its steps.
    pub steps: Steps,
    /// Who called it.
    pub chain: Arc<[Caller]>,
}

impl Frame {
    /// A store was made inside of it, which it commits. `false`: there is no room for it.
    #[must_use]
    pub fn takes(&mut self, seq: Seq) -> bool {
        if self.stores.len() >= MAX_STORES {
            return false;
        }
        self.stores.push(seq);
        if self.meaning.covers.is_some() {
            self.unasked.push(seq);
        }
        true
    }

    /// Is a task with that stack pointer at `here` behind the call? Programs' addresses are those of translations,
    /// which processes share that have the code elsewhere: of those only the place in the page counts
    /// ([`crate::code::virtual_aliases`]).
    #[must_use]
    pub fn is_left(&self, linux: &LinuxAbi, who: Who, here: Linear, stack: u64) -> bool {
        let user = !linux.is_kernel(self.returns_to) && !linux.is_kernel(here);
        let same = self.returns_to == here || user && (self.returns_to.0 ^ here.0).is_multiple_of(PAGE);
        let may_be = || {
            if self.entered == Entered::Kernel { self.who.may_be_kernel_task(who) } else { self.who.is_process(who) }
        };
        same && self.stack == stack && may_be()
    }

    /// Is it surely a frame of the same thread, further up on its stack, or deeper? (The threads of a process whose
    /// tasks are not known cannot be told apart.)
    #[must_use]
    pub fn is_on_stack_of(&self, who: Who) -> bool {
        if self.entered == Entered::Kernel { self.who.is_kernel_task(who) } else { self.who.is_thread(who) }
    }

    /// Is a store made inside of it that `who` makes, in user mode or not? What interrupts a function of the kernel's
    /// stores nothing for it.
    #[must_use]
    pub fn includes(&self, who: Who, user: bool, isolation: Isolation, origins: &Origins) -> bool {
        match self.entered {
            Entered::Kernel => !user && self.who.is_kernel_task(who) && !origins.is_interrupted(self.stack),
            Entered::Program if user => self.who.is_process(who),
            Entered::Program => self.who.is_process_in_kernel(who, isolation),
            Entered::SystemCall => false,
        }
    }
}
