//! Is a word on a stack a return address? Only a CALL leaves one, so a CALL ends right before the place
//! that it points to.
//!
//! Of a code address R that a stack may hold, the bytes before R are looked at: *could* a CALL of x86-64 end there?
//! Instructions of x86 cannot be read backwards, so the answer is about these bytes alone. Every near CALL is
//! recognised (`E8`, and `FF /2` in each of its lengths, with any prefixes: those stand before the bytes that decide);
//! now and then bytes in the middle of other instructions look like one. Where it matters, ask of a
//! [`CallKind::Direct`] whether its target is the start of a function.

/// The most bytes before a return address that matter: what prefixes add in front changes nothing.
pub const LONGEST: usize = 7;

const CALL_REL32: u8 = 0xe8;
const GROUP_5: u8 = 0xff;
/// The lengths of `FF /2` without prefixes, from the opcode on.
const INDIRECT_LENGTHS: [usize; 5] = [2, 3, 6, 7, 4];

/// How a CALL names its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// `E8`: the target is the return address plus this; see [`CallKind::target`].
    Direct {
        /// The signed displacement.
        rel32: i32,
    },
    /// `FF /2`: through a register or memory.
    Indirect,
}

impl CallKind {
    /// The target of a direct call that returns to this address.
    #[must_use]
    pub fn target(self, return_address: u64) -> Option<u64> {
        match self {
            CallKind::Direct { rel32 } => Some(return_address.wrapping_add_signed(i64::from(rel32))),
            CallKind::Indirect => None,
        }
    }
}

/// Does a CALL end with the last of these bytes? A direct one is preferred where both could be. [`LONGEST`] bytes are
/// enough; with fewer, as at the start of a page, the longer forms are not seen.
#[must_use]
pub fn ends_with_call(bytes_before: &[u8]) -> Option<CallKind> {
    calls_ending(bytes_before).next()
}

/// Each kind of CALL that could end with the last of these bytes: none, one, or a direct one and then an indirect one.
pub fn calls_ending(bytes_before: &[u8]) -> impl Iterator<Item = CallKind> {
    let direct = match bytes_before.last_chunk() {
        Some(&[CALL_REL32, a, b, c, d]) => Some(CallKind::Direct { rel32: i32::from_le_bytes([a, b, c, d]) }),
        _ => None,
    };
    let indirect = INDIRECT_LENGTHS.iter().any(|&length| ends_with_indirect(bytes_before, length));
    direct.into_iter().chain(indirect.then_some(CallKind::Indirect))
}

/// Is it `FF /2` of exactly this length?
fn ends_with_indirect(bytes: &[u8], length: usize) -> bool {
    let Some(call) = bytes.len().checked_sub(length).and_then(|start| bytes.get(start..)) else { return false };
    let Some(&[GROUP_5, modrm]) = call.first_chunk() else { return false };
    modrm >> 3 & 7 == 2 && operand(modrm, call.get(2).copied()) == Some(length)
}

