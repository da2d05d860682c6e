//! QEMU's exit code, with `exitcode=`.

/// The code of a report that proves nothing: incomplete, or nothing was watched, or it could not be written.
/// `git bisect run` takes it for "cannot be tested".
pub const UNPROVEN: u8 = 125;

/// What QEMU's exit code becomes; `None`: it stays QEMU's own. `asked`: the key's value. A hazard that was found is
/// one, however incomplete the report is.
#[must_use]
pub fn exit_code(asked: u8, hazards: bool, complete: bool) -> Option<u8> {
    match (asked, hazards, complete) {
        (0, ..) | (_, false, true) => None,
        (asked, true, _) => Some(asked),
        (_, false, false) => Some(UNPROVEN),
    }
}

#[cfg(test)]
mod tests {
    use super::{UNPROVEN, exit_code};

    #[test]
    fn hazards_come_first_and_what_proves_nothing_is_not_clean() {
        assert_eq!([exit_code(3, true, true), exit_code(3, true, false)], [Some(3); 2]);
        assert_eq!((exit_code(3, false, false), exit_code(3, false, true)), (Some(UNPROVEN), None));
        assert!(
            [(true, true), (true, false), (false, false), (false, true)]
                .into_iter()
                .all(|(h, c)| exit_code(0, h, c).is_none())
        );
    }
}
