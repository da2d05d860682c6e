//! BTF that the tests write themselves: where members may be, what is refused, and hostile bytes.

mod common;

use common::btf::{ARRAY, Basics, Btf, CONST, INT, STRUCT, TYPEDEF, UNION, basics, plain};
use common::elf::{self, Segment};
use common::image::{Layout, bz_image, compress, kallsyms};
use common::{TEXT, kernel_symbols};
use icsan_symbols::{Compression, KernelLayout, SymbolTable};
use proptest::prelude::*;

fn parse(btf: &Btf) -> Option<KernelLayout> {
    KernelLayout::parse(&btf.bytes())
}

fn assert_plain(layout: &KernelLayout) {
    let found = [
        layout.task_stack,
        layout.task_mm,
        layout.task_pid,
        layout.task_tgid,
        layout.task_comm,
        layout.task_comm_len,
        layout.task_size,
    ];
    assert_eq!(found, [8, 16, 24, 28, 32, 16, 64]);
    assert_eq!((layout.task_active_mm, layout.mm_pgd, layout.pcpu_hot_current_task), (None, None, None));
}

#[test]
fn plain_members() {
    assert_plain(&parse(&plain()).unwrap());
}

#[test]
fn members_behind_modifiers_and_in_anonymous_structures() {
    let mut btf = Btf::default();
    let Basics { int, comm, pointer } = basics(&mut btf);
    let pid_t = btf.to(TYPEDEF, "__kernel_pid_t", int);
    let constant = btf.to(CONST, "", pid_t);
    let innermost = btf.structure(UNION, "", 8, &[("other", int, 0, 0), ("mm", pointer, 0, 0)]);
    let inner = btf.structure(
        STRUCT,
        "",
        40,
        &[("x", int, 0, 0), ("", innermost, 64, 0), ("comm", comm, 128, 0), ("active_mm", pointer, 256, 0)],
    );
    // Not anonymous: what is in it has another name.
    let named = btf.structure(STRUCT, "", 8, &[("pid", int, 0, 0)]);
    btf.structure(
        STRUCT,
        "task_struct",
        128,
        &[
            ("named", named, 0, 0),
            ("", inner, 128, 0),
            ("pid", constant, 512, 0),
            ("tgid", pid_t, 544, 0),
            ("stack", pointer, 576, 0),
        ],
    );
    btf.structure(STRUCT, "mm_struct", 96, &[("pgd", pointer, 640, 0)]);
    btf.structure(STRUCT, "pcpu_hot", 64, &[("", innermost, 0, 0), ("current_task", pointer, 64, 0)]);
    let layout = parse(&btf).unwrap();
    let found = [layout.task_mm, layout.task_comm, layout.task_pid, layout.task_tgid, layout.task_stack];
    assert_eq!(found, [24, 32, 64, 68, 72]);
    assert_eq!((layout.task_active_mm, layout.mm_pgd, layout.pcpu_hot_current_task), (Some(48), Some(80), Some(8)));
}

/// A `task_struct` with one member replaced.
fn with_member(name: &str, number: impl Fn(&mut Btf, &Basics) -> u32, bits: u32, width: u32) -> Option<KernelLayout> {
    let mut btf = Btf::default();
    let basics = basics(&mut btf);
    let Basics { int, comm, pointer } = basics;
    let replaced = number(&mut btf, &basics);
    let mut members = vec![
        ("stack", pointer, 64, 0),
        ("mm", pointer, 128, 0),
        ("pid", int, 192, 0),
        ("tgid", int, 224, 0),
        ("comm", comm, 256, 0),
    ];
    for member in &mut members {
        if member.0 == name {
            *member = (member.0, replaced, bits, width);
        }
    }
    btf.structure(STRUCT, "task_struct", 64, &members);
    parse(&btf)
}

#[test]
fn no_layout_rather_than_a_wrong_one() {
    assert_plain(&with_member("pid", |_, b| b.int, 192, 0).unwrap());
    assert_eq!(with_member("pid", |_, b| b.int, 192, 4), None, "a bitfield");
    assert_eq!(with_member("pid", |_, b| b.int, 193, 0), None, "no whole byte");
    assert_eq!(
        with_member("pid", |btf, _| btf.raw("int", INT, false, 0, 4, &[3]), 192, 0),
        None,
        "a bitfield of old compilers"
    );
    assert_eq!(with_member("pid", |btf, _| btf.int("long", 8), 192, 0), None, "another size");
    assert_eq!(with_member("pid", |_, b| b.pointer, 192, 0), None, "another kind");
    assert_eq!(with_member("comm", |_, b| b.comm, 400, 0), None, "outside of the structure");
    assert_eq!(with_member("comm", |btf, b| btf.array(b.int, 4), 256, 0), None, "no bytes");
    assert_eq!(with_member("comm", |btf, b| btf.array(b.comm, 0x1000_0000), 256, 0), None, "an array of arrays");
    assert_eq!(with_member("mm", |_, _| 99, 128, 0), None, "no such type");
    assert_eq!(
        with_member("mm", |btf, _| btf.raw("loop", TYPEDEF, false, 0, 5, &[]), 128, 0),
        None,
        "a typedef of itself"
    );
    let mut empty = Btf::default();
    basics(&mut empty);
    assert_eq!(parse(&empty), None, "no task_struct");
}

