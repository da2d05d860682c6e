//! The kernels that are known go by the architectures of the model.

use icsan_model::arch::registry;
use icsan_symbols::linux::{KERNELS, by_arch};

#[test]
fn every_architecture_has_its_linux() {
    for arch in registry::ALL {
        let linux = by_arch(arch.name).unwrap_or_else(|| panic!("{}", arch.name));
        assert_eq!(linux.arch, arch.name);
        for sync in linux.protocol.text_poke_syncs {
            assert!(!sync.events.is_empty(), "{sync:?}");
            for event in sync.events {
                assert!(arch.event_by_name(event).is_some(), "{}: {event}", arch.name);
            }
        }
    }
    assert_eq!(KERNELS.len(), registry::ALL.len());
    assert!(by_arch("vax").is_none() && by_arch("").is_none());
}
