//! The interpreter of single A64 instructions: words as an assembler makes them (GNU's), and what they do.

use icsan_model::arch::aarch64::cmodx::CMODX;
use icsan_model::arch::aarch64::interpret::{
    Access, BTYPE, Effects, NZCV, Next, NotCarriedOut, Plan, Registers, SS, plan,
};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

const PC: u64 = 0xffff_8000_8000_1234;
const OTHERS: u64 = 0x3c5;

/// X0 is 0x1000, X1 is 0x1001 and so on.
fn registers() -> Registers {
    let mut registers = Registers { sp: 0x8000, pc: PC, pstate: OTHERS, ..Registers::default() };
    (0x1000..).zip(&mut registers.general).for_each(|(value, register)| *register = value);
    registers
}

fn planned(word: u32, registers: &Registers) -> Plan {
    plan(&word.to_le_bytes(), registers).unwrap_or_else(|why| panic!("{word:08x}: {why}"))
}

fn run(word: u32, registers: &Registers, loaded: u64) -> Effects {
    planned(word, registers).carry_out(registers, loaded)
}

/// What a word does to nothing but a register.
fn sets(word: u32, registers: &Registers) -> Option<(u8, u64)> {
    let effects = run(word, registers, 0);
    assert_eq!((effects.sp, effects.pstate, effects.next), (None, OTHERS, Next::At(PC + 4)), "{word:08x}");
    effects.general
}

#[test]
fn branches_go_where_they_say() {
    let mut registers = registers();
    registers.general[1] = 0xffff_ffff_0000_0000;
    registers.general[2] = 1 << 40;
    let goes = |word: u32, flags: u64| {
        let with = Registers { pstate: OTHERS | flags, ..registers };
        let effects = run(word, &with, 0);
        assert_eq!((effects.sp, effects.pstate), (None, OTHERS | flags), "{word:08x}");
        let Next::At(target) = effects.next else { panic!("{word:08x}") };
        (target.wrapping_sub(PC) as i64, effects.general)
    };
    let to = |distance: i64| (distance, None);
    // b .+8, b .-4; bl .-4; ret, ret x3.
    assert_eq!((goes(0x1400_0002, 0), goes(0x17ff_ffff, 0)), (to(8), to(-4)));
    assert_eq!(goes(0x97ff_ffff, 0), (-4, Some((30, PC + 4))));
    assert_eq!(goes(0xd65f_03c0, 0), to(0x101e_i64.wrapping_sub(PC as i64)));
    assert_eq!(goes(0xd65f_0060, 0), to(0x1003_i64.wrapping_sub(PC as i64)));
    // cbz w1, .+8; cbz x1, .+8; cbnz x1, .-16; cbnz w1, .-16; cbz wzr, .+8.
    assert_eq!((goes(0x3400_0041, 0), goes(0xb400_0041, 0)), (to(8), to(4)));
    assert_eq!((goes(0xb5ff_ff81, 0), goes(0x35ff_ff81, 0)), (to(-16), to(4)));
    assert_eq!(goes(0x3400_005f, 0), to(8));
    // tbz x1, #40, .+8; tbz x2, #40; tbnz x2, #40, .+8; tbnz w2, #3, .-4; tbnz w3, #0, .-4.
    assert_eq!((goes(0xb640_0041, 0), goes(0xb640_0042, 0), goes(0xb740_0042, 0)), (to(4), to(4), to(8)));
    assert_eq!((goes(0x371f_ffe2, 0), goes(0x3707_ffe3, 0)), (to(4), to(-4)));
    // b.al .-8 and its twin.
    assert_eq!((goes(0x54ff_ffce, 0), goes(0x54ff_ffcf, 0)), (to(-8), to(-8)));
}

#[test]
fn conditions_are_what_their_names_say() {
    const N: u64 = 1 << 31;
    const Z: u64 = 1 << 30;
    const C: u64 = 1 << 29;
    const V: u64 = 1 << 28;
    // eq, cs, mi, vs, hi, ge, gt: DDI0487 C1.2.4.
    let names: [fn(u64) -> bool; 7] = [
        |flags| flags & Z != 0,
        |flags| flags & C != 0,
        |flags| flags & N != 0,
        |flags| flags & V != 0,
        |flags| flags & C != 0 && flags & Z == 0,
        |flags| (flags & N != 0) == (flags & V != 0),
        |flags| flags & Z == 0 && (flags & N != 0) == (flags & V != 0),
    ];
    for flags in (0..16).map(|flags| flags << 28) {
        let registers = Registers { pstate: flags, ..registers() };
        for (number, holds) in (0u32..).step_by(2).zip(names) {
            let branches = |condition: u32| run(0x5400_0040 | condition, &registers, 0).next == Next::At(PC + 8);
            assert_eq!((branches(number), branches(number + 1)), (holds(flags), !holds(flags)), "{number} {flags:#x}");
        }
    }
}

