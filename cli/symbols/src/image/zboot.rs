//! An EFI program that unpacks the kernel and starts it (`CONFIG_EFI_ZBOOT`): Linux's
//! `drivers/firmware/efi/libstub/zboot-header.S`. Several architectures have it; which one it is of, what is packed in
//! it says.

use crate::error::SymbolError;

/// Where its type is, behind `MZ`.
const TYPE: usize = 4;
/// Where the packed kernel is, from the start of the file.
const PAYLOAD_OFFSET: usize = 8;
/// How long that is, without the length that the build appends.
const PAYLOAD_SIZE: usize = 12;

/// Is it one?
#[must_use]
pub fn is_kernel_image(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MZ") && bytes.get(TYPE..TYPE + 4) == Some(b"zimg")
}

/// The packed kernel.
///
/// # Errors
/// [`SymbolError::Truncated`].
pub fn payload(bytes: &[u8]) -> Result<&[u8], SymbolError> {
    let field = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word) as usize);
    let range = || Some((field(PAYLOAD_OFFSET)?, field(PAYLOAD_SIZE)?));
    range()
        .and_then(|(start, size)| bytes.get(start..start.checked_add(size)?))
        .ok_or(SymbolError::Truncated { what: "the compressed kernel" })
}
