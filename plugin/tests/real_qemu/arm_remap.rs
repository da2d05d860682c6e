//! Addresses of code that are mapped to other pages, by one processor for all: TLBI, and DSB.
//!
//! What the other processor fetched before stays until it synchronizes, and its stores through such an address are
//! stores to where that leads now.

use crate::arm_translation::{IDENTITY, PAGE, TABLE, turn_on, words as entries};
use crate::lab::{Lab, Qemu};
use crate::machine::{Guest, Machine, SOON};

/// Where the guest is loaded, and where its first processor begins.
const ORIGIN: u64 = 0x4010_0000;
/// Where the second processor begins.
const SECOND: usize = 0x800;
/// Tables of the first, second and third level, pages A and B, and one with data. The flags are behind them.
const TABLES: usize = 0x1000;
const PAGE_A: usize = 0x4000;
const PAGE_B: usize = 0x5000;
const DATA: usize = 0x6000;
/// Two pages that are mapped: first to A and to the data, and then to B both.
const CODE_PAGE: u64 = 0x8000_0000;

const NOP: u32 = 0xd503_201f;
const ISB: u32 = 0xd503_3fdf;
const RET: u32 = 0xd65f_03c0;

/// The flags of the first and the second processor in X10 and X11, and the two remapped pages in X12 and X13.
#[rustfmt::skip]
const ADDRESSES: &[u32] = &[
    0xd28e_000a, // mov x10, #0x7000
    0xf2a8_020a, // movk x10, #0x4010, lsl #16
    0x9101_014b, // add x11, x10, #0x40
    0xd2b0_000c, // mov x12, #0x80000000
    0x9140_058d, // add x13, x12, #0x1, lsl #12
];

/// The first processor executes something in page B, starts the second one, waits for it, maps both pages to B, and
/// waits again.
#[rustfmt::skip]
const FIRST: &[u32] = &[
    0xd28a_2000, // mov x0, #0x5100
    0xf2a8_0200, // movk x0, #0x4010, lsl #16
    0xd63f_0000, // blr x0
    0xd280_0060, // mov x0, #0x3
    0xf2b8_8000, // movk x0, #0xc400, lsl #16
    0xd280_0021, // mov x1, #0x1
    0xd281_0002, // mov x2, #0x800
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xd400_0002, // hvc #0x0
    0x88df_fd60, // ldar w0, [x11]
    0x34ff_ffe0, // cbz w0, .-4
    0xd286_0002, // mov x2, #0x3000
    0xf2a8_0202, // movk x2, #0x4010, lsl #16
    0xd28a_e060, // mov x0, #0x5703
    0xf2a8_0200, // movk x0, #0x4010, lsl #16
    0xa900_0040, // stp x0, x0, [x2]
    0xd503_3b9f, // dsb ish
    0xd508_831f, // tlbi vmalle1is
    0xd503_3b9f, // dsb ish
    0xd503_3fdf, // isb
    0x5280_0020, // mov w0, #0x1
    0x889f_fd40, // stlr w0, [x10]
    0x88df_fd60, // ldar w0, [x11]
    0x7100_081f, // cmp w0, #0x2
    0x54ff_ffc1, // b.ne .-8
    0xd280_0100, // mov x0, #0x8
    0xf2b0_8000, // movk x0, #0x8400, lsl #16
    0xd400_0002, // hvc #0x0
    0x1400_0000, // b .
];

/// The second processor executes page A, stores to a page with data, says so, and waits.
#[rustfmt::skip]
const BEFORE: &[u32] = &[
    0xd63f_0180, // blr x12
    0xb900_01a0, // str w0, [x13]
    0x5280_0020, // mov w0, #0x1
    0x889f_fd60, // stlr w0, [x11]
    0x88df_fd40, // ldar w0, [x10]
    0x34ff_ffe0, // cbz w0, .-4
];

/// It executes the first page, which is B now, and stores `mov w0, #3` through the second one, which is B as well.
#[rustfmt::skip]
const BETWEEN: &[u32] = &[
    0xd63f_0180, // blr x12
    0x5280_0c00, // mov w0, #0x60
    0x72aa_5000, // movk w0, #0x5280, lsl #16
    0xb900_01a0, // str w0, [x13]
];

/// All that such a store asks for.
#[rustfmt::skip]
const MAINTENANCE: &[u32] = &[
    0xd50b_7b2d, // dc cvau, x13
    0xd503_3b9f, // dsb ish
    0xd50b_752d, // ic ivau, x13
    0xd503_3b9f, // dsb ish
    0xd503_3fdf, // isb
];

/// It executes that, and says so.
#[rustfmt::skip]
const AFTER: &[u32] = &[
    0xd63f_0180, // blr x12
    0x5280_0040, // mov w0, #0x2
    0x889f_fd60, // stlr w0, [x11]
    0x1400_0000, // b .
];

