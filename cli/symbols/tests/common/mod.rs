//! Writes small kernels and programs for the tests: the encoder to the library's decoder.

#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod aarch64_image;
pub mod btf;
pub mod elf;
pub mod image;
pub mod real;

/// One symbol: address, type letter, name.
pub type Sym = (u64, char, String);

/// Where the small kernel is linked.
pub const TEXT: u64 = 0xffff_ffff_8100_0000;
/// The distance between two functions of [`kernel_symbols`].
pub const FUNCTION: u64 = 0x40;
/// How many functions it has: enough for several markers.
pub const FUNCTIONS: u64 = 600;

/// The sorted symbols of a small kernel, with per-CPU absolute ones as before 6.15 if wanted.
pub fn kernel_symbols(per_cpu: bool) -> Vec<Sym> {
    let mut list: Vec<Sym> = Vec::new();
    if per_cpu {
        list.push((0, 'A', "__per_cpu_start".to_owned()));
        list.push((0x1f040, 'A', "cpu_tss_rw".to_owned()));
    }
    list.push((TEXT, 'T', "_stext".to_owned()));
    list.push((TEXT, 'T', "_text".to_owned()));
    list.extend(functions(TEXT, "entry_SYSCALL_64"));
    list
}

/// Functions from there on, one of which has this name.
pub fn functions(from: u64, named: &str) -> Vec<Sym> {
    let mut list: Vec<Sym> =
        (0..FUNCTIONS).map(|i| (from + i * FUNCTION, 't', format!("do_sys_function_{i}"))).collect();
    // A name whose length takes two bytes.
    list.push((from + FUNCTIONS * FUNCTION, 'T', format!("long_{}", "q9".repeat(120))));
    list.push((from + (FUNCTIONS + 1) * FUNCTION, 'T', named.to_owned()));
    list.push((from + (FUNCTIONS + 2) * FUNCTION, 'T', "_etext".to_owned()));
    list
}
