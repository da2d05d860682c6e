//! Which function carries a scenario of the table out that only AArch64 has.

use super::{listed, publish, stores};
use crate::commit::{self, Runs, committed};
use crate::cross_modify::under_spinner;
use crate::hand_over::{BARE, HandOver, SERIALIZED, aliased, hand_over, hand_over_by};
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::processes;
use crate::shape::{Kind, Shape};
use crate::stores::store;
use crate::sys::check;
use crate::{broken_kernel, kernel_coverage, kernel_tracing, mapping, own_code, patcher};
use icsan_guest_tests::code::serialize;
use std::sync::Arc;

/// How often a thread goes and comes back in a round.
const MIGRATIONS: u32 = 60;

/// Looks the function up.
pub fn function(name: &str) -> Option<fn() -> Attempt> {
    publish::function(name)
        .or_else(|| cross_scenarios(name))
        .or_else(|| twin_scenarios(name))
        .or_else(|| module_scenarios(name))
}

/// Those in which one thread changes another one's code, or its own.
fn cross_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "cross/move" => || under_spinner(Kind::Move),
        "cross/move-text" => || under_spinner(Kind::MoveText),
        "cross/pair" => || under_spinner(Kind::Pair),
        "cross/branch" => || under_spinner(Kind::Branch),
        "cross/call" => || under_spinner(Kind::Call),
        "cross/breakpoint" => listed::breakpoint,
        "handover/system-call" => || hand_over(Kind::PLAIN, HandOver { executor: system_call, ..SERIALIZED }),
        "handover/signal" => signalled,
        "own/unsynchronized" => || own_code::calls(|| {}, false),
        "store/halves" => || store(Kind::PLAIN, stores::halves, BARE),
        "store/quadword" => || hand_over(Kind::Quadword, BARE),
        "store/exclusive" => || store(Kind::PLAIN, stores::exclusive, BARE),
        "store/pair" => || store(Kind::Quadword, stores::pair, BARE),
        "store/release" => || store(Kind::PLAIN, stores::release, BARE),
        // The way back serializes, however long it takes.
        "process/migrate" => || processes::migrate(false, Pace::of_few(MIGRATIONS)),
        "process/migrate-registered" => || processes::migrate(true, Pace::of_few(MIGRATIONS)),
        "commit/branch" => || commits_branch(BARE),
        "kernel/ftrace-syscalls" => || kernel_tracing::ftrace("__arm64_sys_*"),
        _ => return None,
    })
}

/// The corrected twins, by ISB.
fn twin_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "cross/move-isb" => || hand_over(Kind::Move, SERIALIZED),
        "cross/pair-isb" => || hand_over(Kind::Pair, SERIALIZED),
        "handover/isb" => || hand_over(Kind::PLAIN, SERIALIZED),
        "own/synchronized" => || own_code::calls(serialize, true),
        "own/alias-isb" => || own_code::alias(serialize, true),
        "views/alias-isb" => || own_code::through_other_address(serialize, true),
        "mapping/munmap-mmap-isb" => || mapping::unmap_and_map(SERIALIZED),
        "mapping/mremap-isb" => || mapping::moved(SERIALIZED),
        "mapping/mprotect-isb" => || mapping::flip(SERIALIZED),
        "alias/other-isb" => || aliased(SERIALIZED),
        "store/bytes-isb" => || store(Kind::PLAIN, crate::stores::bytes, SERIALIZED),
        "store/halves-isb" => || store(Kind::PLAIN, stores::halves, SERIALIZED),
        "store/quadword-isb" => || hand_over(Kind::Quadword, SERIALIZED),
        "store/exclusive-isb" => || store(Kind::PLAIN, stores::exclusive, SERIALIZED),
        "store/pair-isb" => || store(Kind::Quadword, stores::pair, SERIALIZED),
        "store/release-isb" => || store(Kind::PLAIN, stores::release, SERIALIZED),
        "store/read-isb" => || crate::stores::by_read(SERIALIZED),
        "store/process-vm-isb" => || store(Kind::PLAIN, crate::stores::process_vm, SERIALIZED),
        "commit/symbol-isb" => || commit::by_symbol(SERIALIZED),
        "commit/branch-isb" => || commits_branch(SERIALIZED),
        "commit/fork-isb" => || commit::by_fork(Runs::Serialized),
        _ => return None,
    })
}

/// Those in which a module of the kernel's changes itself, or the kernel.
fn module_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "module/good" => || patcher::across("good"),
        "module/stopped" => || patcher::across("stopped"),
        "module/static-key" => || patcher::across("static-key"),
        "module/no-kick" => || patcher::across("no-kick"),
        "module/no-ipi" => || patcher::across("no-ipi"),
        "module/kick-first" => || patcher::across("kick-first"),
        "module/kick" => || patcher::across("kick"),
        "module/aside" => || patcher::across("aside"),
        "module/all" => || patcher::across("all"),
        "module/nothing" => || patcher::across("nothing"),
        "module/no-clean" => || patcher::across("no-clean"),
        "module/no-first-barrier" => || patcher::across("no-first-barrier"),
        "module/no-invalidate" => || patcher::across("no-invalidate"),
        "module/no-second-barrier" => || patcher::across("no-second-barrier"),
        "module/kernel-steps" => || patcher::across("kernel-steps"),
        "module/no-maintenance" => || patcher::across("no-maintenance"),
        "module/own-nothing" => || patcher::alone("own-nothing"),
        "module/own-no-synchronization" => || patcher::alone("own-no-synchronization"),
        "module/own-kernel-steps" => || patcher::alone("own-kernel-steps"),
        "coverage/healthy" => || broken_kernel::whole(kernel_coverage::everyday),
        "coverage/no-kick" => || broken_kernel::without("kick_all_cpus_sync", kernel_coverage::everyday),
        _ => return None,
    })
}

/// getppid(2).
fn system_call() {
    // SAFETY: a system call without arguments.
    unsafe { libc::getppid() };
}

extern "C" fn on_signal(_: libc::c_int) {}

/// The executor raises a signal, whose handler does nothing.
fn signalled() -> Attempt {
    let handler = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing.
    if unsafe { libc::signal(libc::SIGUSR1, handler) } == libc::SIG_ERR {
        return Err(std::io::Error::last_os_error());
    }
    let raise = || {
        // SAFETY: the signal has a handler. If it were not raised, the scenario would be the bad one, and say so.
        let _ = check(unsafe { libc::raise(libc::SIGUSR1) }.into());
    };
    hand_over(Kind::PLAIN, HandOver { executor: raise, ..SERIALIZED })
}

/// NOP to B and back, by the function that commits.
fn commits_branch(how: HandOver) -> Attempt {
    let shape = Arc::new(Shape::new(Kind::Branch)?);
    let theirs = Arc::clone(&shape);
    hand_over_by(how, &shape, shape.function(), move |n| {
        committed(|| {
            theirs.store(n);
            Ok(())
        })
    })
}
