//! The architectures that this version watches.

use super::platform::Platform;
use super::{aarch64, x86};

/// All of them.
static PLATFORMS: [&dyn Platform; 2] = [&x86::PLATFORM, &aarch64::PLATFORM];

/// The one of QEMU's target of that name.
#[must_use]
pub fn platform(target: &str) -> Option<&'static dyn Platform> {
    PLATFORMS.into_iter().find(|platform| platform.facts().arch.name == target)
}

/// QEMU's programs for them, in one phrase.
#[must_use]
pub fn programs() -> String {
    let known: Vec<_> =
        PLATFORMS.iter().map(|platform| format!("qemu-system-{}", platform.facts().arch.name)).collect();
    known.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::{PLATFORMS, platform, programs};
    use crate::arch::platform::Synchronizing;
    use crate::arch::store_form::STORE_FORMS;
    use crate::points::TAGS;

    #[test]
    fn each_is_found_by_its_name() {
        for known in PLATFORMS {
            let name = known.facts().arch.name;
            assert!(std::ptr::eq(platform(name).unwrap().facts(), known.facts()), "{name}");
            assert!(programs().contains(name));
        }
        assert!(platform("vax").is_none());
    }

    #[test]
    fn every_event_has_a_tag() {
        for platform in PLATFORMS {
            assert!(platform.facts().arch.events.len() <= usize::from(TAGS));
        }
    }

    /// Tags and forms are what generated code carries: whatever bytes there are, they stay within their bounds.
    #[test]
    fn tags_and_forms_are_within_their_bounds() {
        let bytes = |seed: u64| {
            let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed << 7;
            [word, word.rotate_left(29)].map(u64::to_le_bytes).concat()
        };
        let mut at_run_time = 0;
        for platform in PLATFORMS {
            for instruction in (0..200_000).map(bytes) {
                for len in 1..=4 {
                    let instruction = &instruction[..len];
                    assert!(usize::from(platform.store_form(instruction).number) < STORE_FORMS);
                    if let Some(Synchronizing::AtRunTime { tag, .. }) = platform.synchronizing(instruction) {
                        at_run_time += 1;
                        assert!(tag < TAGS, "{instruction:x?}");
                    }
                }
            }
        }
        assert!(at_run_time > 0, "none was met");
    }
}