#[test]
fn constants_and_moves() {
    let registers = registers();
    let set = |word| sets(word, &registers);
    // nop, bti c, prfm pldl1keep, .+8.
    assert_eq!((set(0xd503_201f), set(0xd503_245f), set(0xd800_0040)), (None, None, None));
    // movz w1, #0x1234; movz x1, #0x1234, lsl #48; movn x1, #1; movn w1, #1, lsl #16.
    assert_eq!(set(0x5282_4681), Some((1, 0x1234)));
    assert_eq!(set(0xd2e2_4681), Some((1, 0x1234 << 48)));
    assert_eq!(set(0x9280_0021), Some((1, u64::MAX - 1)));
    assert_eq!(set(0x12a0_0021), Some((1, 0xfffe_ffff)));
    // movk x1, #0xabcd, lsl #16; movk w1, #0xabcd; movk xzr, #0x4943, the marker.
    assert_eq!(set(0xf2b5_79a1), Some((1, 0xabcd_1001)));
    let high = Registers { general: [u64::MAX; 31], ..registers };
    assert_eq!(sets(0x7295_79a1, &high), Some((1, 0xffff_abcd)));
    assert_eq!(set(0xf289_287f), None);
    // adr x1, .+5; adr x1, .-3; adrp x1, .+0x2000 of a page's beginning.
    assert_eq!((set(0x3000_0021), set(0x30ff_ffe1)), (Some((1, PC + 5)), Some((1, PC - 3))));
    assert_eq!(set(0xd000_0001), Some((1, 0xffff_8000_8000_3000)));
    assert_eq!(set(0xf0ff_ffe1), Some((1, 0xffff_8000_8000_0000)));
    // mov x9, x30; mov w1, w2; mov x9, xzr.
    assert_eq!((set(0xaa1e_03e9), sets(0x2a02_03e1, &high)), (Some((9, 0x101e)), Some((1, 0xffff_ffff))));
    assert_eq!(set(0xaa1f_03e9), Some((9, 0)));
}

#[test]
fn sums_with_constants() {
    let registers = registers();
    let set = |word| sets(word, &registers);
    // add x1, x2, #5; add w1, w2, #1 of all ones; mov x1, sp.
    assert_eq!((set(0x9100_1441), set(0x9100_03e1)), (Some((1, 0x1007)), Some((1, 0x8000))));
    let high = Registers { general: [u64::MAX; 31], ..registers };
    assert_eq!(sets(0x1100_0441, &high), Some((1, 0)));
    // add sp, sp, #16; sub sp, sp, #1, lsl #12.
    let stack = |word| {
        let effects = run(word, &registers, 0);
        (effects.general, effects.sp, effects.pstate)
    };
    assert_eq!(stack(0x9100_43ff), (None, Some(0x8010), OTHERS));
    assert_eq!(stack(0xd140_07ff), (None, Some(0x7000), OTHERS));
    // cmp x2, #1 writes flags alone; cmn sp, #1.
    assert_eq!(stack(0xf100_045f), (None, None, OTHERS | 1 << 29));
    assert_eq!(stack(0xb100_07ff), (None, None, OTHERS));
}

#[test]
fn literals_are_read_where_they_are() {
    let registers = registers();
    let load = |word: u32, linear: u64, len: u8, loaded: u64| {
        assert_eq!(planned(word, &registers).load, Some(Access { linear, len }), "{word:08x}");
        run(word, &registers, loaded).general
    };
    // ldr x1, .+8; ldr w1, .-8; ldrsw x1, .+12; ldr xzr, .+8.
    assert_eq!(load(0x5800_0041, PC + 8, 8, u64::MAX), Some((1, u64::MAX)));
    assert_eq!(load(0x18ff_ffc1, PC - 8, 4, 0x7777_7777_8000_0000), Some((1, 0x8000_0000)));
    assert_eq!(load(0x9800_0061, PC + 12, 4, 0x8000_0000), Some((1, 0xffff_ffff_8000_0000)));
    assert_eq!(load(0x5800_005f, PC + 8, 8, 5), None);
}

