//! Verdicts: what ICSAN has to say about a scenario, profile by profile.

pub use icsan_model::verdict::kind::Kind;

pub mod aarch64;
pub mod x86;

/// A profile of the plugin's. Which ones there are is the architecture's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Profile {
    name: &'static str,
    judges_programs: bool,
}

/// Every store is snooped: the control, which every architecture has.
pub const COHERENT: Profile = Profile::new("coherent");

impl Profile {
    /// One of that name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, judges_programs: true }
    }

    /// The same, but it judges the kernel's own text only.
    #[must_use]
    pub const fn of_the_kernel(self) -> Self {
        Self { judges_programs: false, ..self }
    }

    /// Its name on the plugin's command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Does it judge programs, too?
    #[must_use]
    pub const fn judges_programs(self) -> bool {
        self.judges_programs
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

/// No row has more profiles that differ from the others.
const EXCEPTIONS: usize = 8;

/// One verdict for each profile of any architecture: one for all of them, but for the ones that are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdicts {
    all: Verdict,
    /// From the front; a later one counts more than an earlier one.
    but: [Option<(Profile, Verdict)>; EXCEPTIONS],
}

impl Verdicts {
    /// The same everywhere.
    #[must_use]
    pub const fn all(verdict: Verdict) -> Self {
        Self { all: verdict, but: [None; EXCEPTIONS] }
    }

    /// Reported everywhere but under `coherent`, where every store is seen at once.
    #[must_use]
    pub const fn reported(kind: Kind) -> Self {
        Self::all(Verdict::Reported(kind)).but(COHERENT, Verdict::Silent)
    }

    /// Silent everywhere.
    pub const SILENT: Self = Self::all(Verdict::Silent);

    /// The same but for one profile.
    ///
    /// # Panics
    /// There is no room for one more, which the table's constants say when they are compiled.
    #[must_use]
    pub const fn but(mut self, profile: Profile, verdict: Verdict) -> Self {
        let mut at = 0;
        while self.but[at].is_some() {
            at += 1;
        }
        self.but[at] = Some((profile, verdict));
        self
    }

    /// What every profile must say that has no exception.
    #[must_use]
    pub const fn elsewhere(&self) -> Verdict {
        self.all
    }

    /// What this profile must say.
    #[must_use]
    pub fn under(&self, profile: Profile) -> Verdict {
        let named = self.but.iter().rev().flatten().find(|(named, _)| *named == profile);
        named.map_or(self.all, |(_, verdict)| *verdict)
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
    use super::x86::{FRED, LINUX_X86};
    use super::*;

    #[test]
    fn one_profile_can_differ() {
        let verdicts = Verdicts::SILENT.but(FRED, Verdict::Reported(Kind::Torn));
        assert_eq!(verdicts.under(FRED), Verdict::Reported(Kind::Torn));
        assert_eq!(verdicts.under(LINUX_X86), Verdict::Silent);
        assert_eq!(verdicts.elsewhere(), Verdict::Silent);
        let again = verdicts.but(FRED, Verdict::Silent);
        assert_eq!(again.under(FRED), Verdict::Silent, "the last word counts");
        assert_eq!(Verdicts::reported(Kind::Smc).under(COHERENT), Verdict::Silent);
    }
}
