//! The tables of AArch64's stores, against a decoder and an assembler's words.

use icsan_model::arch::aarch64::may_store::may_store;
use icsan_model::arch::aarch64::store_kind::StoreKind::{Add, And, Compare, Extreme, Or, Plain, Xor};
use icsan_model::arch::aarch64::store_kind::{StoreKind, store_kind};
use proptest::prelude::{any, proptest};
use std::collections::{BTreeMap, BTreeSet};
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

/// The decoder's name for a word; `None`: it is no instruction, or of an extension that the decoder has not (SVE, SME).
fn name(word: u32) -> Option<String> {
    let instruction = InstDecoder::default().decode(&mut U8Reader::new(&word.to_le_bytes())).ok()?;
    let name = instruction.to_string().split(' ').next()?.to_owned();
    // It takes some words for instructions that have a bit too many, has "invalid" for STGP, and SYS for DC.
    match name.as_str() {
        "invalid" => (word & 0xfe40_0000 == 0x6800_0000).then(|| "stgp".to_owned()),
        "sys" if matches!(word & !0x1f, 0xd50b_7420 | 0xd50b_7480) => Some("dc zva".to_owned()),
        _ => (word & 0xbe00_0000 != 0x8c00_0000).then_some(name),
    }
}

/// Does the instruction of this name store?
fn stores(name: &str) -> bool {
    const BEGINNINGS: [&str; 15] = [
        "st", "swp", "cas", "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "cpy", "setp",
        "setm", "sete",
    ];
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || name == "dc zva"
}

/// What only loads, and may store by the table all the same.
const NOT_KNOWN: [&str; 3] = ["ldg", "ldgm", "ld64b"];

/// What the table of kinds says, by name alone.
fn kind(name: &str) -> StoreKind {
    let kinds: [(&str, StoreKind); 16] = [
        ("stx", Compare),
        ("stlx", Compare),
        ("cas", Compare),
        ("ldadd", Add),
        ("stadd", Add),
        ("ldclr", And),
        ("stclr", And),
        ("ldeor", Xor),
        ("steor", Xor),
        ("ldset", Or),
        ("stset", Or),
        ("ldsm", Extreme),
        ("ldum", Extreme),
        ("stsm", Extreme),
        ("stum", Extreme),
        ("", Plain),
    ];
    kinds.into_iter().find(|(beginning, _)| name.starts_with(beginning)).map_or(Plain, |(_, kind)| kind)
}

/// Words of every encoding class: all that the bits outside of registers and immediates can be, with a few registers.
fn words() -> impl Iterator<Item = u32> {
    const REGISTERS: [(u32, u32, u32); 4] = [(1, 2, 3), (31, 5, 6), (0, 1, 2), (16, 2, 31)];
    (0..1 << 11).flat_map(|top| {
        (0..1 << 6).flat_map(move |low| {
            REGISTERS.map(move |(rm, rn, rt)| top << 21 | rm << 16 | low << 10 | rn << 5 | rt).into_iter()
        })
    })
}

#[test]
fn what_may_store_is_what_the_decoder_says() {
    let mut met: BTreeMap<bool, BTreeSet<String>> = BTreeMap::new();
    let mut wrong = BTreeMap::new();
    let system = (0..1 << 14).map(|fields| 0xd508_0003 | fields << 5);
    for word in words().chain(system) {
        let Some(name) = name(word) else { continue };
        let (bytes, stores) = (word.to_le_bytes(), stores(&name));
        let guarded = name == "sys" && word & 0xff00 == 0x7700;
        if !NOT_KNOWN.contains(&name.as_str()) && !guarded && may_store(&bytes) != stores {
            wrong.entry(name.clone()).or_insert(word);
        }
        // Of W and of S registers; `opc` is in the highest two bits.
        let of_words = ["stp", "stnp"].contains(&name.as_str()) && word >> 30 == 0;
        if stores && store_kind(&bytes) != if of_words { StoreKind::Pair } else { kind(&name) } {
            wrong.entry(name.clone()).or_insert(word);
        }
        met.entry(stores).or_default().insert(name);
    }
    assert!(wrong.is_empty(), "{wrong:08x?}");
    let (stores, others) = (&met[&true], &met[&false]);
    assert!(stores.len() > 150 && others.len() > 400, "{} and {}", stores.len(), others.len());
}

/// Words as an assembler makes them (GNU's).
#[test]
fn kinds_are_told_from_words() {
    let cases = [
        // stxr, stlxr, stxrb, stlxrh, stxp x, stlxp w.
        (0x8801_7c62, Compare),
        (0xc801_fc62, Compare),
        (0x0801_7c62, Compare),
        (0x4801_fc62, Compare),
        (0xc821_1062, Compare),
        (0x8821_9062, Compare),
        // cas, casal, casb, caslh, casp x, caspal w.
        (0xc8a1_7c62, Compare),
        (0x88e1_fc62, Compare),
        (0x08a1_7c62, Compare),
        (0x48a1_fc62, Compare),
        (0x4820_7c82, Compare),
        (0x0860_fc82, Compare),
        // ldadd, ldaddalb, stadd; ldclr, stclrh; ldeor, steorl; ldset, ldseta.
        (0xf821_0062, Add),
        (0x38e1_0062, Add),
        (0xf821_007f, Add),
        (0xb821_1062, And),
        (0x7821_107f, And),
        (0xf821_2062, Xor),
        (0xb861_207f, Xor),
        (0xf821_3062, Or),
        (0xb8a1_3062, Or),
        // ldsmax, ldsminb, ldumax, stumin.
        (0xb821_4062, Extreme),
        (0x3821_5062, Extreme),
        (0xf821_6062, Extreme),
        (0xf821_707f, Extreme),
        // ldclrp, ldsetp, swpp.
        (0x1921_1062, And),
        (0x1921_3062, Or),
        (0x1921_8062, Plain),
        // swp, swpalb; str, stp, stlr, stlur, st1, sttr.
        (0xf821_8062, Plain),
        (0x38e1_8062, Plain),
        (0xf900_0061, Plain),
        (0xa900_0861, Plain),
        (0xc89f_fc61, Plain),
        (0xd900_8061, Plain),
        (0x4c00_7060, Plain),
        (0xb800_0861, Plain),
    ];
    for (word, kind) in cases {
        let bytes = u32::to_le_bytes(word);
        assert!(may_store(&bytes) && store_kind(&bytes) == kind, "{word:08x}");
    }
    assert_eq!(store_kind(&[]), Plain);
    // What the decoder has not: st1b, str z, str p, st1b of ZA; ld1b, ldr z, ld1b of ZA. gcspushm. ldapr, ldxr, ldraa.
    let vectors = [0xe401_4043u32, 0xe580_4043, 0xe580_0043, 0xe021_0043, 0xd50b_7703];
    let others = [0xa401_4043u32, 0x8580_4043, 0xe001_0043, 0xf8bf_c061, 0xc85f_7c61, 0xf820_0461];
    assert!(vectors.iter().all(|word| may_store(&word.to_le_bytes())));
    assert!(others.iter().all(|word| !may_store(&word.to_le_bytes())));
    assert!(may_store(&[0x00, 0x00]), "nobody knows");
}

proptest! {
    #[test]
    fn no_store_is_missed(word in any::<u32>()) {
        let bytes = word.to_le_bytes();
        let stores = name(word).is_some_and(|name| stores(&name));
        assert!(!stores || may_store(&bytes), "{word:08x}");
        assert!(store_kind(&bytes) == Plain || may_store(&bytes) || word & 1 << 22 != 0, "{word:08x}");
    }
}
