//! Shapes: which bytes of which instruction change, by which stores.
//!
//! A shape is a piece of code with versions 0, 1, 2, …; running version `n` returns [`Shape::expected`]`(n)`.
//! Neighbouring versions differ in every byte of an immediate, so that a mix is seen as one.

use crate::code_page::{CodePage, Function, PAGE};
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

/// `mov eax, value` and `ret`.
pub fn return_value(value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [0xB8, a, b, c, d, 0xC3]
}

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

/// Code with versions.
#[derive(Debug)]
pub struct Shape {
    kind: Kind,
    page: CodePage,
}

/// Where the changed bytes are.
const fn site(kind: Kind) -> usize {
    match kind {
        Kind::Imm8 => 3,
        Kind::Imm32 | Kind::Imm32Text => 4,
        Kind::Imm32TwoQuadwords => 6,
        Kind::Imm32Split | Kind::Imm32Halves | Kind::Jmp5Bytes => 14,
        Kind::Imm32Line => 62,
        Kind::Imm32Page | Kind::Imm32PageOnce => PAGE - 2,
        Kind::Imm32Tail => PAGE,
        Kind::Imm32FromData => PAGE + 2,
        Kind::Boundary => 15,
        Kind::Imm64 => 8,
        Kind::Jmp5 => 0,
    }
}

/// Where the function begins: with the chunk that holds the changed instruction's first byte.
const fn entry(kind: Kind) -> usize {
    match kind {
        Kind::Imm32Line | Kind::Imm32Page | Kind::Imm32PageOnce | Kind::Imm32Tail | Kind::Imm32FromData => {
            (site(kind) - 1) & !15
        }
        _ => 0,
    }
}

impl Shape {
    /// Maps and lays out version 0.
    pub fn new(kind: Kind) -> io::Result<Self> {
        let page = match kind {
            Kind::Jmp5 | Kind::Jmp5Bytes => CodePage::anonymous(JMP_PAGES)?,
            Kind::Imm32Text => CodePage::of_text(text_target())?,
            Kind::Imm32Page | Kind::Imm32PageOnce | Kind::Imm32Tail | Kind::Imm32FromData => CodePage::anonymous(2)?,
            _ => CodePage::anonymous(1)?,
        };
        Ok(Self::on(kind, page))
    }

    /// Lays out version 0 on a page that is mapped already. Only for what fits into one page.
    pub fn on(kind: Kind, page: CodePage) -> Self {
        let shape = Self { kind, page };
        shape.lay_out();
        shape
    }

    /// Writes version 0 as a whole.
    pub fn lay_out(&self) {
        let page = &self.page;
        match self.kind {
            // xor eax, eax; mov al, imm8; ret
            Kind::Imm8 => page.store_bytes(0, &[0x31, 0xC0, 0xB0, 0, 0xC3]),
            Kind::Imm32
            | Kind::Imm32TwoQuadwords
            | Kind::Imm32Split
            | Kind::Imm32Halves
            | Kind::Imm32Line
            | Kind::Imm32Page
            | Kind::Imm32PageOnce
            | Kind::Imm32Tail
            | Kind::Imm32FromData => {
                let (entry, instruction) = (entry(self.kind), site(self.kind) - 1);
                page.store_bytes(entry, &[0x90].repeat(instruction - entry));
                page.store_bytes(instruction, &return_value(0));
            }
            // xor eax, eax; NOPs up to the site and on it; ret
            Kind::Boundary => {
                page.store_bytes(0, &[0x31, 0xC0]);
                page.store_bytes(2, &[0x90].repeat(site(Kind::Boundary) + 5 - 2));
                page.store_bytes(site(Kind::Boundary) + 5, &[0xC3]);
            }
            Kind::Imm32Text => {}
            // NOPs up to 6; mov rax, imm64; ret
            Kind::Imm64 => {
                page.store_bytes(0, &[0x66, 0x0F, 0x1F, 0x44, 0, 0, 0x48, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0xC3])
            }
            Kind::Jmp5 => lay_out_jump(page, 0),
            Kind::Jmp5Bytes => {
                page.store_bytes(0, &[0x90].repeat(site(Kind::Jmp5Bytes)));
                lay_out_jump(page, site(Kind::Jmp5Bytes));
            }
        }
    }