/// What the second processor does of what it should.
#[derive(Clone, Copy, Debug)]
struct Does {
    /// ISB, after the first one has mapped the pages anew.
    synchronizes: bool,
    /// What its own store asks for.
    maintains: bool,
}

fn image(does: Does) -> Vec<u32> {
    let if_done = |done: bool, words: &[u32]| if done { words.to_vec() } else { vec![NOP; words.len()] };
    let translation = turn_on(ORIGIN + TABLES as u64);
    let mut words = [translation.as_slice(), ADDRESSES, FIRST].concat();
    let until = |words: &mut Vec<u32>, to: usize| {
        assert!(words.len() <= to / 4, "{} words before {to:#x}", words.len());
        words.resize(to / 4, 0);
    };
    until(&mut words, SECOND);
    words.extend([translation.as_slice(), ADDRESSES, BEFORE].concat());
    words.extend(if_done(does.synchronizes, &[ISB]));
    words.extend(BETWEEN);
    words.extend(if_done(does.maintains, MAINTENANCE));
    words.extend(AFTER);
    until(&mut words, TABLES);
    let at = |place: usize| ORIGIN + place as u64;
    let tables: [&[u64]; 3] = [
        &[IDENTITY[0], IDENTITY[1], at(TABLES + 0x1000) | TABLE],
        &[at(TABLES + 0x2000) | TABLE],
        &[at(PAGE_A) | PAGE, at(DATA) | PAGE],
    ];
    for (level, table) in (1..).zip(tables) {
        words.extend(entries(table));
        until(&mut words, TABLES + level * 0x1000);
    }
    // A: mov w0, #1. B: mov w0, #2, and something else.
    words.extend([0x5280_0020, RET]);
    until(&mut words, PAGE_B);
    words.extend([0x5280_0040, RET]);
    until(&mut words, PAGE_B + 0x100);
    words.push(RET);
    words
}

fn boot(lab: &Lab, qemu: &Qemu, cpu: &str, keys: &str, does: Does) -> Guest {
    let machine = Machine::virt(lab, qemu, cpu).arguments(&["-smp", "2"]).report().keys(keys);
    let mut guest = machine.words(&image(does), ORIGIN, ORIGIN).launch();
    assert_eq!(guest.exit_code(SOON), 0, "QEMU {}, {cpu}, {does:?}\n{}", qemu.version, guest.outputs());
    guest
}

/// The remapped page is reported where the second processor does not synchronize; and so is its own store to it, with
/// that store as what wrote it.
#[test]
fn what_was_mapped_elsewhere_stays_until_the_processor_synchronizes() {
    let lab = Lab::open();
    for qemu in &lab.arm {
        for (cpu, stored) in [("cortex-a72", "unclean"), ("max,pauth-impdef=on", "unsynchronized")] {
            for keys in ["", "hooks=off", "hooks=off,emulator=repair"] {
                for (synchronizes, maintains) in [(false, false), (false, true), (true, false), (true, true)] {
                    let does = Does { synchronizes, maintains };
                    let guest = boot(&lab, qemu, cpu, keys, does);
                    let context = format!("QEMU {}, {cpu}, `{keys}`, {does:?}\n{}", qemu.version, guest.outputs());
                    let report = guest.report();
                    assert_eq!(report.summary()["complete"], true, "{context}");
                    assert!(report.sites().iter().all(|pc| *pc == format!("{CODE_PAGE:#x}")), "{context}");
                    assert!(report.hazards.iter().all(|hazard| hazard["vcpu"] == 1), "{context}");
                    let is_own = |hazard: &&serde_json::Value| !hazard["writes"].as_array().unwrap().is_empty();
                    let (own, moved): (Vec<_>, Vec<_>) = report.hazards.iter().partition(is_own);
                    let kinds = |hazards: &[&serde_json::Value]| -> Vec<String> {
                        hazards.iter().map(|hazard| hazard["kind"].as_str().unwrap().to_owned()).collect()
                    };
                    let if_not = |done: bool, kind: &'static str| Vec::from_iter((!done).then_some(kind));
                    assert_eq!(kinds(&moved), if_not(synchronizes, "unsynchronized"), "{context}");
                    assert_eq!(kinds(&own), if_not(maintains, stored), "{context}");
                    let before = turn_on(0).len() + ADDRESSES.len() + BEFORE.len() + 1 + BETWEEN.len();
                    let store = format!("{:#x}", ORIGIN + SECOND as u64 + 4 * (before as u64 - 1));
                    for write in own.iter().flat_map(|hazard| hazard["writes"].as_array().unwrap()) {
                        assert_eq!((&write["vcpu"], &write["pc"]), (&1.into(), &store.as_str().into()), "{context}");
                    }
                }
            }
        }
    }
}
