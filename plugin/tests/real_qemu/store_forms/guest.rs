//! The guest that runs every form of a store: an image that QEMU itself starts in 32-bit code (Multiboot), and that
//! goes on in 64-bit code.
//!
//! For each form it fills the data, which lie in a page behind a function, sets the registers, and runs the
//! instruction. Then it changes the function and calls it, so that QEMU translates it once more, and the plugin
//! compares the page with what it knows. What happened goes to the debug console, [`RECORD`] bytes a form: the number
//! of the exception, and the data as the guest reads them.

use super::forms::{Form, SET_BIT};
use iced_x86::code_asm::*;
use iced_x86::{Code, IcedError, Mnemonic};

const LOAD: u64 = 0x10_0000;
/// Descriptors, interrupt tables, page tables, in the image.
const GDT: usize = 0x40;
const IDT32: usize = 0x100;
const IDT64: usize = 0x200;
const TABLES: usize = 0x1000;
/// What the data are filled with, and the registers of the vector units.
const PATTERN: usize = 0x4000;
const VECTOR_PATTERN: usize = 0x4200;
const CODE: usize = 0x5000;

/// The page that the forms store to: a function, and behind it the data.
pub const PAGE: u64 = 0x70_0000;
/// Two counters: one is part of the function; the other one, at the page's start, is changed at the end of each form.
pub const ENDED: u64 = PAGE;
const FUNCTION: u64 = DATA - 0x10;
/// Where the data begin.
pub const DATA: u64 = PAGE + 0x240;
/// How many bytes of them are shown.
pub const SHOWN: usize = 160;
/// An exception's number (or [`NONE`]), and the data.
pub const RECORD: usize = 1 + SHOWN;
/// No exception.
pub const NONE: u8 = 0xff;

const STACK: u64 = 0x60_0000;
const CONTINUE: u64 = 0x60_1000;
const VECTOR: u64 = 0x60_1008;
const VECTORS: u64 = 32;

/// Code segments of 32 and 64 bits, and data.
const CODE32: u16 = 0x08;
const CODE64: u16 = 0x10;
const FLAT: u16 = 0x18;

/// What a byte of the data is at first.
pub fn pattern(index: usize) -> u8 {
    if index.is_multiple_of(2) { 0x90 + index as u8 % 0x60 } else { 0x10 + index as u8 % 0x60 }
}

/// An assembled guest.
#[derive(Debug)]
pub struct Guest {
    /// The image.
    pub image: Vec<u8>,
    /// The address of each form's instruction.
    pub addresses: Vec<u64>,
    /// The instruction that changes [`ENDED`], in each mode.
    pub enders: Vec<u64>,
}

