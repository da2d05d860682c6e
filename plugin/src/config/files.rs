//! The files of `symbols=`.

use super::error::ConfigError;
use icsan_symbols::{KaslrRange, SymbolTable, Symbolizer};
use std::path::Path;

/// Puts file names together again that hold a `+` themselves (Debian's do: `vmlinuz-6.12.117+deb12-cloud-amd64`): the
/// longest that exists wins.
pub(super) fn files(pieces: &[String]) -> Vec<String> {
    let mut files = Vec::new();
    let mut rest = pieces;
    while !rest.is_empty() {
        let taken = (1..=rest.len()).rev().find(|taken| Path::new(&rest[..*taken].join("+")).exists()).unwrap_or(1);
        files.push(rest[..taken].join("+"));
        rest = &rest[taken..];
    }
    files
}

/// All of them, for a kernel that may be moved that far.
pub(super) fn symbolizer(paths: &[String], kaslr: KaslrRange) -> Result<Symbolizer, ConfigError> {
    let mut tables = Vec::new();
    for path in paths {
        tables.push(
            SymbolTable::load(path.as_ref()).map_err(|source| ConfigError::Symbols { path: path.clone(), source })?,
        );
    }
    Ok(Symbolizer::new(tables, kaslr))
}
