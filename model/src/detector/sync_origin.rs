//! What a serializing event belongs to, beyond its kind and its place: what the CPU returned from, or on whose behalf
//! it was done.
//!
//! Nearly all returns from interrupts of a kernel are one instruction, and nearly all of its switches of the page table
//! another one. Whether such an event was meant to serialize, or came by chance, is said by what led there: a timer, a
//! fault, a function that patches.

use crate::addr::Linear;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SyncOrigin {
    /// A function of the kernel's, by its first instruction: the entry that an interrupt's return belongs to, or the
    /// function that switched address spaces on its own behalf.
    Function(Linear),
    /// The kernel was not entered by an interrupt or an exception, but by a system call; or the task has just been
    /// made, and never was in user mode.
    SystemCall,
}
