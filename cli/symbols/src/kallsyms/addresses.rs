//! The symbols' addresses: two places where they may be, three ways to write them.

use super::names::{Names, Symbols};
use super::tokens::Tokens;
use super::{align_8, u32_at};
use crate::unpacked::Image;

/// How an `offsets` entry becomes an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// It counts from its own place (since 7.0).
    PlaceRelative,
    /// Zero and above: an absolute (per-CPU) address. Below: counts down from the base less one.
    AbsolutePerCpu,
    /// Counts from the base, unsigned.
    BaseRelative,
}

/// Finds the addresses of all symbols.
pub(super) fn find(image: &Image<'_>, tokens: &Tokens<'_>, names: &Names<'_>, symbols: &Symbols) -> Option<Vec<u64>> {
    let size = names.count.checked_mul(4)?;
    // Up to 6.3 the offsets and their base come before everything else, since then behind.
    let behind = tokens.end.checked_add(size);
    let before = names.num_syms.checked_sub(8);
    let places = [
        (Some(tokens.end), behind.map(align_8)),
        (Some(tokens.end), behind),
        (before.and_then(|base| base.checked_sub(align_8(size))), before),
    ];
    let encodings = [Encoding::AbsolutePerCpu, Encoding::BaseRelative, Encoding::PlaceRelative];
    places.into_iter().find_map(|(offsets, base)| {
        encodings.into_iter().find_map(|encoding| {
            let addresses = decode(image, offsets?, base?, names.count, encoding)?;
            believable(image, symbols, &addresses).then_some(addresses)
        })
    })
}

/// The addresses in one encoding, if they ascend.
fn decode(image: &Image<'_>, offsets: usize, base: usize, count: usize, encoding: Encoding) -> Option<Vec<u64>> {
    let (place, base) = match encoding {
        Encoding::PlaceRelative => (image.addr_of(offsets)?, 0),
        _ => (0, image.pointer_at(base)?),
    };
    if encoding != Encoding::PlaceRelative && !image.is_loaded(base) {
        return None;
    }
    let mut addresses = Vec::with_capacity(count);
    let mut previous = 0;
    for index in 0..count {
        let raw = u32_at(image.bytes, offsets + index * 4)?;
        let signed = i64::from(raw.cast_signed());
        let addr = match encoding {
            Encoding::PlaceRelative => place.wrapping_add(index as u64 * 4).wrapping_add_signed(signed),
            Encoding::AbsolutePerCpu if signed >= 0 => u64::from(raw),
            Encoding::AbsolutePerCpu => base.wrapping_sub(1).wrapping_add_signed(-signed),
            Encoding::BaseRelative => base.wrapping_add(u64::from(raw)),
        };
        if addr < previous {
            return None;
        }
        previous = addr;
        addresses.push(addr);
    }
    Some(addresses)
}

/// Is `_text` or `_stext` where the kernel's first segment starts, or where such a kernel has it, and are nearly all
/// functions in its segments? Offsets that are read from the wrong place, or as if they counted from there, fail
/// here at the latest.
fn believable(image: &Image<'_>, symbols: &Symbols, addresses: &[u64]) -> bool {
    let start = image.kernel_start();
    let mut anchored = false;
    let (mut functions, mut loaded) = (0_usize, 0_usize);
    for (symbol, &addr) in symbols.iter().zip(addresses) {
        if matches!(symbol.kind, 't' | 'T') {
            functions += 1;
            loaded += usize::from(image.is_loaded(addr));
            let from_start = start.and_then(|start| addr.checked_sub(start));
            anchored |= match symbols.name(symbol) {
                "_text" => from_start == Some(0),
                "_stext" => from_start.is_some_and(|distance| distance == 0 || distance == image.head),
                _ => false,
            };
        }
    }
    anchored && loaded >= functions - functions / 10
}
