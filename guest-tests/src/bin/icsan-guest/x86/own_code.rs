//! `own/`, and the rows like them: straight-line code that stores into an instruction ahead of itself.

use crate::code_page::{CodePage, PAGE};
use crate::outcome::Attempt;
use crate::own_code::{changes_then_calls, pace};
use crate::shape::{Kind, Shape};
use crate::sys::{cpus, pin};
use icsan_guest_tests::code::return_value;
use icsan_guest_tests::table::executor;

/// CPUID that keeps rbx.
const CPUID: &[u8] = &[0x53, 0x31, 0xC0, 0x0F, 0xA2, 0x5B];
/// A jump over thirteen NOPs, so that the immediate operand behind it straddles two quadwords.
const JUMP: &[u8] = &[0xEB, 13, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];

/// Runs straight-line code on `page` that stores its argument into its own immediate operand and returns that.
fn straight_line(page: &CodePage, entry: usize, judged: bool) -> Attempt {
    pin(executor(cpus()))?;
    let function = page.function(entry);
    let mut pace = pace(judged);
    while let Some(n) = pace.next() {
        let value = u64::from(n as u8) * 0x0101_0101;
        if let Some(outcome) = pace.ran(value, function(value)) {
            return Ok(outcome);
        }
    }
    Ok(pace.outcome())
}

/// `mov dword ptr [rip + to the immediate], edi`, what stands between, `mov eax, imm32; ret`, so that the last but one
/// begins at `at`.
fn instruction_at(at: usize, between: &[u8], judged: bool) -> Attempt {
    let page = CodePage::anonymous(2)?;
    let entry = at - between.len() - 6;
    page.store_bytes(entry, &[0x89, 0x3D, between.len() as u8 + 1, 0, 0, 0]);
    page.store_bytes(entry + 6, between);
    page.store_bytes(at, &return_value(0));
    straight_line(&page, entry, judged)
}

/// The same at the beginning of a page.
fn next_instruction(between: &[u8], judged: bool) -> Attempt {
    instruction_at(6 + between.len(), between, judged)
}

/// Stores into the next instruction, or behind a CPUID. Its first byte is the last one of a page, and the store goes to
/// the next page only.
pub fn next_across_pages(fenced: bool) -> Attempt {
    instruction_at(PAGE - 1, if fenced { CPUID } else { &[] }, fenced)
}

/// Stores into an instruction ahead in straight-line code: into the next one, or behind a CPUID.
pub fn next(fenced: bool) -> Attempt {
    next_instruction(if fenced { CPUID } else { &[] }, fenced)
}

/// Behind a jump: any x86 CPU shows the new code.
pub fn behind_jump() -> Attempt {
    next_instruction(JUMP, true)
}

/// The same by REP MOVSB, which emulators make a loop of: from a word of data, which is in another page.
pub fn next_by_rep_movsb(fenced: bool) -> Attempt {
    let page = CodePage::anonymous(2)?;
    let between = if fenced { CPUID } else { &[] };
    // Ten NOPs first: so the immediate straddles two quadwords, and stands in the chunk of the storing instruction.
    let (data, immediate) = (PAGE, 37 + between.len() + 1);
    let relative = |to: usize, from: usize| (to as u32).wrapping_sub(from as u32).to_le_bytes();
    // mov [rip + data], edi; lea rsi, [rip + data]; lea rdi, [rip + immediate]; mov ecx, 4; rep movsb
    let code = [
        &[0x90; 10][..],
        &[0x89, 0x3D],
        &relative(data, 16),
        &[0x48, 0x8D, 0x35],
        &relative(data, 23),
        &[0x48, 0x8D, 0x3D],
        &relative(immediate, 30),
        &[0xB9, 4, 0, 0, 0],
        &[0xF3, 0xA4],
        between,
        &return_value(0),
    ];
    page.store_bytes(0, &code.concat());
    straight_line(&page, 0, fenced)
}

/// The same through a second mapping. The immediate straddles two aligned quadwords, and stands in the chunk of the
/// storing instruction.
pub fn next_through_alias(fenced: bool) -> Attempt {
    let page = CodePage::aliased()?;
    let between = if fenced { CPUID } else { &[] };
    // NOPs up to 9; mov rcx, address; mov [rcx], edi
    let immediate = 21 + between.len() + 1;
    let address = (page.target(immediate, 4) as u64).to_le_bytes();
    let code = [&[0x90; 9][..], &[0x48, 0xB9], &address, &[0x89, 0x39], between, &return_value(0)];
    page.store_bytes(0, &code.concat());
    straight_line(&page, 0, fenced)
}

/// Stores what is changed by other means than an ordinary store, and calls.
pub fn stores_by(store: fn(&CodePage, usize, u32)) -> Attempt {
    let shape = Shape::new(Kind::PLAIN)?;
    changes_then_calls(&shape, |n| store(shape.page(), shape.site(), shape.expected(n) as u32), || {}, pace(true))
}
