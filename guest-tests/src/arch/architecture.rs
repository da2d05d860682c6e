//! The data.

use crate::table::Scenario;
use crate::verdict::Profile;
use crate::zoo::Zoo;

/// A CPU model, and the word on the kernel's command line that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// How it is called on the runner's command line.
    pub name: &'static str,
    /// What QEMU's `-cpu` takes.
    pub model: &'static str,
    /// Which mitigations the kernel has there.
    pub mitigations: &'static str,
    /// Profiles whose verdicts depend on the CPU: under which one of the table's they are looked up for this one.
    pub judged_as: &'static [(Profile, Profile)],
}

impl Cpu {
    /// The profile to look verdicts up under.
    #[must_use]
    pub fn judged(&self, profile: Profile) -> Profile {
        self.judged_as.iter().find(|(known, _)| *known == profile).map_or(profile, |(_, other)| *other)
    }
}

/// One architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Architecture {
    /// QEMU's name of the target, as in `qemu-system-NAME`.
    pub name: &'static str,
    /// What QEMU's `-machine` takes, if no other board is asked for.
    pub board: &'static str,
    /// The CPU of most boots.
    pub plain: Cpu,
    /// More CPUs that a boot can be asked to have.
    pub others: &'static [Cpu],
    /// The word on the kernel's command line of boots in which the kernel isolates its page tables.
    pub isolated: &'static str,
    /// The CPU of those, on which it has a reason to.
    pub open: Cpu,
    /// The kernel's name of the serial console.
    pub console: &'static str,
    /// Words on the kernel's command line so that it stands a host that gives QEMU no time for a while.
    pub patience: &'static str,
    /// What the kernel calls the instruction of a breakpoint, in our words.
    pub breakpoint: &'static str,
    /// What stands on the console where the kernel died of a breakpoint that it did not plant.
    pub death_of_breakpoint: &'static str,
    /// What the marker instruction is encoded as: a guest program of this architecture has it.
    pub marker: &'static [u8],
    /// The plugin's profiles, in the order in which they are run and shown: what Linux assumes comes first.
    pub profiles: &'static [Profile],
    /// The rows.
    pub table: &'static [Scenario],
    /// Kernels with bugs.
    pub zoo: &'static Zoo,
}

impl Architecture {
    /// The CPU of that name, among those that a boot can be asked to have.
    ///
    /// # Errors
    /// There is none: which ones there are.
    pub fn cpu(&self, name: &str) -> Result<Cpu, String> {
        let known = || std::iter::once(&self.plain).chain(self.others);
        known().find(|cpu| cpu.name == name).copied().ok_or_else(|| {
            let names: Vec<&str> = known().map(|cpu| cpu.name).collect();
            format!("{} has no CPU {name}; known: {}", self.name, names.join(" "))
        })
    }

    /// The profile of what Linux assumes.
    #[must_use]
    pub const fn linux(&self) -> Profile {
        self.profiles[0]
    }
}
