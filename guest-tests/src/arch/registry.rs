//! Which architectures there are.

use super::architecture::Architecture;
use super::{aarch64, x86};
use crate::verdict::Profile;

/// All of them; the first one is meant if no other is named.
pub const KNOWN: &[&Architecture] = &[&x86::ARCHITECTURE, &aarch64::ARCHITECTURE];

/// The one that is meant if none is named.
pub const DEFAULT: &Architecture = KNOWN[0];

impl Default for &'static Architecture {
    fn default() -> Self {
        DEFAULT
    }
}

/// Looks a name up.
///
/// # Errors
/// There is none of that name: which ones there are.
pub fn by_name(name: &str) -> Result<&'static Architecture, String> {
    KNOWN.iter().find(|known| known.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        format!("unknown architecture; known: {}", names.join(" "))
    })
}

/// Looks a profile of any of them up.
///
/// # Errors
/// There is none of that name.
pub fn profile(name: &str) -> Result<Profile, &'static str> {
    let all = KNOWN.iter().flat_map(|known| known.profiles);
    all.copied().find(|profile| profile.name() == name).ok_or("unknown profile")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{self, Scenario};
    use crate::verdict::{COHERENT, Mode, Verdict};
    use std::collections::HashSet;

    #[test]
    fn names_lead_back_and_an_unknown_one_is_refused_with_the_known_ones() {
        for known in KNOWN {
            assert_eq!(by_name(known.name), Ok(*known));
        }
        assert_eq!(by_name("vax").unwrap_err(), "unknown architecture; known: x86_64 aarch64");
        assert_eq!(profile("coherent"), Ok(COHERENT));
        assert_eq!(profile("linux-vax"), Err("unknown profile"));
    }

    #[test]
    fn each_has_the_control_and_no_profile_twice() {
        for known in KNOWN {
            let names: HashSet<&str> = known.profiles.iter().map(|profile| profile.name()).collect();
            assert_eq!(names.len(), known.profiles.len(), "{}", known.name);
            assert!(known.profiles.contains(&COHERENT), "{}", known.name);
        }
    }

    #[test]
    fn names_are_unique_and_ids_lead_back() {
        for known in KNOWN {
            let names: HashSet<_> = known.table.iter().map(|row| row.name).collect();
            assert_eq!(names.len(), known.table.len(), "{}", known.name);
            for row in known.table {
                assert_eq!(known.table[usize::from(row.id) - 1], *row);
                assert_eq!(table::by_name(known.table, row.name), Some(row));
            }
        }
    }

    #[test]
    fn every_bad_scenario_has_a_good_twin() {
        for known in KNOWN {
            let is_bad = |row: &Scenario| matches!(row.full.under(known.linux()), Verdict::Reported(_));
            for row in known.table.iter().filter(|row| is_bad(row)) {
                let twin = row.twin.and_then(|twin| table::by_name(known.table, twin));
                let twin = twin.unwrap_or_else(|| panic!("{} has no twin", row.name));
                assert!(!is_bad(twin), "{}: its twin {} is bad itself", row.name, twin.name);
                assert!(twin.cpus >= row.cpus, "{}: its twin runs elsewhere", row.name);
            }
        }
    }

    #[test]
    fn the_control_reports_nothing() {
        for row in KNOWN.iter().flat_map(|known| known.table) {
            for mode in [Mode::Light, Mode::Full] {
                assert!(!matches!(row.verdict(mode, COHERENT), Verdict::Reported(_)), "{}", row.name);
            }
        }
    }

    #[test]
    fn a_cpu_is_known_by_its_name_and_has_verdicts_of_its_own() {
        for known in KNOWN {
            assert_eq!(known.cpu(known.plain.name), Ok(known.plain));
            assert!(known.cpu("vax").unwrap_err().contains(known.plain.name));
            for cpu in known.others {
                assert_eq!(known.cpu(cpu.name), Ok(*cpu));
                assert!(cpu.judged_as.iter().all(|(profile, _)| known.profiles.contains(profile)));
                let differs = |profile| {
                    known.table.iter().any(|row| row.full.under(profile) != row.full.under(cpu.judged(profile)))
                };
                assert!(cpu.judged_as.iter().all(|(profile, _)| differs(*profile)), "{}", cpu.name);
            }
            assert_eq!(known.plain.judged(COHERENT), COHERENT);
        }
    }
}
