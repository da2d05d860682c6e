//! The kernel module that patches its own text (`guest-tests/module`): what guest and runner have to agree on.

/// Its name; the guest finds it as `NAME.ko` beside the other modules.
pub const NAME: &str = "icsan_patcher";

const TEXT: &str = "icsan_patcher .text ";

/// Says where its text is, in a comment of the guest's output: symbols of the kernel image do not cover modules.
#[must_use]
pub fn describe_text(address: u64) -> String {
    format!("{TEXT}{address:#x}")
}

/// Reads that back.
#[must_use]
pub fn parse_text(comment: &str) -> Option<u64> {
    u64::from_str_radix(comment.strip_prefix(TEXT)?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{describe_text, parse_text};

    #[test]
    fn addresses_read_back() {
        assert_eq!(parse_text(&describe_text(0xffff_ffff_c020_1000)), Some(0xffff_ffff_c020_1000));
        assert_eq!(parse_text("icsan_patcher .text unknown"), None);
        assert_eq!(parse_text("cross/imm8: it broke"), None);
    }
}
