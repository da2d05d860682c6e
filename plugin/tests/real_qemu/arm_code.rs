//! A guest of a few KiB for qemu-system-aarch64's `virt` board, which changes its own code, and does for each change
//! some of what Arm's manual asks for.
//!
//! Each round is the same: the function at a *site* is executed; its first word is changed; some steps follow; it is
//! executed again. What differs is in [`ROUNDS`]. It runs at EL1, with translation off and the data cache on
//! (SCTLR_EL1.C): only then a store has to be cleaned.
//!
//! A site may also be overwritten by instructions that QEMU tells of by no access ([`Means`]).

use crate::arm_translation::{IDENTITY, turn_on, words as entries};
use std::ops::Range;
use std::path::Path;

/// Where it is loaded, and begins.
pub const ORIGIN: u64 = 0x4010_0000;
/// Where the sites are: each in a page of its own.
const SITES: u64 = ORIGIN + 0x1_0000;
const PAGE: u64 = 0x1000;
const LINE: u64 = 64;
/// Where a line lies that is copied over sites: [`TWO`], RET and NOPs.
const COPIED: u64 = ORIGIN + 0x2000;
/// The table of the first level, if addresses are translated.
const FIRST_TABLE: u64 = ORIGIN + 0x3000;

/// `movz w0, #1`, `movz w0, #2`, `nop`, `b .+4`, `ret`.
const ONE: u32 = 0x5280_0020;
const TWO: u32 = 0x5280_0040;
const NOP: u32 = 0xd503_201f;
const NEXT: u32 = 0x1400_0001;
const RET: u32 = 0xd65f_03c0;

/// A step after the store, with the site's address in X2, and that of another line in X4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// DC CVAU.
    Clean,
    /// The same of another line.
    CleanElsewhere,
    /// IC IVAU.
    Invalidate,
    /// IC IALLU.
    InvalidateOwn,
    /// DSB ISH.
    Barrier,
    /// DSB NSH.
    OwnBarrier,
    /// DSB ISHST.
    StoreBarrier,
    /// ISB.
    Sync,
    /// An SVC, whose handler returns at once.
    Exception,
}

impl Step {
    fn word(self) -> u32 {
        match self {
            Self::Clean => 0xd50b_7b22,
            Self::CleanElsewhere => 0xd50b_7b24,
            Self::Invalidate => 0xd50b_7522,
            Self::InvalidateOwn => 0xd508_751f,
            Self::Barrier => 0xd503_3b9f,
            Self::OwnBarrier => 0xd503_379f,
            Self::StoreBarrier => 0xd503_3a9f,
            Self::Sync => 0xd503_3fdf,
            Self::Exception => 0xd400_0001,
        }
    }
}

use Step::{Barrier, Clean, CleanElsewhere, Exception, Invalidate, InvalidateOwn, OwnBarrier, StoreBarrier, Sync};

/// What changes a site, whose address is in X2; the new word is in X1. All but STR come after that: then QEMU has no
/// translation in the site's page any more, and writes past everything that tells of stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    /// STR of the word.
    Store,
    /// DC ZVA, which makes the whole line 0: an undefined instruction, which the handler returns from as RET would.
    ZeroBlock,
    /// DC GZVA, the same with tags.
    ZeroTaggedBlock,
    /// STZG: the same of 16 bytes.
    ZeroGranule,
    /// CPYFP, CPYFM, CPYFE: a whole line of [`COPIED`].
    Copy,
    /// SETP, SETM, SETE: a whole line of 0.
    Set,
}

impl Means {
    fn words(self) -> Vec<u32> {
        match self {
            // str w1, [x2].
            Self::Store => vec![0xb900_0041],
            // dc zva, x2; dc gzva, x2; stzg x2, [x2].
            Self::ZeroBlock => vec![0xd50b_7422],
            Self::ZeroTaggedBlock => vec![0xd50b_7482],
            Self::ZeroGranule => vec![0xd960_0842],
            // x12 = x2; x13 = COPIED; x14 = 64; cpyfp, cpyfm, cpyfe [x12]!, [x13]!, x14!.
            Self::Copy => [
                [0xaa02_03ec].as_slice(),
                &set(13, COPIED as u32),
                &set(14, LINE as u32),
                &[0x190d_05cc, 0x194d_05cc, 0x198d_05cc],
            ]
            .concat(),
            // x12 = x2; x14 = 64; setp, setm, sete [x12]!, x14!, xzr.
            Self::Set => {
                [[0xaa02_03ec].as_slice(), &set(14, LINE as u32), &[0x19df_05cc, 0x19df_45cc, 0x19df_85cc]].concat()
            }
        }
    }
}

/// A round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// What the site holds first, and then.
    pub words: (u32, u32),
    /// What changes it.
    pub means: Means,
    /// What follows the store.
    pub steps: &'static [Step],
    /// What it is where caches need everything: the kind that is reported, if one is.
    pub base: Option<&'static str>,
    /// The same where they need no maintenance.
    pub coherent: Option<&'static str>,
    /// May the old word be executed beside the new one, by the manual's list?
    pub listed: bool,
}

/// One whose store is of the usual kind.
const fn round(steps: &'static [Step], base: Option<&'static str>, coherent: Option<&'static str>) -> Round {
    Round { words: (ONE, TWO), means: Means::Store, steps, base, coherent, listed: false }
}

