//! The plugin in real QEMUs, as its users load it.
//!
//! Built with the feature `real-qemu` only. What is needed is named by environment variables, which `scripts/test`
//! sets; what is missing is a failure. As many QEMUs run at a time as the host has CPUs, and each has a time limit.
//!
//! Most tests boot [`boot_sector`], less than 200 bytes that change their own code in known places, in a third of a
//! second; what needs a kernel boots Debian's.

mod arm_code;
mod arm_forms;
mod arm_inject;
mod arm_modes;
mod arm_origins;
mod arm_remap;
mod arm_repair;
mod arm_stores;
mod arm_translation;
mod arm_unseen;
mod boot_sector;
mod bounds;
mod emulator;
mod endings;
mod golden;
mod high_sector;
mod hooks;
mod initramfs;
mod inject;
mod interrupted;
mod keys;
mod lab;
mod long_sector;
mod machine;
mod maintenance;
mod origins;
mod own_stores;
mod places;
mod pokes;
mod processes;
mod recording;
mod refusals;
mod report;
mod restored;
mod store_forms;
mod symbols;
mod syscall_sector;
