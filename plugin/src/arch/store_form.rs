//! Forms of stores: what QEMU tells of the value of a store is not of all of them what was stored.

/// How an instruction stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreForm {
    /// Which form it is, below [`STORE_FORMS`], as its architecture numbers them.
    pub number: u8,
    /// Must it be known what it loaded from there?
    pub needs_load: bool,
}

impl StoreForm {
    /// As one number, below twice [`STORE_FORMS`].
    #[must_use]
    pub const fn packed(self) -> usize {
        2 * self.number as usize + self.needs_load as usize
    }

    /// The form that was packed like that.
    #[must_use]
    pub const fn unpacked(packed: usize) -> Self {
        Self { number: (packed / 2) as u8, needs_load: !packed.is_multiple_of(2) }
    }
}

/// The number of the form in which what is told is what was stored, on every architecture.
pub const PLAIN: u8 = 0;

/// How many forms there can be. Each has callbacks of its own, so that the short way of nearly all stores need not ask.
pub const STORE_FORMS: usize = 8;

#[cfg(test)]
mod tests {
    use super::{STORE_FORMS, StoreForm};

    #[test]
    fn every_form_has_a_number_of_its_own() {
        for packed in 0..2 * STORE_FORMS {
            assert_eq!(StoreForm::unpacked(packed).packed(), packed);
        }
    }
}
