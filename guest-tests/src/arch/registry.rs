//! Which architectures there are.

use super::architecture::Architecture;
use super::x86;
use crate::verdict::Profile;

/// All of them; the first one is meant if no other is named.
const KNOWN: &[&Architecture] = &[&x86::ARCHITECTURE];

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
    use crate::verdict::COHERENT;
    use std::collections::HashSet;

    #[test]
    fn names_lead_back_and_an_unknown_one_is_refused_with_the_known_ones() {
        for known in KNOWN {
            assert_eq!(by_name(known.name), Ok(*known));
        }
        assert_eq!(by_name("vax").unwrap_err(), "unknown architecture; known: x86_64");
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
}
