//! The profiles of x86-64 that the table covers.

use super::{COHERENT, Profile};

/// What Linux assumes today.
pub const LINUX_X86: Profile = Profile::new("linux-x86");
/// The letter of the SDM: no INT3 exemption.
pub const SDM_STRICT: Profile = Profile::new("sdm-strict");
/// Returns from interrupts and exceptions do not serialize; IRET-to-self does.
pub const FRED: Profile = Profile::new("fred");
/// One store inside a naturally aligned quadword is exempt.
pub const AMD_APM: Profile = Profile::new("amd-apm");
/// CR3 writes on kernel entry and exit do not count.
pub const PTI_BLIND: Profile = Profile::new("pti-blind");
/// In the kernel's own text only what is there to serialize counts; programs are not judged.
pub const NO_LUCK: Profile = Profile::new("no-luck").of_the_kernel();

/// All of them, in the order in which they are run and shown.
pub const PROFILES: [Profile; 7] = [LINUX_X86, SDM_STRICT, FRED, AMD_APM, PTI_BLIND, NO_LUCK, COHERENT];
