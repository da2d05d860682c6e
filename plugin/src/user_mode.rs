//! Which vCPUs are in user mode, and which of them are asked about a membarrier before they go on there.
//!
//! A vCPU enters user mode by SYSRET or IRET, and leaves it by SYSCALL, an interrupt or an exception: all of them are
//! watched where the kernel's entries are known. It tells of it itself; the vCPU that commits a membarrier looks at the
//! others. Both sides write first and look then, so that one of the two finds the other.

use icsan_model::addr::Vcpu;
use std::sync::atomic::{AtomicBool, Ordering};

/// One vCPU, in a cache line of its own: it writes it at each system call.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Mode {
    in_user: AtomicBool,
    awaited: AtomicBool,
}

/// See the module.
#[derive(Debug)]
pub struct UserModes(Box<[Mode]>);

impl UserModes {
    /// So many vCPUs, in the kernel.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self((0..vcpus).map(|_| Mode::default()).collect())
    }

    fn of(&self, vcpu: Vcpu) -> Option<&Mode> {
        self.0.get(usize::from(vcpu.0))
    }

    /// The vCPU goes to user mode. Answers whether it is asked before it does.
    #[inline]
    #[must_use]
    pub fn enters(&self, vcpu: Vcpu) -> bool {
        let Some(mode) = self.of(vcpu) else { return false };
        mode.in_user.store(true, Ordering::SeqCst);
        mode.awaited.load(Ordering::SeqCst)
    }

    /// The vCPU is in the kernel.
    #[inline]
    pub fn leaves(&self, vcpu: Vcpu) {
        self.of(vcpu).into_iter().for_each(|mode| mode.in_user.store(false, Ordering::Release));
    }

    /// The vCPU shall be asked when it goes to user mode. Answers whether it is there already.
    #[must_use]
    pub fn awaits(&self, vcpu: Vcpu) -> bool {
        let Some(mode) = self.of(vcpu) else { return false };
        mode.awaited.store(true, Ordering::SeqCst);
        mode.in_user.load(Ordering::SeqCst)
    }

    /// A state was restored, or another kernel began: that a vCPU is in user mode is known again when it next goes
    /// there.
    pub fn forget(&self) {
        for mode in &self.0 {
            mode.in_user.store(false, Ordering::SeqCst);
            mode.awaited.store(false, Ordering::SeqCst);
        }
    }

    /// Is it in user mode?
    #[must_use]
    pub fn is_in_user_mode(&self, vcpu: Vcpu) -> bool {
        self.of(vcpu).is_some_and(|mode| mode.in_user.load(Ordering::Relaxed))
    }

    /// The vCPU was asked.
    pub fn was_asked(&self, vcpu: Vcpu) {
        self.of(vcpu).into_iter().for_each(|mode| mode.awaited.store(false, Ordering::SeqCst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_finds_the_other() {
        let (modes, vcpu) = (UserModes::new(2), Vcpu(1));
        assert!(!modes.enters(vcpu), "nobody asks");
        assert!(modes.awaits(vcpu) && modes.is_in_user_mode(vcpu), "it is there");
        modes.was_asked(vcpu);
        modes.leaves(vcpu);
        assert!(!modes.awaits(vcpu) && modes.enters(vcpu), "it comes later");
        modes.was_asked(vcpu);
        assert!(!modes.enters(vcpu));
        modes.forget();
        assert!(!modes.is_in_user_mode(vcpu));
        assert!(!modes.awaits(Vcpu(0)), "another one");
        assert!(!modes.awaits(Vcpu(7)) && !modes.enters(Vcpu(7)));
    }
}