/// The length of opcode, ModRM, SIB and displacement.
fn operand(modrm: u8, sib: Option<u8>) -> Option<usize> {
    let (mode, register) = (modrm >> 6, modrm & 7);
    let has_sib = mode != 3 && register == 4;
    let displacement = match mode {
        0 if register == 5 => 4,            // RIP-relative
        0 if has_sib && sib? & 7 == 5 => 4, // no base
        0 | 3 => 0,
        1 => 1,
        _ => 4,
    };
    Some(2 + usize::from(has_sib) + displacement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn direct_calls() {
        assert_eq!(ends_with_call(&[0xe8, 0x10, 0, 0, 0]), Some(CallKind::Direct { rel32: 0x10 }));
        assert_eq!(ends_with_call(&[0x90, 0x2e, 0xe8, 0xfb, 0xff, 0xff, 0xff]), Some(CallKind::Direct { rel32: -5 }));
        assert_eq!(CallKind::Direct { rel32: -5 }.target(0xffff_ffff_8100_0005), Some(0xffff_ffff_8100_0000));
        assert_eq!(CallKind::Direct { rel32: 1 }.target(u64::MAX), Some(0));
        assert_eq!(CallKind::Indirect.target(5), None);
    }

    /// Encodings by GNU as 2.40.
    const INDIRECT: [(&str, &[u8]); 22] = [
        ("call *%rax", &[0xff, 0xd0]),
        ("call *%r11", &[0x41, 0xff, 0xd3]),
        ("bnd call *%rax", &[0xf2, 0xff, 0xd0]),
        ("notrack call *%rax", &[0x3e, 0xff, 0xd0]),
        ("call *(%rax)", &[0xff, 0x10]),
        ("call *(%r12)", &[0x41, 0xff, 0x14, 0x24]),
        ("call *(%rsp)", &[0xff, 0x14, 0x24]),
        ("call *(%rax,%rbx,8)", &[0xff, 0x14, 0xd8]),
        ("call *0x0(%rbp)", &[0xff, 0x55, 0x00]),
        ("call *0x8(%rax)", &[0xff, 0x50, 0x08]),
        ("call *0x8(%rsp)", &[0xff, 0x54, 0x24, 0x08]),
        ("call *0x8(%rax,%rbx,8)", &[0xff, 0x54, 0xd8, 0x08]),
        ("call *0x12345678(%rax)", &[0xff, 0x90, 0x78, 0x56, 0x34, 0x12]),
        ("call *0x12345678(%rsp)", &[0xff, 0x94, 0x24, 0x78, 0x56, 0x34, 0x12]),
        ("call *0x12345678(%rax,%rbx,8)", &[0xff, 0x94, 0xd8, 0x78, 0x56, 0x34, 0x12]),
        ("call *0x12345678(%rip)", &[0xff, 0x15, 0x78, 0x56, 0x34, 0x12]),
        ("call *0x12345678", &[0xff, 0x14, 0x25, 0x78, 0x56, 0x34, 0x12]),
        ("call *0x12345678(,%rax,8)", &[0xff, 0x14, 0xc5, 0x78, 0x56, 0x34, 0x12]),
        ("call *%gs:0x28", &[0x65, 0xff, 0x14, 0x25, 0x28, 0, 0, 0]),
        ("call *%gs:0x12345678(%rip)", &[0x65, 0xff, 0x15, 0x78, 0x56, 0x34, 0x12]),
        ("call *0x12345678(%r12,%r13,2)", &[0x43, 0xff, 0x94, 0x6c, 0x78, 0x56, 0x34, 0x12]),
        ("call *(%eax)", &[0x67, 0xff, 0x10]),
    ];

    #[test]
    fn indirect_calls() {
        for (text, bytes) in INDIRECT {
            assert_eq!(ends_with_call(bytes), Some(CallKind::Indirect), "{text}");
            // One byte more or less at the end is another instruction.
            assert_ne!(ends_with_call(&bytes[..bytes.len() - 1]), Some(CallKind::Indirect), "cut: {text}");
            let longer: Vec<u8> = bytes.iter().copied().chain([0x90]).collect();
            assert_eq!(ends_with_call(&longer), None, "longer: {text}");
        }
    }

    #[test]
    fn other_instructions() {
        let others: [(&str, &[u8]); 11] = [
            ("nothing", &[]),
            ("jmp rel32", &[0xe9, 0, 0, 0, 0]),
            ("call cut short", &[0xe8, 0, 0, 0]),
            ("jmp *%rax", &[0xff, 0xe0]),
            ("lcall *(%rax)", &[0xff, 0x18]),
            ("push (%rax)", &[0xff, 0x30]),
            ("inc %eax", &[0xff, 0xc0]),
            ("call *disp32, cut short", &[0xff, 0x90, 0, 0, 0]),
            ("opcode alone", &[0xff]),
            ("syscall", &[0x0f, 0x05]),
            ("ret", &[0xc3]),
        ];
        for (text, bytes) in others {
            assert_eq!(ends_with_call(bytes), None, "{text}");
        }
    }

    #[test]
    fn both_could_be() {
        let bytes = [0xe8, 0, 0, 0xff, 0xd0];
        let kinds: Vec<CallKind> = calls_ending(&bytes).collect();
        assert_eq!(kinds, [CallKind::Direct { rel32: i32::from_le_bytes([0, 0, 0xff, 0xd0]) }, CallKind::Indirect]);
    }

    proptest! {
        #[test]
        fn only_the_last_bytes_count(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let last = &bytes[bytes.len().saturating_sub(LONGEST)..];
            prop_assert_eq!(ends_with_call(&bytes), ends_with_call(last));
        }
    }
}
