//! A copy of `/proc/kallsyms`, and everything that tells it from a `System.map`.
//!
//! - It was made by a running kernel, so KASLR may already be in its addresses
//!   ([`Symbolizer::learn_offset`](crate::Symbolizer::learn_offset) allows for that).
//! - It lists modules, BPF programs and trampolines in a fourth column. They stood there in *that*
//!   boot and will stand elsewhere in the next, so they are left out.
//! - Without privilege every address in it is zero.
//!
//! With no module loaded the two formats look alike. `System.map` then gives itself away by the
//! `kallsyms_…` tables, which kallsyms itself leaves out; short lists count as a `System.map`.

use crate::builder::Builder;
use crate::error::SymbolError;
use crate::system_map::lines;
use crate::table::{Origin, SymbolTable};

/// A list of at least so many symbols without a `kallsyms_…` among them is taken for a copy of
/// `/proc/kallsyms`.
const LONG_LIST: usize = 1000;

/// Reads a `System.map` or a copy of `/proc/kallsyms`.
///
/// # Errors
/// [`SymbolError::BadLine`], [`SymbolError::Truncated`], [`SymbolError::ZeroedKallsyms`],
/// [`SymbolError::TooLarge`].
pub fn parse(bytes: &[u8]) -> Result<SymbolTable, SymbolError> {
    let mut builder = Builder::default();
    let mut own_tables = false;
    let mut modules = false;
    let mut all_zero = true;
    for line in lines(bytes) {
        let line = line?;
        all_zero &= line.addr == 0;
        if line.module.is_some() {
            modules = true;
            continue;
        }
        own_tables |= line.name.starts_with("kallsyms_");
        if !matches!(line.kind, 'U' | 'u' | 'N' | 'n') {
            builder.push(line.addr, 0, line.kind, line.name)?;
        }
    }
    if all_zero {
        return Err(SymbolError::ZeroedKallsyms);
    }
    let origin =
        if modules || (builder.len() >= LONG_LIST && !own_tables) { Origin::Kallsyms } else { Origin::SystemMap };
    Ok(builder.build(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_left_out() {
        let table = parse(b"ffffffff81000000 T _text\nffffffff81000040 t f\nffffffffc0000000 t m\t[ext4]\n").unwrap();
        assert_eq!(table.origin(), Origin::Kallsyms);
        assert_eq!(table.len(), 2);
        assert_eq!(table.address_of("m"), None);
        assert!(table.resolve(0xffff_ffff_c000_0004).is_none());
    }

    #[test]
    fn zeroed_copy_is_an_error() {
        let zeroed = parse(b"0000000000000000 T _text\n0000000000000000 t f\n");
        assert!(matches!(zeroed, Err(SymbolError::ZeroedKallsyms)));
    }

    #[test]
    fn long_lists_are_told_apart() {
        let mut list = String::new();
        for i in 0..LONG_LIST {
            list += &format!("{:x} T f{i}\n", 0xffff_ffff_8100_0000_u64 + i as u64);
        }
        assert_eq!(parse(list.as_bytes()).unwrap().origin(), Origin::Kallsyms);
        list += "ffffffff82000000 R kallsyms_names\n";
        assert_eq!(parse(list.as_bytes()).unwrap().origin(), Origin::SystemMap);
    }
}
