//! From a file to a table: the format is told by the contents, never by the name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::SymbolError;
use crate::image::{self, bzimage};
use crate::table::SymbolTable;
use crate::{elf, kallsyms_text, system_map};

/// The largest file that is read as a whole. An ELF file may be larger (a `vmlinux` with debug
/// information is): of that only the headers and the symbols are read.
pub const MAX_FILE: u64 = 512 << 20;

const ELF_MAGIC: &[u8] = b"\x7fELF";

impl SymbolTable {
    /// Loads a `System.map`, a copy of `/proc/kallsyms`, an ELF file with a symbol table
    /// (`vmlinux` or a user program) or a kernel image.
    ///
    /// # Errors
    /// [`SymbolError`] says in one line what is wrong with the file and what to give instead.
    pub fn load(path: &Path) -> Result<SymbolTable, SymbolError> {
        let unreadable = |source: io::Error| SymbolError::Unreadable { path: path.to_path_buf(), source };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        // A pipe could block for ever, and /dev/zero has no end.
        if !metadata.is_file() {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(ELF_MAGIC.len() as u64).read_to_end(&mut magic).map_err(unreadable)?;
        if magic == ELF_MAGIC {
            match elf::read_file(&mut file) {
                Err(SymbolError::NoSymbols) => {} // a stripped vmlinux still has its kallsyms
                done => return done,
            }
        }
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        // The length that the file system tells is no help for files of /proc: read to the end.
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(SymbolError::TooLarge { what: "file size", limit: format!("{} MiB", MAX_FILE >> 20) });
        }
        SymbolTable::parse(&bytes)
    }

    /// Reads the contents of a file in any of the formats of [`SymbolTable::load`].
    ///
    /// # Errors
    /// As [`SymbolTable::load`], except that nothing is read from a file here.
    pub fn parse(bytes: &[u8]) -> Result<SymbolTable, SymbolError> {
        if bytes.is_empty() {
            Err(SymbolError::Empty)
        } else if bytes.starts_with(ELF_MAGIC) {
            match elf::parse(bytes) {
                Err(SymbolError::NoSymbols) => bzimage::parse_vmlinux(bytes),
                done => done,
            }
        } else if let Some(read) = image::read(bytes) {
            read
        } else if system_map::is_stub(bytes) {
            Err(SymbolError::StubSystemMap)
        } else if system_map::is_symbol_list(bytes) {
            kallsyms_text::parse(bytes)
        } else {
            Err(SymbolError::UnknownFormat)
        }
    }
}
