//! Which AArch64 instructions change.

use crate::code_page::{CodePage, Function};
use icsan_guest_tests::code::aarch64::{NOP, RET, branch, breakpoint, call, movk_high, movz};
use std::arch::global_asm;
use std::io;

// A named function on a page of its own, for reports with a symbol.
global_asm!(
    ".pushsection .text.icsan_patch_target, \"ax\", @progbits",
    ".balign 4096",
    ".globl patch_target_movz",
    ".type patch_target_movz, @function",
    "patch_target_movz:",
    "nop",
    "movz w0, #0",
    "ret",
    ".size patch_target_movz, . - patch_target_movz",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    safe fn patch_target_movz(argument: u64) -> u64;
}

/// The named function whose operand is changed; it returns 0 in the program file.
pub fn text_target() -> Function {
    patch_target_movz
}

/// How far into it the instruction behind its NOP is.
pub const BEHIND_NOP: u64 = 4;

/// `mov x9, x30`, and back.
const KEEP_LINK: u32 = 0xAA1E_03E9;
const RESTORE_LINK: u32 = 0xAA09_03FE;

/// What stands there without the branch, the call or the breakpoint, or what comes of it.
const WITHOUT: u16 = 1;
const WITH: u16 = 2;

/// The number of our breakpoint, and what its handler makes the function return.
const NUMBER: u16 = 0x4943;
pub const AFTER_BREAKPOINT: u64 = WITH as u64;

/// What changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The operand of a MOVZ.
    Move,
    /// The same, in the program's own text.
    MoveText,
    /// The operands of a MOVZ and of the MOVK behind it, which begins a chunk: a store each.
    Pair,
    /// The same in one aligned quadword, for one store of both.
    Quadword,
    /// NOP, or B over what it falls into.
    Branch,
    /// NOP, or BL to what returns.
    Call,
    /// NOP, or BRK.
    Breakpoint,
}

impl Kind {
    /// One store of one instruction that may not be changed under a running CPU.
    pub const PLAIN: Self = Self::Move;
    /// One store that no other one is near to.
    pub const ALIGNED: Self = Self::Move;
    /// A patch of two chunks.
    pub const SPLIT: Self = Self::Pair;
    /// The same as [`Kind::PLAIN`], in the program's own text.
    pub const TEXT: Self = Self::MoveText;

    /// Where the changed bytes begin.
    pub const fn site(self) -> usize {
        match self {
            Self::Move | Self::Quadword | Self::Branch => 0,
            Self::MoveText | Self::Breakpoint => 4,
            Self::Call => 8,
            Self::Pair => 12,
        }
    }

    /// Where the function begins.
    pub const fn entry(self) -> usize {
        0
    }

    /// Memory for it.
    pub fn map(self) -> io::Result<CodePage> {
        match self {
            Self::MoveText => CodePage::of_text(text_target()),
            _ => CodePage::anonymous(1),
        }
    }

    /// Writes version 0 as a whole.
    pub fn lay_out(self, page: &CodePage) {
        let words: &[u32] = match self {
            Self::MoveText => &[],
            Self::Move => &[movz(0), RET],
            Self::Pair => &[NOP, NOP, NOP, movz(0), movk_high(0), RET],
            Self::Quadword => &[movz(0), movk_high(0), RET],
            Self::Branch => &[NOP, movz(WITHOUT), RET, movz(WITH), RET],
            Self::Call => &[KEEP_LINK, movz(WITHOUT), NOP, RESTORE_LINK, RET, movz(WITH), RET],
            Self::Breakpoint => &[movz(WITHOUT), NOP, RET],
        };
        for (index, word) in words.iter().enumerate() {
            page.store32(index * 4, *word);
        }
    }

    /// What version `n` returns.
    pub fn expected(self, n: u32) -> u64 {
        match self {
            Self::Move | Self::MoveText => (n as u16).into(),
            Self::Pair | Self::Quadword => u64::from(n as u16) * 0x1_0001,
            Self::Branch | Self::Call if n % 2 == 1 => WITH.into(),
            Self::Breakpoint if n % 2 == 1 => AFTER_BREAKPOINT,
            Self::Branch | Self::Call | Self::Breakpoint => WITHOUT.into(),
        }
    }

    /// The instruction of version `n` at the site.
    const fn word(self, n: u32) -> u32 {
        match self {
            Self::Move | Self::MoveText | Self::Pair | Self::Quadword => movz(n as u16),
            Self::Branch if n % 2 == 1 => branch(12),
            Self::Call if n % 2 == 1 => call(12),
            Self::Breakpoint if n % 2 == 1 => breakpoint(NUMBER),
            Self::Branch | Self::Call | Self::Breakpoint => NOP,
        }
    }

    /// The bytes of that instruction.
    pub fn bytes(self, n: u32) -> [u8; 4] {
        self.word(n).to_le_bytes()
    }

    /// Both instructions of version `n` at the site.
    pub const fn words(n: u32) -> [u32; 2] {
        [movz(n as u16), movk_high(n as u16)]
    }

    /// Changes version `n - 1` into version `n`.
    pub fn store(self, page: &CodePage, n: u32) {
        let [first, second] = Self::words(n);
        match self {
            Self::Quadword => page.store64(self.site(), u64::from(first) | u64::from(second) << 32),
            Self::Pair => {
                page.store32(self.site(), first);
                page.store32(self.site() + 4, second);
            }
            _ => page.store32(self.site(), self.word(n)),
        }
    }
}