/// Assembles a guest that runs these forms, those of 32 bits first.
pub fn assemble(forms: &[Form]) -> Guest {
    let mut image = vec![0; CODE];
    let (mut addresses, mut enders) = (Vec::new(), Vec::new());
    let mut add = |image: &mut Vec<u8>, bits: u32| {
        let at = LOAD + image.len() as u64;
        let handlers = vectors(bits, at).expect("it can be assembled");
        set_gates(image, bits, &handlers.1);
        image.extend(handlers.0);
        let at = LOAD + image.len() as u64;
        let (common, ender) = common(bits, at).expect("it can be assembled");
        enders.push(ender);
        image.extend(common);
        (at, at + FINISH)
    };
    let routines = [add(&mut image, 32), add(&mut image, 64)];
    let entry = LOAD + image.len() as u64;
    image.extend(start(entry).expect("it can be assembled"));
    for form in forms.iter().filter(|form| form.bits == 32) {
        let (code, address) =
            run(form, LOAD + image.len() as u64, routines[0]).unwrap_or_else(|why| panic!("{}: {why}", form.name));
        addresses.push(address);
        image.extend(code);
    }
    let at = LOAD + image.len() as u64;
    image.extend(to_long_mode(at).expect("it can be assembled"));
    for form in forms.iter().filter(|form| form.bits == 64) {
        let (code, address) =
            run(form, LOAD + image.len() as u64, routines[1]).unwrap_or_else(|why| panic!("{}: {why}", form.name));
        addresses.push(address);
        image.extend(code);
    }
    // Switches itself off by ACPI.
    image.extend([0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe]);
    fill_tables(&mut image, entry);
    Guest { image, addresses, enders }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn fill_tables(image: &mut [u8], entry: u64) {
    // Multiboot, with addresses.
    let (magic, flags) = (0x1bad_b002_u32, 0x1_0000_u32);
    let header = [magic, flags, 0u32.wrapping_sub(magic + flags), LOAD as u32, LOAD as u32, 0, 0, entry as u32];
    header.iter().enumerate().for_each(|(i, word)| put(image, 4 * i, &word.to_le_bytes()));
    let descriptors: [u64; 4] = [0, 0x00cf_9b00_0000_ffff, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    descriptors.iter().enumerate().for_each(|(i, word)| put(image, GDT + 8 * i, &word.to_le_bytes()));
    let pointer =
        |limit: usize, at: usize| [&(limit as u16 - 1).to_le_bytes()[..], &(LOAD + at as u64).to_le_bytes()].concat();
    put(image, GDT + 0x20, &pointer(32, GDT));
    put(image, GDT + 0x30, &pointer(256, IDT32));
    put(image, GDT + 0x40, &pointer(512, IDT64));
    let table = |index: usize| LOAD + (TABLES + 0x1000 * index) as u64;
    put(image, TABLES, &(table(1) | 3).to_le_bytes());
    put(image, TABLES + 0x1000, &(table(2) | 3).to_le_bytes());
    (0..512u64).for_each(|i| put(image, TABLES + 0x2000 + 8 * i as usize, &(i << 21 | 0x83).to_le_bytes()));
    (0..256).for_each(|i| image[PATTERN + i] = pattern(i));
    // As masks they choose every other doubleword.
    (0..64).for_each(|i| image[VECTOR_PATTERN + i] = (0x20 + i as u8) | if i / 4 % 2 == 1 { 0x80 } else { 0 });
}

fn set_gates(image: &mut [u8], bits: u32, handlers: &[u64]) {
    for (vector, handler) in handlers.iter().enumerate() {
        let [a, b, c, d, ..] = handler.to_le_bytes();
        let selector = if bits == 32 { CODE32 } else { CODE64 }.to_le_bytes();
        let gate = [a, b, selector[0], selector[1], 0, 0x8e, c, d];
        let (table, size) = if bits == 32 { (IDT32, 8) } else { (IDT64, 16) };
        put(image, table + vector * size, &gate);
    }
}

/// The handlers: each notes its number and goes on behind the form.
fn vectors(bits: u32, at: u64) -> Result<(Vec<u8>, Vec<u64>), IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    // Eleven bytes and two each.
    let size = 16;
    for vector in 0..VECTORS {
        let place = if bits == 32 { byte_ptr(VECTOR) } else { byte_ptr(VECTOR as i32) };
        a.mov(place, vector as i32)?;
        if bits == 32 {
            a.jmp(dword_ptr(CONTINUE))?
        } else {
            a.jmp(qword_ptr(CONTINUE as i32))?
        }
        let length = a.assemble(at)?.len() as u64;
        a.nops_with_size((size * (vector + 1) - length) as usize)?;
    }
    Ok((a.assemble(at)?, (0..VECTORS).map(|vector| at + size * vector).collect()))
}

/// Where the second routine of [`common`] is, behind the first one.
const FINISH: u64 = 0x100;

/// What comes before a form, and what comes after it; and the address of the last store.
fn common(bits: u32, at: u64) -> Result<(Vec<u8>, u64), IcedError> {
    let mut a = CodeAssembler::new(bits)?;
    let pattern = LOAD + PATTERN as u64;
    a.cld()?;
    a.mov(byte_ptr(VECTOR as i32), i32::from(NONE as i8))?;
    a.mov(edi, DATA as u32)?;
    a.mov(esi, pattern as u32)?;
    a.mov(ecx, SHOWN as u32 / 4)?;
    a.rep().movsd()?;
    a.fninit()?;
    a.mov(esi, LOAD as u32 + VECTOR_PATTERN as u32)?;
    a.vzeroall()?;
    for (mm, ymm) in [(mm0, ymm0), (mm1, ymm1), (mm2, ymm2), (mm7, ymm7)] {
        if bits == 32 {
            a.movq(mm, qword_ptr(esi))?;
            a.vmovdqu(ymm, ymmword_ptr(esi))?;
        } else {
            a.movq(mm, qword_ptr(rsi))?;
            a.vmovdqu(ymm, ymmword_ptr(rsi))?;
        }
    }
    a.mov(ebx, 0x0304_0506)?;
    a.mov(ebp, pattern as u32 + 0x80)?;
    a.mov(ecx, 2)?;
    a.ret()?;
    let length = a.assemble(at)?.len() as u64;
    a.nops_with_size((FINISH - length) as usize)?;
    // The function is not what it was, and its page is looked at.
    a.emms()?;
    a.inc(dword_ptr(FUNCTION as i32 + 1))?;
    a.mov(eax, FUNCTION as u32)?;
    if bits == 32 {
        a.call(eax)?
    } else {
        a.call(rax)?
    }
    a.mov(dx, 0xe9)?;
    a.mov(esi, VECTOR as u32)?;
    a.outsb()?;
    a.mov(esi, DATA as u32)?;
    a.mov(ecx, SHOWN as u32)?;
    a.rep().outsb()?;
    let ender = at + a.assemble(at)?.len() as u64;
    a.inc(dword_ptr(ENDED as i32))?;
    a.ret()?;
    Ok((a.assemble(at)?, ender))
}

fn start(at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.cli()?;
    a.lgdt(fword_ptr(LOAD + GDT as u64 + 0x20))?;
    a.lidt(fword_ptr(LOAD + GDT as u64 + 0x30))?;
    a.mov(eax, u32::from(FLAT))?;
    for segment in [ds, es, fs, gs, ss] {
        a.mov(segment, eax)?;
    }
    a.mov(esp, STACK as u32)?;
    // Our own code segment.
    a.push(u32::from(CODE32) as i32)?;
    let mut on = a.create_label();
    a.call(on)?;
    a.set_label(&mut on)?;
    a.add(dword_ptr(esp), 5)?;
    a.retf()?;
    // The units for vectors: CR0.EM and TS off, MP on; CR4.OSFXSR, OSXMMEXCPT, OSXSAVE, PAE; XCR0.
    a.mov(eax, cr0)?;
    a.and(eax, !0xc)?;
    a.or(eax, 2)?;
    a.mov(cr0, eax)?;
    a.mov(eax, 0x4_0620)?;
    a.mov(cr4, eax)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)?;
    a.mov(eax, 7)?;
    a.xsetbv()?;
    // mov eax, imm32; ret
    a.mov(dword_ptr(FUNCTION), 0xb8u32)?;
    a.mov(dword_ptr(FUNCTION + 4), 0xc300u32)?;
    a.mov(eax, FUNCTION as u32)?;
    a.call(eax)?;
    a.assemble(at)
}

