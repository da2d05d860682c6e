//! Which function carries a scenario of the table out.

use crate::commit::Runs;
use crate::cpu::cpuid;
use crate::cross_modify::{BARE, CPUID, aliased, hand_over, under_spinner};
use crate::int3_protocol::Missing;
use crate::outcome::Attempt;
use crate::shape::Kind;
use crate::stores::{Via, store};
use crate::{commit, guard_word, int3_protocol, mapping, membarrier, neighbours, own_code, patcher, processes};
use crate::{kernel_bpf, kernel_cpus, kernel_membarrier, kernel_modules, kernel_static_keys, kernel_tracing};

/// Looks the function up.
pub fn function(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "cross/imm8" => || under_spinner(Kind::Imm8),
        "cross/imm32" => || under_spinner(Kind::Imm32),
        "cross/imm32-text" => || under_spinner(Kind::Imm32Text),
        "cross/imm64" => || under_spinner(Kind::Imm64),
        "cross/imm32-split" => || under_spinner(Kind::Imm32Split),
        "cross/jmp5" => || under_spinner(Kind::Jmp5),
        "cross/jmp5-bytes" => || under_spinner(Kind::Jmp5Bytes),
        "cross/imm8-cpuid" => || hand_over(Kind::Imm8, CPUID),
        "cross/imm32-cpuid" => || hand_over(Kind::Imm32, CPUID),
        "cross/imm64-cpuid" => || hand_over(Kind::Imm64, CPUID),
        "cross/imm32-split-cpuid" => || hand_over(Kind::Imm32Split, CPUID),
        "cross/jmp5-cpuid" => || hand_over(Kind::Jmp5, CPUID),
        "cross/jmp5-bytes-cpuid" => || hand_over(Kind::Jmp5Bytes, CPUID),
        "handover/nothing" => membarrier::no_sync,
        "handover/fences" => membarrier::fences_only,
        "handover/iret-to-self" => membarrier::iret,
        "membarrier/sync-core" => membarrier::registered,
        "membarrier/registered-late" => membarrier::registered_late,
        "membarrier/plain" => membarrier::plain,
        "membarrier/unregistered" => membarrier::unregistered,
        "int3/complete" => int3_protocol::complete,
        "int3/no-first-sync" => || int3_protocol::without(Missing::First),
        "int3/no-second-sync" => || int3_protocol::without(Missing::Second),
        "int3/no-third-sync" => || int3_protocol::without(Missing::Third),
        "int3/no-syncs" => || int3_protocol::without(Missing::All),
        "own/jump" => own_code::jump,
        "own/no-jump" => || own_code::next(false),
        "own/no-jump-cpuid" => || own_code::next(true),
        "own/alias" => || own_code::alias(|| {}, false),
        "own/alias-cpuid" => own_code::alias_cpuid,
        "views/other" => own_code::at_other_address,
        "views/alias" => || own_code::through_other_address(|| {}, false),
        "views/alias-cpuid" => || own_code::through_other_address(cpuid, true),
        "mapping/fresh" => mapping::fresh,
        "mapping/munmap-mmap" => mapping::unmap_and_map,
        "mapping/map-fixed" => mapping::map_fixed,
        "mapping/mremap" => mapping::moved,
        "mapping/mprotect" => mapping::flip,
        "mapping/pwrite" => mapping::pwrite_only,
        "mapping/pwrite-sync-core" => mapping::pwrite_and_sync,
        "guard/data" => || guard_word::data(false),
        "guard/immediate" => guard_word::immediate,
        "guard/data-cpuid" => || guard_word::data(true),
        "process/fork" => processes::fork,
        "process/exec" => processes::exec,
        "process/migrate" => || processes::migrate(false),
        "process/migrate-registered" => || processes::migrate(true),
        "torn/chunk" => || hand_over(Kind::Imm32Halves, BARE),
        "torn/chunk-cpuid" => || hand_over(Kind::Imm32Halves, CPUID),
        "torn/line" => || hand_over(Kind::Imm32Line, BARE),
        "torn/line-cpuid" => || hand_over(Kind::Imm32Line, CPUID),
        "torn/page" => || hand_over(Kind::Imm32Page, BARE),
        "torn/page-cpuid" => || hand_over(Kind::Imm32Page, CPUID),
        "torn/boundary" => || hand_over(Kind::Boundary, BARE),
        "torn/boundary-cpuid" => || hand_over(Kind::Boundary, CPUID),
        "torn/neighbour" => || neighbours::torn(false),
        "torn/neighbour-cpuid" => || neighbours::torn(true),
        "neighbour/chunk" => || neighbours::in_chunk(false),
        "neighbour/chunk-cpuid" => || neighbours::in_chunk(true),
        "neighbour/other-chunk" => neighbours::in_other_chunk,
        "alias/other" => || aliased(BARE),
        "alias/other-cpuid" => || aliased(CPUID),
        "alias/own-next" => || own_code::next_through_alias(false),
        "alias/own-next-cpuid" => || own_code::next_through_alias(true),
        "alias/own-split" => || own_code::alias_split(|| {}, false),
        "alias/own-split-cpuid" => || own_code::alias_split(cpuid, true),
        "store/bytes" => || store(Via::Bytes, BARE),
        "store/bytes-cpuid" => || store(Via::Bytes, CPUID),
        "store/rep-movsb" => || store(Via::RepMovsb, BARE),
        "store/rep-movsb-cpuid" => || store(Via::RepMovsb, CPUID),
        "store/sse" => || store(Via::Sse, BARE),
        "store/sse-cpuid" => || store(Via::Sse, CPUID),
        "store/non-temporal" => || store(Via::NonTemporal, BARE),
        "store/non-temporal-cpuid" => || store(Via::NonTemporal, CPUID),
        "store/xchg" => || store(Via::Xchg, BARE),
        "store/xchg-cpuid" => || store(Via::Xchg, CPUID),
        "store/xchg-unaligned" => || store(Via::XchgUnaligned, BARE),
        "store/xchg-unaligned-cpuid" => || store(Via::XchgUnaligned, CPUID),
        "store/cmpxchg8b" => || store(Via::Cmpxchg8b, BARE),
        "store/cmpxchg8b-cpuid" => || store(Via::Cmpxchg8b, CPUID),
        "store/cmpxchg16b" => || store(Via::Cmpxchg16b, BARE),
        "store/cmpxchg16b-cpuid" => || store(Via::Cmpxchg16b, CPUID),
        "store/read" => || store(Via::Read, BARE),
        "store/read-cpuid" => || store(Via::Read, CPUID),
        "store/process-vm" => || store(Via::ProcessVm, BARE),
        "store/process-vm-cpuid" => || store(Via::ProcessVm, CPUID),
        "store/page-crossing" => || hand_over(Kind::Imm32PageOnce, BARE),
        "store/page-crossing-cpuid" => || hand_over(Kind::Imm32PageOnce, CPUID),
        "store/from-data" => || hand_over(Kind::Imm32FromData, BARE),
        "store/from-data-cpuid" => || hand_over(Kind::Imm32FromData, CPUID),
        "store/own-rep-movsb" => || own_code::next_by_rep_movsb(false),
        "store/own-rep-movsb-cpuid" => || own_code::next_by_rep_movsb(true),
        "store/own-jump" => own_code::behind_jump,
        "commit/sync-core" => commit::by_sync_core,
        "commit/plain" => commit::by_plain,
        "commit/symbol" => || commit::by_symbol(BARE),
        "commit/symbol-cpuid" => || commit::by_symbol(CPUID),
        "commit/fork-child" => || commit::by_fork(Runs::BeforeTheParentReturns),
        "commit/fork-parent" => || commit::by_fork(Runs::AfterTheParentReturned),
        "commit/fork-cpuid" => || commit::by_fork(Runs::Serialized),
        "commit/neighbour" => neighbours::stale,
        _ => return kernel_scenarios(name),
    })
}

