//! Which function carries a scenario of the table out.

use crate::architecture;
use crate::commit::{self, Runs};
use crate::hand_over::{BARE, aliased};
use crate::mapping::BY_FLUSH;
use crate::outcome::Attempt;
use crate::shape::Kind;
use crate::stores::{self, store};
use crate::{
    bpf_replaced, kernel_bpf, kernel_cpus, kernel_membarrier, kernel_modules, kernel_static_keys, kernel_tracing,
};
use crate::{mapping, membarrier, own_code, processes};

/// Looks the function up: among the rows that any architecture can run, and the ones of this one.
pub fn function(name: &str) -> Option<fn() -> Attempt> {
    program_scenarios(name).or_else(|| kernel_scenarios(name)).or_else(|| architecture::scenarios::function(name))
}

/// Those in which a program changes its code.
fn program_scenarios(name: &str) -> Option<fn() -> Attempt> {
    Some(match name {
        "handover/nothing" => membarrier::no_sync,
        "handover/fences" => membarrier::fences_only,
        "membarrier/sync-core" => membarrier::registered,
        "membarrier/registered-late" => membarrier::registered_late,
        "membarrier/plain" => membarrier::plain,
        "membarrier/unregistered" => membarrier::unregistered,
        "own/alias" => || own_code::alias(|| {}, false),
        "views/other" => own_code::at_other_address,
        "views/alias" => || own_code::through_other_address(|| {}, false),
        "mapping/fresh" => mapping::fresh,
        "mapping/munmap-mmap" => || mapping::unmap_and_map(BY_FLUSH),
        "mapping/map-fixed" => mapping::map_fixed,
        "mapping/mremap" => || mapping::moved(BY_FLUSH),
        "mapping/mprotect" => || mapping::flip(BY_FLUSH),
        "mapping/pwrite" => mapping::pwrite_only,
        "mapping/pwrite-sync-core" => mapping::pwrite_and_sync,
        "process/fork" => processes::fork,
        "process/exec" => processes::exec,
        "alias/other" => || aliased(BARE),
        "alias/own-split" => || own_code::alias_split(|| {}, false),
        "store/bytes" => || store(Kind::PLAIN, stores::bytes, BARE),
        "store/read" => || stores::by_read(BARE),
        "store/process-vm" => || store(Kind::PLAIN, stores::process_vm, BARE),
        "commit/sync-core" => commit::by_sync_core,
        "commit/plain" => commit::by_plain,
        "commit/symbol" => || commit::by_symbol(BARE),
        "commit/fork-child" => || commit::by_fork(Runs::BeforeTheParentReturns),
        "commit/fork-parent" => || commit::by_fork(Runs::AfterTheParentReturned),
        _ => return None,
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
        "kernel/ftrace" => || kernel_tracing::ftrace(architecture::TRACED),
        "kernel/kprobe" => || kernel_tracing::kprobe('p'),
        "kernel/kretprobe" => || kernel_tracing::kprobe('r'),
        "kernel/uprobe" => kernel_tracing::uprobe,
        "kernel/bpf-filter" => kernel_bpf::filter,
        "kernel/bpf-run" => kernel_bpf::run,
        "kernel/bpf-dispatcher" => kernel_bpf::dispatcher,
        "bpf/replaced" => bpf_replaced::replaced,
        "kernel/module" => kernel_modules::module,
        "kernel/preempt" => kernel_cpus::preempt,
        "kernel/hotplug" => kernel_cpus::hotplug,
        "kernel/hotplug-keys" => kernel_cpus::hotplug_beside_keys,
        "kernel/suspend" => kernel_cpus::suspend,
        "kernel/membarrier" => kernel_membarrier::all,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::architecture::TABLE;

    #[test]
    fn every_row_has_a_function() {
        for row in TABLE {
            assert!(super::function(row.name).is_some(), "{}", row.name);
        }
    }
}