#[test]
fn exceptions_change_nothing_else() {
    let registers = Registers { pstate: OTHERS | BTYPE, ..registers() };
    // brk #0x800; udf #7.
    for (word, next) in [(0xd421_0000, Next::Breakpoint(0x800)), (0x0000_0007, Next::Undefined)] {
        let effects = run(word, &registers, 0);
        assert_eq!(effects, Effects { general: None, sp: None, pstate: OTHERS | BTYPE, next });
    }
    // Behind any other instruction no branch has led here.
    assert_eq!(run(0xd503_201f, &registers, 0).pstate, OTHERS);
}

#[test]
fn what_is_not_known_is_refused() {
    let registers = registers();
    // svc, isb, br, blr, eret, bc.eq, ldr by a register, ldr of a vector, movz w with lsl #32, orr with a shift, opc 01
    // of the moves, sysl.
    for word in [
        0xd400_0001u32,
        0xd503_3fdf,
        0xd61f_0000,
        0xd63f_0000,
        0xd69f_03e0,
        0x5400_0050,
        0xf940_0001,
        0x1c00_0041,
        0x52c0_0001,
        0xaa02_07e1,
        0x3280_0000,
        0xd503_203f,
    ] {
        assert_eq!(plan(&word.to_le_bytes(), &registers), Err(NotCarriedOut::Unsupported(word)));
    }
    assert_eq!(plan(&[0x1f, 0x20], &registers), Err(NotCarriedOut::Truncated));
    let stepped = Registers { pstate: SS, ..registers };
    assert_eq!(plan(&0xd503_201fu32.to_le_bytes(), &stepped), Err(NotCarriedOut::SingleStep));
}

/// Of what may be changed under a running CPU all is known but what calls another exception level, and ISB.
#[test]
fn most_of_what_is_patched_is_known() {
    let unknown: Vec<u32> = CMODX
        .iter()
        .map(|pattern| pattern.value)
        .filter(|word| plan(&word.to_le_bytes(), &registers()).is_err())
        .collect();
    assert_eq!(unknown, [0xd400_0001, 0xd400_0002, 0xd400_0003, 0xd503_30df]);
}

fn machines() -> impl Strategy<Value = Registers> {
    (any::<[u64; 31]>(), any::<u64>(), any::<u64>(), 0u64..16).prop_map(|(general, sp, pc, flags)| Registers {
        general,
        sp,
        pc: pc & !3,
        pstate: flags << 28,
    })
}

proptest! {
    /// Whatever the word is: it is refused, or one register at most changes, and the flags, and nothing is left to do.
    #[test]
    fn no_word_changes_more_than_it_may(word in any::<u32>(), registers in machines(), loaded in any::<u64>()) {
        let Ok(plan) = plan(&word.to_le_bytes(), &registers) else { return Ok(()) };
        let effects = plan.carry_out(&registers, loaded);
        prop_assert_eq!(effects.pstate & !NZCV, 0);
        prop_assert!(effects.general.is_none_or(|(number, _)| number < 31));
        prop_assert!(effects.general.is_none() || effects.sp.is_none());
        if let Next::At(target) = effects.next {
            let returns = word & 0xffff_fc1f == 0xd65f_0000;
            prop_assert!(returns || target.is_multiple_of(4));
        }
    }

    /// ADDS and SUBS of a constant, by the definition: the result at the size, and whether it is the sum as a number
    /// without a sign (C), and with one (V).
    #[test]
    fn flags_are_those_of_the_sum(
        registers in machines(),
        constant in 0u64..1 << 12,
        shifted in any::<bool>(),
        wide in any::<bool>(),
        subtract in any::<bool>(),
    ) {
        // adds w1, w2, #constant.
        let word = 0x3100_0041 | (constant as u32) << 10 | u32::from(shifted) << 22;
        let word = word | u32::from(wide) << 31 | u32::from(subtract) << 30;
        let effects = run(word, &registers, 0);
        let bits = if wide { 64 } else { 32 };
        let mask = u64::MAX >> (64 - bits);
        let left = registers.general[2] & mask;
        let right = if shifted { constant << 12 } else { constant };
        let result = if subtract { left.wrapping_sub(right) } else { left.wrapping_add(right) } & mask;
        prop_assert_eq!(effects.general, Some((1, result)));
        let signed = |value: u64| i128::from((value << (64 - bits)) as i64 >> (64 - bits));
        let whole = if subtract { signed(left) - right as i128 } else { signed(left) + right as i128 };
        // After a subtraction C says that nothing was borrowed.
        let carry = if subtract { left >= right } else { u128::from(left) + u128::from(right) > u128::from(mask) };
        let flags = [signed(result) < 0, result == 0, carry, signed(result) != whole];
        let expected = flags.into_iter().fold(0, |value, flag| value << 1 | u64::from(flag)) << 28;
        prop_assert_eq!(effects.pstate, expected);
    }
}
