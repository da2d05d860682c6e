//! Instructions as text, as GNU's disassembler writes them, with symbols.
//!
//! `yaxpeax-arm` decodes. What matters most here, it has not: the names of system registers and of maintenance, and
//! for MSR it takes a wrong register; those are the tables below. SVE and SME it has not, either.

use super::synchronizing::word;
use icsan_symbols::Names;
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{DecodeError, InstDecoder, Operand};

/// The length of every instruction, in bytes.
const WORD: usize = 4;

/// All but Rt.
const RT: u32 = !0x1f;

/// The text of the instruction that `bytes` start with at the linear address `at`; `(bad)` if they are none.
#[must_use]
pub fn disassemble(bytes: &[u8], at: u64, symbols: Names<'_>) -> String {
    let Some(word) = word(first_instruction(bytes, &[])) else { return "(bad)".to_owned() };
    if let Some(text) = system(word) {
        return text;
    }
    let instruction = match InstDecoder::default().decode(&mut U8Reader::new(&word.to_le_bytes())) {
        Ok(instruction) => instruction,
        Err(DecodeError::IncompleteDecoder) => return format!(".inst {word:#010x}"),
        Err(_) => return "(bad)".to_owned(),
    };
    let mut text = instruction.to_string();
    if text.starts_with("invalid") {
        return format!(".inst {word:#010x}");
    }
    // ADD and SUB with an extended register: UXTW is not LSL, though the decoder has one name for both.
    if word & 0x9fe0_e000 == 0x8b20_4000 {
        text = if text.contains(", lsl ") { text.replace(", lsl ", ", uxtw ") } else { format!("{text}, uxtw") };
    }
    let offset = instruction.operands.iter().find_map(|operand| match operand {
        Operand::PCOffset(offset) => Some(*offset),
        _ => None,
    });
    let (Some(offset), Some(place)) = (offset, text.find('$')) else { return text };
    // It is always the last operand.
    let is_page = word & 0x9f00_0000 == 0x9000_0000;
    let target = if is_page { at & !0xfff } else { at }.wrapping_add_signed(offset);
    text.truncate(place);
    text.push_str(&format!("{target:#x}"));
    if let Some(name) = symbols.resolve(target).filter(|_| !is_page) {
        text.push_str(&format!(" <{name}>"));
    }
    text
}

/// How many of the bytes the first instruction takes: `like` is one, and all are as long.
#[must_use]
pub fn first_instruction<'a>(bytes: &'a [u8], _like: &[u8]) -> &'a [u8] {
    bytes.get(..WORD).unwrap_or(bytes)
}

