//! Which bytes of which x86 instruction change, by which stores.

use crate::code_page::{CodePage, Function, PAGE};
use icsan_guest_tests::code::return_value;
use icsan_guest_tests::code::x86::{NOP, RET};
use std::arch::global_asm;
use std::io;

// A named function on pages of its own, for reports with a symbol: mov eax, imm32 (the immediate is aligned), ret.
global_asm!(
    ".pushsection .text.icsan_patch_target, \"ax\", @progbits",
    ".balign 4096",
    ".globl patch_target_imm32",
    ".type patch_target_imm32, @function",
    "patch_target_imm32:",
    ".byte 0x0F, 0x1F, 0x00",
    ".byte 0xB8, 0, 0, 0, 0",
    "ret",
    ".size patch_target_imm32, . - patch_target_imm32",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    safe fn patch_target_imm32(argument: u64) -> u64;
}

/// The named function whose immediate is changed; it returns 0 in the program file.
pub fn text_target() -> Function {
    patch_target_imm32
}

/// How far into it the instruction behind its NOP is.
pub const BEHIND_NOP: u64 = 3;

/// NOP5 and the JMP that replaces it differ in their first and fourth byte only, so each mix of them is an instruction
/// too, and has a place to go.
pub const NOP5: [u8; 5] = [0x0F, 0x1F, 0x44, 0x00, 0x00];
/// Its displacement is [`JMP_DISTANCE`].
pub const JMP5: [u8; 5] = [0xE9, 0x1F, 0x44, 0x01, 0x00];
const JMP_DISTANCE: usize = 0x1441F;
/// Where the JMP goes with the NOP's tail.
const TORN_DISTANCE: usize = 0x441F;
/// Room for the code and both places.
pub const JMP_PAGES: usize = 24;

/// What the NOP falls into returns this.
pub const FELL_THROUGH: u64 = 1;
/// What the JMP jumps to returns this.
pub const JUMPED: u64 = 2;
/// What a JMP with the NOP's tail jumps to returns this.
pub const TORN: u64 = 99;

/// Puts a NOP5 at `site`, what it falls into after it, and the places where the JMP goes.
pub fn lay_out_jump(page: &CodePage, site: usize) {
    page.store_bytes(site, &NOP5);
    page.store_bytes(site + 5, &return_value(FELL_THROUGH as u32));
    page.store_bytes(site + 5 + JMP_DISTANCE, &return_value(JUMPED as u32));
    page.store_bytes(site + 5 + TORN_DISTANCE, &return_value(TORN as u32));
}

/// The places behind `site` that a NOP and a JMP lead to.
pub const fn jump_target(site: usize, version: u32) -> usize {
    if version % 2 == 1 { site + 5 + JMP_DISTANCE } else { site + 5 }
}

/// What changes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One byte.
    Imm8,
    /// Four bytes inside one aligned quadword, one store.
    Imm32,
    /// Four bytes inside one chunk that straddle two quadwords, one store.
    Imm32TwoQuadwords,
    /// Four bytes that straddle two chunks, one store.
    Imm32Split,
    /// The same, two stores: one for each chunk.
    Imm32Halves,
    /// Four bytes that straddle two cache lines, two stores.
    Imm32Line,
    /// Four bytes that straddle two pages, two stores.
    Imm32Page,
    /// Four bytes that straddle two pages, one store.
    Imm32PageOnce,
    /// Four bytes that begin a page, of an instruction whose first byte ends the page before it; one store.
    Imm32Tail,
    /// Four bytes near the start of a page, by one store that begins in the page before it, which holds no code.
    Imm32FromData,
    /// Five NOPs of one byte, or one instruction of five, of which the first byte is the last one of a chunk: two
    /// stores.
    Boundary,
    /// The same as `Imm32`, in the program's own text.
    Imm32Text,
    /// An aligned quadword, one store.
    Imm64,
    /// A whole instruction inside one aligned quadword, one store of eight bytes.
    Jmp5,
    /// A whole instruction that straddles two chunks, five stores.
    Jmp5Bytes,
}

impl Kind {
    /// One store that no profile exempts.
    pub const PLAIN: Self = Self::Imm32TwoQuadwords;
    /// One store inside an aligned quadword.
    pub const ALIGNED: Self = Self::Imm32;
    /// One store into two chunks, which are fetched one after the other.
    pub const SPLIT: Self = Self::Imm32Split;
    /// The same as [`Kind::ALIGNED`], in the program's own text.
    pub const TEXT: Self = Self::Imm32Text;

    /// Where the changed bytes are.
    pub const fn site(self) -> usize {
        match self {
            Self::Imm8 => 3,
            Self::Imm32 | Self::Imm32Text => 4,
            Self::Imm32TwoQuadwords => 6,
            Self::Imm32Split | Self::Imm32Halves | Self::Jmp5Bytes => 14,
            Self::Imm32Line => 62,
            Self::Imm32Page | Self::Imm32PageOnce => PAGE - 2,
            Self::Imm32Tail => PAGE,
            Self::Imm32FromData => PAGE + 2,
            Self::Boundary => 15,
            Self::Imm64 => 8,
            Self::Jmp5 => 0,
        }
    }

