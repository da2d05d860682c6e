//! Verdicts: what ICSAN has to say about a scenario, profile by profile.

pub use icsan_model::verdict::kind::Kind;

/// The x86-64 profiles that the table covers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Profile {
    /// What Linux assumes today.
    LinuxX86,
    /// The letter of the SDM: no INT3 exemption.
    SdmStrict,
    /// Returns from interrupts and exceptions do not serialize; IRET-to-self does.
    Fred,
    /// One store inside a naturally aligned quadword is exempt.
    AmdApm,
    /// CR3 writes on kernel entry and exit do not count.
    PtiBlind,
    /// In the kernel's own text only what is there to serialize counts; programs are not judged.
    NoLuck,
    /// Every store is snooped: the control.
    Coherent,
}

impl Profile {
    /// Every profile with its name, in the order of [`Verdicts`].
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::LinuxX86, "linux-x86"),
        (Self::SdmStrict, "sdm-strict"),
        (Self::Fred, "fred"),
        (Self::AmdApm, "amd-apm"),
        (Self::PtiBlind, "pti-blind"),
        (Self::NoLuck, "no-luck"),
        (Self::Coherent, "coherent"),
    ];

    /// Its name on the plugin's command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// Looks a name up.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(profile, _)| *profile)
    }
}

/// What ICSAN must say about one scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// No hazard at all.
    Silent,
    /// At least one hazard of this kind, on the executor's vCPU, in every round.
    Reported(Kind),
    /// Either would be right, or it depends on timing: the reason says which.
    Unchecked(&'static str),
}

/// One verdict for each profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdicts([Verdict; Profile::NAMES.len()]);

impl Verdicts {
    /// The same everywhere.
    #[must_use]
    pub const fn all(verdict: Verdict) -> Self {
        Self([verdict; Profile::NAMES.len()])
    }

    /// Reported everywhere but under `coherent`, where every store is seen at once.
    #[must_use]
    pub const fn reported(kind: Kind) -> Self {
        Self::all(Verdict::Reported(kind)).but(Profile::Coherent, Verdict::Silent)
    }

    /// Silent everywhere.
    pub const SILENT: Self = Self::all(Verdict::Silent);

    /// The same but for one profile.
    #[must_use]
    pub const fn but(mut self, profile: Profile, verdict: Verdict) -> Self {
        self.0[profile as usize] = verdict;
        self
    }

    /// What this profile must say.
    #[must_use]
    pub const fn under(&self, profile: Profile) -> Verdict {
        self.0[profile as usize]
    }
}

/// How much the plugin knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Compares executed bytes, epoch by epoch, and sees no store.
    Light,
    /// Follows every store.
    Full,
}

impl Mode {
    /// Both, with their names.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Light, "light"), (Self::Full, "full")];

    /// Its name on the runner's command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Full => "full",
        }
    }

    /// Looks a name up.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode)
    }

    /// The plugin's key that asks for it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Light => "writers=off",
            Self::Full => "writers=on",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_stand_in_the_order_of_their_names() {
        for (index, (profile, name)) in Profile::NAMES.iter().enumerate() {
            assert_eq!(*profile as usize, index);
            assert_eq!(profile.name(), *name);
            assert_eq!(Profile::from_name(name), Some(*profile));
        }
    }

    #[test]
    fn one_profile_can_differ() {
        let verdicts = Verdicts::SILENT.but(Profile::Fred, Verdict::Reported(Kind::Torn));
        assert_eq!(verdicts.under(Profile::Fred), Verdict::Reported(Kind::Torn));
        assert_eq!(verdicts.under(Profile::LinuxX86), Verdict::Silent);
        assert_eq!(Verdicts::reported(Kind::Smc).under(Profile::Coherent), Verdict::Silent);
    }
}
