//! What a vCPU's own stores do to what it holds: they become visible at its next branch, whatever kind of branch that
//! is, and whatever it stores in between.

use crate::boot_sector::{BootSector, Ending, KIND, ORIGIN};
use crate::lab::Lab;
use crate::machine::{Machine, SOON};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};

/// 16-bit code that stores into an instruction ahead of it on the same line, which it executed before. `fault`: in
/// between a division fails; its handler returns to it by IRET.
fn own_store_ahead(fault: bool) -> BootSector {
    let assemble = |site: i32, handler: i32| {
        let mut a = CodeAssembler::new(16)?;
        let (mut top, mut over) = (a.create_label(), a.create_label());
        let (mut at_site, mut at_handler, mut end) = (a.create_label(), a.create_label(), a.create_label());
        a.cli()?;
        // The site is to lie in one chunk.
        a.nops_with_size(2)?;
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7c00)?;
        a.mov(word_ptr(0), handler)?;
        a.mov(word_ptr(2), 0)?;
        a.mov(si, 2)?;
        a.set_label(&mut top)?;
        a.xor(cx, cx)?;
        a.cmp(si, 1)?;
        a.jne(over)?;
        a.mov(dword_ptr((site + 2) as u64), 0x2222_2222)?;
        a.set_label(&mut over)?;
        a.mov(ax, 1)?;
        if fault {
            a.div(cl)?;
        } else {
            a.nops_with_size(2)?;
        }
        a.set_label(&mut at_site)?;
        a.mov(eax, 0x1111_1111)?;
        a.dec(si)?;
        a.jne(top)?;
        a.jmp(end)?;
        a.set_label(&mut at_handler)?;
        a.mov(cl, 1)?;
        a.iret()?;
        a.set_label(&mut end)?;
        a.nop()?;
        let done = a.assemble_options(0x7c00, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let address = |label| done.label_ip(label).map(|ip| ip as i32);
        Ok::<_, IcedError>((address(&at_site)?, address(&at_handler)?, done.inner.code_buffer))
    };
    let (site, handler, _) = assemble(0x7c40, 0x7c40).unwrap();
    let (again, _, code) = assemble(site, handler).unwrap();
    assert_eq!((again, site % 16), (site, 0));
    BootSector::of(code, Ending::PowerOff)
}

/// A return from a fault's handler makes an own store visible, whatever the profile counts; without the fault nothing
/// does.
#[test]
fn a_return_is_a_branch_whatever_serializes() {
    let lab = Lab::open();
    for qemu in &lab.qemus {
        for (fault, keys, expected) in [
            (true, "profile=fred", 0),
            (true, "without=iret+iret-to-self", 0),
            (false, "profile=fred", 1),
            (false, "without=iret+iret-to-self", 1),
        ] {
            let mut guest = Machine::pc(&lab, qemu).sector(&own_store_ahead(fault)).keys(keys).report().launch();
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            let kinds: Vec<_> = guest.report().hazards.iter().map(|hazard| hazard["kind"].clone()).collect();
            assert_eq!(
                kinds,
                vec![KIND; expected],
                "QEMU {}, {keys}, fault: {fault}\n{}",
                qemu.version,
                guest.outputs()
            );
        }
    }
}

/// A cache line in the guest's code: a store across its beginning is two.
const LINE: u16 = ORIGIN + 0xc0;

/// What the guest of [`across_a_line`] does in its last round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Across {
    /// It stores to the site, and then across the line, where the first part is what stands there already. Behind the
    /// store to the site comes a jump, or not.
    SecondPart { jump: bool },
    /// It stores to the site's last two bytes and to the two instructions behind it, by one instruction.
    BothParts,
}

/// 16-bit code that goes three times through a line of code which stores ahead of itself, to its site and across the
/// cache line, and leads to the site. In the first round an instruction behind the stores is another one, so that it is
/// looked at by itself from then on; CPUID follows. In the second round the stores change nothing. In the third round
/// they do; and since what is between the second store and the site has been executed, and is far from what changes, it
/// is not looked at, so that only the store itself tells that there was a jump before it.
fn across_a_line(case: Across) -> Result<BootSector, IcedError> {
    let site = if case == Across::BothParts { LINE - 6 } else { ORIGIN + 0x60 };
    // What is stored in the first two rounds, and in the last; NOP twice becomes CLD twice, or what is never executed.
    let (as_it_was, changed) =
        if case == Across::BothParts { (0x9090_1111u32, 0xfcfc_2222u32) } else { (0x9090_9090, 0x1234_9090) };
    let mut a = CodeAssembler::new(16)?;
    let (mut top, mut behind, mut alone) = (a.create_label(), a.create_label(), a.create_label());
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(si, 3)?;
    a.mov(edi, 0x1111_1111)?;
    a.mov(ebp, as_it_was)?;
    a.set_label(&mut top)?;
    a.nop()?;
    if let Across::SecondPart { jump } = case {
        a.mov(dword_ptr(u64::from(site) + 2), edi)?;
        if jump {
            a.jmp(behind)?;
        }
    }
    a.set_label(&mut behind)?;
    a.mov(dword_ptr(u64::from(LINE) - 2), ebp)?;
    a.set_label(&mut alone)?;
    a.clc()?;
    let done = a.assemble_options(ORIGIN.into(), BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let (top, alone) = (done.label_ip(&top)?, done.label_ip(&alone)?);
    let mut code = done.inner.code_buffer;
    assert!(alone + 0x20 < u64::from(site), "the site is far");
    code.resize(usize::from(site - ORIGIN), 0x90);

    let mut a = CodeAssembler::new(16)?;
    let (mut last, mut end) = (a.create_label(), a.create_label());
    a.mov(eax, 0x1111_1111)?;
    if case == Across::BothParts {
        a.nop()?;
        a.nop()?;
    }
    a.dec(si)?;
    a.je(end)?;
    a.cmp(si, 2)?;
    a.jne(last)?;
    a.mov(byte_ptr(alone), 0x90)?;
    a.xor(eax, eax)?;
    a.cpuid()?;
    a.jmp(top)?;
    a.set_label(&mut last)?;
    a.mov(edi, 0x2222_2222)?;
    a.mov(ebp, changed)?;
    a.jmp(top)?;
    a.nops_with_size(usize::from(LINE - site))?;
    a.set_label(&mut end)?;
    a.nop()?;
    code.extend(a.assemble(site.into())?);
    Ok(BootSector::of(code, Ending::PowerOff))
}

/// A branch is seen before the first part of a store, whether or not that part changes anything, and none is seen
/// between its parts.
#[test]
fn a_store_in_two_parts_is_one_instruction() {
    let lab = Lab::open();
    let ahead = [format!("{:#x}", ORIGIN + 0x60)];
    let across = [LINE - 6, LINE, LINE + 1].map(|at| format!("{at:#x}"));
    for qemu in &lab.qemus {
        for (case, expected) in [
            (Across::SecondPart { jump: true }, &[][..]),
            (Across::SecondPart { jump: false }, &ahead),
            (Across::BothParts, &across),
        ] {
            let mut guest = Machine::pc(&lab, qemu).sector(&across_a_line(case).unwrap()).report().launch();
            assert_eq!(guest.exit_code(SOON), 0, "{}", guest.outputs());
            let report = guest.report();
            assert_eq!(report.sites(), expected, "QEMU {}, {case:?}\n{}", qemu.version, guest.outputs());
            assert!(report.hazards.iter().all(|hazard| hazard["kind"] == KIND), "{}", guest.outputs());
        }
    }
}