const UNSYNCHRONIZED: Option<&str> = Some("unsynchronized");

/// The rounds, in the order of execution.
pub const ROUNDS: &[Round] = &[
    round(&[Clean, Barrier, Invalidate, Barrier, Sync], None, None),
    round(&[Clean, Barrier, Invalidate, Barrier, Exception], None, None),
    round(&[Barrier, Invalidate, Barrier, Sync], Some("unclean"), None),
    round(&[CleanElsewhere, Barrier, Invalidate, Barrier, Sync], Some("unclean"), None),
    round(&[Clean, Invalidate, Barrier, Sync], Some("incomplete"), None),
    round(&[Clean, StoreBarrier, Invalidate, Barrier, Sync], Some("incomplete"), None),
    round(&[Clean, OwnBarrier, Invalidate, Barrier, Sync], Some("incomplete"), None),
    round(&[Clean, Barrier, Sync], Some("uninvalidated"), None),
    round(&[Clean, Barrier, Invalidate, Sync], Some("incomplete"), None),
    round(&[Clean, Barrier, Invalidate, OwnBarrier, Sync], None, None),
    round(&[Clean, Barrier, InvalidateOwn, Barrier, Sync], None, None),
    round(&[Clean, Barrier, Invalidate, Barrier], UNSYNCHRONIZED, UNSYNCHRONIZED),
    round(&[Sync], Some("unclean"), None),
    Round {
        words: (NOP, NEXT),
        means: Means::Store,
        steps: &[Clean, Barrier, Invalidate, Barrier],
        base: UNSYNCHRONIZED,
        coherent: UNSYNCHRONIZED,
        listed: true,
    },
];

impl Round {
    /// The site's address, of the round at this place in the table.
    pub const fn site(place: usize) -> u64 {
        SITES + place as u64 * PAGE
    }
}

/// `movz x0, #low; movk x0, #high, lsl #16`, for any register and number of 32 bits.
fn set(register: u32, number: u32) -> [u32; 2] {
    let (low, high) = (number & 0xffff, number >> 16);
    [0xd280_0000 | low << 5 | register, 0xf2a0_0000 | high << 5 | register]
}

/// The words at ORIGIN, and where each round's store is: vectors come first, in 2 KiB of their own.
fn code(rounds: &[Round], translated: bool) -> (Vec<u32>, Vec<Range<u64>>) {
    // Each of the sixteen vectors: mrs x10, esr_el1; lsr x10, x10, #26; cbnz x10, .+8; msr elr_el1, x30; eret. What is
    // undefined (exception class 0) returns to its caller.
    let vector = [0xd538_520a, 0xd35a_fd4a, 0xb500_004a, 0xd518_403e, 0xd69f_03e0];
    let mut words: Vec<u32> = [vector.as_slice(), &[NOP; 27]].concat().repeat(16);
    let mut stores = Vec::new();
    // x10 = ORIGIN; msr vbar_el1, x10; x3 = SCTLR_EL1 | C; isb.
    words.extend(set(10, ORIGIN as u32));
    words.extend([0xd518_c00a, 0xd538_1003, 0xb27e_0063, 0xd518_1003, 0xd503_3fdf]);
    if translated {
        words.extend(turn_on(FIRST_TABLE));
    }
    let call = |words: &mut Vec<u32>, site: u64| {
        let here = ORIGIN + 4 * words.len() as u64;
        words.push(0x9400_0000 | ((site.wrapping_sub(here) >> 2) as u32 & 0x03ff_ffff));
    };
    for (place, round) in rounds.iter().enumerate() {
        let site = Round::site(place);
        words.extend(set(2, site as u32));
        words.extend(set(4, (site + 32 * LINE) as u32));
        words.extend(set(1, round.words.1));
        call(&mut words, site);
        let from = ORIGIN + 4 * words.len() as u64;
        if round.means != Means::Store {
            words.extend(Means::Store.words());
        }
        words.extend(round.means.words());
        stores.push(from..ORIGIN + 4 * words.len() as u64);
        words.extend(round.steps.iter().map(|step| step.word()));
        call(&mut words, site);
        // What follows is fetched anew.
        words.push(Sync.word());
    }
    // PSCI's SYSTEM_OFF; b .
    words.extend(set(0, 0x8400_0008));
    words.extend([0xd400_0002, 0x1400_0000]);
    (words, stores)
}

/// Where execution begins.
pub const START: u64 = ORIGIN + 0x800;

/// Writes the image, and answers where each round's store is.
///
/// `translated`: its addresses are translated, to themselves, and its memory is cacheable.
pub fn write_image(path: &Path, rounds: &[Round], translated: bool) -> Vec<Range<u64>> {
    let (mut words, stores) = code(rounds, translated);
    let until = |words: &mut Vec<u32>, place: u64| {
        let length = ((place - ORIGIN) / 4) as usize;
        assert!(words.len() <= length, "{} words before {place:#x}", words.len());
        words.resize(length, 0);
    };
    until(&mut words, COPIED);
    words.extend([TWO, RET]);
    words.extend([NOP; (LINE / 4 - 2) as usize]);
    until(&mut words, FIRST_TABLE);
    words.extend(entries(&IDENTITY));
    for (place, round) in rounds.iter().enumerate() {
        until(&mut words, Round::site(place));
        words.extend([round.words.0, RET]);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
    stores
}
