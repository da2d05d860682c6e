//! The interpreter of single instructions: the manual's examples, what it refuses, and what holds for all bytes.
//!
//! Whether it computes what CPUs compute is for `icsan-interpret` in `guest-tests` to say.
#![cfg(feature = "iced")]

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use icsan_model::arch::x86::interpret::{self, Access, Effects, Next, NotCarriedOut, Plan, Registers, canonical, plan};
use proptest::prelude::*;

const CF: u64 = 0x1;
const PF: u64 = 0x4;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const TF: u64 = 0x100;
const OF: u64 = 0x800;
const ARITHMETIC: u64 = 0x8d5;

const RIP: u64 = 0xffff_ffff_8100_0000;
const STACK: u64 = 0xffff_c900_0000_1000;
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;

fn registers() -> Registers {
    let mut general = [0; 16];
    (0..).zip(&mut general).for_each(|(number, register)| *register = 0x1111_1111_1111_1111 * number);
    general[RSP] = STACK;
    Registers { general, rip: RIP, flags: 0x202, fs_base: 0x7f00_0000_0000, gs_base: 0xffff_8880_0000_0000 }
}

fn with(number: usize, value: u64) -> Registers {
    let mut registers = registers();
    registers.general[number] = value;
    registers
}

fn planned(bytes: &[u8], registers: &Registers) -> Plan {
    plan(bytes, registers).unwrap_or_else(|refusal| panic!("{bytes:x?}: {refusal}"))
}

/// What an instruction does that loads nothing, or is given this.
fn run(bytes: &[u8], registers: &Registers, loaded: u64) -> Effects {
    planned(bytes, registers).carry_out(registers, loaded)
}

/// Effects of an instruction that goes straight on.
fn straight(len: u64) -> Effects {
    Effects { store: None, general: [None; 2], flags: None, next: Next::At(RIP + len) }
}

fn writes(len: u64, number: u8, value: u64) -> Effects {
    Effects { general: [Some((number, value)), None], ..straight(len) }
}

fn access(linear: u64, len: u8) -> Access {
    Access { linear, len }
}

#[test]
fn nops_of_all_lengths_do_nothing() {
    let nops: [&[u8]; 13] = [
        &[0x90],
        &[0x66, 0x90],
        &[0xf3, 0x90],
        &[0x0f, 0x1f, 0x00],
        &[0x0f, 0x1f, 0x40, 0x00],
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],
        &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
        &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
        &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x0f, 0x1f, 0xc0],
    ];
    for nop in nops {
        assert_eq!(planned(nop, &registers()).load, None, "{nop:x?}");
        assert_eq!(run(nop, &registers(), 0), straight(nop.len() as u64), "{nop:x?}");
    }
}

#[test]
fn what_kernels_patch() {
    // A call and the jump that it becomes; a call through memory; a static key's jump, both ways; a return, and a
    // breakpoint in its place.
    let call = run(&[0xe8, 0x00, 0x10, 0x00, 0x00], &registers(), 0);
    assert_eq!(call.store, Some((access(STACK - 8, 8), RIP + 5)));
    assert_eq!((call.general, call.next), ([Some((4, STACK - 8)), None], Next::At(RIP + 0x1005)));
    assert_eq!(run(&[0xe9, 0xfb, 0xff, 0xff, 0xff], &registers(), 0), Effects { next: Next::At(RIP), ..straight(0) });
    assert_eq!(run(&[0xeb, 0xfe], &registers(), 0), Effects { next: Next::At(RIP), ..straight(0) });
    let indirect = planned(&[0xff, 0x15, 0x10, 0x00, 0x00, 0x00], &registers());
    assert_eq!((indirect.load, indirect.store()), (Some(access(RIP + 0x16, 8)), Some(access(STACK - 8, 8))));
    assert_eq!(indirect.carry_out(&registers(), 0x1234).next, Next::At(0x1234));
    let ret = planned(&[0xc2, 0x10, 0x00], &registers());
    assert_eq!(ret.load, Some(access(STACK, 8)));
    assert_eq!(ret.carry_out(&registers(), 0x4000), Effects { next: Next::At(0x4000), ..writes(0, 4, STACK + 0x18) });
    assert_eq!(run(&[0xcc], &registers(), 0).next, Next::Breakpoint { len: 1 });
    assert_eq!(run(&[0x0f, 0x0b], &registers(), 0).next, Next::Undefined);
    // A per-CPU variable: mov %gs:0x10(%rip), %rax.
    let variable = [0x65, 0x48, 0x8b, 0x05, 0x10, 0x00, 0x00, 0x00];
    let percpu = Registers { gs_base: 0_u64.wrapping_sub(RIP), ..registers() };
    assert_eq!(planned(&variable, &percpu).load, Some(access(0x18, 8)));
}

