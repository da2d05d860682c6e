//! What becomes of the forms of a store that are not simply told of, under QEMU 10.0 and 11.1 alike.

use super::forms::Form;
use iced_x86::{Code, CpuidFeature, Mnemonic};

/// What was seen of a form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// Its change was told of.
    Told,
    /// A part of it was.
    PartlyTold,
    /// It was not: the change was found when the page was translated again.
    Untold,
    /// It changed nothing.
    Unchanged,
    /// TCG does not have it: #UD.
    Undefined,
    /// Another exception.
    Fault(u8),
}

/// Calls to 16-bit addresses, where the guest is not.
pub const CALLS_OUT_OF_REACH: &[Code] = &[Code::Call_rel16, Code::Call_rm16, Code::Call_m1616, Code::Call_ptr1616];

/// Instructions that none of the encodings which are looked at decodes to: jumps as AMD has them, VIA's, 16-bit
/// addresses where a 32-bit one is looked at, UD0 and the 8086's POP CS. None of them is a store that TCG has.
pub const NOT_MET: &[Code] = &[
    Code::Popw_CS,
    Code::Loopne_rel8_16_RCX,
    Code::Loope_rel8_16_RCX,
    Code::Loop_rel8_16_RCX,
    Code::Jrcxz_rel8_16,
    Code::Montmul_16,
    Code::Montmul_64,
    Code::Enqcmd_r16_m512,
    Code::Pvalidatew,
    Code::Ud0,
];

/// Features of which TCG has nothing that stores.
const LACKING: &[CpuidFeature] = &[
    CpuidFeature::AMX_TILE,
    CpuidFeature::AVX512BW,
    CpuidFeature::AVX512DQ,
    CpuidFeature::AVX512F,
    CpuidFeature::AVX512_FP16,
    CpuidFeature::AVX512_VBMI2,
    CpuidFeature::CET_SS,
    CpuidFeature::ENQCMD,
    CpuidFeature::MOVDIR64B,
    CpuidFeature::MOVDIRI,
    CpuidFeature::MSRLIST,
    CpuidFeature::PADLOCK_ACE,
    CpuidFeature::PADLOCK_GMI,
    CpuidFeature::PADLOCK_PHE,
    CpuidFeature::PADLOCK_RNG,
    CpuidFeature::RAO_INT,
    CpuidFeature::TSE,
];

/// CMPccXADD under conditions that do not hold here: it stores what was there.
const UNCHANGED: &[Code] = &[
    Code::VEX_Cmpbxadd_m32_r32_r32,
    Code::VEX_Cmpbxadd_m64_r64_r64,
    Code::VEX_Cmpbexadd_m32_r32_r32,
    Code::VEX_Cmpbexadd_m64_r64_r64,
    Code::VEX_Cmplxadd_m32_r32_r32,
    Code::VEX_Cmplxadd_m64_r64_r64,
    Code::VEX_Cmplexadd_m32_r32_r32,
    Code::VEX_Cmplexadd_m64_r64_r64,
    Code::VEX_Cmpnpxadd_m32_r32_r32,
    Code::VEX_Cmpnpxadd_m64_r64_r64,
    Code::VEX_Cmpoxadd_m32_r32_r32,
    Code::VEX_Cmpoxadd_m64_r64_r64,
    Code::VEX_Cmpsxadd_m32_r32_r32,
    Code::VEX_Cmpsxadd_m64_r64_r64,
    Code::VEX_Cmpzxadd_m32_r32_r32,
    Code::VEX_Cmpzxadd_m64_r64_r64,
];

/// What QEMU 10.0 takes for no-ops.
const NO_OPS_UP_TO_10_0: &[Code] =
    &[Code::Xsavec_mem, Code::Xsavec64_mem, Code::Xsaves_mem, Code::Xsaves64_mem, Code::Vmptrst_m64];

/// Does TCG lack the instruction?
pub fn is_lacking(code: Code) -> bool {
    code.cpuid_features().iter().any(|feature| LACKING.contains(feature))
        || matches!(code, Code::Vmread_rm32_r32 | Code::Vmread_rm64_r64)
}

/// What is expected of a form.
pub fn outcome(form: &Form, api: i64) -> Outcome {
    let code = form.instruction.code();
    let compares =
        matches!(form.instruction.mnemonic(), Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b);
    if is_lacking(code) || NO_OPS_UP_TO_10_0.contains(&code) && api > 4 {
        Outcome::Undefined
    } else if compares && !form.equal || UNCHANGED.contains(&code) || NO_OPS_UP_TO_10_0.contains(&code) {
        Outcome::Unchanged
    } else {
        Outcome::Told
    }
}
