//! The lines that the guest prints for the runner.
//!
//! The serial console belongs to the kernel too, so each of our lines starts with [`PREFIX`], and everything else is
//! not ours.

/// Stands before every KTAP line of the guest.
pub const PREFIX: &str = "ICSAN| ";

/// The last line of a whole run.
pub const DONE: &str = "# done";

/// A file of the initramfs with a program to run instead of scenarios, and its arguments: a line each.
pub const COMMAND: &str = "/command";

/// How often a round is tried again after the emulator spoiled it, the first time included.
pub const ATTEMPTS: u32 = 10;

/// Describes one result, as it stands in the KTAP line: scenario, round, and the attempt that counts.
#[must_use]
pub fn describe(name: &str, round: u16, attempt: u32) -> String {
    format!("{name} round {round} attempt {attempt}")
}

/// Reads a description back: name, round, attempt.
#[must_use]
pub fn parse_description(text: &str) -> Option<(&str, u16, u32)> {
    let mut words = text.split_whitespace();
    let name = words.next()?;
    (words.next()? == "round").then_some(())?;
    let round = words.next()?.parse().ok()?;
    (words.next()? == "attempt").then_some(())?;
    let attempt = words.next()?.parse().ok()?;
    words.next().is_none().then_some((name, round, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_read_back() {
        assert_eq!(parse_description(&describe("own/jump", 3, 2)), Some(("own/jump", 3, 2)));
        assert_eq!(parse_description("own/jump round 3"), None);
        assert_eq!(parse_description("own/jump round three attempt 1"), None);
    }
}