/// Those in which the kernel changes its own text.
fn kernel_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "kernel/static-keys" => kernel_static_keys::schedstats,
        "kernel/task-delayacct" => kernel_static_keys::delayacct,
        "kernel/numa-balancing" => kernel_static_keys::numa_balancing,
        "kernel/ip-minttl" => kernel_static_keys::ip_minttl,
        "kernel/tcp-tx-delay" => kernel_static_keys::tcp_tx_delay,
        "kernel/perf-event" => kernel_static_keys::perf_event,
        "kernel/rps" => kernel_static_keys::rps,
        "kernel/rps-flows" => kernel_static_keys::rps_flows,
        "kernel/cgroup-cpuset" => kernel_static_keys::cgroup_cpuset,
        "kernel/cgroup-cpu" => kernel_static_keys::cgroup_cpu,
        "kernel/cgroup-memory" => kernel_static_keys::cgroup_memory,
        "kernel/lru-gen" => kernel_static_keys::lru_gen,
        "kernel/dynamic-debug" => kernel_static_keys::dynamic_debug,
        "kernel/kfence" => kernel_static_keys::kfence,
        "kernel/tracepoint" => || kernel_tracing::tracepoints("sched/sched_switch"),
        "kernel/tracepoints-sched" => || kernel_tracing::tracepoints("sched"),
        "kernel/tracepoints-syscalls" => || kernel_tracing::tracepoints("raw_syscalls"),
        "kernel/tracepoints-irq" => || kernel_tracing::tracepoints("irq_vectors"),
        // By the name that the tracer knows it by.
        "kernel/ftrace" => || kernel_tracing::ftrace("__do_sys_getppid"),
        "kernel/ftrace-syscalls" => || kernel_tracing::ftrace("__x64_sys_*"),
        "kernel/kprobe" => || kernel_tracing::kprobe('p'),
        "kernel/kprobe-inside" => kernel_tracing::kprobe_inside,
        "kernel/kretprobe" => || kernel_tracing::kprobe('r'),
        "kernel/uprobe" => kernel_tracing::uprobe,
        "kernel/bpf-filter" => kernel_bpf::filter,
        "kernel/bpf-run" => kernel_bpf::run,
        "kernel/bpf-dispatcher" => kernel_bpf::dispatcher,
        "kernel/module" => kernel_modules::module,
        "kernel/preempt" => kernel_cpus::preempt,
        "kernel/hotplug" => kernel_cpus::hotplug,
        "kernel/maxcpus" => kernel_cpus::maxcpus,
        "kernel/membarrier" => kernel_membarrier::all,
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

#[cfg(test)]
mod tests {
    use icsan_guest_tests::table::TABLE;

    #[test]
    fn every_row_has_a_function() {
        for row in TABLE {
            assert!(super::function(row.name).is_some(), "{}", row.name);
        }
    }
}
