//! The profiles of AArch64 that the table covers.

use super::{COHERENT, Profile};

/// What Linux assumes; maintenance as the guest's CTR_EL0 asks for.
pub const LINUX_ARM64: Profile = Profile::new("linux-arm64");
/// The same, and no instruction may be changed under a running CPU.
pub const ARM64_STRICT: Profile = Profile::new("arm64-strict");
/// Every step of maintenance is needed.
pub const ARM64_BASE: Profile = Profile::new("arm64-base");
/// No clean is needed.
pub const ARM64_IDC: Profile = Profile::new("arm64-idc");
/// No maintenance is needed.
pub const ARM64_IDC_DIC: Profile = Profile::new("arm64-idc-dic");

/// [`LINUX_ARM64`] on a CPU whose CTR_EL0 asks for nothing. For the table; the plugin knows no such name.
pub const LINUX_ARM64_COHERENT: Profile = Profile::new("linux-arm64 where no maintenance is needed");
/// [`ARM64_STRICT`] there.
pub const ARM64_STRICT_COHERENT: Profile = Profile::new("arm64-strict where no maintenance is needed");

/// All of the plugin's, in the order in which they are run and shown.
pub const PROFILES: [Profile; 6] = [LINUX_ARM64, ARM64_STRICT, ARM64_BASE, ARM64_IDC, ARM64_IDC_DIC, COHERENT];
