//! A guest of a few KiB for qemu-system-aarch64's `virt` board, which changes its own code, and does for each change
//! some of what Arm's manual asks for.
//!
//! Each round is the same: the function at a *site* is executed; its first word is changed; some steps follow; it is
//! executed again. What differs is in [`ROUNDS`]. It runs at EL1, with translation off and the data cache on
//! (SCTLR_EL1.C): only then a store has to be cleaned.

use std::path::Path;

/// Where it is loaded, and begins.
pub const ORIGIN: u64 = 0x4010_0000;
/// Where the sites are: each in a line of its own.
const SITES: u64 = ORIGIN + 0x1000;
const LINE: u64 = 64;

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

/// A round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// What the site holds first, and then.
    words: (u32, u32),
    /// What follows the store.
    pub steps: &'static [Step],
    /// What it is where caches need everything: the kind that is reported, if one is.
    pub base: Option<&'static str>,
    /// The same where they need no maintenance.
    pub coherent: Option<&'static str>,
    /// May the old word be executed beside the new one, by the manual's list?
    pub listed: bool,
}

const fn round(steps: &'static [Step], base: Option<&'static str>, coherent: Option<&'static str>) -> Round {
    Round { words: (ONE, TWO), steps, base, coherent, listed: false }
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
        steps: &[Clean, Barrier, Invalidate, Barrier],
        base: UNSYNCHRONIZED,
        coherent: UNSYNCHRONIZED,
        listed: true,
    },
];

impl Round {
    /// The site's address, of the round at this place in the table.
    pub const fn site(place: usize) -> u64 {
        SITES + place as u64 * LINE
    }
}

/// `movz x0, #low; movk x0, #high, lsl #16`, for any register and number of 32 bits.
fn set(register: u32, number: u32) -> [u32; 2] {
    let (low, high) = (number & 0xffff, number >> 16);
    [0xd280_0000 | low << 5 | register, 0xf2a0_0000 | high << 5 | register]
}

/// The words at ORIGIN: vectors come first, in 2 KiB of their own.
fn code() -> Vec<u32> {
    // Each of the sixteen vectors: eret.
    let mut words: Vec<u32> = [[0xd69f_03e0].as_slice(), &[NOP; 31]].concat().repeat(16);
    // x10 = ORIGIN; msr vbar_el1, x10; x3 = SCTLR_EL1 | C; isb.
    words.extend(set(10, ORIGIN as u32));
    words.extend([0xd518_c00a, 0xd538_1003, 0xb27e_0063, 0xd518_1003, 0xd503_3fdf]);
    let call = |words: &mut Vec<u32>, site: u64| {
        let here = ORIGIN + 4 * words.len() as u64;
        words.push(0x9400_0000 | ((site.wrapping_sub(here) >> 2) as u32 & 0x03ff_ffff));
    };
    for (place, round) in ROUNDS.iter().enumerate() {
        let site = Round::site(place);
        words.extend(set(2, site as u32));
        words.extend(set(4, (site + 32 * LINE) as u32));
        words.extend(set(1, round.words.1));
        call(&mut words, site);
        // str w1, [x2].
        words.push(0xb900_0041);
        words.extend(round.steps.iter().map(|step| step.word()));
        call(&mut words, site);
        // What follows is fetched anew.
        words.push(Sync.word());
    }
    // PSCI's SYSTEM_OFF; b .
    words.extend(set(0, 0x8400_0008));
    words.extend([0xd400_0002, 0x1400_0000]);
    words
}

/// Where execution begins.
pub const START: u64 = ORIGIN + 0x800;

/// Writes the image.
pub fn write_image(path: &Path) {
    let mut words = code();
    let sites = ((SITES - ORIGIN) / 4) as usize;
    assert!(words.len() <= sites, "{} words of rounds", words.len());
    words.resize(sites, 0);
    for round in ROUNDS {
        words.extend([round.words.0, RET]);
        words.resize(words.len().next_multiple_of((LINE / 4) as usize), 0);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}
