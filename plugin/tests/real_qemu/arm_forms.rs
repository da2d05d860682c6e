//! A guest of a few KiB for qemu-system-aarch64's `virt` board, which executes each of many instructions twice with the
//! same registers: once as it stands in memory, and once as the older one of its place, which memory does not hold any
//! more. With `inject=stale` both are to do the same: QEMU carries out the first, and ICSAN the second.
//!
//! The instruction lies at [`SITE`]; behind it are two ways out, and an exception is the third. What all registers hold
//! then is noted, and written to the serial port when all is done. The older instruction is in the buffers since its
//! neighbour was executed, so that one which raises an exception can be tried, too: the exception would empty them.

/// Where the image is loaded.
pub const ORIGIN: u64 = 0x4010_0000;
/// Where execution begins.
pub const START: u64 = ORIGIN + 0x800;
/// Where the instruction lies. The next one leads to the first way out, the one behind to the second.
pub const SITE: u64 = ORIGIN + 0x1000;
/// Two numbers that LDR (literal) can load.
const LITERALS: [u64; 2] = [0x8877_6655_4433_2211, 0xfedc_ba98_7654_3210];
/// What the guest knows of where it is.
const STATE: u64 = ORIGIN + 0x1e00;
const CASES: u64 = ORIGIN + 0x2000;
const RESULTS: u64 = ORIGIN + 0x10_0000;

/// Where every exception leads.
const ENTRY: u64 = ORIGIN + 0x960;
/// The two ways out.
const STRAIGHT: u64 = ORIGIN + 0x940;
const BRANCHED: u64 = ORIGIN + 0x950;
const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;

/// What is noted of each execution: X0 to X30, SP, NZCV, the way out, ELR_EL1, ESR_EL1.
pub const NOTED: usize = 36;