/// A word under its mask, and the name.
type Name = (u32, u32, &'static str);

/// Maintenance and hints, by their whole word but for the register; with a register if the mask leaves it out.
const NAMES: &[Name] = &[
    (0xd508_711f, u32::MAX, "ic ialluis"),
    (0xd508_751f, u32::MAX, "ic iallu"),
    (0xd50b_7520, RT, "ic ivau"),
    (0xd508_7620, RT, "dc ivac"),
    (0xd508_7640, RT, "dc isw"),
    (0xd50b_7a20, RT, "dc cvac"),
    (0xd508_7a40, RT, "dc csw"),
    (0xd50b_7b20, RT, "dc cvau"),
    (0xd50b_7e20, RT, "dc civac"),
    (0xd508_7e40, RT, "dc cisw"),
    (0xd50b_7c20, RT, "dc cvap"),
    (0xd50b_7d20, RT, "dc cvadp"),
    (0xd50b_7420, RT, "dc zva"),
    (0xd50b_7460, RT, "dc gva"),
    (0xd50b_7480, RT, "dc gzva"),
    (0xd508_7800, RT, "at s1e1r"),
    (0xd508_831f, u32::MAX, "tlbi vmalle1is"),
    (0xd508_8320, RT, "tlbi vae1is"),
    (0xd508_8340, RT, "tlbi aside1is"),
    (0xd508_8360, RT, "tlbi vaae1is"),
    (0xd508_83a0, RT, "tlbi vale1is"),
    (0xd508_83e0, RT, "tlbi vaale1is"),
    (0xd508_871f, u32::MAX, "tlbi vmalle1"),
    (0xd508_8720, RT, "tlbi vae1"),
    (0xd508_8740, RT, "tlbi aside1"),
    (0xd508_8760, RT, "tlbi vaae1"),
    (0xd508_87a0, RT, "tlbi vale1"),
    (0xd508_87e0, RT, "tlbi vaale1"),
    (0xd503_20bf, u32::MAX, "sevl"),
    (0xd503_22df, u32::MAX, "clearbhb"),
    (0xd503_241f, u32::MAX, "bti"),
    (0xd503_245f, u32::MAX, "bti c"),
    (0xd503_249f, u32::MAX, "bti j"),
    (0xd503_24df, u32::MAX, "bti jc"),
];

/// System registers, as the word of the MRS that reads X0 from them.
const REGISTERS: &[(u32, &str)] = &[
    (0xd538_0000, "midr_el1"),
    (0xd538_00a0, "mpidr_el1"),
    (0xd538_1000, "sctlr_el1"),
    (0xd538_1040, "cpacr_el1"),
    (0xd538_2000, "ttbr0_el1"),
    (0xd538_2020, "ttbr1_el1"),
    (0xd538_2040, "tcr_el1"),
    (0xd538_4000, "spsr_el1"),
    (0xd538_4020, "elr_el1"),
    (0xd538_4100, "sp_el0"),
    (0xd538_4200, "spsel"),
    (0xd538_4240, "currentel"),
    (0xd538_4600, "icc_pmr_el1"),
    (0xd538_5200, "esr_el1"),
    (0xd538_6000, "far_el1"),
    (0xd538_a200, "mair_el1"),
    (0xd538_c000, "vbar_el1"),
    (0xd538_cc00, "icc_iar1_el1"),
    (0xd538_cc20, "icc_eoir1_el1"),
    (0xd538_d020, "contextidr_el1"),
    (0xd538_d080, "tpidr_el1"),
    (0xd539_0020, "clidr_el1"),
    (0xd53b_0020, "ctr_el0"),
    (0xd53b_00e0, "dczid_el0"),
    (0xd53b_4200, "nzcv"),
    (0xd53b_4220, "daif"),
    (0xd53b_4400, "fpcr"),
    (0xd53b_4420, "fpsr"),
    (0xd53b_d040, "tpidr_el0"),
    (0xd53b_d060, "tpidrro_el0"),
    (0xd53b_e040, "cntvct_el0"),
    (0xd53c_1000, "sctlr_el2"),
    (0xd53c_1100, "hcr_el2"),
    (0xd53c_2000, "ttbr0_el2"),
    (0xd53c_c000, "vbar_el2"),
    (0xd53c_d040, "tpidr_el2"),
];

/// Fields of PSTATE, as the word of the MSR that writes 0 to them.
const FIELDS: &[(u32, &str)] = &[
    (0xd500_407f, "uao"),
    (0xd500_409f, "pan"),
    (0xd500_40bf, "spsel"),
    (0xd503_403f, "ssbs"),
    (0xd503_405f, "dit"),
    (0xd503_409f, "tco"),
    (0xd503_40df, "daifset"),
    (0xd503_40ff, "daifclr"),
];

/// MRS, MSR, maintenance and some hints. `None`: it is another instruction, or one that the tables have not.
fn system(word: u32) -> Option<String> {
    /// L: MRS, and not MSR.
    const READS: u32 = 0x0020_0000;
    let rt = match word & 0x1f {
        31 => "xzr".to_owned(),
        number => format!("x{number}"),
    };
    if let Some((_, mask, name)) = NAMES.iter().find(|(value, mask, _)| word & mask == *value) {
        return Some(if *mask == RT { format!("{name}, {rt}") } else { (*name).to_owned() });
    }
    if let Some((_, name)) = FIELDS.iter().find(|(value, _)| word & !0xf00 == *value) {
        return Some(format!("msr {name}, #{:#x}", word >> 8 & 0xf));
    }
    if word & 0xffd0_0000 != 0xd510_0000 {
        return None;
    }
    let named = REGISTERS.iter().find(|(mrs, _)| (word | READS) & RT == *mrs).map(|(_, name)| (*name).to_owned());
    let register = named.unwrap_or_else(|| {
        let field = |low: u32, bits: u32| word >> low & ((1 << bits) - 1);
        // S, op0, op1, CRn, CRm, op2: what an assembler takes for any of them.
        format!("s{}_{}_c{}_c{}_{}", field(19, 2), field(16, 3), field(12, 4), field(8, 4), field(5, 3))
    });
    Some(if word & READS != 0 { format!("mrs {rt}, {register}") } else { format!("msr {register}, {rt}") })
}

#[cfg(test)]
mod tests {
    use super::{disassemble, first_instruction};
    use icsan_symbols::linux::kaslr::KaslrRange;
    use icsan_symbols::{SymbolTable, Symbolizer};

    const AT: u64 = 0xffff_8000_8001_0000;

    /// A program's.
    fn symbols() -> Symbolizer {
        let table = SymbolTable::parse(b"0000000000401000 T main\n0000000000401040 T end\n").unwrap();
        Symbolizer::new(vec![table], KaslrRange { alignment: 1, limit: 1 })
    }

    #[test]
    fn targets_have_names() {
        let symbols = symbols();
        let text = |word: u32| disassemble(&word.to_le_bytes(), 0x40_1100, symbols.names());
        assert_eq!(text(0x97ff_ffc0), "bl 0x401000 <main+0x0/0x40>");
        assert_eq!(text(0xb5ff_f800), "cbnz x0, 0x401000 <main+0x0/0x40>");
        assert_eq!(text(0x3707_f820), "tbnz w0, #0x0, 0x401004 <main+0x4/0x40>");
        assert_eq!(text(0x10ff_f800), "adr x0, 0x401000 <main+0x0/0x40>");
        assert_eq!(text(0x9000_0000), "adrp x0, 0x401000");
    }

    /// What GNU's disassembler writes, but for its decimal immediates.
    #[test]
    fn instructions_have_the_assemblers_text() {
        let cases = [
            (0xd503_201f, "nop"),
            (0x1400_0004, "b 0xffff800080010010"),
            (0x17ff_ffff, "b 0xffff80008000fffc"),
            (0x9400_0004, "bl 0xffff800080010010"),
            (0x5400_0041, "b.ne 0xffff800080010008"),
            (0xb400_0040, "cbz x0, 0xffff800080010008"),
            (0x3708_0040, "tbnz w0, #0x1, 0xffff800080010008"),
            (0x5282_2220, "mov w0, #0x1111"),
            (0xaa1e_03e9, "mov x9, x30"),
            (0xd65f_03c0, "ret"),
            (0xd63f_0000, "blr x0"),
            (0xd420_0000, "brk #0x0"),
            (0x9000_0000, "adrp x0, 0xffff800080010000"),
            (0xb000_0000, "adrp x0, 0xffff800080011000"),
            (0x1000_0020, "adr x0, 0xffff800080010004"),
            (0x5800_0040, "ldr x0, 0xffff800080010008"),
            (0x8b20_4840, "add x0, x2, w0, uxtw #2"),
            (0x8b34_4003, "add x3, x0, w20, uxtw"),
            (0xd50b_7523, "ic ivau, x3"),
            (0xd508_711f, "ic ialluis"),
            (0xd50b_7b3f, "dc cvau, xzr"),
            (0xd50b_7423, "dc zva, x3"),
            (0xd508_83bf, "tlbi vale1is, xzr"),
            (0xd503_245f, "bti c"),
            (0xd503_3fdf, "isb"),
            (0xd503_3b9f, "dsb ish"),
            (0xd503_42df, "msr daifset, #0x2"),
            (0xd51b_4236, "msr daif, x22"),
            (0xd53b_0022, "mrs x2, ctr_el0"),
            (0xd518_d025, "msr contextidr_el1, x5"),
            (0xd538_0742, "mrs x2, s3_0_c0_c7_2"),
            (0xa9bf_7bfd, "stp x29, x30, [sp, #-0x10]!"),
            (0x0000_0000, "udf #0x0"),
            // SVE, which the decoder has not; a word that is not allocated.
            (0xe580_4043, ".inst 0xe5804043"),
            (0x0320_0000, "(bad)"),
        ];
        let symbols = symbols();
        for (word, text) in cases {
            assert_eq!(disassemble(&u32::to_le_bytes(word), AT, symbols.names()), text, "{word:08x}");
        }
        assert_eq!(disassemble(&[0x1f, 0x20], AT, symbols.names()), "(bad)");
    }

    #[test]
    fn every_instruction_is_a_word() {
        assert_eq!(first_instruction(&[1, 2, 3, 4, 5, 6, 7, 8], &[0; 4]), [1, 2, 3, 4]);
        assert_eq!(first_instruction(&[1, 2], &[0; 4]), [1, 2]);
    }
}