#[test]
fn unknown_kinds_are_skipped_if_the_layouts_tell_their_size() {
    let with_unknown = |layouts: &[u8]| {
        let mut btf = Btf::default();
        let Basics { int, comm, pointer } = basics(&mut btf);
        btf.raw("new", 20, false, 2, 0, &[1, 2, 3, 4, 5]);
        btf.structure(
            STRUCT,
            "task_struct",
            64,
            &[
                ("stack", pointer, 64, 0),
                ("mm", pointer, 128, 0),
                ("pid", int, 192, 0),
                ("tgid", int, 224, 0),
                ("comm", comm, 256, 0),
            ],
        );
        btf.layouts = layouts.to_vec();
        parse(&btf)
    };
    let mut layouts = vec![0; 20 * 4];
    layouts.extend([4, 8, 0, 0]);
    assert_plain(&with_unknown(&layouts).unwrap());
    assert_eq!(with_unknown(&[]), None);
    assert_eq!(with_unknown(&layouts[..80]), None);
}

#[test]
fn every_prefix_is_survived() {
    let bytes = plain().bytes();
    for end in 0..bytes.len() {
        assert_eq!(KernelLayout::parse(&bytes[..end]), None, "{end}");
    }
    let mut longer = bytes;
    longer.extend([0xff; 100]);
    assert_plain(&KernelLayout::parse(&longer).unwrap());
}

#[test]
fn it_is_found_in_a_kernel_image() {
    let mut before = vec![0x90; 0x9000];
    before.extend([0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 1, 2, 3]); // code may look like a header
    before.extend(plain().bytes());
    let contents = kallsyms(Layout::New, &kernel_symbols(true), before, TEXT);
    let kernel = elf::executable(&[Segment { addr: TEXT, contents: &contents }], &[]);
    let table = SymbolTable::parse(&bz_image(&compress(Compression::Lz4, &kernel))).unwrap();
    assert_plain(table.layout().unwrap());
    assert_plain(SymbolTable::parse(&kernel).unwrap().layout().unwrap());
}

#[test]
fn it_is_found_by_its_section() {
    let btf = plain().bytes();
    let segments = [Segment { addr: TEXT, contents: &[0x90; 64] }];
    let symbol = [(TEXT, 8, elf::GLOBAL_FUNC, 1, "_text")];
    let vmlinux = elf::with_section(elf::EXECUTABLE, &segments, &symbol, Some((".BTF", &btf)));
    assert_plain(SymbolTable::parse(&vmlinux).unwrap().layout().unwrap());
    assert_eq!(SymbolTable::parse(&elf::executable(&segments, &symbol)).unwrap().layout(), None);
    // A program's own types are not the kernel's.
    let program =
        elf::with_section(elf::EXECUTABLE, &segments, &[(TEXT, 8, elf::GLOBAL_FUNC, 1, "main")], Some((".BTF", &btf)));
    assert_eq!(SymbolTable::parse(&program).unwrap().layout(), None);
    let list = SymbolTable::parse(b"ffffffff81000000 T _text\n").unwrap();
    assert_eq!(list.layout(), None);
}

#[test]
fn deep_and_wide_nesting_ends() {
    let mut btf = Btf::default();
    let mut inner = btf.int("int", 4);
    for _ in 0..40 {
        inner =
            btf.structure(STRUCT, "", 4, &[("", inner, 0, 0), ("", inner, 0, 0), ("", inner, 0, 0), ("", inner, 0, 0)]);
    }
    btf.structure(STRUCT, "task_struct", 4, &[("", inner, 0, 0)]);
    assert_eq!(parse(&btf), None);
    // A structure that contains itself.
    let mut btf = Btf::default();
    btf.structure(STRUCT, "task_struct", 4, &[("", 1, 0, 0), ("", 1, 0, 0)]);
    assert_eq!(parse(&btf), None);
}

/// Offsets that were given are inside of the structure.
fn exercise(bytes: &[u8]) {
    for layout in [KernelLayout::parse(bytes), KernelLayout::search(bytes)].into_iter().flatten() {
        assert!(u64::from(layout.task_comm) + u64::from(layout.task_comm_len) <= layout.task_size.into());
        assert!(u64::from(layout.task_pid) + 4 <= layout.task_size.into());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_btf_is_survived(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = plain().bytes();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        exercise(&bytes);
    }

    #[test]
    fn random_types_are_survived(
        types in prop::collection::vec((0_u32..24, any::<bool>(), 0_u32..5, prop_oneof![0_u32..40, any::<u32>()], prop::collection::vec(prop_oneof![0_u32..40, any::<u32>()], 0..16)), 0..30),
        named in 0_usize..30,
    ) {
        let mut btf = Btf::default();
        for (index, (kind, flag, count, size, extra)) in types.iter().enumerate() {
            let name = if index == named { "task_struct" } else { ["", "comm", "pid", "mm"][index % 4] };
            let length = match *kind { INT | 14 | 17 => 1, ARRAY => 3, STRUCT | UNION | 15 | 19 => 3 * *count, 6 | 13 => 2 * *count, _ => 0 };
            let words: Vec<u32> = extra.iter().copied().cycle().take(if extra.is_empty() { 0 } else { length as usize }).collect();
            btf.raw(name, *kind, *flag, *count, *size, &words);
        }
        exercise(&btf.bytes());
    }

    #[test]
    fn random_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..400), with_magic in any::<bool>()) {
        if with_magic {
            let header = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
            bytes.splice(0..bytes.len().min(8), header);
        }
        exercise(&bytes);
    }
}
