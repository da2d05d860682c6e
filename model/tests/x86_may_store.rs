//! The table of what never stores, against a decoder.

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess};
use icsan_model::arch::x86::may_store::may_store;
use icsan_model::arch::x86::store_kind::{StoreKind, store_kind};

const PREFIXES: [&[u8]; 9] = [&[], &[0x66], &[0xf2], &[0xf3], &[0xf0], &[0x67], &[0x48], &[0x66, 0x41], &[0xf3, 0x48]];

/// Calls `check` with every instruction of the two maps, by first opcode byte and ModRM, behind each of the prefixes,
/// in each mode: its bytes, and whether it stores by the decoder.
fn every_instruction(mut check: impl FnMut(&[u8], bool)) {
    let mut info = InstructionInfoFactory::new();
    for bits in [16, 32, 64] {
        for prefixes in PREFIXES {
            for map in [&[][..], &[0x0f]] {
                for opcode in 0..=u8::MAX {
                    for modrm in 0..=u8::MAX {
                        let bytes = [prefixes, map, &[opcode, modrm], &[0x11; 11]].concat();
                        let mut decoder = Decoder::new(bits, &bytes, DecoderOptions::NONE);
                        let instruction = decoder.decode();
                        if instruction.is_invalid() {
                            continue;
                        }
                        let writes = |access| {
                            matches!(
                                access,
                                OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
                            )
                        };
                        let stores = info.info(&instruction).used_memory().iter().any(|memory| writes(memory.access()));
                        check(&bytes[..instruction.len()], stores);
                    }
                }
            }
        }
    }
}

#[test]
fn whatever_stores_may_store() {
    let (mut stores, mut compared) = (0, 0);
    every_instruction(|bytes, really| {
        compared += 1;
        stores += usize::from(really);
        assert!(!really || may_store(bytes), "{bytes:02x?} stores");
    });
    assert!(compared > 1_000_000 && stores > 100_000, "{stores} of {compared}");
}

/// The table is worth its bytes: of what programs are made of it knows nearly all.
#[test]
fn most_of_what_does_not_store_is_known_not_to() {
    let (mut plain, mut known) = (0u32, 0u32);
    every_instruction(|bytes, really| {
        if !really && bytes[0] != 0x62 && bytes[0] != 0xc4 && bytes[0] != 0xc5 {
            plain += 1;
            known += u32::from(!may_store(bytes));
        }
    });
    assert!(known * 10 > plain * 6, "{known} of {plain}");
    let common: [&[u8]; 12] = [
        &[0x48, 0x8b, 0x07],
        &[0x48, 0x8d, 0x04, 0x24],
        &[0x85, 0xc0],
        &[0x75, 0x10],
        &[0xc3],
        &[0x31, 0xc0],
        &[0x5d],
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x48, 0x89, 0xe5],
        &[0x83, 0x3f, 0x01],
        &[0x0f, 0xb6, 0x07],
        &[0xff, 0xe0],
    ];
    assert!(common.iter().all(|bytes| !may_store(bytes)));
    let storing: [&[u8]; 8] = [
        &[0x55],
        &[0xe8, 0, 0, 0, 0],
        &[0x48, 0x89, 0x07],
        &[0xaa],
        &[0xa4],
        &[0xff, 0xd0],
        &[0x01, 0x07],
        &[0x0f, 0x11, 0x07],
    ];
    assert!(storing.iter().all(|bytes| may_store(bytes)) && may_store(&[]));
}

/// Every instruction that a decoder lets have a LOCK prefix is in the table of stores whose told value is an operand,
/// and so is every MOVBE; nothing else is.
#[test]
fn what_is_locked_has_a_kind() {
    let (mut locked, mut plain) = (0, 0);
    every_instruction(|bytes, stores| {
        let code = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        if !stores || code.is_invalid() || code.len() != bytes.len() {
            return;
        }
        let exchange = code.mnemonic() == Mnemonic::Xchg;
        if code.has_lock_prefix() && !exchange {
            locked += 1;
            assert_ne!(store_kind(bytes), StoreKind::Plain, "{bytes:02x?} is {code}");
        } else {
            plain += 1;
            let kind = if code.mnemonic() == Mnemonic::Movbe { StoreKind::Swapped } else { StoreKind::Plain };
            assert_eq!(store_kind(bytes), kind, "{bytes:02x?} is {code}");
        }
    });
    assert!(locked > 1000 && plain > 100_000, "{locked} and {plain}");
}