/// The code from [`START`] on. In X1 of the second execution of `case` is the word that takes the instruction's place:
/// `brk #0xdead`.
#[rustfmt::skip]
const CODE: &[u32] = &[
    0xd283_c009, // mov x9, #0x1e00
    0xf2a8_0209, // movk x9, #0x4010, lsl #16
    0xd280_000a, // mov x10, #0x0
    0xf2a8_020a, // movk x10, #0x4010, lsl #16
    0xd518_c00a, // msr vbar_el1, x10
    0xd503_3fdf, // isb
    // case:
    0xf940_0128, // ldr x8, [x9]
    0xb940_0101, // ldr w1, [x8]
    0xd282_0002, // mov x2, #0x1000
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xb900_0041, // str w1, [x2]
    0xd503_3f9f, // dsb sy
    0xd503_3fdf, // isb
    0x9400_0028, // bl run
    0xd503_3fdf, // isb
    0x9400_01f4, // bl site+0xc
    0xd29a_b401, // mov x1, #0xd5a0
    0xf2ba_8761, // movk x1, #0xd43b, lsl #16
    0xd282_0002, // mov x2, #0x1000
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xb900_0041, // str w1, [x2]
    0x9400_0020, // bl run
    0xd503_3fdf, // isb
    0xf940_0128, // ldr x8, [x9]
    0x9104_4108, // add x8, x8, #0x110
    0xf900_0128, // str x8, [x9]
    0xf940_0528, // ldr x8, [x9, #8]
    0xf100_0508, // subs x8, x8, #0x1
    0xf900_0528, // str x8, [x9, #8]
    0x54ff_fd21, // b.ne case
    0xf940_0922, // ldr x2, [x9, #16]
    0xf940_0d21, // ldr x1, [x9, #24]
    0xd280_0003, // mov x3, #0x0
    0xf2a1_2003, // movk x3, #0x900, lsl #16
    // number:
    0xf840_8424, // ldr x4, [x1], #8
    0xd280_0805, // mov x5, #0x40
    // digit:
    0xd100_10a5, // sub x5, x5, #0x4
    0x9ac5_2486, // lsr x6, x4, x5
    0x9240_0cc6, // and x6, x6, #0xf
    0xf100_28df, // cmp x6, #0xa
    0x9100_c0c7, // add x7, x6, #0x30
    0x9101_5cc6, // add x6, x6, #0x57
    0x9a86_30e6, // csel x6, x7, x6, cc
    0x3900_0066, // strb w6, [x3]
    0xb5ff_ff05, // cbnz x5, digit
    0x5280_0146, // mov w6, #0xa
    0x3900_0066, // strb w6, [x3]
    0xeb02_003f, // cmp x1, x2
    0x54ff_fe41, // b.ne number
    0xd280_0100, // mov x0, #0x8
    0xf2b0_8000, // movk x0, #0x8400, lsl #16
    0xd400_0002, // hvc #0x0
    0x1400_0000, // b digit+0x40
    // run:
    0xf900_113e, // str x30, [x9, #32]
    0xd518_403f, // msr elr_el1, xzr
    0xd518_521f, // msr esr_el1, xzr
    0xf940_0120, // ldr x0, [x9]
    0x9100_2000, // add x0, x0, #0x8
    0xf940_7c01, // ldr x1, [x0, #248]
    0x9100_003f, // mov sp, x1
    0xf940_8001, // ldr x1, [x0, #256]
    0xd51b_4201, // msr nzcv, x1
    0xa941_0c02, // ldp x2, x3, [x0, #16]
    0xa942_1404, // ldp x4, x5, [x0, #32]
    0xa943_1c06, // ldp x6, x7, [x0, #48]
    0xa944_2408, // ldp x8, x9, [x0, #64]
    0xa945_2c0a, // ldp x10, x11, [x0, #80]
    0xa946_340c, // ldp x12, x13, [x0, #96]
    0xa947_3c0e, // ldp x14, x15, [x0, #112]
    0xa948_4410, // ldp x16, x17, [x0, #128]
    0xa949_4c12, // ldp x18, x19, [x0, #144]
    0xa94a_5414, // ldp x20, x21, [x0, #160]
    0xa94b_5c16, // ldp x22, x23, [x0, #176]
    0xa94c_6418, // ldp x24, x25, [x0, #192]
    0xa94d_6c1a, // ldp x26, x27, [x0, #208]
    0xa94e_741c, // ldp x28, x29, [x0, #224]
    0xf940_781e, // ldr x30, [x0, #240]
    0xf940_0401, // ldr x1, [x0, #8]
    0xf940_0000, // ldr x0, [x0]
    0x1400_01b1, // b site
    // straight:
    0xd518_d080, // msr tpidr_el1, x0
    0xd51b_d041, // msr tpidr_el0, x1
    0xd280_0001, // mov x1, #0x0
    0x1400_0008, // b capture
    // branched:
    0xd518_d080, // msr tpidr_el1, x0
    0xd51b_d041, // msr tpidr_el0, x1
    0xd280_0021, // mov x1, #0x1
    0x1400_0004, // b capture
    // entry:
    0xd518_d080, // msr tpidr_el1, x0
    0xd51b_d041, // msr tpidr_el0, x1
    0xd280_0041, // mov x1, #0x2
    // capture:
    0xd283_c000, // mov x0, #0x1e00
    0xf2a8_0200, // movk x0, #0x4010, lsl #16
    0xf940_0800, // ldr x0, [x0, #16]
    0xf900_8401, // str x1, [x0, #264]
    0xd53b_4201, // mrs x1, nzcv
    0xf900_8001, // str x1, [x0, #256]
    0xd538_d081, // mrs x1, tpidr_el1
    0xf900_0001, // str x1, [x0]
    0xd53b_d041, // mrs x1, tpidr_el0
    0xf900_0401, // str x1, [x0, #8]
    0xa901_0c02, // stp x2, x3, [x0, #16]
    0xa902_1404, // stp x4, x5, [x0, #32]
    0xa903_1c06, // stp x6, x7, [x0, #48]
    0xa904_2408, // stp x8, x9, [x0, #64]
    0xa905_2c0a, // stp x10, x11, [x0, #80]
    0xa906_340c, // stp x12, x13, [x0, #96]
    0xa907_3c0e, // stp x14, x15, [x0, #112]
    0xa908_4410, // stp x16, x17, [x0, #128]
    0xa909_4c12, // stp x18, x19, [x0, #144]
    0xa90a_5414, // stp x20, x21, [x0, #160]
    0xa90b_5c16, // stp x22, x23, [x0, #176]
    0xa90c_6418, // stp x24, x25, [x0, #192]
    0xa90d_6c1a, // stp x26, x27, [x0, #208]
    0xa90e_741c, // stp x28, x29, [x0, #224]
    0xf900_781e, // str x30, [x0, #240]
    0x9100_03e1, // mov x1, sp
    0xf900_7c01, // str x1, [x0, #248]
    0xd538_4021, // mrs x1, elr_el1
    0xf900_8801, // str x1, [x0, #272]
    0xd538_5201, // mrs x1, esr_el1
    0xf900_8c01, // str x1, [x0, #280]
    0x9104_8000, // add x0, x0, #0x120
    0xd283_c009, // mov x9, #0x1e00
    0xf2a8_0209, // movk x9, #0x4010, lsl #16
    0xf900_0920, // str x0, [x9, #16]
    0xf940_113e, // ldr x30, [x9, #32]
    0xd65f_03c0, // ret
];

/// One instruction, and the registers that it finds.
#[derive(Clone, Debug)]
pub struct Case {
    /// The instruction.
    pub word: u32,
    /// X0 to X30, SP, NZCV.
    pub registers: [u64; 33],
}

