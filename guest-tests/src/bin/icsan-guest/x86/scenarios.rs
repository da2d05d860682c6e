//! Which function carries a scenario of the table out that only x86-64 has.

use super::{guard_word, int3_protocol, kprobe_jump, maxcpus, neighbours, own_code, stores};
use crate::commit::Runs;
use crate::cross_modify::under_spinner;
use crate::hand_over::{BARE, HandOver, SERIALIZED, aliased, hand_over};
use crate::outcome::Attempt;
use crate::pace::Pace;
use crate::processes;
use crate::shape::Kind;
use crate::stores::store;
use crate::{broken_kernel, commit, kernel_coverage, kernel_tracing, patcher};
use icsan_guest_tests::code::serialize;
use icsan_guest_tests::code::x86::iret_to_self;
use int3_protocol::Missing;

/// Looks the function up.
pub fn function(name: &str) -> Option<fn() -> Attempt> {
    cross_scenarios(name)
        .or_else(|| store_scenarios(name))
        .or_else(|| own_scenarios(name))
        .or_else(|| twin_scenarios(name))
        .or_else(|| kernel_scenarios(name))
        .or_else(|| module_scenarios(name))
}

/// Those in which one thread changes another one's code, in this shape or that.
fn cross_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "cross/imm8" => || under_spinner(Kind::Imm8),
        "cross/imm32" => || under_spinner(Kind::Imm32),
        "cross/imm32-text" => || under_spinner(Kind::Imm32Text),
        "cross/imm64" => || under_spinner(Kind::Imm64),
        "cross/imm32-split" => || under_spinner(Kind::Imm32Split),
        "cross/jmp5" => || under_spinner(Kind::Jmp5),
        "cross/jmp5-bytes" => || under_spinner(Kind::Jmp5Bytes),
        "cross/imm8-cpuid" => || hand_over(Kind::Imm8, SERIALIZED),
        "cross/imm32-cpuid" => || hand_over(Kind::Imm32, SERIALIZED),
        "cross/imm64-cpuid" => || hand_over(Kind::Imm64, SERIALIZED),
        "cross/imm32-split-cpuid" => || hand_over(Kind::Imm32Split, SERIALIZED),
        "cross/jmp5-cpuid" => || hand_over(Kind::Jmp5, SERIALIZED),
        "cross/jmp5-bytes-cpuid" => || hand_over(Kind::Jmp5Bytes, SERIALIZED),
        "handover/iret-to-self" => || hand_over(Kind::PLAIN, HandOver { executor: iret_to_self, ..SERIALIZED }),
        "torn/chunk" => || hand_over(Kind::Imm32Halves, BARE),
        "torn/chunk-cpuid" => || hand_over(Kind::Imm32Halves, SERIALIZED),
        "torn/line" => || hand_over(Kind::Imm32Line, BARE),
        "torn/line-cpuid" => || hand_over(Kind::Imm32Line, SERIALIZED),
        "torn/page" => || hand_over(Kind::Imm32Page, BARE),
        "torn/page-cpuid" => || hand_over(Kind::Imm32Page, SERIALIZED),
        "torn/boundary" => || hand_over(Kind::Boundary, BARE),
        "torn/boundary-cpuid" => || hand_over(Kind::Boundary, SERIALIZED),
        "torn/neighbour" => || neighbours::torn(false),
        "torn/neighbour-cpuid" => || neighbours::torn(true),
        "tail/other" => || hand_over(Kind::Imm32Tail, BARE),
        "tail/other-cpuid" => || hand_over(Kind::Imm32Tail, SERIALIZED),
        "tail/own-next" => || own_code::next_across_pages(false),
        "tail/own-next-cpuid" => || own_code::next_across_pages(true),
        _ => return None,
    })
}

/// The same, by this instruction or that.
fn store_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "store/rep-movsb" => || store(Kind::PLAIN, stores::by_rep_movsb, BARE),
        "store/rep-movsb-cpuid" => || store(Kind::PLAIN, stores::by_rep_movsb, SERIALIZED),
        "store/sse" => || store(Kind::PLAIN, stores::by_sse, BARE),
        "store/sse-cpuid" => || store(Kind::PLAIN, stores::by_sse, SERIALIZED),
        "store/non-temporal" => || store(Kind::PLAIN, stores::by_non_temporal, BARE),
        "store/non-temporal-cpuid" => || store(Kind::PLAIN, stores::by_non_temporal, SERIALIZED),
        "store/xchg" => || store(Kind::ALIGNED, stores::by_xchg, BARE),
        "store/xchg-cpuid" => || store(Kind::ALIGNED, stores::by_xchg, SERIALIZED),
        "store/xchg-unaligned" => || store(Kind::PLAIN, stores::by_xchg, BARE),
        "store/xchg-unaligned-cpuid" => || store(Kind::PLAIN, stores::by_xchg, SERIALIZED),
        "store/cmpxchg8b" => || store(Kind::ALIGNED, stores::by_cmpxchg8b, BARE),
        "store/cmpxchg8b-cpuid" => || store(Kind::ALIGNED, stores::by_cmpxchg8b, SERIALIZED),
        "store/cmpxchg16b" => || store(Kind::PLAIN, stores::by_cmpxchg16b, BARE),
        "store/cmpxchg16b-cpuid" => || store(Kind::PLAIN, stores::by_cmpxchg16b, SERIALIZED),
        "store/cmpxchg" => || store(Kind::ALIGNED, stores::by_cmpxchg, BARE),
        "store/cmpxchg-cpuid" => || store(Kind::ALIGNED, stores::by_cmpxchg, SERIALIZED),
        "store/cmpxchg-fails" => stores::failing,
        "store/lock-add" => || store(Kind::ALIGNED, stores::by_lock_add, BARE),
        "store/lock-add-cpuid" => || store(Kind::ALIGNED, stores::by_lock_add, SERIALIZED),
        "store/lock-xadd" => || store(Kind::ALIGNED, stores::by_lock_xadd, BARE),
        "store/lock-xadd-cpuid" => || store(Kind::ALIGNED, stores::by_lock_xadd, SERIALIZED),
        "store/lock-xor" => || store(Kind::ALIGNED, stores::by_lock_xor, BARE),
        "store/lock-xor-cpuid" => || store(Kind::ALIGNED, stores::by_lock_xor, SERIALIZED),
        "store/movbe" => || store(Kind::PLAIN, stores::by_movbe, BARE),
        "store/movbe-cpuid" => || store(Kind::PLAIN, stores::by_movbe, SERIALIZED),
        "store/page-crossing" => || hand_over(Kind::Imm32PageOnce, BARE),
        "store/page-crossing-cpuid" => || hand_over(Kind::Imm32PageOnce, SERIALIZED),
        "store/from-data" => || hand_over(Kind::Imm32FromData, BARE),
        "store/from-data-cpuid" => || hand_over(Kind::Imm32FromData, SERIALIZED),
        "store/own-rep-movsb" => || own_code::next_by_rep_movsb(false),
        "store/own-rep-movsb-cpuid" => || own_code::next_by_rep_movsb(true),
        "store/own-movbe" => || own_code::stores_by(stores::movbe),
        "store/own-jump" => own_code::behind_jump,
        _ => return None,
    })
}