fn to_long_mode(at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.mov(eax, LOAD as u32 + TABLES as u32)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.or(eax, 0x100)?;
    a.wrmsr()?;
    a.mov(eax, cr0)?;
    a.or(eax, 0x8000_0000u32 as i32)?;
    a.mov(cr0, eax)?;
    let long = at + a.assemble(at)?.len() as u64 + 7;
    a.db(&[&[0xea][..], &(long as u32).to_le_bytes(), &CODE64.to_le_bytes()].concat())?;
    let mut code = a.assemble(at)?;
    let mut a = CodeAssembler::new(64)?;
    a.lidt(tbyte_ptr(LOAD as i32 + GDT as i32 + 0x40))?;
    code.extend(a.assemble(long)?);
    Ok(code)
}

/// Runs one form. Answers with the address of its instruction, too.
fn run(form: &Form, at: u64, (prepare, finish): (u64, u64)) -> Result<(Vec<u8>, u64), IcedError> {
    let data = DATA + form.offset;
    // What stands in memory, for a comparison; else something that is not there.
    let stands = |first: usize| {
        (0..8).fold(0, |value, i| value | u64::from(pattern(form.offset as usize + first + i)) << (8 * i))
    };
    let eight = form.instruction.code() == Code::Cmpxchg8b_m64;
    let (rax_is, rdx_is) = match (form.equal, eight) {
        (true, true) => (stands(0) & 0xffff_ffff, stands(0) >> 32),
        (true, false) => (stands(0), stands(8)),
        // Also which parts of the state XSAVE saves, and a port that can be read.
        (false, _) => (0x0102_0304_0506_07ff, 0x80),
    };
    let pushes = form.instruction.stack_pointer_increment();
    let clears_bit = form.instruction.mnemonic() == Mnemonic::Btr;
    let assemble = |behind: u64| -> Result<(Vec<u8>, u64, u64), IcedError> {
        let mut a = CodeAssembler::new(form.bits)?;
        let mut bytes = form.bytes.clone();
        a.call(prepare)?;
        a.mov(edi, data as u32)?;
        // Where a call goes to.
        let to = match form.instruction.code() {
            Code::Call_rm32 | Code::Call_rm64 => behind.to_le_bytes().to_vec(),
            Code::Call_m1632 => [&(behind as u32).to_le_bytes()[..], &CODE32.to_le_bytes()].concat(),
            Code::Call_m1664 => [&behind.to_le_bytes()[..], &CODE64.to_le_bytes()].concat(),
            _ => Vec::new(),
        };
        if form.instruction.code() == Code::Call_m1632 && form.bits == 64 {
            a.mov(word_ptr(DATA as i32 + 4), i32::from(CODE64))?;
            a.mov(dword_ptr(DATA as i32), behind as i32)?;
        } else {
            for (i, byte) in to.iter().enumerate() {
                a.mov(byte_ptr(DATA as i32 + i as i32), i32::from(*byte as i8))?;
            }
        }
        if form.instruction.code() == Code::Call_ptr1632 {
            bytes[1..5].copy_from_slice(&(behind as u32).to_le_bytes());
            bytes[5..7].copy_from_slice(&CODE32.to_le_bytes());
        }
        if form.bits == 32 {
            a.mov(dword_ptr(CONTINUE), behind as u32)?;
            a.mov(eax, rax_is as u32)?;
            a.mov(edx, if form.equal && !eight { 0 } else { rdx_is as u32 })?;
            if pushes < 0 {
                a.mov(esp, DATA as u32 + 16 + pushes.unsigned_abs())?;
            }
        } else {
            a.mov(qword_ptr(CONTINUE as i32), behind as i32)?;
            a.mov(rax, rax_is)?;
            a.mov(rdx, rdx_is)?;
            if pushes < 0 {
                a.mov(esp, DATA as u32 + 16 + pushes.unsigned_abs())?;
            }
        }
        if clears_bit {
            a.mov(ecx, SET_BIT)?;
        }
        let address = at + a.assemble(at)?.len() as u64;
        a.db(&bytes)?;
        let behind = at + a.assemble(at)?.len() as u64;
        a.mov(esp, STACK as u32)?;
        a.call(finish)?;
        Ok((a.assemble(at)?, address, behind))
    };
    // The address behind it does not change its length.
    let (_, _, behind) = assemble(at)?;
    let (code, address, _) = assemble(behind)?;
    Ok((code, address))
}