#[test]
fn conditions_follow_the_flags() {
    let jump =
        |opcode, flags| run(&[opcode, 0x10], &Registers { flags, ..registers() }, 0).next == Next::At(RIP + 0x12);
    assert!(
        jump(0x74, ZF) && !jump(0x74, 0) && jump(0x75, 0) && jump(0x72, CF) && jump(0x77, 0) && !jump(0x77, CF | ZF)
    );
    assert!(
        jump(0x7c, SF)
            && jump(0x7c, OF)
            && !jump(0x7c, SF | OF)
            && jump(0x7e, ZF)
            && jump(0x7f, SF | OF)
            && jump(0x7a, PF)
    );
    // The address size chooses the counter.
    let (rcxz, ecxz) = ([0xe3, 0x10], [0x67, 0xe3, 0x10]);
    let high = with(RCX, 1 << 32);
    assert_eq!((run(&rcxz, &high, 0).next, run(&ecxz, &high, 0).next), (Next::At(RIP + 2), Next::At(RIP + 0x13)));
}

#[test]
fn parts_of_registers_are_merged() {
    let before = with(RAX, 0x8877_6655_4433_2211);
    assert_eq!(run(&[0xb0, 0xaa], &before, 0), writes(2, 0, 0x8877_6655_4433_22aa));
    assert_eq!(run(&[0xb4, 0xaa], &before, 0), writes(2, 0, 0x8877_6655_4433_aa11));
    assert_eq!(run(&[0x40, 0xb4, 0xaa], &before, 0), writes(3, 4, STACK & !0xff | 0xaa));
    assert_eq!(run(&[0x66, 0xb8, 0xbb, 0xaa], &before, 0), writes(4, 0, 0x8877_6655_4433_aabb));
    assert_eq!(run(&[0x89, 0xc0], &before, 0), writes(2, 0, 0x4433_2211));
    assert_eq!(run(&[0x86, 0xc4], &before, 0), writes(2, 0, 0x8877_6655_4433_1122));
    // A conditional move of 32 bits that does not happen still clears the upper half.
    assert_eq!(run(&[0x0f, 0x44, 0xc1], &before, 0), writes(3, 0, 0x4433_2211));
    assert_eq!(run(&[0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff], &before, 0), writes(7, 0, u64::MAX));
    assert_eq!(run(&[0x48, 0x63, 0xc1], &with(RCX, 0x8000_0000), 0), writes(3, 0, 0xffff_ffff_8000_0000));
}

#[test]
fn the_stack_pointer_as_an_operand() {
    // PUSH RSP stores the old one; POP RSP keeps what it loaded; POP to memory counts from the new one; PUSH from the
    // old one.
    assert_eq!(run(&[0x54], &registers(), 0).store, Some((access(STACK - 8, 8), STACK)));
    assert_eq!(run(&[0x5c], &registers(), 0x1234), writes(1, 4, 0x1234));
    assert_eq!(run(&[0x66, 0x5c], &registers(), 0x1234).general[0], Some((4, STACK & !0xffff | 0x1234)));
    let pop = planned(&[0x8f, 0x44, 0x24, 0x10], &registers());
    assert_eq!((pop.load, pop.store()), (Some(access(STACK, 8)), Some(access(STACK + 0x18, 8))));
    let push = planned(&[0x66, 0xff, 0x34, 0x24], &registers());
    assert_eq!((push.load, push.store()), (Some(access(STACK, 2)), Some(access(STACK - 2, 2))));
    assert_eq!(run(&[0x6a, 0xff], &registers(), 0).store, Some((access(STACK - 8, 8), u64::MAX)));
}

#[test]
fn memory_is_read_then_written() {
    let before = with(RBX, 0x1000);
    let add = planned(&[0x66, 0x83, 0x43, 0x10, 0xff], &before);
    assert_eq!((add.load, add.store()), (Some(access(0x1010, 2)), Some(access(0x1010, 2))));
    // Bits beyond the access do not count.
    let effects = add.carry_out(&before, 0xdead_0001);
    assert_eq!((effects.store, effects.flags), (Some((access(0x1010, 2), 0)), Some(0x202 | CF | PF | ZF | 0x10)));
    let compare = planned(&[0x48, 0x39, 0x03], &before);
    assert_eq!((compare.load, compare.store()), (Some(access(0x1000, 8)), None));
    let store = planned(&[0x88, 0x03], &before);
    assert_eq!((store.load, store.store()), (None, Some(access(0x1000, 1))));
    let moffs = [0xa2, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x00, 0x00];
    assert_eq!(planned(&moffs, &before).store(), Some(access(0x3344_5566_7788, 1)));
    // 67 cuts the sum off, and the segment is added to what is left.
    let short = [0x67, 0x64, 0x8a, 0x43, 0xff];
    assert_eq!(planned(&short, &with(RBX, 0xffff_ffff_0000_0000)).load, Some(access(0x7f00_ffff_ffff, 1)));
}