/// Breakpoints, guards, neighbours, and code that changes itself.
fn own_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "int3/complete" => int3_protocol::complete,
        "int3/no-first-sync" => || int3_protocol::without(Missing::First),
        "int3/no-second-sync" => || int3_protocol::without(Missing::Second),
        "int3/no-third-sync" => || int3_protocol::without(Missing::Third),
        "int3/no-syncs" => || int3_protocol::without(Missing::All),
        "own/jump" => || crate::own_code::calls(|| {}, true),
        "own/no-jump" => || own_code::next(false),
        "own/no-jump-cpuid" => || own_code::next(true),
        "guard/data" => || guard_word::data(false),
        "guard/immediate" => guard_word::immediate,
        "guard/data-cpuid" => || guard_word::data(true),
        "neighbour/chunk" => || neighbours::in_chunk(false),
        "neighbour/chunk-cpuid" => || neighbours::in_chunk(true),
        "neighbour/other-chunk" => neighbours::in_other_chunk,
        "alias/own-next" => || own_code::next_through_alias(false),
        "alias/own-next-cpuid" => || own_code::next_through_alias(true),
        "commit/neighbour" => neighbours::stale,
        "process/migrate" => || processes::migrate(false, Pace::of_judged()),
        "process/migrate-registered" => || processes::migrate(true, Pace::of_judged()),
        _ => return None,
    })
}

/// Those in which the kernel changes its own text, by functions of this architecture.
fn kernel_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "kernel/ftrace-syscalls" => || kernel_tracing::ftrace("__x64_sys_*"),
        "kernel/kprobe-inside" => kprobe_jump::kprobe_inside,
        "kernel/maxcpus" => maxcpus::maxcpus,
        "coverage/healthy" | "coverage/healthy-isolated" => || broken_kernel::whole(kernel_coverage::everyday),
        "coverage/empty-ipi" => || broken_kernel::without("do_sync_core", kernel_coverage::everyday),
        "coverage/membarrier" | "coverage/membarrier-isolated" => {
            || broken_kernel::whole(kernel_coverage::code_changes)
        }
        "coverage/membarrier-empty-ipi" => || broken_kernel::without("ipi_sync_core", kernel_coverage::code_changes),
        _ => return None,
    })
}

/// The twins of scenarios that any architecture has, by the instruction that serializes.
fn twin_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "own/alias-cpuid" => || crate::own_code::alias(serialize, true),
        "views/alias-cpuid" => || crate::own_code::through_other_address(serialize, true),
        "alias/other-cpuid" => || aliased(SERIALIZED),
        "alias/own-split-cpuid" => || crate::own_code::alias_split(serialize, true),
        "store/bytes-cpuid" => || store(Kind::PLAIN, crate::stores::bytes, SERIALIZED),
        "store/read-cpuid" => || crate::stores::by_read(SERIALIZED),
        "store/process-vm-cpuid" => || store(Kind::PLAIN, crate::stores::process_vm, SERIALIZED),
        "commit/symbol-cpuid" => || commit::by_symbol(SERIALIZED),
        "commit/fork-cpuid" => || commit::by_fork(Runs::Serialized),
        _ => return None,
    })
}

/// Those in which a module of the kernel's changes itself.
fn module_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "module/good" => || patcher::across("good"),
        "module/good-own" => || patcher::across("good-own"),
        "module/no-ipi" => || patcher::across("no-ipi"),
        "module/aside" => || patcher::across("aside"),
        "module/ipi-no-sync" => || patcher::across("ipi-no-sync"),
        "module/ipi-sync" => || patcher::across("ipi-sync"),
        "module/no-int3" => || patcher::across("no-int3"),
        "module/wrong-order" => || patcher::across("wrong-order"),
        "module/direct-map" => || patcher::alone("direct-map"),
        "module/direct-map-sync" => || patcher::alone("direct-map-sync"),
        "module/direct-map-cross" => || patcher::across("direct-map-cross"),
        "module/direct-map-cross-sync" => || patcher::across("direct-map-cross-sync"),
        _ => return None,
    })
}