/// `b` from one address to another.
fn branch(from: u64, to: u64) -> u32 {
    0x1400_0000 | ((to.wrapping_sub(from) >> 2) as u32 & 0x03ff_ffff)
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Every form that is carried out.
fn words() -> Vec<u32> {
    // nop, bti c, prfm (literal); b .+8, b .+4, bl .+8, bl .+4; ret x5.
    let mut words = vec![NOP, 0xd503_245f, 0xd800_0080];
    words.extend([0x1400_0002, 0x1400_0001, 0x9400_0002, 0x9400_0001, 0xd65f_00a0]);
    // b.cond .+8.
    words.extend((0..16).map(|condition| 0x5400_0040 | condition));
    for size in [0, 1 << 31] {
        // cbz, cbnz of a register that is 0 in its lower half, of one that is not, of none.
        words.extend([0x3400_0046, 0x3500_0046, 0x3400_0047, 0x3500_0047, 0x3400_005f].map(|word| word | size));
        // tbz, tbnz of bit 3, or 35.
        words.extend([0x3618_0048, 0x3718_0048].map(|word| word | size));
        // movn, movz, movk with each shift; to XZR.
        for shift in (0..if size == 0 { 2 } else { 4 }).map(|shift| shift << 21) {
            words.extend([0x1280_0000, 0x5280_0000, 0x7280_0000].map(|word| word | size | shift | 0xa5c3 << 5 | 9));
        }
        words.push(0x7280_001f | 0x4943 << 5 | size);
        // add, adds, sub, subs: of a register, of SP, to SP or XZR, with the constant shifted; mov to and from SP.
        for opcode in [0x1100_0000, 0x3100_0000, 0x5100_0000, 0x7100_0000].map(|opcode| opcode | size) {
            for (to, from) in [(1, 2), (2, 2), (3, 31), (31, 4), (31, 31)] {
                words.extend(
                    [1 << 10, 0xfff << 10, 1 << 22 | 0x800 << 10, 0].map(|rest| opcode | rest | from << 5 | to),
                );
            }
        }
        // mov of a register, and of none.
        words.extend([0x2a05_03e1, 0x2a1f_03e1, 0x2a05_03ff].map(|word| word | size));
    }
    // adr, adrp, forwards and backwards.
    words.extend([0x3000_0021, 0x70ff_ffe1, 0xb000_0021, 0x90ff_ffe1]);
    // ldr w, ldr x, ldrsw of both literals, and to XZR.
    for literal in [4, 6] {
        words.extend([0x1800_0000, 0x5800_0000, 0x9800_0000].map(|word| word | literal << 5 | 11));
    }
    words.push(0x5800_009f);
    // brk, udf.
    words.extend([0xd420_0000, 0xd421_0000, 0xd43f_ffe0, 0, 0xffff]);
    words
}

/// All cases: each form with several sets of registers.
pub fn cases() -> Vec<Case> {
    const SETS: u64 = 4;
    let mut state = 1;
    let mut cases = Vec::new();
    for word in words() {
        for set in 0..SETS {
            let mut registers = [0; 33].map(|_: u64| random(&mut state));
            // Numbers at which flags change.
            if let Some(edge) = [None, Some(0), Some(1 << 31), Some(u64::MAX)][set as usize] {
                (registers[2], registers[4], registers[31]) = (edge, edge, edge);
            }
            registers[5] = SITE + 8;
            registers[6] &= !0xffff_ffff;
            registers[32] &= 0xf << 28;
            cases.push(Case { word, registers });
        }
    }
    cases
}

/// What memory holds from [`ORIGIN`] on.
pub fn image(cases: &[Case]) -> Vec<u32> {
    let mut words = Vec::new();
    for vector in 0..16 {
        let at = ORIGIN + vector * 0x80;
        words.push(branch(at, ENTRY));
        words.extend([NOP; 31]);
    }
    words.extend(CODE);
    let pad = |words: &mut Vec<u32>, to: u64| {
        assert!(words.len() as u64 * 4 <= to - ORIGIN, "what lies before {to:#x} is too long");
        words.resize((to - ORIGIN) as usize / 4, 0);
    };
    let number = |words: &mut Vec<u32>, number: u64| words.extend([number as u32, (number >> 32) as u32]);
    pad(&mut words, SITE);
    words.extend([NOP, branch(SITE + 4, STRAIGHT), branch(SITE + 8, BRANCHED), RET]);
    LITERALS.into_iter().for_each(|literal| number(&mut words, literal));
    pad(&mut words, STATE);
    [CASES, cases.len() as u64, RESULTS, RESULTS].into_iter().for_each(|value| number(&mut words, value));
    pad(&mut words, CASES);
    for case in cases {
        number(&mut words, case.word.into());
        case.registers.iter().for_each(|value| number(&mut words, *value));
    }
    pad(&mut words, RESULTS);
    words
}