#[test]
fn what_is_refused() {
    let refused = |bytes: &[u8], registers: &Registers| plan(bytes, registers).map(|_| ()).unwrap_err();
    let plain = |bytes: &[u8]| refused(bytes, &registers());
    assert_eq!(plain(&[]), NotCarriedOut::Truncated);
    assert_eq!(plain(&[0x0f]), NotCarriedOut::Truncated);
    assert_eq!(plain(&[0xe8, 0, 0, 0]), NotCarriedOut::Truncated);
    assert_eq!(plain(&[0x66; 14]), NotCarriedOut::Truncated);
    assert_eq!(plain(&[0x66; 15]), NotCarriedOut::TooLong);
    assert_eq!(plain(&[0xf0, 0x01, 0x03]), NotCarriedOut::Locked);
    assert_eq!(plain(&[0x87, 0x03]), NotCarriedOut::Locked);
    assert_eq!(plain(&[0x66, 0xe9, 0, 0, 0, 0]), NotCarriedOut::OperandSizeBranch);
    assert_eq!(plain(&[0x2e, 0x66, 0xc3]), NotCarriedOut::OperandSizeBranch);
    assert_eq!(plain(&[0x0f, 0xa2]), NotCarriedOut::Unsupported(Mnemonic::Cpuid));
    for bytes in [
        &[0xcd, 0x03][..],
        &[0xcf],
        &[0xa4],
        &[0xc1, 0xe0, 1],
        &[0xff, 0x1b],
        &[0xff, 0x2b],
        &[0xcb],
        &[0x0f, 0xa1],
        &[0x0f, 0xa0],
        &[0x8e, 0xd8],
        &[0x8c, 0xd8],
        &[0x0f, 0x22, 0xd8],
        &[0x0f, 0x20, 0xd8],
        &[0xe2, 0],
        &[0xe1, 0],
        &[0xc7, 0xf8, 0, 0, 0, 0],
        &[0x9d],
        &[0xfa],
        &[0xd9, 0xd0],
    ] {
        assert!(matches!(plain(bytes), NotCarriedOut::Unsupported(_)), "{bytes:x?}");
    }
    let edge = 0x7fff_ffff_ffff;
    assert_eq!(refused(&[0x8b, 0x03], &with(RBX, 1 << 47)), NotCarriedOut::NonCanonical(1 << 47));
    assert_eq!(refused(&[0x8b, 0x03], &with(RBX, edge)), NotCarriedOut::NonCanonical(edge + 3));
    assert!(plan(&[0x8a, 0x03], &with(RBX, edge)).is_ok());
    assert_eq!(refused(&[0xff, 0xe2], &with(RDX, 1 << 63)), NotCarriedOut::NonCanonical(1 << 63));
    assert_eq!(refused(&[0x50], &with(RSP, 1 << 63)).to_string(), "0x7ffffffffffffff8 is not canonical");
    assert_eq!(refused(&[0x90], &Registers { rip: edge, ..registers() }), NotCarriedOut::NonCanonical(edge + 1));
    assert_eq!(refused(&[0x90], &Registers { flags: 0x202 | TF, ..registers() }), NotCarriedOut::SingleStep);
}

#[test]
fn no_instructions() {
    for bytes in [
        &[0x06, 0][..],
        &[0x0f, 0x04, 0],
        &[0xf0, 0x90],
        &[0xf0, 0x89, 0x03],
        &[0x8d, 0xc0],
        &[0xff, 0xff],
        &[0x0f, 0xb9, 0xc0],
    ] {
        let planned = planned(bytes, &registers());
        assert_eq!((planned.load, planned.store()), (None, None), "{bytes:x?}");
        assert_eq!(planned.carry_out(&registers(), 0), Effects { next: Next::Undefined, ..straight(0) }, "{bytes:x?}");
    }
}

