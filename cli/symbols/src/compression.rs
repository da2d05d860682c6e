//! The compressions that a kernel image may have.

use std::fmt;

/// How a kernel image's payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// `CONFIG_KERNEL_GZIP`.
    Gzip,
    /// `CONFIG_KERNEL_XZ`: LZMA2 behind the x86 branch filter.
    Xz,
    /// `CONFIG_KERNEL_ZSTD`.
    Zstd,
    /// `CONFIG_KERNEL_LZ4`: the legacy frame format.
    Lz4,
    /// `CONFIG_KERNEL_BZIP2`.
    Bzip2,
    /// `CONFIG_KERNEL_LZMA`: recognised, but not supported.
    Lzma,
    /// `CONFIG_KERNEL_LZO`: recognised, but not supported.
    Lzo,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "uncompressed",
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
            Compression::Bzip2 => "bzip2",
            Compression::Lzma => "lzma",
            Compression::Lzo => "lzo",
        })
    }
}

impl Compression {
    /// Tells a payload's compression by its magic number.
    #[must_use]
    pub fn detect(payload: &[u8]) -> Option<Compression> {
        const MAGIC: [(&[u8], Compression); 8] = [
            (b"\x7fELF", Compression::None),
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x02\x21\x4c\x18", Compression::Lz4),
            (b"BZh", Compression::Bzip2),
            (b"\x5d\0\0", Compression::Lzma),
            (b"\x89LZO", Compression::Lzo),
        ];
        MAGIC.iter().find(|(magic, _)| payload.starts_with(magic)).map(|&(_, compression)| compression)
    }
}
