//! What can go wrong, each in one line that says what it is and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::compression::Compression;

/// Why a file gave no symbols.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SymbolError {
    /// The file could not be opened or read, or is not a regular file.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file, as given.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// A bound of this crate was hit; the file is damaged or no symbol file.
    #[error("{what}: more than {limit}; this is no plausible symbol file")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound, with its unit.
        limit: String,
    },
    /// The contents are none of the formats that this crate reads.
    #[error(
        "not a symbol file: give a System.map, a copy of /proc/kallsyms, an ELF file with a symbol table (vmlinux or a program) or a kernel image (bzImage, Image, vmlinuz)"
    )]
    UnknownFormat,
    /// A known format of another kind than those that this crate reads.
    #[error("{what} is not supported: {advice}")]
    Unsupported {
        /// What was found.
        what: &'static str,
        /// What to give instead.
        advice: &'static str,
    },
    /// The file ends before what its header announces.
    #[error("the file is cut short in {what}: copy it again")]
    Truncated {
        /// The part that is missing.
        what: &'static str,
    },
    /// A line of a System.map or kallsyms copy is not `ADDRESS TYPE NAME`.
    #[error("line {line} is not \"ADDRESS TYPE NAME\" as in System.map and /proc/kallsyms: the file is damaged")]
    BadLine {
        /// The line's number, from 1.
        line: usize,
    },
    /// The kernel's payload did not decompress.
    #[error(
        "the kernel image's {kind} payload does not decompress ({reason}): the file is damaged, or give vmlinux instead"
    )]
    Compression {
        /// How the payload is compressed.
        kind: Compression,
        /// What the decoder said.
        reason: String,
    },
    /// Debian's System.map, which only names another package.
    #[error(
        "this System.map is Debian's stub without symbols: give the kernel image itself (/boot/vmlinuz-...) instead"
    )]
    StubSystemMap,
    /// A kallsyms copy in which every address is zero.
    #[error(
        "every address in this copy of /proc/kallsyms is zero: read it again as root, after \"sysctl kernel.kptr_restrict=0\", or give the kernel image itself"
    )]
    ZeroedKallsyms,
    /// An ELF file without symbols that is no kernel either.
    #[error("the ELF file has no symbol table: give the file from before \"strip\"")]
    NoSymbols,
    /// The kernel image holds no kallsyms tables, or none that pass their checks.
    #[error(
        "no kallsyms in the kernel image ({reason}): build it with CONFIG_KALLSYMS=y, or give System.map or vmlinux \
         instead"
    )]
    NoKallsyms {
        /// The first check that failed.
        reason: String,
    },
}

/// Why evidence about the kernel's place in memory was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OffsetError {
    /// None of the tables is a kernel's.
    #[error("none of the symbol files is a kernel's")]
    NoKernelTable,
    /// The kernel's table has no such symbol.
    #[error("the kernel's symbols have no {symbol}: they are of another architecture or kernel")]
    UnknownSymbol {
        /// The name that was looked for.
        symbol: String,
    },
    /// The evidence cannot come from the kernel of the table.
    #[error(
        "the symbols are not of the kernel that runs: {symbol} is at {link:#x} in the file and at {runtime:#x} in the guest ({reason}); give the symbols of the kernel that boots"
    )]
    WrongKernel {
        /// The symbol that was observed.
        symbol: String,
        /// Its address in the table.
        link: u64,
        /// Its address in the guest.
        runtime: u64,
        /// Why these two do not go together.
        reason: &'static str,
    },
    /// Earlier evidence gave another offset.
    #[error(
        "the symbols are not of the kernel that runs (or another kernel was started): {symbol} puts it at offset {found:#x}, and earlier evidence at {known:#x}; give the symbols of the kernel that boots"
    )]
    Contradiction {
        /// The symbol that was observed last.
        symbol: String,
        /// The offset that is in use, and stays so.
        known: u64,
        /// What the new evidence says.
        found: u64,
    },
}