    /// The code.
    pub fn function(&self) -> Function {
        self.page.function(entry(self.kind))
    }

    /// The memory that it stands in.
    pub fn page(&self) -> &CodePage {
        &self.page
    }

    /// What version `n` returns.
    pub fn expected(&self, n: u32) -> u64 {
        let byte = u64::from(n as u8);
        match self.kind {
            Kind::Imm8 => byte,
            Kind::Imm32
            | Kind::Imm32TwoQuadwords
            | Kind::Imm32Split
            | Kind::Imm32Halves
            | Kind::Imm32Line
            | Kind::Imm32Page
            | Kind::Imm32PageOnce
            | Kind::Imm32Tail
            | Kind::Imm32FromData
            | Kind::Imm32Text => byte * 0x0101_0101,
            Kind::Boundary if n % 2 == 1 => 0x0101_0101,
            Kind::Boundary => 0,
            Kind::Imm64 => byte * 0x0101_0101_0101_0101,
            Kind::Jmp5 | Kind::Jmp5Bytes if n % 2 == 1 => JUMPED,
            Kind::Jmp5 | Kind::Jmp5Bytes => FELL_THROUGH,
        }
    }

    /// The bytes of version `n` from [`Shape::site`] on, for a writer of its own.
    pub fn bytes(&self, n: u32) -> [u8; 4] {
        (self.expected(n) as u32).to_le_bytes()
    }

    /// Where the changed bytes begin.
    pub fn site(&self) -> usize {
        site(self.kind)
    }

    /// Changes version `n - 1` into version `n`.
    pub fn store(&self, n: u32) {
        let at = self.site();
        let value = self.expected(n);
        match self.kind {
            Kind::Imm8 => self.page.store8(at, value as u8),
            Kind::Imm32
            | Kind::Imm32TwoQuadwords
            | Kind::Imm32Split
            | Kind::Imm32PageOnce
            | Kind::Imm32Tail
            | Kind::Imm32Text => {
                self.page.store32(at, value as u32);
            }
            Kind::Imm32Halves | Kind::Imm32Line | Kind::Imm32Page => {
                self.page.store16(at, value as u16);
                self.page.store16(at + 2, (value >> 16) as u16);
            }
            // Two bytes of data, the NOP, the opcode, and the immediate.
            Kind::Imm32FromData => self.page.store64(PAGE - 2, 0xB890_0000 | value << 32),
            // The new first byte never stands before an old tail of another instruction than it had.
            Kind::Boundary if n % 2 == 1 => {
                self.page.store32(at + 1, value as u32);
                self.page.store8(at, 0xB8);
            }
            Kind::Boundary => {
                self.page.store8(at, 0x90);
                self.page.store32(at + 1, 0x9090_9090);
            }
            Kind::Imm64 => self.page.store64(at, value),
            // The last three bytes are what follows, unchanged: the first ones of `return_value(FELL_THROUGH)`.
            Kind::Jmp5 => {
                let [a, b, c, d, e] = if n % 2 == 1 { JMP5 } else { NOP5 };
                let [f, g, h, ..] = return_value(FELL_THROUGH as u32);
                self.page.store64(at, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
            // Every step leaves a whole instruction: the tail first on the way to the JMP, and last on the way back.
            Kind::Jmp5Bytes if n % 2 == 1 => (0..5).rev().for_each(|i| self.page.store8(at + i, JMP5[i])),
            Kind::Jmp5Bytes => (0..5).for_each(|i| self.page.store8(at + i, NOP5[i])),
        }
    }
}