/// Bytes that are often instructions which the interpreter knows.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![
        0x66, 0x67, 0x64, 0x65, 0x2e, 0x3e, 0xf0, 0xf2, 0xf3, 0x40, 0x41, 0x44, 0x48, 0x4f, 0x0f,
    ]);
    (prop::collection::vec(prefix, 0..4), prop::collection::vec(any::<u8>(), 0..18))
        .prop_map(|(prefixes, bytes)| [prefixes, bytes].concat())
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x8000_0000_0000_u64,
        (0..0x8000_0000_0000_u64).prop_map(|low| low | 0xffff_8000_0000_0000),
        0..0x100_u64
    ]
}

fn any_registers() -> impl Strategy<Value = Registers> {
    let canonical_address = || any_value().prop_map(|value| ((value << 16) as i64 >> 16) as u64);
    (
        prop::array::uniform16(any_value()),
        canonical_address(),
        any::<u64>(),
        any_value(),
        any_value(),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(general, rip, flags, fs_base, gs_base, free)| Registers {
            general,
            rip,
            flags: if free { flags & !TF } else { flags },
            fs_base,
            gs_base,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30_000))]

    /// No panic, whatever the bytes and the registers are; and what is promised of plans and effects.
    #[test]
    fn any_bytes_at_all((bytes, registers, loaded) in (any_bytes(), any_registers(), any::<u64>())) {
        let Ok(plan) = plan(&bytes, &registers) else { return Ok(()) };
        let effects = plan.carry_out(&registers, loaded);
        let len = usize::from(plan.len());
        prop_assert!((1..=15).contains(&len) && len <= bytes.len());
        for access in [plan.load, plan.store()].into_iter().flatten() {
            prop_assert!(matches!(access.len, 1 | 2 | 4 | 8));
            prop_assert!(canonical(access.linear) && canonical(access.linear + u64::from(access.len - 1)));
        }
        prop_assert_eq!(effects.store.map(|(access, _)| access), plan.store());
        prop_assert!(effects.store.is_none_or(|(access, value)| access.len == 8 || value >> (8 * access.len) == 0));
        prop_assert!(effects.flags.is_none_or(|flags| (flags ^ registers.flags) & !ARITHMETIC == 0));
        let numbers: Vec<_> = effects.general.into_iter().flatten().map(|(number, _)| number).collect();
        prop_assert!(numbers.iter().all(|number| *number < 16) && (numbers.len() < 2 || numbers[0] != numbers[1]));
        if let Next::Undefined | Next::Breakpoint { .. } = effects.next {
            prop_assert_eq!((effects.store, effects.general, effects.flags), (None, [None; 2], None));
        }
        // Bits beyond the load, and a load that is not asked for, do not matter.
        let beyond = plan.load.map_or(u64::MAX, |load| u64::MAX.checked_shl(8 * u32::from(load.len)).unwrap_or(0));
        prop_assert_eq!(effects, plan.carry_out(&registers, loaded ^ beyond));
    }

    /// What comes behind the instruction does not matter, and without its last byte it is cut off.
    #[test]
    fn only_the_instruction_counts((bytes, more, registers) in (any_bytes(), any_bytes(), any_registers())) {
        let outcome = plan(&bytes, &registers);
        let longer = plan(&[bytes.clone(), more].concat(), &registers);
        match outcome {
            Err(NotCarriedOut::Truncated) => {}
            outcome => prop_assert_eq!(outcome, longer),
        }
        let Ok(plan) = outcome else { return Ok(()) };
        if plan.carry_out(&registers, 0).next != Next::Undefined {
            let shorter = interpret::plan(&bytes[..usize::from(plan.len()) - 1], &registers);
            prop_assert_eq!(shorter, Err(NotCarriedOut::Truncated));
        }
    }

    /// It agrees with the decoder on what is no instruction, and refuses no NOP.
    #[test]
    fn as_decoded((bytes, registers) in (any_bytes(), any_registers())) {
        let mut decoder = Decoder::with_ip(64, &bytes, registers.rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let outcome = plan(&bytes, &registers);
        if let (Ok(plan), false) = (outcome, instruction.is_invalid()) {
            prop_assert_eq!(usize::from(plan.len()), instruction.len());
        }
        if matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Pause) && registers.flags & TF == 0 {
            let behind = registers.rip.wrapping_add(instruction.len() as u64);
            let expected = Effects { store: None, general: [None; 2], flags: None, next: Next::At(behind) };
            prop_assert_eq!(outcome.map(|plan| plan.carry_out(&registers, 0)).ok(), canonical(behind).then_some(expected));
        }
    }
}
