//! Which instructions store past the functions by which all others do: QEMU checks their pages first, and then stores
//! through the host's memory (target/i386/tcg/fpu_helper.c, access.c: 10.0 and 11.1), unless the instruction has a
//! callback for its stores.

/// FXSAVE, XSAVE and XSAVEOPT (0F AE), XSAVEC and XSAVES (0F C7), FNSTENV (D9) and FNSAVE (DD): by their opcodes, which
/// others share.
pub(super) fn past_helpers(bytes: &[u8]) -> bool {
    let is_prefix =
        |byte: &u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let prefixes = bytes.iter().take_while(|byte| is_prefix(byte)).count();
    matches!(bytes[prefixes..], [0x0f, 0xae | 0xc7, ..] | [0xd9 | 0xdd, ..] | [])
}

#[cfg(test)]
mod tests {
    use super::past_helpers;

    #[test]
    fn the_saves_of_state_and_little_else() {
        for bytes in [
            &[0x0f, 0xae, 0x07][..],
            &[0x48, 0x0f, 0xae, 0x37],
            &[0x0f, 0xc7, 0x27],
            &[0x66, 0xd9, 0x37],
            &[0x67, 0xdd, 0x37],
            &[0x66; 16],
        ] {
            assert!(past_helpers(bytes), "{bytes:02x?}");
        }
        for bytes in [&[0x89, 0x07][..], &[0xf3, 0xa4], &[0x0f, 0x11, 0x07], &[0xf0, 0x48, 0x0f, 0xb1, 0x0f]] {
            assert!(!past_helpers(bytes), "{bytes:02x?}");
        }
    }
}
