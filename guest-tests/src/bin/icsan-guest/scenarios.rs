//! Which function carries a scenario of the table out.

use crate::cross_modify::{CPUID, hand_over, under_spinner};
use crate::int3_protocol::Missing;
use crate::outcome::Attempt;
use crate::shape::Kind;
use crate::{guard_word, int3_protocol, kernel_modules, kernel_patching, mapping, membarrier, own_code, processes};

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
        "membarrier/plain" => membarrier::plain,
        "membarrier/unregistered" => membarrier::unregistered,
        "int3/complete" => int3_protocol::complete,
        "int3/no-first-sync" => || int3_protocol::without(Missing::First),
        "int3/no-second-sync" => || int3_protocol::without(Missing::Second),
        "int3/no-third-sync" => || int3_protocol::without(Missing::Third),
        "int3/no-syncs" => || int3_protocol::without(Missing::All),
        "own/jump" => own_code::jump,
        "own/no-jump" => || own_code::straight_line(false),
        "own/no-jump-cpuid" => || own_code::straight_line(true),
        "own/alias" => || own_code::alias(|| {}, false),
        "own/alias-cpuid" => own_code::alias_cpuid,
        "mapping/fresh" => mapping::fresh,
        "mapping/munmap-mmap" => mapping::unmap_and_map,
        "mapping/map-fixed" => mapping::map_fixed,
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
        "kernel/static-keys" => kernel_patching::static_keys,
        "kernel/tracepoint" => kernel_patching::tracepoint,
        "kernel/kprobe" => kernel_patching::kprobe,
        "kernel/kprobe-inside" => kernel_patching::kprobe_inside,
        "kernel/module" => kernel_modules::module,
        "kernel/ftrace" => kernel_patching::ftrace,
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
