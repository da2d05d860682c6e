//! Numbers and bytes as the report writes them.

/// With `0x`.
pub(super) fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// Two digits a byte.
pub(super) fn hex_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