    /// Where the function begins: with the chunk that holds the changed instruction's first byte.
    pub const fn entry(self) -> usize {
        match self {
            Self::Imm32Line | Self::Imm32Page | Self::Imm32PageOnce | Self::Imm32Tail | Self::Imm32FromData => {
                (self.site() - 1) & !15
            }
            _ => 0,
        }
    }

    /// Memory for it.
    pub fn map(self) -> io::Result<CodePage> {
        match self {
            Self::Jmp5 | Self::Jmp5Bytes => CodePage::anonymous(JMP_PAGES),
            Self::Imm32Text => CodePage::of_text(text_target()),
            Self::Imm32Page | Self::Imm32PageOnce | Self::Imm32Tail | Self::Imm32FromData => CodePage::anonymous(2),
            _ => CodePage::anonymous(1),
        }
    }

    /// Writes version 0 as a whole.
    pub fn lay_out(self, page: &CodePage) {
        match self {
            // xor eax, eax; mov al, imm8; ret
            Self::Imm8 => page.store_bytes(0, &[0x31, 0xC0, 0xB0, 0, 0xC3]),
            Self::Imm32
            | Self::Imm32TwoQuadwords
            | Self::Imm32Split
            | Self::Imm32Halves
            | Self::Imm32Line
            | Self::Imm32Page
            | Self::Imm32PageOnce
            | Self::Imm32Tail
            | Self::Imm32FromData => {
                let (entry, instruction) = (self.entry(), self.site() - 1);
                page.store_bytes(entry, &[NOP].repeat(instruction - entry));
                page.store_bytes(instruction, &return_value(0));
            }
            // xor eax, eax; NOPs up to the site and on it; ret
            Self::Boundary => {
                page.store_bytes(0, &[0x31, 0xC0]);
                page.store_bytes(2, &[NOP].repeat(Self::Boundary.site() + 5 - 2));
                page.store_bytes(Self::Boundary.site() + 5, &[RET]);
            }
            Self::Imm32Text => {}
            // NOPs up to 6; mov rax, imm64; ret
            Self::Imm64 => {
                page.store_bytes(0, &[0x66, 0x0F, 0x1F, 0x44, 0, 0, 0x48, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0xC3])
            }
            Self::Jmp5 => lay_out_jump(page, 0),
            Self::Jmp5Bytes => {
                page.store_bytes(0, &[NOP].repeat(Self::Jmp5Bytes.site()));
                lay_out_jump(page, Self::Jmp5Bytes.site());
            }
        }
    }

    /// What version `n` returns.
    pub fn expected(self, n: u32) -> u64 {
        let byte = u64::from(n as u8);
        match self {
            Self::Imm8 => byte,
            Self::Imm32
            | Self::Imm32TwoQuadwords
            | Self::Imm32Split
            | Self::Imm32Halves
            | Self::Imm32Line
            | Self::Imm32Page
            | Self::Imm32PageOnce
            | Self::Imm32Tail
            | Self::Imm32FromData
            | Self::Imm32Text => byte * 0x0101_0101,
            Self::Boundary if n % 2 == 1 => 0x0101_0101,
            Self::Boundary => 0,
            Self::Imm64 => byte * 0x0101_0101_0101_0101,
            Self::Jmp5 | Self::Jmp5Bytes if n % 2 == 1 => JUMPED,
            Self::Jmp5 | Self::Jmp5Bytes => FELL_THROUGH,
        }
    }

    /// The bytes of version `n` of a four-byte operand.
    pub fn bytes(self, n: u32) -> [u8; 4] {
        (self.expected(n) as u32).to_le_bytes()
    }

    /// Changes version `n - 1` into version `n`.
    pub fn store(self, page: &CodePage, n: u32) {
        let at = self.site();
        let value = self.expected(n);
        match self {
            Self::Imm8 => page.store8(at, value as u8),
            Self::Imm32
            | Self::Imm32TwoQuadwords
            | Self::Imm32Split
            | Self::Imm32PageOnce
            | Self::Imm32Tail
            | Self::Imm32Text => {
                page.store32(at, value as u32);
            }
            Self::Imm32Halves | Self::Imm32Line | Self::Imm32Page => {
                page.store16(at, value as u16);
                page.store16(at + 2, (value >> 16) as u16);
            }
            // Two bytes of data, the NOP, the opcode, and the immediate.
            Self::Imm32FromData => page.store64(PAGE - 2, 0xB890_0000 | value << 32),
            // The new first byte never stands before an old tail of another instruction than it had.
            Self::Boundary if n % 2 == 1 => {
                page.store32(at + 1, value as u32);
                page.store8(at, 0xB8);
            }
            Self::Boundary => {
                page.store8(at, 0x90);
                page.store32(at + 1, 0x9090_9090);
            }
            Self::Imm64 => page.store64(at, value),
            // The last three bytes are what follows, unchanged: the first ones of `return_value(FELL_THROUGH)`.
            Self::Jmp5 => {
                let [a, b, c, d, e] = if n % 2 == 1 { JMP5 } else { NOP5 };
                let [f, g, h, ..] = return_value(FELL_THROUGH as u32);
                page.store64(at, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
            // Every step leaves a whole instruction: the tail first on the way to the JMP, and last on the way back.
            Self::Jmp5Bytes if n % 2 == 1 => (0..5).rev().for_each(|i| page.store8(at + i, JMP5[i])),
            Self::Jmp5Bytes => (0..5).for_each(|i| page.store8(at + i, NOP5[i])),
        }
    }
}
