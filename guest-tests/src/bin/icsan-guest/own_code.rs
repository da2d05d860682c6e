//! `own/`: a thread changes code that it runs itself.

use crate::code_page::CodePage;
use crate::cpu::cpuid;
use crate::outcome::{Attempt, spoiled};
use crate::pace::Pace;
use crate::shape::{Kind, Shape};
use crate::sys::{cpus, pin};
use icsan_guest_tests::table::executor;

/// Stores and then calls. Right by the SDM's first option, and any x86 CPU shows the new code.
pub fn jump() -> Attempt {
    stores_then_calls(&Shape::new(Kind::Imm32TwoQuadwords)?, || {}, true)
}

/// Stores through a second mapping, does `between`, and calls. Without a serializing instruction the outcome is not judged.
pub fn alias(between: fn(), serializes: bool) -> Attempt {
    stores_then_calls(&Shape::on(Kind::Imm32TwoQuadwords, CodePage::aliased()?), between, serializes)
}

/// Stores through a second mapping and executes CPUID.
pub fn alias_cpuid() -> Attempt {
    alias(cpuid, true)
}

fn stores_then_calls(shape: &Shape, between: fn(), judged: bool) -> Attempt {
    pin(executor(cpus()))?;
    let function = shape.function();
    let mut pace = Pace::of_bad();
    while let Some(n) = pace.next() {
        function(0);
        shape.store(n);
        between();
        let (got, expected) = (function(0), shape.expected(n));
        if got != expected && judged {
            return Ok(spoiled(n, expected, got));
        }
        pace.seen(got == expected);
    }
    Ok(pace.outcome())
}

/// Stores into an instruction ahead in straight-line code: into the next one, or behind a CPUID.
pub fn straight_line(with_cpuid: bool) -> Attempt {
    pin(executor(cpus()))?;
    let page = CodePage::anonymous(1)?;
    let between: &[u8] = if with_cpuid { &[0x53, 0x31, 0xC0, 0x0F, 0xA2, 0x5B] } else { &[] };
    // mov dword ptr [rip + to the immediate], edi; (push rbx; xor eax, eax; cpuid; pop rbx;) mov eax, imm32; ret
    page.store_bytes(0, &[0x89, 0x3D, between.len() as u8 + 1, 0, 0, 0]);
    page.store_bytes(6, between);
    page.store_bytes(6 + between.len(), &[0xB8, 0, 0, 0, 0, 0xC3]);
    let function = page.function(0);
    let mut pace = Pace::of_bad();
    while let Some(n) = pace.next() {
        let value = u64::from(n as u8) * 0x0101_0101;
        let got = function(value);
        if got != value && with_cpuid {
            return Ok(spoiled(n, value, got));
        }
        pace.seen(got == value);
    }
    Ok(pace.outcome())
}
