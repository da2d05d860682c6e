//! Damaged and malicious files: an error or a table, but never a panic, and names only from a
//! table that can be walked.

mod common;

use std::sync::LazyLock;

use common::aarch64_image;
use common::elf::{self, Segment};
use common::image::{LAYOUTS, Layout, bz_image, compress, compress_stream, vmlinux};
use common::{TEXT, kernel_symbols};
use icsan_symbols::linux::{self, kernel::LinuxKernel};
use icsan_symbols::{Compression, SymbolTable, Symbolizer};
use proptest::prelude::*;

/// Does everything that a user of the library may do with a file.
fn exercise(bytes: &[u8]) {
    let Ok(table) = SymbolTable::parse(bytes) else { return };
    let some: Vec<(u64, String)> = table.symbols().take(50).map(|s| (s.addr, s.name.to_owned())).collect();
    for (addr, name) in &some {
        assert!(table.address_of(name).is_some());
        for near in [addr.wrapping_sub(1), *addr, addr.wrapping_add(1)] {
            if let Some(resolved) = table.resolve(near) {
                assert!(resolved.offset < resolved.size);
                assert!(!resolved.to_string().is_empty());
            }
        }
    }
    for kernel in linux::KERNELS {
        exercise_symbolizer(Symbolizer::new(vec![table.clone()], kernel.kaslr), kernel, &some);
    }
}

fn exercise_symbolizer(symbols: Symbolizer, kernel: &LinuxKernel, some: &[(u64, String)]) {
    for (addr, name) in some {
        for evidence in kernel.evidence {
            let _ = (symbols.tells(evidence, *addr), symbols.learn_offset_by(evidence, addr ^ 0x8000, *addr));
        }
        let _ = symbols.learn_offset(name, addr.wrapping_add(2 << 20));
        let _ = (symbols.resolve(*addr), symbols.is_text(*addr));
        if let Some(range) = symbols.function_range(name) {
            assert!(!range.is_empty());
        }
    }
    let _ = (symbols.resolve(u64::MAX), kernel.current_task.map(|offset| offset(&symbols)));
}

/// Made once: compressing takes its time.
static SMALL_FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(small_files);
/// A kernel of each layout, of both architectures.
static KERNELS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let arm64 = |layout| aarch64_image::image(layout, &aarch64_image::symbols(true));
    let x86 = LAYOUTS.map(|layout| vmlinux(layout, &kernel_symbols(layout.per_cpu())));
    x86.into_iter().chain(aarch64_image::LAYOUTS.map(arm64)).collect()
});

fn small_files() -> Vec<(String, Vec<u8>)> {
    let symbols = kernel_symbols(true);
    let kernel = vmlinux(Layout::New, &symbols);
    let small = b"ffffffff81000000 T _text\nffffffff81000040 t f\nffffffffc0000000 t m\t[m]\n";
    let segment = [Segment { addr: TEXT, contents: &[0x90; 64] }];
    let program = elf::executable(&segment, &[(TEXT, 8, elf::GLOBAL_FUNC, 1, "_text")]);
    let mut files = vec![("list".to_owned(), small.to_vec()), ("elf".to_owned(), program)];
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd, Compression::Lz4, Compression::Bzip2] {
        files.push((compression.to_string(), bz_image(&compress(compression, &kernel))));
    }
    let kernel = aarch64_image::image(Layout::NewUnsigned, &aarch64_image::symbols(false));
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        let packed = compress_stream(compression, &kernel, lzma_rust2::FilterType::BcjArm64);
        files.push((format!("zboot {compression}"), aarch64_image::zboot("any", &packed)));
        files.push((format!("Image, {compression}"), packed));
    }
    files
}

#[test]
fn every_prefix_is_survived() {
    for (name, file) in SMALL_FILES.iter() {
        // The headers byte by byte, what is compressed in steps.
        let step = if file.len() > 4096 { 97 } else { 1 };
        let ends = (0..file.len().min(2200)).chain((2200..file.len()).step_by(step));
        println!("{name}: {} bytes", file.len());
        for end in ends {
            exercise(&file[..end]);
        }
    }
}

#[test]
fn every_prefix_of_a_kernel_is_survived() {
    for kernel in KERNELS.iter() {
        // A kernel of arm64 begins with 64 KiB of nothing.
        for end in (0..kernel.len()).step_by(if kernel.starts_with(b"MZ") { 997 } else { 113 }) {
            exercise(&kernel[..end]);
        }
        if kernel.starts_with(b"MZ") {
            continue;
        }
        // With its section headers cut off and the segments whole, the tables are still there.
        let mut cut = kernel[..kernel.len() - 64].to_vec();
        cut[40..48].fill(0);
        cut[60..64].fill(0);
        assert!(SymbolTable::parse(&cut).is_ok());
        exercise(&cut);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        exercise(&bytes);
    }

    #[test]
    fn random_elf_files_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        exercise(&[b"\x7fELF\x02\x01\x01", &bytes[..]].concat());
    }

    #[test]
    fn random_images_are_survived(offset in any::<u64>(), flags in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        exercise(&[&aarch64_image::header(offset, flags)[..], &bytes[..]].concat());
        exercise(&[&b"MZ\0\0zimg"[..], &bytes[..]].concat());
    }

    #[test]
    fn random_payloads_are_survived(which in 0..7_usize, bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let magic: [&[u8]; 7] =
            [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"BZh9", b"\x5d\0\0", b"\x7fELF"];
        exercise(&bz_image(&[magic[which], &bytes[..]].concat()));
    }

    #[test]
    fn changed_files_are_survived(which in 0..13_usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = SMALL_FILES[which].1.clone();
        for (place, value) in changes {
            let place = place.index(file.len());
            file[place] = value;
        }
        exercise(&file);
    }

    #[test]
    fn changed_kernels_are_survived(which in 0..8_usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut kernel = KERNELS[which].clone();
        for (place, value) in changes {
            let place = place.index(kernel.len());
            kernel[place] = value;
        }
        exercise(&kernel);
    }

    #[test]
    fn lists_come_back(list in prop::collection::vec((any::<u64>(), prop::sample::select(vec!['t', 'T', 'd', 'B', 'W', 'A']), "[a-z_.][a-z0-9_.$]{0,20}"), 1..60)) {
        prop_assume!(list.iter().any(|(addr, ..)| *addr != 0));
        let text: String = list.iter().map(|(addr, kind, name)| format!("{addr:016x} {kind} {name}\n")).collect();
        let table = SymbolTable::parse(text.as_bytes()).unwrap();
        let mut sorted = list;
        sorted.sort_by_key(|(addr, ..)| *addr);
        let found: Vec<(u64, char, String)> = table.symbols().map(|s| (s.addr, s.kind, s.name.to_owned())).collect();
        prop_assert_eq!(&found, &sorted);
        for (addr, _, name) in &sorted {
            prop_assert!(table.addresses_of(name).any(|a| a == *addr));
        }
        exercise(text.as_bytes());
    }
}
